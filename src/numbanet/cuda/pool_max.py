"""Maximum pooling of channels-last images: a thread takes 16 bytes of neighbouring channels of one window."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda
from numba.cuda import types

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I32, I64, U8, Int, Kernel, T, kernel
from numbanet.cuda.launch import aligned, launch
from numbanet.cuda.vector import THREADS, accesses, blocks, i32, real, too_large, width

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
            vectors = i32(channels // wide)
            pixel = i32(item // vectors)
            c = i32((item - pixel * vectors) * wide)
            line = i32(pixel // q)
            column = i32((pixel - line * q) * stride_w - pad_w)
            n = i32(line // p)
            row = i32((line - n * p) * stride_h - pad_h)
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


@kernel(threads=THREADS)
def byte_positions(
    size: Int, channels: Int, w: Int, p: Int, q: Int, s: Int, stride_h: Int, stride_w: Int, pad_h: Int, pad_w: Int,
    gap_h: Int, gap_w: Int, codes: U8, positions: I64,
):  # fmt: skip
    """Turn offsets of one byte in windows into row * W + column."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        code, pixel = i32(codes[i]), i32(i // channels)
        row, column = i32(pixel // q % p * stride_h - pad_h), i32(pixel % q * stride_w - pad_w)
        row, column = i32(row + code // s * gap_h), i32(column + code % s * gap_w)
        positions[i] = i32(row * w + column)


@kernel(threads=THREADS)
def word_positions(
    size: Int, channels: Int, w: Int, p: Int, q: Int, s: Int, stride_h: Int, stride_w: Int, pad_h: Int, pad_w: Int,
    gap_h: Int, gap_w: Int, codes: I32, positions: I64,
):  # fmt: skip
    """The same for offsets of four bytes."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        code, pixel = codes[i], i32(i // channels)
        row, column = i32(pixel // q % p * stride_h - pad_h), i32(pixel % q * stride_w - pad_w)
        row, column = i32(row + code // s * gap_h), i32(column + code % s * gap_w)
        positions[i] = i32(row * w + column)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x,), y, codes = inputs, outputs[0], outputs[1] if problem.offsets else None
    wide = width(problem.dtype, problem.c, x, y)
    wide = wide if codes is None or aligned(codes) else 1
    work = problem.n * problem.p * problem.q * (problem.c // wide)
    window = (*problem.kernel, *problem.stride, *problem.padding, *problem.dilation)
    sizes = (work, problem.c, problem.h, problem.w, problem.p, problem.q, *window)
    launch(_forward_kernel(problem.dtype, wide, problem.offsets), (blocks(work),), (*sizes, x, y, codes), problem.dtype)


def _indices(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.n * problem.p * problem.q * problem.c
    window = (problem.kernel[1], *problem.stride, *problem.padding, *problem.dilation)
    sizes = (size, problem.c, problem.w, problem.p, problem.q, *window)
    chosen = byte_positions if problem.offsets == "uint8" else word_positions
    launch(chosen, (blocks(size),), (*sizes, *inputs, *outputs), problem.dtype)


def supports(problem: Any) -> str | None:
    """Refuse images that are too large."""
    return too_large(problem.n * problem.c * problem.h * problem.w, problem.n * problem.c * problem.p * problem.q)


CANDIDATES: CandidateLists = {
    ("max_pool2d", "forward"): [Candidate("cuda.windows", _forward, supports)],
    ("max_pool2d", "indices"): [Candidate("cuda.flat", _indices, supports)],
}
