"""Group and instance normalisation of channels-last images.

Each channel of a block of positions has its mean and squared deviations; those of the blocks, then those of a group's
channels, are merged in float64 in a fixed order (Chan, Golub and LeVeque, 1983). Gradients are merged likewise.
A block's mean is that of the differences from its first position, so that no digits are lost beside a large offset.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.copy import arrange
from numbanet.cpu.layer_norm import add_parts
from numbanet.cpu.norm_rows import four, put_four
from numbanet.cpu.parallel import launch
from numbanet.cpu.partial import get, put
from numbanet.cpu.simd import fma, integers, lanes, reduce_add, splat

_CHUNK = 1 << 13  # elements of a block


@device
def _block(task, positions, channels, chunk, blocks):
    """Return the sample of a task, the first element of its block, and the number of its positions."""
    sample, first = task // blocks, task % blocks * chunk
    return sample, (sample * positions + first) * channels, min(chunk, positions - first)


@kernel
def moments(task: Index, ints: I64, x: T, partial: T):
    """partial[task] = how far the means of the block's channels are from its first position, and squared deviations."""
    positions, channels, chunk, blocks = integers(ints, 4)
    _, start, rows = _block(task, positions, channels, chunk, blocks)
    out, c = 2 * task * channels, 0
    part, end = splat(x, 1.0 / rows), start + rows * channels
    zero, w = splat(x, 0.0), lanes(x)
    while c + 4 * w <= channels:
        h0, h1, h2, h3 = four(x, start + c)
        m0, m1, m2, m3 = zero, zero, zero, zero
        for i in range(start + c, end, channels):
            a0, a1, a2, a3 = four(x, i)
            a0, a1, a2, a3 = a0 - h0, a1 - h1, a2 - h2, a3 - h3
            m0, m1, m2, m3 = fma(a0, part, m0), fma(a1, part, m1), fma(a2, part, m2), fma(a3, part, m3)
        q0, q1, q2, q3 = zero, zero, zero, zero
        for i in range(start + c, end, channels):
            a0, a1, a2, a3 = four(x, i)
            a0, a1, a2, a3 = a0 - h0 - m0, a1 - h1 - m1, a2 - h2 - m2, a3 - h3 - m3
            q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
        put_four(partial, out + c, 4 * w, m0, m1, m2, m3)
        put_four(partial, out + channels + c, 4 * w, q0, q1, q2, q3)
        c += 4 * w
    while c < channels:
        n = channels - c
        head, m, q = get(x, start + c, n), zero, zero
        for i in range(start + c, end, channels):
            m = fma(get(x, i, n) - head, part, m)
        for i in range(start + c, end, channels):
            d = get(x, i, n) - head - m
            q = fma(d, d, q)
        put(partial, out + c, m, n)
        put(partial, out + channels + c, q, n)
        c += w


@device
def _merge(x, partial, sample, c, positions, channels, chunk, blocks):
    """Return the mean and the sum of squared deviations of one channel of a sample."""
    mean, squares, seen = 0.0, 0.0, 0
    for block in range(blocks):
        i = 2 * (sample * blocks + block) * channels + c
        rows = min(chunk, positions - seen)
        difference = (x[(sample * positions + seen) * channels + c] - mean) + partial[i]  # mean makes it a float64
        share = rows / (seen + rows)
        mean += difference * share
        squares += partial[i + channels] + difference * difference * seen * share
        seen += rows
    return mean, squares


@kernel
def merge(
    task: Index, ints: I64, x: T, partial: T, weight: T, bias: T, eps: F64, mean: T, inverse: T, variance: T,
    coefficients: T,
):  # fmt: skip
    """One task a sample: statistics of its groups, and for each channel a centre, a factor and what is added."""
    positions, channels, chunk, blocks, groups, has_weight, has_bias = integers(ints, 7)
    width = channels // groups
    for group in range(groups):
        centre, squares = 0.0, 0.0
        for k in range(width):
            m, q = _merge(x, partial, task, group * width + k, positions, channels, chunk, blocks)
            difference = m - centre
            centre += difference / (k + 1)
            squares += q + difference * difference * positions * k / (k + 1)
        v = squares / (positions * width)
        r, place = 1.0 / math.sqrt(v + eps[0]), task * groups + group
        rounded = reduce_add(splat(x, centre / lanes(x)))  # lanes are a power of two
        mean[place], inverse[place], variance[place] = rounded, r, v
        for k in range(width):
            c = group * width + k
            factor, added = r, 0.0
            if has_weight:
                factor = r * weight[c]
            if has_bias:
                added = bias[c] + 0.0
            coefficients[3 * task * channels + c] = rounded
            coefficients[(3 * task + 1) * channels + c] = factor
            coefficients[(3 * task + 2) * channels + c] = added - (centre - rounded) * factor


@kernel
def apply(task: Index, ints: I64, x: T, coefficients: T, y: T):
    """y = (x - centre) * factor + what is added, for a block."""
    positions, channels, chunk, blocks = integers(ints, 4)
    sample, start, rows = _block(task, positions, channels, chunk, blocks)
    centre, factor, added = 3 * sample * channels, (3 * sample + 1) * channels, (3 * sample + 2) * channels
    for row in range(rows):
        i = start + row * channels
        for c in range(0, channels, lanes(x)):
            n = channels - c
            d = get(x, i + c, n) - get(coefficients, centre + c, n)
            put(y, i + c, fma(d, get(coefficients, factor + c, n), get(coefficients, added + c, n)), n)


