"""Normalisation of runs of memory: layer normalisation, a team of threads a run."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.columns import THREADS, cut, fold
from numbanet.cuda.compile import F64, Double, Int, Kernel, T, kernel
from numbanet.cuda.group_norm import run_parts
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.softmax import team_size
from numbanet.cuda.team import team
from numbanet.cuda.vector import blocks, i32, real, too_large

f64 = types.float64


@lru_cache(maxsize=8)
def _forward_kernel(dtype: str, threads: int) -> Kernel:
    """Return the kernel of mean and variance (shifted by a run's first number, in float64) and of the result."""
    number = real(dtype)
    team_sum, _ = team(threads)
    cells, teams = max(1, threads // 32), THREADS // threads

    @kernel(threads=THREADS, config=f"{dtype},{threads}")
    def normalise_runs(
        runs: Int, length: Int, groups: Int, has_weight: Int, has_bias: Int, eps: Double, x: T, weight: T, bias: T,
        y: T, mean: T, inverse: T, variance: T,
    ):  # fmt: skip
        scratch = cuda.shared.array(cells, f64)
        t = i32(i32(cuda.threadIdx.x) % threads)
        run = i32(i32(cuda.blockIdx.x) * teams + i32(cuda.threadIdx.x) // threads)
        inside = run < runs
        count = length if inside else i32(0)
        run = run if inside else i32(0)
        start = i32(run * length)
        shift = f64(x[start])
        total, squares = f64(0), f64(0)
        for i in range(t, count, threads):
            total += f64(x[i32(start + i)]) - shift
        apart = team_sum(total, scratch) / f64(length)
        centre = shift + apart
        for i in range(t, count, threads):
            d = f64(x[i32(start + i)]) - centre
            squares += d * d
        spread = team_sum(squares, scratch) / f64(length)
        deviation = f64(1) / math.sqrt(spread + eps)
        rounded, scale = number(centre), number(deviation)
        rest = number((f64(rounded) - centre) * deviation)  # what rounding the mean takes from x - mean
        affine = i32((run - run // groups * groups) * length)
        for i in range(t, count, threads):
            v = (x[i32(start + i)] - rounded) * scale + rest
            if has_weight:
                v *= weight[i32(affine + i)]
            if has_bias:
                v += bias[i32(affine + i)]
            y[i32(start + i)] = v
        if inside and t == 0:
            mean[run], inverse[run], variance[run] = rounded, scale, number(spread)

    return normalise_runs


@lru_cache(maxsize=8)
def _backward_kernel(dtype: str, threads: int) -> Kernel:
    """Return the kernel dx = (g - mean(g) - h mean(g h)) / deviation, g = grad * weight, h the normalised x."""
    number = real(dtype)
    team_sum, _ = team(threads)
    cells, teams = max(1, threads // 32), THREADS // threads

    @kernel(threads=THREADS, config=f"{dtype},{threads}")
    def run_gradients(
        runs: Int, length: Int, groups: Int, has_weight: Int, grad: T, x: T, weight: T, mean: T, inverse: T, dx: T
    ):
        scratch = cuda.shared.array(cells, f64)
        t = i32(i32(cuda.threadIdx.x) % threads)
        run = i32(i32(cuda.blockIdx.x) * teams + i32(cuda.threadIdx.x) // threads)
        inside = run < runs
        count = length if inside else i32(0)
        run = run if inside else i32(0)
        start, affine = i32(run * length), i32((run - run // groups * groups) * length)
        centre, scale = mean[run], inverse[run]
        total, product = f64(0), f64(0)
        for i in range(t, count, threads):
            g = grad[i32(start + i)]
            if has_weight:
                g *= weight[i32(affine + i)]
            total += f64(g)
            product += f64(g * ((x[i32(start + i)] - centre) * scale))
        shared, slope = team_sum(total, scratch) / f64(length), team_sum(product, scratch) / f64(length)
        a, b = number(shared), number(slope)
        for i in range(t, count, threads):
            g = grad[i32(start + i)]
            if has_weight:
                g *= weight[i32(affine + i)]
            h = (x[i32(start + i)] - centre) * scale
            dx[i32(start + i)] = (g - a - h * b) * scale

    return run_gradients


@lru_cache(maxsize=4)
def _parameter_kernel(dtype: str) -> Kernel:
    """Return the kernel that sums grad h and grad of each channel over a block's samples."""

    @kernel(threads=THREADS, config=dtype)
    def parameter_gradients(
        rows: Int, columns: Int, across: Int, span: Int, groups: Int, length: Int, grad: T, x: T, mean: T, inverse: T,
        partial: F64,
    ):  # fmt: skip
        scratch = cuda.shared.array(THREADS, f64)
        t = i32(cuda.threadIdx.x)
        line, part = i32(t // across), i32(cuda.blockIdx.y)
        column = i32(i32(cuda.blockIdx.x) * across + (t - line * across))
        first = i32(part * span)
        total, product = f64(0), f64(0)
        if column < columns:
            for row in range(i32(first + line), i32(min(rows, first + span)), i32(THREADS // across)):
                at, run = i32(row * columns + column), i32(row * groups + column // length)
                g = grad[at]
                total += f64(g)
                product += f64(g * ((x[at] - mean[run]) * inverse[run]))
        at = i32(part * 2 * columns + column)
        scratch[t] = product
        fold(scratch, t, across, 1)
        if line == 0 and column < columns:
            partial[at] = scratch[t]
        cuda.syncthreads()
        scratch[t] = total
        fold(scratch, t, across, 1)
        if line == 0 and column < columns:
            partial[i32(at + columns)] = scratch[t]

    return parameter_gradients


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, eps = inputs
    runs, length, dtype = problem.n * problem.groups, problem.count, problem.dtype
    threads = team_size(length)
    flags = int(weight is not None), int(bias is not None), float(eps[0])
    arrays = (runs, length, problem.groups, *flags, x, weight, bias, *outputs)
    launch(_forward_kernel(dtype, threads), (blocks(runs, THREADS // threads),), arrays, dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse = inputs
    dx, dweight, dbias = outputs
    runs, length, dtype, channels = problem.n * problem.groups, problem.count, problem.dtype, problem.channels
    threads = team_size(length)
    sizes = (runs, length, problem.groups, int(weight is not None))
    arrays = (grad, x, weight, mean, inverse, dx)
    launch(_backward_kernel(dtype, threads), (blocks(runs, THREADS // threads),), (*sizes, *arrays), dtype)
    layout = cut(problem.n, channels, 1)
    partial = empty((layout.parts * 2 * channels,), "float64")
    numbers = (problem.n, channels, layout.across, layout.span, problem.groups, length)
    arrays = (grad, x, mean, inverse, partial)
    launch(_parameter_kernel(dtype), (layout.strips, layout.parts), (*numbers, *arrays), dtype)
    run_parts(layout.parts, channels, partial, dweight, dbias, dtype)


def _supports(problem: Any) -> str | None:
    if problem.positions != 1:
        return "a group is more than one run of memory"
    return too_large(problem.n * problem.channels)


CANDIDATES: CandidateLists = {
    ("group_norm", "forward"): [Candidate("cuda.runs", _forward, _supports)],
    ("group_norm", "backward"): [Candidate("cuda.runs", _backward, _supports)],
}
