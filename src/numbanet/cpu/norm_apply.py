"""Batch normalisation: the pass that applies it, with the addition and the activation that may follow it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cpu.compile import I64, Index, Kernel, T, device, kernel
from numbanet.cpu.norm_rows import SPAN, chunk_rows, cut, four, four_tail, put_four
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.simd import fma, integers, lanes, load, load_tail, numpy_lanes, select, splat, store_tail
from numbanet.cpu.stream import aligned, drain, put, streams

# ---------------------------------------------------------------------------------------------------------------------
# What follows the normalisation in the same pass: v is a normalised vector, `get` loads the residual's.


@device
def _plain(v, residual, p, n, get):
    return v


@device
def _relu(v, residual, p, n, get):
    zero = splat(residual, 0.0)
    return select(zero > v, zero, v)  # a comparison with NaN is false: NaN stays


@device
def _add(v, residual, p, n, get):
    return v + get(residual, p, n)


@device
def _add_relu(v, residual, p, n, get):
    return _relu(v + get(residual, p, n), residual, p, n, get)


@device
def _whole(x, p, n):
    return load(x, p)


@device
def _normalize(finish, task, ints, x, coefficients, residual, y):
    """y = finish((x - mean) * scale + shift), for a block of rows."""
    elements, wide, block_rows, large = integers(ints, 4)
    p = task * block_rows * wide
    end = min(elements, p + block_rows * wide)
    w = lanes(x)
    past = large != 0 and aligned(y)
    if wide <= 4 * w:
        m0, m1, m2, m3 = four_tail(coefficients, 0, wide)
        s0, s1, s2, s3 = four_tail(coefficients, wide, wide)
        b0, b1, b2, b3 = four_tail(coefficients, 2 * wide, wide)
        if wide == 4 * w:
            while p + wide <= end:
                a0, a1, a2, a3 = four(x, p)
                put(y, p, finish(fma(a0 - m0, s0, b0), residual, p, w, _whole), past)
                put(y, p + w, finish(fma(a1 - m1, s1, b1), residual, p + w, w, _whole), past)
                put(y, p + 2 * w, finish(fma(a2 - m2, s2, b2), residual, p + 2 * w, w, _whole), past)
                put(y, p + 3 * w, finish(fma(a3 - m3, s3, b3), residual, p + 3 * w, w, _whole), past)
                p += wide
        while p < end:
            n = min(wide, end - p)
            a0, a1, a2, a3 = four_tail(x, p, n)
            a0 = finish(fma(a0 - m0, s0, b0), residual, p, n, load_tail)
            a1 = finish(fma(a1 - m1, s1, b1), residual, p + w, n - w, load_tail)
            a2 = finish(fma(a2 - m2, s2, b2), residual, p + 2 * w, n - 2 * w, load_tail)
            a3 = finish(fma(a3 - m3, s3, b3), residual, p + 3 * w, n - 3 * w, load_tail)
            put_four(y, p, n, a0, a1, a2, a3)
            p += wide
        p = end
    first = p
    for column in range(0, wide, SPAN):
        stop = min(wide, column + SPAN)
        for p in range(first, end, wide):
            j = column
            while j + w <= stop:
                a = load(x, p + j) - load(coefficients, j)
                a = fma(a, load(coefficients, wide + j), load(coefficients, 2 * wide + j))
                put(y, p + j, finish(a, residual, p + j, w, _whole), past)
                j += w
            if j < stop:
                n = stop - j
                a = load_tail(x, p + j, n) - load_tail(coefficients, j, n)
                a = fma(a, load_tail(coefficients, wide + j, n), load_tail(coefficients, 2 * wide + j, n))
                store_tail(y, p + j, finish(a, residual, p + j, n, load_tail), n)
    if past:
        drain()


@kernel
def normalize(task: Index, ints: I64, x: T, coefficients: T, residual: T, y: T):
    _normalize(_plain, task, ints, x, coefficients, residual, y)


@kernel
def normalize_relu(task: Index, ints: I64, x: T, coefficients: T, residual: T, y: T):
    _normalize(_relu, task, ints, x, coefficients, residual, y)


@kernel
def normalize_add(task: Index, ints: I64, x: T, coefficients: T, residual: T, y: T):
    _normalize(_add, task, ints, x, coefficients, residual, y)


@kernel
def normalize_add_relu(task: Index, ints: I64, x: T, coefficients: T, residual: T, y: T):
    _normalize(_add_relu, task, ints, x, coefficients, residual, y)


_NORMALIZE = {
    (None, False): normalize, ("relu", False): normalize_relu,
    (None, True): normalize_add, ("relu", True): normalize_add_relu,
}  # fmt: skip


@lru_cache(maxsize=1024)
def _plan(problem: Any) -> tuple[Kernel, int, np.ndarray]:
    """Return the kernel of a problem, its tasks and its integers."""
    wide, *_ = cut(problem.rows, problem.channels, problem.dtype)
    elements = problem.rows * problem.channels
    rows = chunk_rows(wide, elements)
    tasks = -(-elements // (rows * wide)) if elements else 0
    size = elements * np.dtype(problem.dtype).itemsize
    large = streams(size, size * (1 + problem.residual)) and wide % numpy_lanes(problem.dtype) == 0
    return _NORMALIZE[problem.activation, problem.residual], tasks, block_of((elements, wide, rows, large))


def apply(problem: Any, x: Any, coefficients: Any, residual: Any, y: Any) -> None:
    """Normalise with coefficients that are given for each column of a widened row."""
    chosen, tasks, numbers = _plan(problem)
    launch(chosen, tasks, (x, coefficients, x if residual is None else residual, y), numbers, problem.dtype)
