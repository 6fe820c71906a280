"""The sum that takes columns of windows back to images: a thread gathers what the windows of its pixel hold."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import Int, Kernel, T, kernel
from numbanet.cuda.launch import launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large


@lru_cache(maxsize=4)
def _kernel(dtype: str) -> Kernel:
    zero = real(dtype)(0)

    @kernel(threads=THREADS, config=dtype)
    def fold(
        size: Int, h: Int, w: Int, r: Int, s: Int, p: Int, q: Int, stride_h: Int, stride_w: Int, gap_h: Int,
        gap_w: Int, x: T, y: T,
    ):  # fmt: skip
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            line = i32(item // w)
            column = i32(item - line * w)
            plane = i32(line // h)
            row = i32(line - plane * h)
            total = zero
            for i in range(r):
                down = i32(row - i * gap_h)
                at_p = i32(down // stride_h)
                if down >= 0 and at_p < p and at_p * stride_h == down:
                    for j in range(s):
                        across = i32(column - j * gap_w)
                        at_q = i32(across // stride_w)
                        if across >= 0 and at_q < q and at_q * stride_w == across:
                            total += x[i32((((plane * r + i) * s + j) * p + at_p) * q + at_q)]
            y[item] = total

    return fold


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.planes * problem.h * problem.w
    window = (problem.r, problem.s, problem.p, problem.q, *problem.stride, *problem.dilation)
    sizes = (size, problem.h, problem.w, *window)
    launch(_kernel(problem.dtype), (blocks(size),), (*sizes, *inputs, *outputs), problem.dtype)


def _supports(problem: Any) -> str | None:
    windows = problem.planes * problem.r * problem.s * problem.p * problem.q
    return too_large(problem.planes * problem.h * problem.w, windows)


CANDIDATES: CandidateLists = {("fold", "forward"): [Candidate("cuda.gather", _forward, _supports)]}
