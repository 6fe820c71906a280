"""The gradient of maximum pooling: each element of the result hands its gradient to the one that was the maximum.

Two ways, both free of races and of a fixed order of additions: *gather*, where each input reads from the windows that
see it, and *scatter*, where a task owns the inputs of its windows. Scatter touches each gradient once, but where
windows overlap a task must own a whole image.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I32, I64, U8, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.pool_max import max_windows, next_tap
from numbanet.cpu.pool_windows import inverse
from numbanet.cpu.simd import (
    bits,
    convert,
    integers,
    lanes,
    load,
    load_as,
    load_as_tail,
    load_tail,
    numpy_lanes,
    offset,
    select,
    splat,
    splat_as,
    store,
    store_tail,
)  # fmt: skip
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.problem.pool import MaxPoolProblem


@device
def _window(grad, offsets, i):
    """Return the gradients of the windows at i, and their offsets in lanes of the same width."""
    g = load(grad, i)
    return g, convert(load_as(offsets, i, g), bits(g))


@device
def _share(grad, offsets, i, code):
    """Return the gradients of the windows at i whose offset says that this element was the maximum, else zeros."""
    g, where = _window(grad, offsets, i)
    return select(where == splat_as(where, code), g, splat_as(g, 0.0))


@device
def _arrive(grad, offsets, at, window, dx, o, past, vectors):
    """Write what 1, 2 or 4 vectors of an input get from the windows that see it, in their order."""
    tall, wide, code = window[:3]
    w = lanes(grad)
    t0 = splat(grad, 0.0)
    t1, t2, t3 = t0, t0, t0
    i, left = at, wide
    for _ in range(tall * wide):
        t0 = t0 + _share(grad, offsets, i, code)
        if vectors > 1:
            t1 = t1 + _share(grad, offsets, i + w, code)
        if vectors > 2:
            t2 = t2 + _share(grad, offsets, i + 2 * w, code)
            t3 = t3 + _share(grad, offsets, i + 3 * w, code)
        i, code, left = next_tap(i, code, left, window)
    put(dx, o, t0, past)
    if vectors > 1:
        put(dx, o + w, t1, past)
    if vectors > 2:
        put(dx, o + 2 * w, t2, past)
        put(dx, o + 3 * w, t3, past)


@device
def _arrive_tail(grad, offsets, at, window, dx, o, n):
    """Do so for n elements of a vector."""
    tall, wide, code = window[:3]
    zero = splat(grad, 0.0)
    total = zero
    i, left = at, wide
    for _ in range(tall * wide):
        g = load_tail(grad, i, n)
        where = load_as_tail(offsets, i, g, n)
        total = total + select(where == splat_as(where, code), g, zero)
        i, code, left = next_tap(i, code, left, window)
    store_tail(dx, o, total, n)


@device
def _gather_row(task, ints, rows, columns, grad, offsets, dx):
    c, h, w, p, q, step_h, step_w, back_h, back_w, pitch, large = integers(ints, 11)
    past = large != 0 and aligned(dx)
    image, row = task // h, 3 * (task % h)
    top = (image * p + rows[row]) * q * c
    right = step_w * c
    tall, whole = rows[row + 1], c - c % lanes(grad)
    for j in range(w):
        at = top + columns[3 * j] * c
        out = (task * w + j) * c
        wide = columns[3 * j + 1]
        code = rows[row + 2] * pitch + columns[3 * j + 2]
        down, turn = step_h * q * c - (wide - 1) * right, (wide - 1) * back_w - back_h
        window = tall, wide, code, right, down, -back_w, turn
        k = 0
        while k + 4 * lanes(grad) <= whole:
            _arrive(grad, offsets, at + k, window, dx, out + k, past, 4)
            k += 4 * lanes(grad)
        if k + 2 * lanes(grad) <= whole:
            _arrive(grad, offsets, at + k, window, dx, out + k, past, 2)
            k += 2 * lanes(grad)
        if k < whole:
            _arrive(grad, offsets, at + k, window, dx, out + k, past, 1)
            k += lanes(grad)
        if k < c:
            _arrive_tail(grad, offsets, at + k, window, dx, out + k, c - k)
    if past:
        drain()


@kernel
def gather_bytes(task: Index, ints: I64, rows: I64, columns: I64, grad: T, offsets: U8, dx: T):
    """One task a row of the input: each element gathers from the windows that see it, in their order."""
    _gather_row(task, ints, rows, columns, grad, offsets, dx)


@kernel
def gather_words(task: Index, ints: I64, rows: I64, columns: I64, grad: T, offsets: I32, dx: T):
    """One task a row of the input: each element gathers from the windows that see it, in their order."""
    _gather_row(task, ints, rows, columns, grad, offsets, dx)


@device
def _hand_out(grad, offsets, at, window, dx, to, apart, past, vectors):
    """Hand 1, 2 or 4 vectors of gradients to those inputs of their windows that were the maxima.

    The others get zeros if windows lie `apart`; else what comes is added to what is there.
    """
    tall, wide, code = window[:3]
    w = lanes(grad)
    g0, w0 = _window(grad, offsets, at)
    g1, w1 = _window(grad, offsets, at + w) if vectors > 1 else (g0, w0)
    g2, w2 = _window(grad, offsets, at + 2 * w) if vectors > 2 else (g0, w0)
    g3, w3 = _window(grad, offsets, at + 3 * w) if vectors > 2 else (g0, w0)
    i, left = to, wide
    for _ in range(tall * wide):
        _give(g0, w0, code, dx, i, apart, past)
        if vectors > 1:
            _give(g1, w1, code, dx, i + w, apart, past)
        if vectors > 2:
            _give(g2, w2, code, dx, i + 2 * w, apart, past)
            _give(g3, w3, code, dx, i + 3 * w, apart, past)
        i, code, left = next_tap(i, code, left, window)


@device
def _give(g, where, code, dx, i, apart, past):
    zero = splat_as(g, 0.0)
    share = select(where == splat_as(where, code), g, zero)
    if apart:
        put(dx, i, share, past)
    else:
        store(dx, i, load(dx, i) + share)


@device
def _hand_out_one(grad, offsets, at, dx, to, down, right, tall, wide, first_r, first_s, taps, count):
    """Do so for one channel; `taps` holds (r, s) of each offset. An offset outside the window has no effect.

    (Tails are not masked vectors here: a masked load waits long for the masked store before it.)
    """
    o = offsets[at]
    if 0 <= o < count:
        r, s = taps[2 * o] - first_r, taps[2 * o + 1] - first_s
        if 0 <= r < tall and 0 <= s < wide:
            dx[to + r * down + s * right] += grad[at]


@device
def _clear(x, i, end):
    zero = splat(x, 0.0)
    while end - i >= lanes(x):
        store(x, i, zero)
        i += lanes(x)
    store_tail(x, i, zero, end - i)


@device
def _scatter_band(task, ints, rows, columns, taps, grad, offsets, dx):
    c, h, w, p, q, band, stride, padding, dilation_h, dilation_w = integers(ints, 10)
    height, pitch, apart, covered, large = integers(offset(ints, 10), 5)
    past = large != 0 and aligned(dx)
    bands = (p + band - 1) // band
    image, first = task // bands, (task % bands) * band
    last = min(p, first + band)
    low = 0 if first == 0 else min(h, max(0, first * stride - padding))
    high = h if last == p else min(h, max(0, last * stride - padding))
    if not covered:
        _clear(dx, (image * h + low) * w * c, (image * h + high) * w * c)
    down, right = dilation_h * w * c, dilation_w * c
    whole = c - c % lanes(grad)
    for row in range(first, last):
        top = (image * h + rows[3 * row]) * w * c
        tall, r = rows[3 * row + 1], rows[3 * row + 2]
        for j in range(q):
            to = top + columns[3 * j] * c
            at = ((image * p + row) * q + j) * c
            wide, s = columns[3 * j + 1], columns[3 * j + 2]
            code = r * pitch + s
            window = tall, wide, code, right, down - (wide - 1) * right, 1, pitch - (wide - 1)
            k = 0
            while k + 4 * lanes(grad) <= whole:
                _hand_out(grad, offsets, at + k, window, dx, to + k, apart != 0, past, 4)
                k += 4 * lanes(grad)
            if k + 2 * lanes(grad) <= whole:
                _hand_out(grad, offsets, at + k, window, dx, to + k, apart != 0, past, 2)
                k += 2 * lanes(grad)
            if k < whole:
                _hand_out(grad, offsets, at + k, window, dx, to + k, apart != 0, past, 1)
            for i in range(whole, c):
                _hand_out_one(
                    grad, offsets, at + i, dx, to + i, down, right, tall, wide, r, s, taps, height * pitch
                )  # fmt: skip
    if past:
        drain()


@kernel
def scatter_bytes(task: Index, ints: I64, rows: I64, columns: I64, taps: I64, grad: T, offsets: U8, dx: T):
    """One task a band of output rows, and the input rows from the first of its windows to that of the next band."""
    _scatter_band(task, ints, rows, columns, taps, grad, offsets, dx)


@kernel
def scatter_words(task: Index, ints: I64, rows: I64, columns: I64, taps: I64, grad: T, offsets: I32, dx: T):
    """One task a band of output rows, and the input rows from the first of its windows to that of the next band."""
    _scatter_band(task, ints, rows, columns, taps, grad, offsets, dx)


_GATHER = {"uint8": gather_bytes, "int32": gather_words}
_SCATTER = {"uint8": scatter_bytes, "int32": scatter_words}


@lru_cache(maxsize=1024)
def _inverse_windows(problem: MaxPoolProblem) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = max_windows(problem)
    return inverse(rows, problem.h, problem.dilation[0]), inverse(columns, problem.w, problem.dilation[1])


def _gather(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    # An input is seen again after dilation / gcd(stride, dilation) outputs, stride / gcd taps earlier.
    common = [math.gcd(s, d) for s, d in zip(problem.stride, problem.dilation)]
    steps = [d // g for d, g in zip(problem.dilation, common)]
    back = [s // g for s, g in zip(problem.stride, common)]
    pitch = problem.kernel[1]
    large = streams(outputs[0].nbytes) and problem.c % numpy_lanes(problem.dtype) == 0
    ints = (problem.c, problem.h, problem.w, problem.p, problem.q, *steps, back[0] * pitch, back[1], pitch, large)
    arrays = (*_inverse_windows(problem), *inputs, *outputs)
    launch(_GATHER[problem.offsets], problem.n * problem.h, arrays, ints, problem.dtype)


@lru_cache(maxsize=256)
def _taps(height: int, width: int) -> np.ndarray:
    return np.array(list(np.ndindex(height, width)), np.int64)


@lru_cache(maxsize=1024)
def _apart(problem: MaxPoolProblem) -> tuple[bool, bool]:
    """Return whether no input is seen by two windows, and whether moreover each one is seen."""
    counts = [table[:, 1] for table in _inverse_windows(problem)]
    apart = all(count.max() <= 1 for count in counts)
    # A vector that is cut short adds to what is there.
    return apart, apart and all(count.min() == 1 for count in counts) and problem.c % numpy_lanes(problem.dtype) == 0


def _rows_overlap(problem: MaxPoolProblem) -> bool:
    return problem.stride[0] <= problem.dilation[0] * (problem.kernel[0] - 1)


def _scatter(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    band = problem.p if _rows_overlap(problem) else 1
    apart, covered = _apart(problem)
    large = streams(outputs[0].nbytes) and covered
    ints = (
        problem.c, problem.h, problem.w, problem.p, problem.q, band, problem.stride[0], problem.padding[0],
        *problem.dilation, *problem.kernel, apart, covered, large,
    )  # fmt: skip
    arrays = (*max_windows(problem), _taps(*problem.kernel), *inputs, *outputs)
    launch(_SCATTER[problem.offsets], problem.n * -(-problem.p // band), arrays, ints, problem.dtype)


def _scatter_cost(problem: MaxPoolProblem) -> float:
    """Below that of gather (1.0) where tasks are rows, or where gather would leave most lanes of a vector empty."""
    few = 2 * problem.c <= numpy_lanes(problem.dtype)
    return 0.5 if few or not _rows_overlap(problem) else 2.0


CANDIDATES: CandidateLists = {
    ("max_pool2d", "backward_input"): [
        Candidate("cpu.gather", _gather),
        Candidate("cpu.scatter", _scatter, cost=_scatter_cost),
    ]
}
