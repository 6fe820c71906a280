"""Gradient of maximum pooling: a thread gathers, for 16 bytes of channels of a pixel, what its windows give it.

Nothing is added to memory that another thread adds to, so the result does not depend on their order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import U8, Int, Kernel, T, kernel
from numbanet.cuda.launch import aligned, launch
from numbanet.cuda.pool_max import OFFSETS, supports
from numbanet.cuda.vector import THREADS, accesses, blocks, i32, real, width


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
            vectors = i32(channels // wide)
            pixel = i32(item // vectors)
            c = i32((item - pixel * vectors) * wide)
            line = i32(pixel // w)
            column = i32(pixel - line * w + pad_w)
            n = i32(line // h)
            row = i32(line - n * h + pad_h)
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
    (grad, codes), (dx,) = inputs, outputs
    wide = width(problem.dtype, problem.c, grad, dx)
    wide = wide if aligned(codes) else 1
    work = problem.n * problem.h * problem.w * (problem.c // wide)
    window = (*problem.kernel, *problem.stride, *problem.padding, *problem.dilation)
    sizes = (work, problem.c, problem.h, problem.w, problem.p, problem.q, *window)
    launch(_kernel(problem.dtype, wide, problem.offsets), (blocks(work),), (*sizes, grad, codes, dx), problem.dtype)


CANDIDATES: CandidateLists = {("max_pool2d", "backward_input"): [Candidate("cuda.gather", _backward, supports)]}