@kernel
def gradient_sums(task: Index, ints: I64, grad: T, x: T, mean: T, partial: T):
    """partial[task] = the block's sums of grad, and of grad * (x - mean), for each channel."""
    positions, channels, chunk, blocks = integers(ints, 4)
    sample, start, rows = _block(task, positions, channels, chunk, blocks)
    out, centre = 2 * task * channels, sample * channels
    for c in range(0, 2 * channels, lanes(x)):
        put(partial, out + c, splat(x, 0.0), 2 * channels - c)
    for row in range(rows):
        i = start + row * channels
        for c in range(0, channels, lanes(x)):
            n = channels - c
            g, d = get(grad, i + c, n), get(x, i + c, n) - get(mean, centre + c, n)
            put(partial, out + c, g + get(partial, out + c, n), n)
            put(partial, out + channels + c, fma(g, d, get(partial, out + channels + c, n)), n)


@kernel
def gradient_merge(task: Index, ints: I64, partial: T, weight: T, inverse: T, each: T, coefficients: T):
    """One task a sample: its part of the gradients of weight and bias, and dx = a grad + b (x - mean) + c."""
    positions, channels, blocks, groups, has_weight = integers(ints, 5)
    width = channels // groups
    for group in range(groups):
        r = float(inverse[task * groups + group])
        total, product = 0.0, 0.0
        for k in range(width):
            c = group * width + k
            s, p = 0.0, 0.0
            for block in range(blocks):
                i = 2 * (task * blocks + block) * channels + c
                s += partial[i]
                p += partial[i + channels]
            p *= r
            each[2 * task * channels + c], each[(2 * task + 1) * channels + c] = p, s
            w = 1.0
            if has_weight:
                w = float(weight[c])
            total += w * s
            product += w * p
            coefficients[3 * task * channels + c] = r * w
        share = 1.0 / (positions * width)
        for k in range(width):
            c = group * width + k
            coefficients[(3 * task + 1) * channels + c] = -r * r * product * share
            coefficients[(3 * task + 2) * channels + c] = -r * total * share


@kernel
def gradient_apply(task: Index, ints: I64, grad: T, x: T, mean: T, coefficients: T, dx: T):
    positions, channels, chunk, blocks = integers(ints, 4)
    sample, start, rows = _block(task, positions, channels, chunk, blocks)
    a = 3 * sample * channels
    b, constant, centre = a + channels, a + 2 * channels, sample * channels
    for row in range(rows):
        i = start + row * channels
        for c in range(0, channels, lanes(x)):
            n = channels - c
            d = get(x, i + c, n) - get(mean, centre + c, n)
            v = fma(d, get(coefficients, b + c, n), get(coefficients, constant + c, n))
            put(dx, i + c, fma(get(grad, i + c, n), get(coefficients, a + c, n), v), n)


def _cut(problem: Any) -> tuple[int, int]:
    """Return the positions and the number of a sample's blocks."""
    chunk = max(1, _CHUNK // problem.channels)
    return chunk, -(-problem.positions // chunk)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, eps = inputs
    y, mean, inverse, variance = outputs
    chunk, blocks = _cut(problem)
    n, channels, dtype = problem.n, problem.channels, problem.dtype
    scratch = workspace.view(dtype)
    coefficients, partial = scratch[: 3 * n * channels], scratch[3 * n * channels :]
    sizes = (problem.positions, channels, chunk, blocks)
    launch(moments, n * blocks, (x, partial), sizes, dtype)
    affine = [x if vector is None else vector for vector in (weight, bias)]
    arrays = (x, partial, *affine, eps, mean, inverse, variance, coefficients)
    launch(merge, n, arrays, (*sizes, problem.groups, weight is not None, bias is not None), dtype)
    launch(apply, n * blocks, (x, coefficients, y), sizes, dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse = inputs
    dx, dweight, dbias = outputs
    chunk, blocks = _cut(problem)
    n, channels, dtype = problem.n, problem.channels, problem.dtype
    scratch = workspace.view(dtype)
    coefficients, each, partial = np.split(scratch, [3 * n * channels, 5 * n * channels])
    means, each_group = memory.empty((n, channels), dtype), channels // problem.groups
    arrange(mean, means, (n, problem.groups, each_group), (problem.groups, 1, 0), (channels, each_group, 1))
    sizes = (problem.positions, channels, chunk, blocks)
    launch(gradient_sums, n * blocks, (grad, x, means, partial), sizes, dtype)
    numbers = (problem.positions, channels, blocks, problem.groups, weight is not None)
    arrays = (partial, x if weight is None else weight, inverse, each, coefficients)
    launch(gradient_merge, n, arrays, numbers, dtype)
    launch(gradient_apply, n * blocks, (grad, x, means, coefficients, dx), sizes, dtype)
    add_parts(each, n, channels, dweight, dbias)


def _workspace_bytes(problem: Any) -> int:
    numbers = problem.n * problem.channels * (5 + 2 * _cut(problem)[1])
    return max(1, numbers) * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("group_norm", "forward"): [Candidate("cpu.channels", _forward, workspace_bytes=_workspace_bytes)],
    ("group_norm", "backward"): [Candidate("cpu.channels", _backward, workspace_bytes=_workspace_bytes)],
}
