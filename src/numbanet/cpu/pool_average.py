"""Average and adaptive average pooling and their gradient: means over rectangles, each given by two tables."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists, rounding
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.pool_windows import adaptive_windows, inverse, windows
from numbanet.cpu.reduce import sum_bytes, sum_over
from numbanet.cpu.simd import convert, integers, lanes, load, load_tail, numpy_lanes, splat, splat_as, store, store_tail
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.problem.pool import AdaptiveAvgPoolProblem, AvgPoolProblem
from numbanet.problem.reduce import ReduceProblem

_FEW_ROWS = 8  # with fewer output rows in all, the channels of a row are shared out too
_CHANNELS = 256
_MANY = 128  # elements of a window; beyond, sums in the input's dtype lose digits, and the kernels of sums are faster
_EXACT = 8  # elements that are added in the input's dtype before their sum goes to float64


@device
def _add_run(x, i, y, o, count, divisor, first, last):
    """Add `count` elements of x, whole vectors, to those of y; the first time copy them, the last time divide."""
    for k in range(0, count, lanes(x)):
        v = load(x, i + k) if first else load(y, o + k) + load(x, i + k)
        store(y, o + k, v / divisor if last else v)


@device
def _sum_tail(x, at, down, right, tall, wide, n):
    """Return the sum of tall x wide vectors of n elements."""
    total = splat(x, 0.0)
    for r in range(tall):
        for s in range(wide):
            total = total + load_tail(x, at + r * down + s * right, n)
    return total


@kernel
def average(task: Index, ints: I64, rows: I64, columns: I64, heights: F64, widths: F64, x: T, y: T):
    """One task an output row and block of channels; a window's divisor is heights[p] * widths[q].

    Sums of whole vectors grow in the output, which the first-level cache holds, so that x is read in long runs: 1.5
    times as fast from main memory as channels in the outer loop and sums in registers.
    """
    c, h, w, p, q, block, blocks = integers(ints, 7)
    line, first = task // blocks, (task % blocks) * block
    image, row = line // p, line % p
    tail = min(c - first, block) % lanes(x)
    count = min(c - first, block) - tail
    top = (image * h + rows[3 * row]) * w * c + first
    tall = rows[3 * row + 1]
    for j in range(q):
        at = top + columns[3 * j] * c
        wide = columns[3 * j + 1]
        out = (line * q + j) * c + first
        divisor = splat(x, heights[row] * widths[j])
        for r in range(tall):
            for s in range(wide):
                i = at + (r * w + s) * c
                last = r * wide + s == tall * wide - 1
                if r + s > 0 and last:
                    _add_run(x, i, y, out, count, divisor, False, True)
                elif r + s > 0:
                    _add_run(x, i, y, out, count, divisor, False, False)
                elif last:
                    _add_run(x, i, y, out, count, divisor, True, True)
                else:
                    _add_run(x, i, y, out, count, divisor, True, False)
        if tail:
            total = _sum_tail(x, at + count, w * c, c, tall, wide, tail)
            store_tail(y, out + count, total / divisor, tail)


@kernel
def average_many(task: Index, ints: I64, rows: I64, columns: I64, heights: F64, widths: F64, x: T, y: T):
    """As `average`, for windows of many elements: a few at a time go to float64, or sums of equal ones lose digits."""
    c, h, w, p, q, block, blocks = integers(ints, 7)
    line, first = task // blocks, (task % blocks) * block
    image, row = line // p, line % p
    last = min(c, first + block)
    top = (image * h + rows[3 * row]) * w * c
    tall = rows[3 * row + 1]
    for j in range(q):
        at, wide = top + columns[3 * j] * c, columns[3 * j + 1]
        for i in range(first, last, lanes(x)):
            total = convert(splat(x, 0.0), heights)
            for r in range(tall):
                for s in range(0, wide, _EXACT):
                    few = _sum_tail(x, at + (r * w + s) * c + i, 0, c, 1, min(_EXACT, wide - s), last - i)
                    total = total + convert(few, heights)
            mean = convert(total / splat_as(total, heights[row] * widths[j]), y)
            store_tail(y, (line * q + j) * c + i, mean, last - i)


@device
def _shares(grad, at, down, right, tall, wide, heights, p, widths, q, n, full):
    """Return the sum of the gradients of tall x wide windows, each times the reciprocal of its divisor."""
    total = splat(grad, 0.0)
    for a in range(tall):
        for b in range(wide):
            i = at + a * down + b * right
            g = load(grad, i) if full else load_tail(grad, i, n)
            total = total + g * splat(grad, heights[p + a] * widths[q + b])
    return total


@kernel
def average_backward(task: Index, ints: I64, rows: I64, columns: I64, heights: F64, widths: F64, grad: T, dx: T):
    """One task a row of the input: each element gathers from the windows that see it, in their order.

    A window's gradient is weighted by heights[p] * widths[q].
    """
    c, h, w, p, q, large = integers(ints, 6)
    past = large != 0 and aligned(dx)
    image, row = task // h, 3 * (task % h)
    top = (image * p + rows[row]) * q * c
    tall = rows[row + 1]
    whole = c - c % lanes(grad)
    for j in range(w):
        first, wide = columns[3 * j], columns[3 * j + 1]
        at = top + first * c
        out = (task * w + j) * c
        for i in range(0, whole, lanes(grad)):
            total = _shares(grad, at + i, q * c, c, tall, wide, heights, rows[row], widths, first, c, True)
            put(dx, out + i, total, past)
        if whole < c:
            n = c - whole
            total = _shares(grad, at + whole, q * c, c, tall, wide, heights, rows[row], widths, first, n, False)
            store_tail(dx, out + whole, total, n)
    if past:
        drain()


Tables = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _avg_tables(problem: AvgPoolProblem) -> Tables:
    """Return the windows of the rows and of the columns, and the two factors of their divisors."""
    tables, factors = [], []
    sizes, counts = (problem.h, problem.w), (problem.p, problem.q)
    sides = zip(sizes, counts, problem.kernel, problem.stride, problem.padding, problem.after)
    for size, count, taps, stride, before, after in sides:
        table = windows(size, count, taps, stride, before, 1)
        starts = np.arange(count) * stride - before
        spans = np.minimum(starts + taps, size + after) - starts
        tables.append(table)
        factors.append((spans if problem.count_include_pad else table[:, 1]).astype(np.float64))
    if problem.divisor_override is not None:
        factors = [np.full(problem.p, float(problem.divisor_override)), np.ones(problem.q)]
    return tables[0], tables[1], factors[0], factors[1]


def _adaptive_tables(problem: AdaptiveAvgPoolProblem) -> Tables:
    rows, columns = adaptive_windows(problem.h, problem.p), adaptive_windows(problem.w, problem.q)
    return rows, columns, rows[:, 1].astype(np.float64), columns[:, 1].astype(np.float64)


@lru_cache(maxsize=1024)
def _tables(problem: Any) -> Tables:
    """Return the tables of a pass; the backward pass gets the inverse windows and the reciprocals of the divisors."""
    adaptive = isinstance(problem, AdaptiveAvgPoolProblem)
    rows, columns, *factors = _adaptive_tables(problem) if adaptive else _avg_tables(problem)
    if problem.which == "backward_input":
        rows, columns = inverse(rows, problem.h, 1), inverse(columns, problem.w, 1)
        factors = [1.0 / factor for factor in factors]
    return rows, columns, factors[0], factors[1]


def _taps(problem: Any) -> int:
    """Return how many elements a window has, about."""
    sizes = (problem.h, problem.p), (problem.w, problem.q)
    tall, wide = getattr(problem, "kernel", None) or [-(-size // max(count, 1)) for size, count in sizes]
    return tall * wide


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    lines = problem.n * problem.p
    block = _CHANNELS if lines < _FEW_ROWS else problem.c
    blocks = -(-problem.c // block)
    ints = (problem.c, problem.h, problem.w, problem.p, problem.q, block, blocks)
    form = average_many if _taps(problem) > _MANY else average
    launch(form, lines * blocks, (*_tables(problem), *inputs, *outputs), ints, problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    large = streams(outputs[0].nbytes) and problem.c % numpy_lanes(problem.dtype) == 0
    ints = (problem.c, problem.h, problem.w, problem.p, problem.q, large)
    launch(average_backward, problem.n * problem.h, (*_tables(problem), *inputs, *outputs), ints, problem.dtype)


def _as_sum(problem: Any) -> ReduceProblem:
    """Return the mean over all positions of an image as a sum over the middle one of three dimensions."""
    positions = problem.h * problem.w
    return ReduceProblem("forward", problem.dtype, problem.n, positions, problem.c, 1 / positions)


def _one(problem: Any) -> str | None:
    if (problem.p, problem.q) != (1, 1):
        return "the result has more than one position"
    return None if problem.h * problem.w > _MANY else "too few positions: long runs are faster"


def _sum(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    sum_over(_as_sum(problem), inputs, outputs, workspace)


def _tolerance(problem: Any) -> float:
    """Return the expected error: it grows with the number of elements of a window, added one after the other."""
    return rounding(problem) * (1 + _taps(problem) / 1000) ** 0.5


CANDIDATES: CandidateLists = {
    (operation, which): [Candidate("cpu.vector", run, tolerance=_tolerance)]
    for operation in ("avg_pool2d", "adaptive_avg_pool2d")
    for which, run in (("forward", _forward), ("backward_input", _backward))
}
CANDIDATES["adaptive_avg_pool2d", "forward"].append(
    Candidate("cpu.sum", _sum, _one, lambda p: 0.5, lambda p: sum_bytes(_as_sum(p)) if _one(p) is None else 0)
)
