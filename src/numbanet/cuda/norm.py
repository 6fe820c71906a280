"""Batch normalisation of a matrix with a row a sample and a column a channel: statistics, and what applies them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.columns import THREADS, cut
from numbanet.cuda.compile import F64, Double, Int, Kernel, T, kernel
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.moments import merged, part_count, run_moments, warp_merged
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import accesses, blocks, i32, real, too_large, width

_WARPS = THREADS // 32
_ROWS_A_THREAD = 8
f64 = types.float64


@lru_cache(maxsize=4)
def _channel_statistics(dtype: str) -> Kernel:
    """Return the kernel that merges the blocks, a warp a channel, and prepares what `affine` takes."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def statistics(
        channels: Int, rows: Int, span: Int, parts: Int, training: Int, has_weight: Int, has_bias: Int,
        has_running: Int, eps: Double, momentum: Double, partial: F64, weight: T, bias: T, running_mean: T,
        running_var: T, mean: T, inverse: T, coefficients: T,
    ):  # fmt: skip
        c = i32(i32(cuda.blockIdx.x) * _WARPS + (i32(cuda.threadIdx.x) >> 5))
        lane = i32(i32(cuda.threadIdx.x) & 31)
        count, centre, squares = f64(0), f64(0), f64(0)
        if training:
            if c < channels:
                for part in range(lane, parts, 32):
                    at = i32(part * 2 * channels + c)
                    samples = part_count(rows, span, i32(part))
                    count, centre, squares = merged(
                        count, centre, squares, samples, partial[at], partial[i32(at + channels)]
                    )
            count, centre, squares = warp_merged(count, centre, squares)
        if c < channels and lane == 0:
            variance = squares / f64(rows)
            if not training:
                centre, variance = f64(running_mean[c]), f64(running_var[c])
            elif has_running:
                former, spread = f64(running_mean[c]), f64(running_var[c])
                unbiased = squares / f64(max(1, rows - 1))
                running_mean[c] = number(former + momentum * (centre - former))
                running_var[c] = number(spread + momentum * (unbiased - spread))
            deviation = f64(1) / math.sqrt(variance + eps)
            scale, shift = deviation, f64(0)
            if has_weight:
                scale *= f64(weight[c])
            if has_bias:
                shift = f64(bias[c])
            rounded = number(centre)
            # What rounding the mean takes from x - mean goes into the shift.
            shift -= (centre - f64(rounded)) * scale
            mean[c], inverse[c] = rounded, number(deviation)
            coefficients[c] = rounded
            coefficients[i32(channels + c)] = number(scale)
            coefficients[i32(2 * channels + c)] = number(shift)

    return statistics


@lru_cache(maxsize=32)
def affine(dtype: str, wide: int, relu: bool, residual: bool) -> Kernel:
    """Return the kernel ``y = activation((x - mean) * scale + shift + residual)``.

    It takes matrices one after the other; the numbers of each (mean, scale, shift of its columns) follow each other.
    """
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)
    words = ",".join([dtype, str(wide), *(["relu"] if relu else []), *(["residual"] if residual else [])])

    @kernel(threads=THREADS, blocks=4, config=words)
    def normalise(rows: Int, columns: Int, across: Int, span: Int, x: T, coefficients: T, added: T, y: T):
        mean, scale = cuda.local.array(wide, number), cuda.local.array(wide, number)
        shift, values, more = (
            cuda.local.array(wide, number), cuda.local.array(wide, number), cuda.local.array(wide, number)
        )  # fmt: skip
        t = i32(cuda.threadIdx.x)
        line, outer = i32(t // across), i32(cuda.blockIdx.z)
        column = i32((i32(cuda.blockIdx.y) * across + (t - line * across)) * wide)
        first = i32(i32(cuda.blockIdx.x) * span)
        last = i32(min(rows, first + span))
        if column < columns:
            base = i32(outer * 3 * columns + column)
            get(coefficients, base, mean)
            get(coefficients, i32(base + columns), scale)
            get(coefficients, i32(base + 2 * columns), shift)
            for row in range(i32(first + line), last, i32(THREADS // across)):
                at = i32((outer * rows + row) * columns + column)
                get(x, at, values)
                if residual:
                    get(added, at, more)
                for lane in range(wide):
                    v = (values[lane] - mean[lane]) * scale[lane] + shift[lane]
                    if residual:
                        v += more[lane]
                    if relu:
                        v = zero if v < zero else v
                    values[lane] = v
                put(y, at, values)

    return normalise


def _statistics(problem: Any, inputs: Arrays, mean: Any, inverse: Any, coefficients: Any) -> None:
    x, weight, bias, running_mean, running_var, numbers = inputs
    dtype, channels, rows = problem.dtype, problem.channels, problem.rows
    span, parts, partial = 1, 0, None
    if problem.training:
        layout, partial = run_moments(1, rows, channels, x, dtype)
        span, parts = layout.span, layout.parts
    flags = (int(problem.training), *(int(a is not None) for a in (weight, bias, running_mean)))
    sizes = (channels, rows, span, parts, *flags, float(numbers[0]), float(numbers[1]))
    arrays = (partial, weight, bias, running_mean, running_var, mean, inverse, coefficients)
    launch(_channel_statistics(dtype), (blocks(channels, _WARPS),), (*sizes, *arrays), dtype)


def _normalise(problem: Any, x: Any, coefficients: Any, residual: Any, y: Any) -> None:
    rows, channels, dtype = problem.rows, problem.channels, problem.dtype
    wide = width(dtype, channels, x, coefficients, residual, y)
    layout = cut(rows, channels, wide, _ROWS_A_THREAD)
    chosen = affine(dtype, wide, problem.activation == "relu", residual is not None)
    arrays = (x, coefficients, residual, y)
    launch(chosen, (layout.parts, layout.strips), (rows, channels, layout.across, layout.span, *arrays), dtype)


def _run_forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    *given, residual = inputs
    y, mean, inverse = outputs
    coefficients = empty((3 * problem.channels,), problem.dtype)
    _statistics(problem, tuple(given), mean, inverse, coefficients)
    _normalise(problem, inputs[0], coefficients, residual, y)


def _run_statistics(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _statistics(problem, inputs, *outputs)


def _run_apply(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, coefficients, residual = inputs
    _normalise(problem, x, coefficients, residual, outputs[0])


def supports(problem: Any) -> str | None:
    """Refuse matrices that are too large."""
    return too_large(problem.rows * problem.channels)


CANDIDATES: CandidateLists = {
    ("batch_norm", "forward"): [Candidate("cuda.columns", _run_forward, supports)],
    ("batch_norm", "statistics"): [Candidate("cuda.columns", _run_statistics, supports)],
    ("batch_norm", "apply"): [Candidate("cuda.columns", _run_apply, supports)],
}
