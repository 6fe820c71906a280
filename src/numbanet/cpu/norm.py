"""Batch normalisation on channels-last memory: a matrix with a row a sample and a column a channel.

Statistics: a task walks a block of rows once and keeps, for each column, the sums of x - s and of (x - s)^2, where the
shift s is the mean of the block's first rows. As these rows belong to the block, its variance cannot be much smaller
than (mean - s)^2, so that nothing cancels. Blocks are merged in float64 in a fixed order (Chan, Golub and LeVeque,
"Algorithms for computing the sample variance", 1983). Behind a convolution, its
tasks have taken those sums already (`numbanet.cpu.conv_moments`).

Narrow rows are taken several at a time as one row of up to four vectors, whose per-channel numbers stay in registers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.norm_apply import apply
from numbanet.cpu.norm_rows import cut, four, four_tail, merge_span, put_four, repeat
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.partial import get, put
from numbanet.cpu.simd import (
    convert,
    fma,
    integers,
    lanes,
    load_tail,
    maximum,
    offset,
    splat,
    splat_as,
    sqrt,
    store_tail,
)


@device
def _narrow_moments(x, wide, first, last, rest, partial, out):
    """Sum the columns of a block that are few enough for registers; `rest` elements of a last row are cut off."""
    w = lanes(x)
    p, stop = first * wide, last * wide
    heads = min(8, last - first)
    if heads == 0:
        m0, m1, m2, m3 = four_tail(x, p, rest)
    else:
        m0, m1, m2, m3 = four_tail(x, p, wide)
        for row in range(1, heads):
            a0, a1, a2, a3 = four_tail(x, p + row * wide, wide)
            m0, m1, m2, m3 = m0 + a0, m1 + a1, m2 + a2, m3 + a3
        part = splat(x, 1.0) / splat(x, heads)
        m0, m1, m2, m3 = m0 * part, m1 * part, m2 * part, m3 * part
    full, one = splat(x, last - first), splat(x, last - first + 1)
    put_four(partial, out, wide, full, full, full, full)
    put_four(partial, out, rest, one, one, one, one)
    out += wide
    put_four(partial, out, wide, m0, m1, m2, m3)
    e0 = splat(x, 0.0)
    e1, e2, e3 = e0, e0, e0
    q0, q1, q2, q3 = e0, e0, e0, e0
    while p <= stop:
        if p < stop:
            if wide == 4 * w:
                a0, a1, a2, a3 = four(x, p)
            else:
                a0, a1, a2, a3 = four_tail(x, p, wide)
        else:
            if rest == 0:
                break
            a0, a1, a2, a3 = four_tail(x, p, rest)
            m0, m1, m2, m3 = four_tail(partial, out, rest)
        a0, a1, a2, a3 = a0 - m0, a1 - m1, a2 - m2, a3 - m3
        e0, e1, e2, e3 = e0 + a0, e1 + a1, e2 + a2, e3 + a3
        q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
        p += wide
    put_four(partial, out + wide, wide, e0, e1, e2, e3)
    put_four(partial, out + 2 * wide, wide, q0, q1, q2, q3)


@device
def _add(x, wide, p, step, j, n, partial, out):
    """Add n elements from column j on of the row that starts at p, less the shift at `out`, to the sums behind it.

    With a `step`, likewise those of three further rows, which are so far apart.
    """
    s = get(partial, out + j, n)
    a, squares = get(x, p + j, n) - s, get(partial, out + 2 * wide + j, n)
    if step:  # first among each other, then to the sums: so as many roundings are left in these as in shorter blocks
        b, c, d = get(x, p + step + j, n) - s, get(x, p + 2 * step + j, n) - s, get(x, p + 3 * step + j, n) - s
        squares = squares + (fma(a, a, b * b) + fma(c, c, d * d))
        a = (a + b) + (c + d)
    else:
        squares = fma(a, a, squares)
    put(partial, out + wide + j, get(partial, out + wide + j, n) + a, n)
    put(partial, out + 2 * wide + j, squares, n)


@device
def _add_row(x, wide, p, step, column, end, partial, out):
    """Add columns column, ..., end - 1 of one row, or of four."""
    j = column
    while j + lanes(x) <= end:
        _add(x, wide, p, step, j, lanes(x), partial, out)
        j += lanes(x)
    if j < end:
        _add(x, wide, p, step, j, end - j, partial, out)


@device
def _wide_moments(x, wide, first, last, column, end, partial, out):
    """Sum columns column, ..., end - 1 of a block, in four walks through the quarters of its rows.

    Memory is fastest in its own order; four walks at once read and write the sums a quarter as often, and a processor
    still fetches ahead along each. The shift is the mean of rows from all over the block.
    """
    zero, heads, step = splat(x, 0.0), min(8, last - first), (last - first) // 4 * wide
    part, apart = splat(x, 1.0) / splat(x, heads), (last - first) // heads * wide
    for j in range(column, end, lanes(x)):
        n = end - j
        total = get(x, first * wide + j, n)
        for head in range(1, heads):
            total = total + get(x, first * wide + head * apart + j, n)
        put(partial, out + j, splat(x, last - first), n)
        put(partial, out + wide + j, total * part, n)
        put(partial, out + 2 * wide + j, zero, n)
        put(partial, out + 3 * wide + j, zero, n)
    out += wide
    for p in range(first * wide, first * wide + step, wide):
        _add_row(x, wide, p, step, column, end, partial, out)
    for p in range(first * wide + 4 * step, last * wide, wide):
        _add_row(x, wide, p, 0, column, end, partial, out)


@kernel
def moments(task: Index, ints: I64, x: T, partial: T):
    """partial[t] = (count, s, sum of x - s, sum of (x - s)^2) of block t, for each column."""
    elements, wide, block_rows, tile, tiles = integers(ints, 5)
    t, column = task // tiles, task % tiles * tile
    full = elements // wide
    first, last, out = t * block_rows, min(full, (t + 1) * block_rows), t * 4 * wide
    if wide > 4 * lanes(x):
        _wide_moments(x, wide, first, last, column, min(wide, column + tile), partial, out)
    else:
        rest = elements - full * wide if (t + 1) * block_rows > full else 0  # the last row may be cut short
        _narrow_moments(x, wide, first, last, rest, partial, out)


@kernel
def statistics(
    task: Index, ints: I64, partial: T, weight: T, bias: T, running_mean: T, running_var: T, numbers: F64, mean: T,
    inverse: T, coefficients: T,
):  # fmt: skip
    """Merge the blocks for a span of channels; update the running statistics; prepare `normalize`.

    With no blocks the statistics are the running ones. The coefficients are written side by side, once for each of
    `repeats` samples of a widened row.
    """
    samples, wide, channels, blocks = integers(ints, 4)
    has_weight, has_bias, has_mean, has_var, span, repeats = integers(offset(ints, 4), 6)
    copies = wide // channels
    eps, momentum = numbers[0], numbers[1]
    zero = convert(splat(partial, 0.0), numbers)
    for c in range(task * span, min(channels, (task + 1) * span), lanes(partial)):
        n = channels - c
        if blocks == 0:
            centre = convert(load_tail(running_mean, c, n), numbers)
            variance = convert(load_tail(running_var, c, n), numbers)
        else:
            total = zero
            for t in range(blocks):
                for copy in range(copies):
                    p = t * 4 * wide + copy * channels + c
                    count = convert(get(partial, p, n), numbers)
                    s = convert(get(partial, p + wide, n), numbers)
                    total = fma(count, s, total) + convert(get(partial, p + 2 * wide, n), numbers)
            centre = total / splat_as(zero, samples)
            squares = zero
            for t in range(blocks):
                for copy in range(copies):
                    p = t * 4 * wide + copy * channels + c
                    count = convert(get(partial, p, n), numbers)
                    s = convert(get(partial, p + wide, n), numbers)
                    e = convert(get(partial, p + 2 * wide, n), numbers)
                    q = convert(get(partial, p + 3 * wide, n), numbers)
                    apart = e / maximum(count, splat_as(zero, 1.0))  # from s to the mean of the block
                    within = maximum(q - e * apart, zero)
                    between = (s - centre) + apart
                    squares = squares + fma(count * between, between, within)
            variance = squares / splat_as(zero, samples)
            keep, take = splat_as(zero, 1.0 - momentum), splat_as(zero, momentum)
            if has_mean != 0:
                former = convert(load_tail(running_mean, c, n), numbers)
                store_tail(running_mean, c, convert(fma(keep, former, take * centre), running_mean), n)
            if has_var != 0:
                former = convert(load_tail(running_var, c, n), numbers)
                unbiased = squares / splat_as(zero, max(1, samples - 1))
                store_tail(running_var, c, convert(fma(keep, former, take * unbiased), running_var), n)
        deviation = splat_as(zero, 1.0) / sqrt(variance + splat_as(zero, eps))
        scale, shift = deviation, zero
        if has_weight != 0:
            scale = scale * convert(load_tail(weight, c, n), numbers)
        if has_bias != 0:
            shift = convert(load_tail(bias, c, n), numbers)
        rounded = convert(centre, mean)
        # What rounding the mean takes from x - mean goes into the shift.
        shift = shift - (centre - convert(rounded, numbers)) * scale
        store_tail(mean, c, rounded, n)
        store_tail(inverse, c, convert(deviation, mean), n)
        for copy in range(repeats):
            p = copy * channels + c
            store_tail(coefficients, p, rounded, n)
            store_tail(coefficients, p + repeats * channels, convert(scale, mean), n)
            store_tail(coefficients, p + 2 * repeats * channels, convert(shift, mean), n)


class _Plan(NamedTuple):
    """Tasks and integers of the two kernels of the statistics."""

    blocks: int
    sums: np.ndarray
    spans: int
    merge: np.ndarray


@lru_cache(maxsize=1024)
def _plan(problem: Any, repeats: int, parts: int | None, *given: bool) -> _Plan:
    """Cut a problem; `parts` is the number of partial sums that a convolution has taken."""
    channels, elements = problem.channels, problem.rows * problem.channels
    wide, block_rows, tile, blocks, tiles = cut(problem.rows, channels, problem.dtype)
    sums = (elements, wide, block_rows, tile, tiles)
    if parts is not None:
        wide, blocks, tiles = channels, parts, 0
    blocks = blocks if problem.training else 0
    span = merge_span(blocks * wide // channels if channels else 0, problem.dtype)
    merge = (problem.rows, wide, channels, blocks, *given, span, repeats)
    return _Plan(blocks * tiles, block_of(sums), -(-channels // span), block_of(merge))


def _statistics(
    problem: Any, inputs: Arrays, mean: Any, inverse: Any, coefficients: Any, partial: Any, parts: Any = None
) -> None:
    """Work out the coefficients; `parts` holds the partial sums where a convolution has taken them."""
    x, weight, bias, running_mean, running_var, numbers = inputs
    dtype, vectors = problem.dtype, (weight, bias, running_mean, running_var)
    repeats = coefficients.size // (3 * problem.channels)
    plan = _plan(problem, repeats, None if parts is None else len(parts), *[a is not None for a in vectors])
    if parts is not None:
        partial = parts
    elif problem.training:
        launch(moments, plan.blocks, (x, partial), plan.sums, dtype)
    arrays = (partial, *[mean if a is None else a for a in vectors], numbers, mean, inverse, coefficients)
    launch(statistics, plan.spans, arrays, plan.merge, dtype)


def _run_forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    given, residual, *parts = inputs[:6], *inputs[6:]
    y, mean, inverse = outputs
    wide, *_ = cut(problem.rows, problem.channels, problem.dtype)
    scratch = workspace.view(problem.dtype)
    coefficients = scratch[: 3 * wide]
    _statistics(problem, given, mean, inverse, coefficients, scratch[3 * wide :], *parts)
    apply(problem, inputs[0], coefficients, residual, y)


def _run_statistics(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    mean, inverse, coefficients = outputs
    _statistics(problem, inputs, mean, inverse, coefficients, workspace.view(problem.dtype))


def _run_apply(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    apply(problem, *inputs, outputs[0])


def _widened(problem: Any, coefficients: np.ndarray) -> np.ndarray:
    """Return the coefficients for each column of a widened row."""
    wide, *_ = cut(problem.rows, problem.channels, problem.dtype)
    if wide == problem.channels:
        return coefficients
    found = memory.empty((3, wide), problem.dtype)
    launch(repeat, 1, (coefficients, found), (problem.channels, wide, 3), problem.dtype)
    return found


def _bytes(problem: Any) -> int:
    """Return the size of the coefficients of widened rows and of the blocks' partial results."""
    wide, _, _, blocks, _ = cut(problem.rows, problem.channels, problem.dtype)
    return max(1, wide * (6 + (4 * blocks if problem.training else 0))) * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("batch_norm", "forward"): [Candidate("cpu.rows", _run_forward, workspace_bytes=_bytes)],
    ("batch_norm", "statistics"): [Candidate("cpu.rows", _run_statistics, workspace_bytes=_bytes)],
    ("batch_norm", "apply"): [
        Candidate("cpu.rows", _run_apply, prepare=_widened, form=lambda p: (p.channels, p.dtype))
    ],
}
