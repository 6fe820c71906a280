"""Group and instance normalisation of channels-last images.

Each channel of a sample has its moments and its sums (`numbanet.cuda.moments`, `numbanet.cuda.norm_backward`, a matrix
a sample); a warp merges those of a group's channels, always in the same order.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.block import WARP, first_lane, warp_sum
from numbanet.cuda.columns import THREADS, cut
from numbanet.cuda.compile import F64, Double, Int, Kernel, T, kernel
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.moments import merged, part_count, run_moments, warp_merged
from numbanet.cuda.norm import affine
from numbanet.cuda.norm_backward import gradient_apply, gradient_sums
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.reduce import run_merge
from numbanet.cuda.vector import blocks, i32, real, too_large, width

_WARPS = THREADS // WARP
_ROWS_A_THREAD = 8
f64 = types.float64


@lru_cache(maxsize=4)
def _statistics(dtype: str) -> Kernel:
    """Return the kernel that merges a group's channels, a warp a group, and prepares what `affine` takes."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def group_statistics(
        runs: Int, groups: Int, size: Int, positions: Int, span: Int, parts: Int, has_weight: Int, has_bias: Int,
        eps: Double, partial: F64, weight: T, bias: T, mean: T, inverse: T, variance: T, factors: T,
    ):  # fmt: skip
        run = i32(i32(cuda.blockIdx.x) * _WARPS + (i32(cuda.threadIdx.x) >> 5))
        lane = i32(i32(cuda.threadIdx.x) & 31)
        inside = run < runs
        sample = i32(run // groups)
        group, channels = i32(run - sample * groups), i32(groups * size)
        count, centre, squares = f64(0), f64(0), f64(0)
        if inside:
            for k in range(lane, i32(parts * size), WARP):
                part = i32(k // size)
                at = i32((sample * parts + part) * 2 * channels + group * size + (k - part * size))
                count, centre, squares = merged(
                    count, centre, squares, part_count(positions, span, part), partial[at], partial[i32(at + channels)]
                )
        count, centre, squares = warp_merged(count, centre, squares)
        spread = squares / (f64(positions) * f64(size))
        deviation = f64(1) / math.sqrt(spread + eps)
        centre, deviation, spread = first_lane(centre), first_lane(deviation), first_lane(spread)
        if inside:
            rounded = number(centre)
            if lane == 0:
                mean[run], inverse[run], variance[run] = rounded, number(deviation), number(spread)
            for k in range(lane, size, WARP):
                c = i32(group * size + k)
                scale = deviation * f64(weight[c]) if has_weight else deviation
                shift = f64(bias[c]) if has_bias else f64(0)
                at = i32(sample * 3 * channels + c)
                factors[at] = rounded
                factors[i32(at + channels)] = number(scale)
                # What rounding the mean takes from x - mean goes into the shift.
                factors[i32(at + 2 * channels)] = number(shift - (centre - f64(rounded)) * scale)

    return group_statistics


@lru_cache(maxsize=4)
def _coefficients(dtype: str) -> Kernel:
    """Return the kernel of the factors of g, x - mean and 1 in dx, and each sample's share of dweight and dbias."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def group_coefficients(
        runs: Int, groups: Int, size: Int, positions: Int, parts: Int, has_weight: Int, partial: F64, weight: T,
        mean: T, inverse: T, each: F64, factors: T,
    ):  # fmt: skip
        run = i32(i32(cuda.blockIdx.x) * _WARPS + (i32(cuda.threadIdx.x) >> 5))
        lane = i32(i32(cuda.threadIdx.x) & 31)
        inside = run < runs
        sample = i32(run // groups)
        group, channels = i32(run - sample * groups), i32(groups * size)
        total, product = f64(0), f64(0)
        deviation = f64(inverse[run]) if inside else f64(0)
        if inside:
            for k in range(lane, size, WARP):
                c = i32(group * size + k)
                s, p = f64(0), f64(0)
                for part in range(parts):
                    at = i32((sample * parts + part) * 2 * channels + c)
                    s += partial[at]
                    p += partial[i32(at + channels)]
                p *= deviation
                at = i32(sample * 2 * channels + c)
                each[at], each[i32(at + channels)] = p, s
                w = f64(weight[c]) if has_weight else f64(1)
                total += w * s
                product += w * p
        total, product = warp_sum(total), warp_sum(product)
        if inside:
            share = f64(1) / (f64(positions) * f64(size))
            for k in range(lane, size, WARP):
                c = i32(group * size + k)
                at = i32(sample * 4 * channels + c)
                w = f64(weight[c]) if has_weight else f64(1)
                factors[at] = mean[run]
                factors[i32(at + channels)] = number(deviation * w)
                factors[i32(at + 2 * channels)] = number(-deviation * deviation * product * share)
                factors[i32(at + 3 * channels)] = number(-deviation * total * share)

    return group_coefficients


@lru_cache(maxsize=4)
def _channel_means(dtype: str) -> Kernel:
    """Return the kernel that repeats a group's mean for each of its channels."""

    @kernel(threads=THREADS, config=dtype)
    def channel_means(count: Int, size: Int, mean: T, each: T):
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < count:
            each[i] = mean[i32(i // size)]

    return channel_means


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, eps = inputs
    y, *statistics = outputs
    n, positions, channels, groups, dtype = (
        problem.n, problem.positions, problem.channels, problem.groups, problem.dtype
    )  # fmt: skip
    layout, partial = run_moments(n, positions, channels, x, dtype)
    factors = empty((n * 3 * channels,), dtype)
    flags = int(weight is not None), int(bias is not None), float(eps[0])
    sizes = (n * groups, groups, channels // groups, positions, layout.span, layout.parts, *flags)
    arrays = (partial, weight, bias, *statistics, factors)
    launch(_statistics(dtype), (blocks(n * groups, _WARPS),), (*sizes, *arrays), dtype)
    wide = width(dtype, channels, x, y)
    layout = cut(positions, channels, wide, _ROWS_A_THREAD)
    numbers = (positions, channels, layout.across, layout.span)
    grid = (layout.parts, layout.strips, n)
    launch(affine(dtype, wide, False, False), grid, (*numbers, x, factors, None, y), dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse = inputs
    dx, dweight, dbias = outputs
    n, positions, channels, groups, dtype = (
        problem.n, problem.positions, problem.channels, problem.groups, problem.dtype
    )  # fmt: skip
    means = empty((n * channels,), dtype)
    launch(_channel_means(dtype), (blocks(n * channels),), (n * channels, channels // groups, mean, means), dtype)
    wide = width(dtype, channels, grad, x, dx)
    layout = cut(positions, channels, wide)
    partial = empty((n * layout.parts * 2 * channels,), "float64")
    numbers = (positions, channels, layout.across, layout.span, layout.parts)
    arrays = (grad, x, means, None, None, partial)
    launch(gradient_sums(dtype, wide, False, False), (layout.parts, layout.strips, n), (*numbers, *arrays), dtype)
    factors, each = empty((n * 4 * channels,), dtype), empty((n * 2 * channels,), "float64")
    sizes = (n * groups, groups, channels // groups, positions, layout.parts, int(weight is not None))
    arrays = (partial, weight, mean, inverse, each, factors)
    launch(_coefficients(dtype), (blocks(n * groups, _WARPS),), (*sizes, *arrays), dtype)
    layout = cut(positions, channels, wide, _ROWS_A_THREAD)
    numbers = (positions, channels, layout.across, layout.span)
    arrays = (grad, x, None, factors, dx)
    launch(gradient_apply(dtype, wide, False), (layout.parts, layout.strips, n), (*numbers, *arrays), dtype)
    run_parts(n, channels, each, dweight, dbias, dtype)


def run_parts(parts: int, channels: int, partial: Any, dweight: Any, dbias: Any, dtype: str) -> None:
    """Add up partial sums (parts, 2, channels) to the gradients of weight and bias."""
    run_merge(1, channels, parts, 1.0, partial, dweight, dtype, 2 * channels)
    run_merge(1, channels, parts, 1.0, partial, dbias, dtype, 2 * channels, channels)


def _supports(problem: Any) -> str | None:
    if problem.n > 65535:
        return f"{problem.n} samples: a grid has at most 65535"
    # The gradient has four factors for each channel of a sample.
    return too_large(problem.n * max(problem.positions, 4) * problem.channels)


CANDIDATES: CandidateLists = {
    ("group_norm", "forward"): [Candidate("cuda.channels", _forward, _supports)],
    ("group_norm", "backward"): [Candidate("cuda.channels", _backward, _supports)],
}
