"""Adaptive maximum pooling: a thread an element, along the tables of `numbanet.cuda.pool_average`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I32, I64, Int, Kernel, T, kernel
from numbanet.cuda.launch import constant, launch
from numbanet.cuda.pool_average import adaptive_axis
from numbanet.cuda.pool_max import supports
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, blocks, i32, pixel_of, real


@lru_cache(maxsize=4)
def _forward_kernel(dtype: str) -> Kernel:
    low = real(dtype)(float("-inf"))

    @kernel(threads=THREADS, config=dtype)
    def adaptive_maxima(
        size: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, rows: I32, columns: I32, x: T, y: T, positions: I64
    ):
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            n, at_p, at_q, c = pixel_of(item, channels, q, p)
            row, column = i32(3 * at_p), i32(3 * at_q)
            best, found = low, i32(rows[row] * w + columns[column])
            for i in range(rows[row], rows[i32(row + 1)]):
                for j in range(columns[column], columns[i32(column + 1)]):
                    v = x[i32(((n * h + i) * w + j) * channels + c)]
                    if v > best or v != v:  # NaN beats numbers, the last NaN the others
                        best, found = v, i32(i * w + j)
            y[item], positions[item] = best, found

    return adaptive_maxima


@lru_cache(maxsize=4)
def _backward_kernel(dtype: str) -> Kernel:
    zero = real(dtype)(0)

    @kernel(threads=THREADS, config=dtype)
    def adaptive_gather(
        size: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, rows: I32, columns: I32, grad: T, positions: I64,
        dx: T,
    ):  # fmt: skip
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            n, row, column, c = pixel_of(item, channels, w, h)
            here, total = i32(row * w + column), zero
            for i in range(rows[i32(2 * row)], rows[i32(2 * row + 1)]):
                for j in range(columns[i32(2 * column)], columns[i32(2 * column + 1)]):
                    at = i32(((n * p + i) * q + j) * channels + c)
                    total += grad[at] if positions[at] == here else zero
            dx[item] = total

    return adaptive_gather


def _sizes(problem: Any) -> tuple[int, ...]:
    return problem.c, problem.h, problem.w, problem.p, problem.q


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.n * problem.p * problem.q * problem.c
    rows, columns = adaptive_axis(problem.h, problem.p), adaptive_axis(problem.w, problem.q)
    arrays = (constant(rows.windows), constant(columns.windows), *inputs, *outputs)
    launch(_forward_kernel(problem.dtype), (blocks(size),), (size, *_sizes(problem), *arrays), problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.n * problem.h * problem.w * problem.c
    rows, columns = adaptive_axis(problem.h, problem.p), adaptive_axis(problem.w, problem.q)
    arrays = (constant(rows.back), constant(columns.back), *inputs, *outputs)
    launch(_backward_kernel(problem.dtype), (blocks(size),), (size, *_sizes(problem), *arrays), problem.dtype)


CANDIDATES: CandidateLists = {
    ("adaptive_max_pool2d", "forward"): [Candidate("cuda.windows", _forward, supports)],
    ("adaptive_max_pool2d", "backward_input"): [Candidate("cuda.gather", _backward, supports)],
}
