"""Gradient of maximum pooling: a thread gathers, for 16 bytes of channels of a pixel, what its windows give it.

Nothing is added to memory that another thread adds to, so the result does not depend on their order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import U8, Int, Kernel, T, kernel
from numbanet.cuda.pool_max import OFFSETS, over_windows, supports
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, accesses, i32, pixel_of, real


@lru_cache(maxsize=16)
def _kernel(dtype: str, wide: int, offsets: str) -> Kernel:
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)
    annotation, kind = OFFSETS[offsets]

    def gather(
        work: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, r: Int, s: Int, stride_h: Int, stride_w: Int,
        pad_h: Int, pad_w: Int, gap_h: Int, gap_w: Int, grad: T, codes: U8, dx: T,
    ):  # fmt: skip
        total, values = cuda.local.array(wide, number), cuda.local.array(wide, number)
        found = cuda.local.array(wide, kind)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            n, at_h, at_w, vector = pixel_of(item, i32(channels // wide), w, h)
            row, column, c = i32(at_h + pad_h), i32(at_w + pad_w), i32(vector * wide)
            for lane in range(wide):
                total[lane] = zero
            for i in range(r):
                down = i32(row - i * gap_h)
                at_p = i32(down // stride_h)
                if down >= 0 and at_p < p and at_p * stride_h == down:
                    for j in range(s):
                        across = i32(column - j * gap_w)
                        at_q = i32(across // stride_w)
                        if across >= 0 and at_q < q and at_q * stride_w == across:
                            at = i32(((n * p + at_p) * q + at_q) * channels + c)
                            code = kind(i32(i * s + j))
                            get(grad, at, values)
                            get(codes, at, found)
                            for lane in range(wide):
                                total[lane] += values[lane] if found[lane] == code else zero
            put(dx, i32(item * wide), total)

    gather.__annotations__["codes"] = annotation
    return kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide},{offsets}")(gather)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    over_windows(_kernel, problem, problem.h * problem.w, (*inputs, *outputs))


CANDIDATES: CandidateLists = {("max_pool2d", "backward_input"): [Candidate("cuda.gather", _backward, supports)]}
