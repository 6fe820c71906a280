"""Mean and variance of the columns of matrices, by the method of Welford and Chan; nothing of the kind E[x^2] - E[x]^2.

A thread sums x - s and (x - s)^2 over its rows of a column, with s its first number, eight rows at a time in the dtype
of x and the rest in float64. Threads, and then blocks, are merged in a fixed order (Chan, Golub and LeVeque,
"Algorithms for computing the sample variance", 1983).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.columns import THREADS, Cut, cut
from numbanet.cuda.compile import F64, Int, Kernel, T, device, kernel
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import accesses, i32, real, width

f64 = types.float64
_FEW = 8  # rows at a time
_STEPS = (16, 8, 4, 2, 1)


@device
def merged(count, mean, squares, other_count, other_mean, other_squares):
    """Return (count, mean, sum of squared deviations) of two samples together."""
    total = count + other_count
    if other_count > 0:
        apart = other_mean - mean
        share = other_count / total
        mean += apart * share
        squares += other_squares + apart * apart * count * share
    return total, mean, squares


@device
def warp_merged(count, mean, squares):
    """Return the moments of a warp's samples together; those of lane 0 are in the order of the lanes."""
    for step in _STEPS:
        by = i32(step)
        other = ptx.shuffle_down(count, by), ptx.shuffle_down(mean, by), ptx.shuffle_down(squares, by)
        if i32(cuda.threadIdx.x) & 31 < step:
            count, mean, squares = merged(count, mean, squares, other[0], other[1], other[2])
    return count, mean, squares


@device
def part_count(rows, span, part):
    """Return how many rows a block has, as float64."""
    return f64(min(span, i32(rows - part * span)))


@lru_cache(maxsize=8)
def column_moments(dtype: str, wide: int) -> Kernel:
    """Return the kernel partial[outer, part] = (mean, sum of squared deviations) of each column over a block's rows."""
    number = real(dtype)
    zero = number(0)
    get, _ = accesses(wide)
    cells = THREADS * wide

    @kernel(threads=THREADS, blocks=2, config=f"{dtype},{wide}")
    def moments(rows: Int, columns: Int, across: Int, span: Int, parts: Int, x: T, partial: F64):
        means, squares = cuda.shared.array(cells, f64), cuda.shared.array(cells, f64)
        counts = cuda.shared.array(THREADS, f64)
        values, shift = cuda.local.array(wide, number), cuda.local.array(wide, number)
        few, few_squares = cuda.local.array(wide, number), cuda.local.array(wide, number)
        sums, square_sums = cuda.local.array(wide, f64), cuda.local.array(wide, f64)
        t = i32(cuda.threadIdx.x)
        down, y = i32(THREADS // across), i32(t // across)
        part, outer = i32(cuda.blockIdx.x), i32(cuda.blockIdx.z)
        column = i32((i32(cuda.blockIdx.y) * across + (t - y * across)) * wide)
        row = i32(part * span + y)
        last = i32(min(rows, part * span + span))
        count = i32((last - row + down - 1) // down) if column < columns and row < last else i32(0)
        for lane in range(wide):
            sums[lane], square_sums[lane], shift[lane] = f64(0), f64(0), zero
        if count > 0:
            get(x, i32((outer * rows + row) * columns + column), shift)
        done = i32(0)
        while done < count:
            for lane in range(wide):
                few[lane], few_squares[lane] = zero, zero
            for k in range(_FEW):
                if done + k < count:
                    get(x, i32((outer * rows + row + k * down) * columns + column), values)
                    for lane in range(wide):
                        d = values[lane] - shift[lane]
                        few[lane] += d
                        few_squares[lane] += d * d
            for lane in range(wide):
                sums[lane] += f64(few[lane])
                square_sums[lane] += f64(few_squares[lane])
            done, row = i32(done + _FEW), i32(row + _FEW * down)
        counts[t] = f64(count)
        for lane in range(wide):
            at = i32(t * wide + lane)
            apart = sums[lane] / f64(max(count, 1))
            means[at] = f64(shift[lane]) + apart
            rest = square_sums[lane] - sums[lane] * apart
            squares[at] = f64(0) if rest < f64(0) else rest  # NaN stays: max() would lose it
        cuda.syncthreads()
        half = i32(THREADS // 2)
        while half >= across:
            if t < half:
                other = i32(t + half)
                total = counts[t]
                for lane in range(wide):
                    at, beside = i32(t * wide + lane), i32(other * wide + lane)
                    total, means[at], squares[at] = merged(
                        counts[t], means[at], squares[at], counts[other], means[beside], squares[beside]
                    )
                counts[t] = total
            cuda.syncthreads()
            half = i32(half >> 1)
        if y == 0 and column < columns:
            for lane in range(wide):
                at = i32((outer * parts + part) * 2 * columns + column + lane)
                partial[at] = means[i32(t * wide + lane)]
                partial[i32(at + columns)] = squares[i32(t * wide + lane)]

    return moments


def run_moments(outer: int, rows: int, columns: int, x: Any, dtype: str) -> tuple[Cut, Any]:
    """Return the cut and the partial moments (outer, parts, 2, columns) of matrices one after the other."""
    wide = width(dtype, columns, x)
    layout = cut(rows, columns, wide)
    partial = empty((outer * layout.parts * 2 * columns,), "float64")
    numbers = (rows, columns, layout.across, layout.span, layout.parts)
    launch(column_moments(dtype, wide), (layout.parts, layout.strips, outer), (*numbers, x, partial), dtype)
    return layout, partial
