"""Batch normalisation on channels-last memory: a matrix with a row a sample and a column a channel.

Statistics: a task walks a block of rows once and keeps, for each column, the sums of x - s and of (x - s)^2, where the
shift s is the mean of the block's first rows. As these rows belong to the block, its variance cannot be much smaller
than (mean - s)^2, so that nothing cancels. Blocks are merged in float64 in a fixed order (Chan, Golub and LeVeque,
"Algorithms for computing the sample variance", 1983).

Narrow rows are taken several at a time as one row of up to four vectors, whose per-channel numbers stay in registers.
"""

from __future__ import annotations

from functools import lru_cache
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
    maximum,
    numpy_lanes,
    offset,
    splat,
    splat_as,
    sqrt,
    store,
    store_tail,
)

_BLOCK = 1 << 13  # elements of a block at least, if it is not short of rows
_BLOCK_ROWS = 64  # rows of a block at least
_TILE = 1024  # columns of a block at most
_CHUNK = 1 << 14  # elements that a task normalises
_SERIAL = 1 << 16  # up to so many elements one task does all: waking threads would cost more
_MERGE = 256  # partial results, in vectors, that a task merges


@device
def four(x, p):
    """Load the four vectors from element p on."""
    w = lanes(x)
    return load(x, p), load(x, p + w), load(x, p + 2 * w), load(x, p + 3 * w)


@device
def four_tail(x, p, n):
    """Load n elements into four vectors."""
    w = lanes(x)
    first, second = load_tail(x, p, n), load_tail(x, p + w, n - w)
    return first, second, load_tail(x, p + 2 * w, n - 2 * w), load_tail(x, p + 3 * w, n - 3 * w)


@device
def put_four(y, p, n, v0, v1, v2, v3):
    """Store the first n elements of four vectors."""
    w = lanes(y)
    store_tail(y, p, v0, n)
    store_tail(y, p + w, v1, n - w)
    store_tail(y, p + 2 * w, v2, n - 2 * w)
    store_tail(y, p + 3 * w, v3, n - 3 * w)


@device
def touch(x, p, stride, rows, n):
    """Read n columns of some rows in the order of memory, so that a walk down the columns finds them in the cache."""
    total = splat(x, 0.0)
    for row in range(rows):
        j = p + row * stride
        end = j + n
        while j < end:
            total = total + load_tail(x, j, end - j)
            j += lanes(x)
    return total


@kernel
def moments(task: Index, ints: I64, x: T, partial: T):
    """partial[t] = (s, sum of x - s, sum of (x - s)^2) of block t, for each column."""
    elements, wide, block_rows, tile, tiles = integers(ints, 5)
    t, column = task // tiles, task % tiles * tile
    columns_end = min(wide, column + tile)
    full = elements // wide
    first, last = t * block_rows, min(full, (t + 1) * block_rows)
    rest = elements - full * wide if (t + 1) * block_rows > full else 0  # the last row may be cut short
    w = lanes(x)
    if wide > 4 * w:
        read = touch(x, first * wide + column, wide, last - first, columns_end - column)
        store_tail(partial, t * 3 * wide + column, read, 1)  # overwritten below: it only keeps the reading alive
    while column < columns_end:
        n = min(4 * w, columns_end - column)
        p, out = first * wide + column, t * 3 * wide + column
        stop = last * wide + column
        heads = min(8, last - first)
        if heads == 0:
            m0, m1, m2, m3 = four_tail(x, p, min(n, rest - column))
        else:
            m0, m1, m2, m3 = four_tail(x, p, n)
            for row in range(1, heads):
                a0, a1, a2, a3 = four_tail(x, p + row * wide, n)
                m0, m1, m2, m3 = m0 + a0, m1 + a1, m2 + a2, m3 + a3
            part = splat(x, 1.0) / splat(x, heads)
            m0, m1, m2, m3 = m0 * part, m1 * part, m2 * part, m3 * part
        put_four(partial, out, n, m0, m1, m2, m3)
        e0 = splat(x, 0.0)
        e1, e2, e3 = e0, e0, e0
        q0, q1, q2, q3 = e0, e0, e0, e0
        while p <= stop:
            if p < stop:
                if n == 4 * w:
                    a0, a1, a2, a3 = four(x, p)
                else:
                    a0, a1, a2, a3 = four_tail(x, p, n)
            else:
                left = min(n, rest - column)
                if left <= 0:
                    break
                a0, a1, a2, a3 = four_tail(x, p, left)
                m0, m1, m2, m3 = four_tail(partial, out, left)
            a0, a1, a2, a3 = a0 - m0, a1 - m1, a2 - m2, a3 - m3
            e0, e1, e2, e3 = e0 + a0, e1 + a1, e2 + a2, e3 + a3
            q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
            p += wide
        put_four(partial, out + wide, n, e0, e1, e2, e3)
        put_four(partial, out + 2 * wide, n, q0, q1, q2, q3)
        column += 4 * w


