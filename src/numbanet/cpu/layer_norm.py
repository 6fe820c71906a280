"""Normalisation of runs of memory: layer normalisation, and group normalisation of vectors.

A task normalises some runs one after the other: each is read from memory once and lies in the cache when it is read
again. Sums of at most a block go to float64, so that long runs keep their digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    convert,
    fma,
    integers,
    lanes,
    load,
    load_tail,
    load_tail_or,
    numpy_lanes,
    reduce_add,
    splat,
    store,
    store_tail,
)

_CHUNK = 1 << 14  # elements a task
_BLOCK = 1 << 11  # elements that are added in the input's dtype
_PARTS = 64  # tasks of the backward pass at most: each has sums of its own for weight and bias


@device
def _mean_and_variance(x, i, count):
    """Return the mean of a run, as the input's dtype has it, what that is short of the mean, and the variance."""
    total, j = 0.0, 0
    while j < count:
        stop, part = min(count, j + _BLOCK), splat(x, 0.0)
        while j + lanes(x) <= stop:
            part = part + load(x, i + j)
            j += lanes(x)
        if j < stop:
            part = part + load_tail(x, i + j, stop - j)
            j = stop
        total += reduce_add(part)
    centre = splat(x, total / count)
    mean = reduce_add(splat(x, total / count / lanes(x)))  # rounded as in `centre`: lanes are a power of two
    total, short, j = 0.0, 0.0, 0
    while j < count:
        stop, part, off = min(count, j + _BLOCK), splat(x, 0.0), splat(x, 0.0)
        while j + lanes(x) <= stop:
            d = load(x, i + j) - centre
            part, off = fma(d, d, part), off + d
            j += lanes(x)
        if j < stop:
            d = load_tail_or(x, i + j, stop - j, centre) - centre
            part, off = fma(d, d, part), off + d
            j = stop
        total += reduce_add(part)
        short += reduce_add(off)
    short /= count
    return mean, short, max(total / count - short * short, 0.0)


@kernel
def forward(task: Index, ints: I64, x: T, weight: T, bias: T, eps: F64, y: T, mean: T, inverse: T, variance: T):
    runs, count, chunk, groups, has_weight, has_bias = integers(ints, 6)
    for run in range(task * chunk, min(runs, (task + 1) * chunk)):
        i, affine = run * count, run % groups * count
        m, short, v = _mean_and_variance(x, i, count)
        r = 1.0 / math.sqrt(v + eps[0])
        mean[run], inverse[run], variance[run] = m + short, r, v
        centre, rest, scale = splat(x, m), splat(x, short), splat(x, r)
        for j in range(0, count, lanes(x)):
            n = count - j
            if n >= lanes(x):
                v = (load(x, i + j) - centre - rest) * scale
                if has_weight:
                    v = v * load(weight, affine + j)
                if has_bias:
                    v = v + load(bias, affine + j)
                store(y, i + j, v)
            else:
                v = (load_tail(x, i + j, n) - centre - rest) * scale
                if has_weight:
                    v = v * load_tail(weight, affine + j, n)
                if has_bias:
                    v = v + load_tail(bias, affine + j, n)
                store_tail(y, i + j, v, n)


@kernel
def backward(task: Index, ints: I64, grad: T, x: T, weight: T, mean: T, inverse: T, dx: T, partial: T):
    """partial[task] = the task's sums of grad * normalised x, and of grad, for each weight."""
    runs, count, chunk, groups, has_weight = integers(ints, 5)
    channels = count * groups
    dweight, dbias = 2 * task * channels, (2 * task + 1) * channels
    for j in range(0, 2 * channels, lanes(x)):
        store_tail(partial, dweight + j, splat(x, 0.0), 2 * channels - j)
    for run in range(task * chunk, min(runs, (task + 1) * chunk)):
        i, affine = run * count, run % groups * count
        centre, scale = splat(x, mean[run]), splat(x, inverse[run])
        total, product = splat(x, 0.0), splat(x, 0.0)
        for j in range(0, count, lanes(x)):
            n, k = count - j, affine + j
            g = load_tail(grad, i + j, n)
            h = (load_tail_or(x, i + j, n, centre) - centre) * scale
            store_tail(partial, dweight + k, fma(g, h, load_tail(partial, dweight + k, n)), n)
            store_tail(partial, dbias + k, g + load_tail(partial, dbias + k, n), n)
            if has_weight:
                g = g * load_tail(weight, k, n)
            total, product = total + g, fma(g, h, product)
        shared, slope = splat(x, reduce_add(total) / count), splat(x, reduce_add(product) / count)
        for j in range(0, count, lanes(x)):
            n = count - j
            g = load_tail(grad, i + j, n)
            if has_weight:
                g = g * load_tail(weight, affine + j, n)
            h = (load_tail(x, i + j, n) - centre) * scale
            store_tail(dx, i + j, (g - fma(h, slope, shared)) * scale, n)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, eps = inputs
    runs, chunk = problem.n * problem.groups, max(1, _CHUNK // problem.count)
    arrays = (x, x if weight is None else weight, x if bias is None else bias, eps, *outputs)
    sizes = (runs, problem.count, chunk, problem.groups, weight is not None, bias is not None)
    launch(forward, -(-runs // chunk), arrays, sizes, problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse = inputs
    dx, dweight, dbias = outputs
    runs, chunk, tasks = _cut(problem)
    partial = workspace.view(problem.dtype)
    arrays = (grad, x, x if weight is None else weight, mean, inverse, dx, partial)
    sizes = (runs, problem.count, chunk, problem.groups, weight is not None)
    launch(backward, tasks, arrays, sizes, problem.dtype)
    add_parts(partial, tasks, problem.channels, dweight, dbias)


@kernel
def merge_parts(task: Index, ints: I64, partial: T, like: F64, dweight: T, dbias: T):
    """Add the parts (parts, 2, channels) of one vector of channels, in their order."""
    parts, channels = integers(ints, 2)
    c = task * lanes(partial)
    n = channels - c
    total = convert(splat(partial, 0.0), like)
    product = total
    for part in range(parts):
        product = product + convert(load_tail(partial, 2 * part * channels + c, n), like)
        total = total + convert(load_tail(partial, (2 * part + 1) * channels + c, n), like)
    store_tail(dweight, c, convert(product, dweight), n)
    store_tail(dbias, c, convert(total, dbias), n)


_LIKE = np.zeros(1)


def add_parts(partial: np.ndarray, parts: int, channels: int, dweight: np.ndarray, dbias: np.ndarray) -> None:
    """Add the parts of shape (parts, 2, channels) to the gradients of weight and bias."""
    dtype = partial.dtype.name
    launch(merge_parts, -(-channels // numpy_lanes(dtype)), (partial, _LIKE, dweight, dbias), (parts, channels), dtype)


def _cut(problem: Any) -> tuple[int, int, int]:
    """Return the number of runs, and the runs and number of the backward pass's tasks."""
    runs = problem.n * problem.groups
    chunk = max(1, 4 * _CHUNK // problem.count, -(-runs // _PARTS))
    return runs, chunk, -(-runs // chunk)


def _partial_bytes(problem: Any) -> int:
    return _cut(problem)[2] * 2 * problem.channels * np.dtype(problem.dtype).itemsize


def _supports(problem: Any) -> str | None:
    return None if problem.positions == 1 else "a group is more than one run of memory"


CANDIDATES: CandidateLists = {
    ("group_norm", "forward"): [Candidate("cpu.runs", _forward, _supports)],
    ("group_norm", "backward"): [Candidate("cpu.runs", _backward, _supports, workspace_bytes=_partial_bytes)],
}
