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
from numbanet.cpu.pool_max import max_windows
from numbanet.cpu.pool_windows import inverse
from numbanet.cpu.simd import (
    integers,
    lanes,
    load,
    load_as,
    load_as_tail,
    load_tail,
    numpy_lanes,
    select,
    splat,
    splat_as,
    store,
    store_tail,
)  # fmt: skip
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.problem.pool import MaxPoolProblem


@device
def _arrived(grad, offsets, at, down, right, tall, wide, code, back_h, back_w, n, full):
    """Return the sum of those gradients of tall x wide windows whose offset says that this element was the maximum."""
    zero = splat(grad, 0.0)
    total = zero
    for a in range(tall):
        for b in range(wide):
            i = at + a * down + b * right
            g = load(grad, i) if full else load_tail(grad, i, n)
            where = load_as(offsets, i, g) if full else load_as_tail(offsets, i, g, n)
            total = total + select(where == splat_as(where, code - a * back_h - b * back_w), g, zero)
    return total


@device
def _gather_row(task, ints, rows, columns, grad, offsets, dx):
    c, h, w, p, q, step_h, step_w, back_h, back_w, pitch, large = integers(ints, 11)
    past = large != 0 and aligned(dx)
    image, row = task // h, 3 * (task % h)
    top = (image * p + rows[row]) * q * c
    down, right = step_h * q * c, step_w * c
    whole = c - c % lanes(grad)
    for j in range(w):
        at = top + columns[3 * j] * c
        out = (task * w + j) * c
        tall, wide = rows[row + 1], columns[3 * j + 1]
        code = rows[row + 2] * pitch + columns[3 * j + 2]
        for i in range(0, whole, lanes(grad)):
            total = _arrived(grad, offsets, at + i, down, right, tall, wide, code, back_h, back_w, c, True)
            put(dx, out + i, total, past)
        if whole < c:
            n = c - whole
            total = _arrived(grad, offsets, at + whole, down, right, tall, wide, code, back_h, back_w, n, False)
            store_tail(dx, out + whole, total, n)
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
def _hand_out(grad, offsets, at, dx, to, down, right, tall, wide, code, pitch):
    """Add a vector of gradients to those of the tall x wide inputs that were the maxima."""
    g = load(grad, at)
    where = load_as(offsets, at, g)
    zero = splat(grad, 0.0)
    for r in range(tall):
        for s in range(wide):
            i = to + r * down + s * right
            store(dx, i, load(dx, i) + select(where == splat_as(where, code + r * pitch + s), g, zero))


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
    c, h, w, p, q, band, stride, padding, dilation_h, dilation_w, height, pitch = integers(ints, 12)
    bands = (p + band - 1) // band
    image, first = task // bands, (task % bands) * band
    last = min(p, first + band)
    low = 0 if first == 0 else min(h, max(0, first * stride - padding))
    high = h if last == p else min(h, max(0, last * stride - padding))
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
            for i in range(0, whole, lanes(grad)):
                _hand_out(grad, offsets, at + i, dx, to + i, down, right, tall, wide, r * pitch + s, pitch)
            for i in range(whole, c):
                _hand_out_one(
                    grad, offsets, at + i, dx, to + i, down, right, tall, wide, r, s, taps, height * pitch
                )  # fmt: skip


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


def _rows_overlap(problem: MaxPoolProblem) -> bool:
    return problem.stride[0] <= problem.dilation[0] * (problem.kernel[0] - 1)


def _scatter(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    band = problem.p if _rows_overlap(problem) else 1
    ints = (
        problem.c, problem.h, problem.w, problem.p, problem.q, band, problem.stride[0], problem.padding[0],
        *problem.dilation, *problem.kernel,
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