@device
def block_count(t, copy, elements, wide, channels, block_rows):
    """Return how many samples the columns of one copy of the channels have in block t."""
    full = elements // wide
    count = max(0, min(full, (t + 1) * block_rows) - t * block_rows)
    if (t + 1) * block_rows > full and copy * channels < elements - full * wide:
        count += 1
    return count


@kernel
def statistics(
    task: Index, ints: I64, partial: T, weight: T, bias: T, running_mean: T, running_var: T, numbers: F64, mean: T,
    inverse: T, coefficients: T,
):  # fmt: skip
    """Merge the blocks for a span of channels; update the running statistics; prepare `normalize`.

    With no blocks the statistics are the running ones.
    """
    elements, wide, channels, block_rows, blocks = integers(ints, 5)
    has_weight, has_bias, has_mean, has_var, span = integers(offset(ints, 5), 5)
    copies = wide // channels
    eps, momentum = numbers[0], numbers[1]
    zero = convert(splat(partial, 0.0), numbers)
    for c in range(task * span, min(channels, (task + 1) * span), lanes(partial)):
        n = channels - c
        if blocks == 0:
            centre = convert(load_tail(running_mean, c, n), numbers)
            variance = convert(load_tail(running_var, c, n), numbers)
        else:
            samples = elements // channels
            total = zero
            for t in range(blocks):
                for copy in range(copies):
                    count = block_count(t, copy, elements, wide, channels, block_rows)
                    if count > 0:
                        p = t * 3 * wide + copy * channels + c
                        s = convert(load_tail(partial, p, n), numbers)
                        total = fma(splat_as(zero, count), s, total) + convert(load_tail(partial, p + wide, n), numbers)
            centre = total / splat_as(zero, samples)
            squares = zero
            for t in range(blocks):
                for copy in range(copies):
                    count = block_count(t, copy, elements, wide, channels, block_rows)
                    if count > 0:
                        p = t * 3 * wide + copy * channels + c
                        s = convert(load_tail(partial, p, n), numbers)
                        e = convert(load_tail(partial, p + wide, n), numbers)
                        q = convert(load_tail(partial, p + 2 * wide, n), numbers)
                        apart = e * splat_as(zero, 1.0 / count)  # from s to the mean of the block
                        within = maximum(q - e * apart, zero)
                        between = (s - centre) + apart
                        squares = squares + fma(splat_as(zero, count) * between, between, within)
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
        for copy in range(copies):
            p = copy * channels + c
            store_tail(coefficients, p, rounded, n)
            store_tail(coefficients, p + wide, convert(scale, mean), n)
            store_tail(coefficients, p + 2 * wide, convert(shift, mean), n)


