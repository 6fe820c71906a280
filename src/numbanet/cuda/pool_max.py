"""Maximum pooling of channels-last images: a thread takes 16 bytes of neighbouring channels of one window."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I32, I64, U8, Int, Kernel, T, kernel
from numbanet.cuda.launch import launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import THREADS, accesses, blocks, i32, pixel_of, real, too_large, width

OFFSETS = {"uint8": (U8, types.uint8), "int32": (I32, types.int32), "": (U8, types.uint8)}


@lru_cache(maxsize=16)
def _forward_kernel(dtype: str, wide: int, offsets: str) -> Kernel:
    """Return the kernel that writes maxima, and unless `offsets` is empty their offsets in the windows."""
    number = real(dtype)
    low = number(float("-inf"))
    get, put = accesses(wide)
    annotation, kind = OFFSETS[offsets]
    wants = offsets != ""

    def maxima(
        work: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, r: Int, s: Int, stride_h: Int, stride_w: Int,
        pad_h: Int, pad_w: Int, gap_h: Int, gap_w: Int, x: T, y: T, codes: U8,
    ):  # fmt: skip
        best, values = cuda.local.array(wide, number), cuda.local.array(wide, number)
        found = cuda.local.array(wide, kind)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            n, at_p, at_q, vector = pixel_of(item, i32(channels // wide), q, p)
            row, column, c = i32(at_p * stride_h - pad_h), i32(at_q * stride_w - pad_w), i32(vector * wide)
            met = False
            for lane in range(wide):
                best[lane], found[lane] = low, kind(0)
            for i in range(r):
                y_at = i32(row + i * gap_h)
                if y_at >= 0 and y_at < h:
                    for j in range(s):
                        x_at = i32(column + j * gap_w)
                        if x_at >= 0 and x_at < w:
                            code = kind(i32(i * s + j))
                            get(x, i32(((n * h + y_at) * w + x_at) * channels + c), values)
                            for lane in range(wide):
                                v = values[lane]
                                if not met:
                                    found[lane] = code
                                if v > best[lane] or v != v:  # NaN beats numbers, the last NaN the others
                                    best[lane], found[lane] = v, code
                            met = True
            put(y, i32(item * wide), best)
            if wants:
                put(codes, i32(item * wide), found)

    maxima.__annotations__["codes"] = annotation
    return kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide},{offsets}")(maxima)


@lru_cache(maxsize=2)
def positions_kernel(offsets: str) -> Kernel:
    """Return the kernel that turns offsets in windows into row * W + column."""

    def positions(
        size: Int, channels: Int, w: Int, p: Int, q: Int, s: Int, stride_h: Int, stride_w: Int, pad_h: Int, pad_w: Int,
        gap_h: Int, gap_w: Int, codes: U8, found: I64,
    ):  # fmt: skip
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            code, pixel = i32(codes[i]), i32(i // channels)
            row, column = i32(pixel // q % p * stride_h - pad_h), i32(pixel % q * stride_w - pad_w)
            row, column = i32(row + code // s * gap_h), i32(column + code % s * gap_w)
            found[i] = i32(row * w + column)

    positions.__annotations__["codes"] = OFFSETS[offsets][0]
    return kernel(threads=THREADS, config=offsets)(positions)


def over_windows(make: Callable[[str, int, str], Kernel], problem: Any, pixels: int, arrays: Arrays) -> None:
    """Launch a kernel of a problem's windows: a thread a vector of channels of each of so many pixels an image."""
    wide = width(problem.dtype, problem.c, *arrays)
    work = problem.n * pixels * (problem.c // wide)
    window = (*problem.kernel, *problem.stride, *problem.padding, *problem.dilation)
    sizes = (work, problem.c, problem.h, problem.w, problem.p, problem.q, *window)
    launch(make(problem.dtype, wide, problem.offsets), (blocks(work),), (*sizes, *arrays), problem.dtype)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    codes = outputs[1] if problem.offsets else None
    over_windows(_forward_kernel, problem, problem.p * problem.q, (*inputs, outputs[0], codes))


def _indices(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.n * problem.p * problem.q * problem.c
    window = (problem.kernel[1], *problem.stride, *problem.padding, *problem.dilation)
    sizes = (size, problem.c, problem.w, problem.p, problem.q, *window)
    launch(positions_kernel(problem.offsets), (blocks(size),), (*sizes, *inputs, *outputs), problem.dtype)


def supports(problem: Any) -> str | None:
    """Refuse images that are too large."""
    return too_large(problem.n * problem.c * problem.h * problem.w, problem.n * problem.c * problem.p * problem.q)


CANDIDATES: CandidateLists = {
    ("max_pool2d", "forward"): [Candidate("cuda.windows", _forward, supports)],
    ("max_pool2d", "indices"): [Candidate("cuda.flat", _indices, supports)],
}
