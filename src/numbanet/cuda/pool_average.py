"""Average pooling, adaptive or not: windows are rectangles, which tables give for each axis.

A table of an axis holds, for each output, the first input of its window, the one behind its last, and what the axis
gives to the divisor; for each input, the first output whose window holds it and the one behind the last such.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I32, Int, Kernel, T, kernel
from numbanet.cuda.launch import constant, launch
from numbanet.cuda.pool_max import supports
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, accesses, blocks, i32, pixel_of, real, width
from numbanet.problem.pool import AvgPoolProblem, PoolProblem


@lru_cache(maxsize=16)
def _forward_kernel(dtype: str, wide: int) -> Kernel:
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)

    @kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide}")
    def averages(
        work: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, divisor: Int, rows: I32, columns: I32, x: T, y: T
    ):
        total, values = cuda.local.array(wide, number), cuda.local.array(wide, number)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            n, at_p, at_q, vector = pixel_of(item, i32(channels // wide), q, p)
            row, column, c = i32(3 * at_p), i32(3 * at_q), i32(vector * wide)
            for lane in range(wide):
                total[lane] = zero
            for i in range(rows[row], rows[i32(row + 1)]):
                for j in range(columns[column], columns[i32(column + 1)]):
                    get(x, i32(((n * h + i) * w + j) * channels + c), values)
                    for lane in range(wide):
                        total[lane] += values[lane]
            count = divisor if divisor != 0 else i32(rows[i32(row + 2)] * columns[i32(column + 2)])
            for lane in range(wide):
                total[lane] /= number(count)
            put(y, i32(item * wide), total)

    return averages


@lru_cache(maxsize=16)
def _backward_kernel(dtype: str, wide: int) -> Kernel:
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)

    @kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide}")
    def gradients(
        work: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, divisor: Int, rows: I32, columns: I32,
        rows_back: I32, columns_back: I32, grad: T, dx: T,
    ):  # fmt: skip
        total, values = cuda.local.array(wide, number), cuda.local.array(wide, number)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            n, at_h, at_w, vector = pixel_of(item, i32(channels // wide), w, h)
            row, column, c = i32(2 * at_h), i32(2 * at_w), i32(vector * wide)
            for lane in range(wide):
                total[lane] = zero
            for i in range(rows_back[row], rows_back[i32(row + 1)]):
                for j in range(columns_back[column], columns_back[i32(column + 1)]):
                    get(grad, i32(((n * p + i) * q + j) * channels + c), values)
                    count = divisor if divisor != 0 else i32(rows[i32(3 * i + 2)] * columns[i32(3 * j + 2)])
                    for lane in range(wide):
                        total[lane] += values[lane] / number(count)
            put(dx, i32(item * wide), total)

    return gradients


@dataclass(frozen=True, eq=False)
class Axis:
    """The tables of an axis (see the module's text)."""

    windows: np.ndarray
    back: np.ndarray


def _axis(size: int, windows: np.ndarray) -> Axis:
    """Return the tables of an axis, from (first input, input behind the last, share of the divisor) of its outputs."""
    inside = np.arange(size)[:, None]
    # Windows begin and end in ascending order: those that hold an input are neighbours.
    first = (windows[None, :, 1] <= inside).sum(1)
    behind = (windows[None, :, 0] <= inside).sum(1)
    back = np.stack([first, np.maximum(first, behind)], 1)
    return Axis(np.ascontiguousarray(windows, np.int32), back.astype(np.int32))


@lru_cache(maxsize=1024)
def _average_axis(size: int, count: int, kernel: int, stride: int, before: int, after: int, include: bool) -> Axis:
    first = np.arange(count) * stride - before
    last = np.minimum(first + kernel, size + after)
    inside = np.maximum(first, 0), np.minimum(last, size)
    counted = last - first if include else inside[1] - inside[0]
    return _axis(size, np.stack([inside[0], np.maximum(*inside), counted], 1))


@lru_cache(maxsize=1024)
def adaptive_axis(size: int, count: int) -> Axis:
    at = np.arange(count)
    first, last = at * size // max(count, 1), -(-(at + 1) * size // max(count, 1))
    return _axis(size, np.stack([first, last, last - first], 1))


def _axes(problem: PoolProblem) -> tuple[list[Axis], int]:
    """Return the tables of both axes, and the divisor if it is the same for all windows."""
    sizes = (problem.h, problem.p), (problem.w, problem.q)
    if not isinstance(problem, AvgPoolProblem):
        return [adaptive_axis(*axis) for axis in sizes], 0
    windows = zip(sizes, problem.kernel, problem.stride, problem.padding, problem.after)
    axes = [_average_axis(*axis, *window, problem.count_include_pad) for axis, *window in windows]
    return axes, problem.divisor_override or 0


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    wide = width(problem.dtype, problem.c, *inputs, *outputs)
    work = problem.n * problem.p * problem.q * (problem.c // wide)
    if work:
        (rows, columns), divisor = _axes(problem)
        sizes = (work, problem.c, problem.h, problem.w, problem.p, problem.q, divisor)
        arrays = (constant(rows.windows), constant(columns.windows), *inputs, *outputs)
        launch(_forward_kernel(problem.dtype, wide), (blocks(work),), (*sizes, *arrays), problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    wide = width(problem.dtype, problem.c, *inputs, *outputs)
    work = problem.n * problem.h * problem.w * (problem.c // wide)
    if work:
        (rows, columns), divisor = _axes(problem)
        sizes = (work, problem.c, problem.h, problem.w, problem.p, problem.q, divisor)
        tables = (rows.windows, columns.windows, rows.back, columns.back)
        arrays = (*map(constant, tables), *inputs, *outputs)
        launch(_backward_kernel(problem.dtype, wide), (blocks(work),), (*sizes, *arrays), problem.dtype)


CANDIDATES: CandidateLists = {
    (operation, which): [Candidate("cuda.windows", run, supports)]
    for operation in ("avg_pool2d", "adaptive_avg_pool2d")
    for which, run in (("forward", _forward), ("backward_input", _backward))
}