@kernel
def normalize(task: Index, ints: I64, x: T, coefficients: T, y: T):
    """y = (x - mean) * scale + shift, for a block of rows."""
    elements, wide, block_rows = integers(ints, 3)
    p = task * block_rows * wide
    end = min(elements, p + block_rows * wide)
    w = lanes(x)
    if wide <= 4 * w:
        m0, m1, m2, m3 = four_tail(coefficients, 0, wide)
        s0, s1, s2, s3 = four_tail(coefficients, wide, wide)
        b0, b1, b2, b3 = four_tail(coefficients, 2 * wide, wide)
        if wide == 4 * w:
            while p + wide <= end:
                a0, a1, a2, a3 = four(x, p)
                store(y, p, fma(a0 - m0, s0, b0))
                store(y, p + w, fma(a1 - m1, s1, b1))
                store(y, p + 2 * w, fma(a2 - m2, s2, b2))
                store(y, p + 3 * w, fma(a3 - m3, s3, b3))
                p += wide
        while p < end:
            n = min(wide, end - p)
            a0, a1, a2, a3 = four_tail(x, p, n)
            a0, a1, a2, a3 = fma(a0 - m0, s0, b0), fma(a1 - m1, s1, b1), fma(a2 - m2, s2, b2), fma(a3 - m3, s3, b3)
            put_four(y, p, n, a0, a1, a2, a3)
            p += wide
    while p < end:
        j = 0
        while j + w <= wide:
            a = load(x, p + j) - load(coefficients, j)
            store(y, p + j, fma(a, load(coefficients, wide + j), load(coefficients, 2 * wide + j)))
            j += w
        if j < wide:
            n = wide - j
            a = load_tail(x, p + j, n) - load_tail(coefficients, j, n)
            a = fma(a, load_tail(coefficients, wide + j, n), load_tail(coefficients, 2 * wide + j, n))
            store_tail(y, p + j, a, n)
        p += wide


@lru_cache(maxsize=1024)
def cut(rows: int, channels: int, dtype: str) -> tuple[int, int, int, int, int]:
    """Return the columns of a widened row, rows and columns of a block, and the number of blocks down and across."""
    vectors = 4 * numpy_lanes(dtype)
    wide = channels * max(1, vectors // max(1, channels))
    tile = min(wide, _TILE) or 1
    block_rows = max(_BLOCK_ROWS, _BLOCK // tile)
    blocks = -(-rows * channels // (wide * block_rows)) if rows * channels else 0
    return wide, block_rows, tile, blocks, -(-wide // tile)


def merge_span(parts: int, dtype: str) -> int:
    """Return for how many channels, in whole vectors, one task merges that many partial results."""
    return numpy_lanes(dtype) * max(1, _MERGE // max(1, parts))


def chunk_rows(wide: int, elements: int) -> int:
    """Return how many rows a task of an elementwise pass takes."""
    return max(1, (_CHUNK if elements > _SERIAL else _SERIAL) // max(1, wide))


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, running_mean, running_var, numbers = inputs
    y, mean, inverse = outputs
    dtype, channels = problem.dtype, problem.channels
    elements = problem.rows * channels
    wide, block_rows, tile, blocks, tiles = cut(problem.rows, channels, dtype)
    scratch = workspace.view(dtype)
    coefficients = scratch[: 3 * wide]
    partial = scratch[3 * wide :] if problem.training else scratch
    if problem.training:
        launch(moments, blocks * tiles, (x, partial), (elements, wide, block_rows, tile, tiles), dtype)
    given = [a is not None for a in (weight, bias, running_mean, running_var)]
    weight, bias, running_mean, running_var = (
        mean if a is None else a for a in (weight, bias, running_mean, running_var)
    )
    blocks = blocks if problem.training else 0
    span = merge_span(blocks * wide // channels if channels else 0, dtype)
    launch(
        statistics,
        -(-channels // span),
        (partial, weight, bias, running_mean, running_var, numbers, mean, inverse, coefficients),
        (elements, wide, channels, block_rows, blocks, *given, span),
        dtype,
    )
    rows = chunk_rows(wide, elements)
    tasks = -(-elements // (rows * wide)) if elements else 0
    launch(normalize, tasks, (x, coefficients, y), (elements, wide, rows), dtype)


def _forward_bytes(problem: Any) -> int:
    wide, _, _, blocks, _ = cut(problem.rows, problem.channels, problem.dtype)
    return max(1, 3 * wide * (1 + (blocks if problem.training else 0))) * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("batch_norm", "forward"): [Candidate("cpu.rows", _forward, workspace_bytes=_forward_bytes)],
}
