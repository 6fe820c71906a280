"""Average and adaptive average pooling and their gradient: means over rectangles, each given by two tables."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists, rounding
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.pool_max import next_tap
from numbanet.cpu.pool_windows import adaptive_windows, inverse, portion, windows
from numbanet.cpu.reduce import sum_bytes, sum_over
from numbanet.cpu.simd import convert, integers, lanes, load, load_tail, numpy_lanes, splat, splat_as, store, store_tail
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.problem.pool import AdaptiveAvgPoolProblem, AvgPoolProblem
from numbanet.problem.reduce import ReduceProblem

_FEW_ROWS = 8  # with fewer output rows in all, the channels of a row are shared out too
_CHANNELS = 1 << 8  # of a task, then
_PAGE = 1 << 10  # or so many, along which a processor fetches ahead, if that leaves as many tasks as rows are few
_MANY = 128  # elements of a window; beyond, sums in the input's dtype lose digits, and the kernels of sums are faster
_EXACT = 8  # elements that are added in the input's dtype before their sum goes to float64


@device
def _mean(x, at, window, divisor, y, o, first, last, vectors):
    """Add up the runs of 1, 2 or 4 vectors that lie at some taps of a window; of the `last`, write the means."""
    tall, wide = window[:2]
    w = lanes(x)
    s0 = load(x, at) if first else load(y, o) + load(x, at)
    s1, s2, s3 = s0, s0, s0
    if vectors > 1:
        s1 = load(x, at + w) if first else load(y, o + w) + load(x, at + w)
    if vectors > 2:
        s2 = load(x, at + 2 * w) if first else load(y, o + 2 * w) + load(x, at + 2 * w)
        s3 = load(x, at + 3 * w) if first else load(y, o + 3 * w) + load(x, at + 3 * w)
    i, _, left = next_tap(at, 0, wide, window)
    for _ in range(tall * wide - 1):
        s0 = s0 + load(x, i)
        if vectors > 1:
            s1 = s1 + load(x, i + w)
        if vectors > 2:
            s2, s3 = s2 + load(x, i + 2 * w), s3 + load(x, i + 3 * w)
        i, _, left = next_tap(i, 0, left, window)
    store(y, o, s0 / divisor if last else s0)
    if vectors > 1:
        store(y, o + w, s1 / divisor if last else s1)
    if vectors > 2:
        store(y, o + 2 * w, s2 / divisor if last else s2)
        store(y, o + 3 * w, s3 / divisor if last else s3)


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

    Sums stay in registers: of four vectors at a time, which is two cache lines of each tap. Where `portion` says so,
    they grow in the output instead, with the next part of each window.
    """
    c, h, w, p, q, block, blocks, high, broad = integers(ints, 9)
    line, first = task // blocks, (task % blocks) * block
    image, row = line // p, line % p
    tail = min(c - first, block) % lanes(x)
    count = min(c - first, block) - tail
    top = (image * h + rows[3 * row]) * w * c + first
    tall = rows[3 * row + 1]
    for r in range(0, tall, high):
        for j in range(q):
            out = (line * q + j) * c + first
            wide = columns[3 * j + 1]
            divisor = splat(x, heights[row] * widths[j])
            for s in range(0, wide, broad):
                at = top + (r * w + columns[3 * j] + s) * c
                some = min(wide - s, broad)
                window = min(tall, high), some, 0, c, (w - some + 1) * c, 0, 0
                start, last = r + s == 0, r + high >= tall and s + broad >= wide
                k = 0
                while k + 4 * lanes(x) <= count:
                    _mean(x, at + k, window, divisor, y, out + k, start, last, 4)
                    k += 4 * lanes(x)
                if k + 2 * lanes(x) <= count:
                    _mean(x, at + k, window, divisor, y, out + k, start, last, 2)
                    k += 2 * lanes(x)
                if k < count:
                    _mean(x, at + k, window, divisor, y, out + k, start, last, 1)
                if tail and start:
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
def _share(grad, at, window, heights, p, widths, q, dx, o, past, vectors):
    """Write the sums of the gradients of the windows that see 1, 2 or 4 vectors, each over its divisor."""
    tall, wide = window[:2]
    w = lanes(grad)
    s0 = splat(grad, 0.0)
    s1, s2, s3 = s0, s0, s0
    i, b, left = at, q, wide
    for _ in range(tall * wide):
        part = splat(grad, heights[p] * widths[b])
        s0 = s0 + load(grad, i) * part
        if vectors > 1:
            s1 = s1 + load(grad, i + w) * part
        if vectors > 2:
            s2, s3 = s2 + load(grad, i + 2 * w) * part, s3 + load(grad, i + 3 * w) * part
        p += 1 if left == 1 else 0
        i, b, left = next_tap(i, b, left, window)
    put(dx, o, s0, past)
    if vectors > 1:
        put(dx, o + w, s1, past)
    if vectors > 2:
        put(dx, o + 2 * w, s2, past)
        put(dx, o + 3 * w, s3, past)


@device
def _share_tail(grad, at, window, heights, p, widths, q, dx, o, n):
    """Do so for n elements of a vector."""
    tall, wide = window[:2]
    total = splat(grad, 0.0)
    i, b, left = at, q, wide
    for _ in range(tall * wide):
        total = total + load_tail(grad, i, n) * splat(grad, heights[p] * widths[b])
        p += 1 if left == 1 else 0
        i, b, left = next_tap(i, b, left, window)
    store_tail(dx, o, total, n)


@kernel
def average_backward(task: Index, ints: I64, rows: I64, columns: I64, heights: F64, widths: F64, grad: T, dx: T):
    """One task a row of the input: each element gathers from the windows that see it, in their order.

    A window's gradient is weighted by heights[p] * widths[q].
    """
    c, h, w, p, q, large = integers(ints, 6)
    past = large != 0 and aligned(dx)
    image, row = task // h, 3 * (task % h)
    above = rows[row]
    top = (image * p + above) * q * c
    tall, whole = rows[row + 1], c - c % lanes(grad)
    for j in range(w):
        first, wide = columns[3 * j], columns[3 * j + 1]
        at = top + first * c
        out = (task * w + j) * c
        window = tall, wide, first, c, (q - wide + 1) * c, 1, 1 - wide
        k = 0
        while k + 4 * lanes(grad) <= whole:
            _share(grad, at + k, window, heights, above, widths, first, dx, out + k, past, 4)
            k += 4 * lanes(grad)
        if k + 2 * lanes(grad) <= whole:
            _share(grad, at + k, window, heights, above, widths, first, dx, out + k, past, 2)
            k += 2 * lanes(grad)
        if k < whole:
            _share(grad, at + k, window, heights, above, widths, first, dx, out + k, past, 1)
            k += lanes(grad)
        if k < c:
            _share_tail(grad, at + k, window, heights, above, widths, first, dx, out + k, c - k)
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


def _portion(problem: Any) -> tuple[int, int]:
    """Return how many rows and columns of each window are taken at once."""
    return (1, problem.w) if isinstance(problem, AdaptiveAvgPoolProblem) else portion(problem)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    lines = problem.n * problem.p
    most = _PAGE if lines * (problem.c // _PAGE) >= _FEW_ROWS else _CHANNELS
    shares, run = -(-problem.c // most) if lines < _FEW_ROWS else 1, 4 * numpy_lanes(problem.dtype)
    block = max(1, -(-problem.c // (max(1, shares) * run))) * run
    blocks = -(-problem.c // block)
    ints = (problem.c, problem.h, problem.w, problem.p, problem.q, block, blocks, *_portion(problem))
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
    return None if problem.h * problem.w > _MANY else "too few positions: one pass is faster"


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
