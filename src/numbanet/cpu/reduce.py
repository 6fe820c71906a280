"""Sums over one dimension of dense memory, at the speed of memory.

Few numbers a sum are added at once. Many are cut into blocks, each of which adds its rows, in the order of memory, to a
row of partial sums; then the partial sums are added. Narrow rows are taken several at a time as one row that fills
eight registers, whose columns the second step adds up. A few rows at a time are added in the input's dtype, and their
sum goes to float64: more would lose digits where the numbers are all alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    anywhere,
    convert,
    integers,
    lanes,
    load,
    load_as,
    load_tail,
    numpy_lanes,
    reduce_add,
    splat,
    splat_as,
    store,
    store_tail,
)
from numbanet.cpu.tile import stack_buffer
from numbanet.problem.base import doubles

_TILE = 2048  # columns of a block at most
_STRIP = 256  # of a strip that is added without blocks
_BLOCK = 1 << 15  # elements of a block of narrow rows, or of a task
_LONG_BLOCK = 1 << 16  # of a block of wider rows at most: four walks through it
_RUN = 32  # vectors of a widened row of a block at most, where it does not fit the registers
_EXACT_ROWS = 8  # that are added in the input's dtype before their sum goes to float64
_DIRECT = 128  # rows that are added without blocks
_REPAIR = 1 << 10  # results that a task looks at


@device
def _four(x, p, step):
    """Add the vectors at p and at three steps from there."""
    return (load(x, p) + load(x, p + step)) + (load(x, p + 2 * step) + load(x, p + 3 * step))


@device
def _one_row(x, i, end, scale):
    """Return the sum of the elements from i to the end, each of them in float64."""
    total = convert(splat(x, 0.0), scale)
    while i + lanes(x) <= end:
        total = total + convert(load(x, i), scale)
        i += lanes(x)
    if i < end:
        total = total + convert(load_tail(x, i, end - i), scale)
    return reduce_add(total)


@kernel
def rows(task: Index, ints: I64, x: T, scale: F64, out: T):
    """out[a] = scale * sum of x[a, :]."""
    outer, reduced, chunk = integers(ints, 3)
    w = lanes(x)
    for a in range(task * chunk, min(outer, (task + 1) * chunk)):
        i, end = a * reduced, (a + 1) * reduced
        first = convert(splat(x, 0.0), scale)
        second = first
        while i + 8 * w <= end:  # two sums, neither of which waits for the other
            first = first + convert(_four(x, i, w), scale)
            second = second + convert(_four(x, i + 4 * w, w), scale)
            i += 8 * w
        total = reduce_add(first + second) + _one_row(x, i, end, scale)
        if total - total != 0.0:  # four of them may overflow where all of them do not
            total = _one_row(x, a * reduced, end, scale)
        out[a] = total * scale[0]


@device
def _four_tails(x, p, step, n):
    """Add the first n elements of these vectors."""
    first = load_tail(x, p, n) + load_tail(x, p + step, n)
    return first + (load_tail(x, p + 2 * step, n) + load_tail(x, p + 3 * step, n))


@device
def _settle(v, totals, o):
    """Add a vector of few numbers each to totals."""
    store(totals, o, load_as(totals, o, v) + convert(v, totals))


@device
def _add_rows(x, p, rows, pitch, n, totals):
    """Add n elements of each of some rows to totals: four rows at a time in the input's dtype.

    These lie a quarter of the rows apart. Processors fetch ahead along each of four such walks, and less well where
    they share pages: neighbours came at three quarters of the speed from the last cache, at half of it from memory.
    """
    w = lanes(x)
    whole, quarter = n // w * w, rows // 4
    for _ in range(quarter):
        for j in range(0, whole, w):
            _settle(_four(x, p + j, quarter * pitch), totals, j)
        if whole < n:
            _settle(_four_tails(x, p + whole, quarter * pitch, n - whole), totals, whole)
        p += pitch
    p += 3 * quarter * pitch
    for _ in range(rows - 4 * quarter):
        for j in range(0, whole, w):
            _settle(load(x, p + j), totals, j)
        if whole < n:
            _settle(load_tail(x, p + whole, n - whole), totals, whole)
        p += pitch


@device
def _each(x, p, rows, pitch, n, scale):
    """Add up to a vector of elements of each row, one by one in float64."""
    total = convert(splat(x, 0.0), scale)
    for _ in range(rows):
        total = total + convert(load_tail(x, p, n), scale)
        p += pitch
    return total


@kernel
def columns(task: Index, ints: I64, x: T, scale: F64, out: T):
    """out[a, t, :] = scale * the sum of block t of the rows of x[a], for a tile of the columns: some of these pieces.

    With `single`, a block is all of x[a], of which no row is cut short.
    """
    elements, wide, block_rows, count, tile, tiles, pieces, each, single = integers(ints, 9)
    w, totals, zero = lanes(x), stack_buffer(scale, _TILE), convert(splat(x, 0.0), scale)
    factor = splat_as(zero, scale[0])
    for piece in range(task * each, min(pieces, (task + 1) * each)):
        a, t, column = piece // (tiles * count), piece // tiles % count, piece % tiles * tile
        n, o = min(tile, wide - column), (a * count + t) * wide + column
        start, bound = a * elements + t * block_rows * wide + column, (a + 1) * elements
        size = min(elements, (t + 1) * block_rows * wide) - t * block_rows * wide
        rows = max(0, min(size + wide - 1, bound - n - start + wide) // wide)  # that are not cut short
        for j in range(0, n, w):
            store(totals, j, zero)
        _add_rows(x, start, rows, wide, n, totals)
        if rows * wide < size:
            p = start + rows * wide
            for j in range(0, bound - p, w):
                _settle(load_tail(x, p + j, bound - p - j), totals, j)
        for j in range(0, n, w):
            total = load_as(totals, j, zero)
            if single and anywhere(total - total != zero):  # four of them may overflow where all of them do not
                total = _each(x, start + j, rows, wide, n - j, scale)
            store_tail(out, o + j, convert(total * factor, out), n - j)


@kernel
def narrow_blocks(task: Index, ints: I64, x: T, scale: F64, partial: T):
    """partial[a, t, :] = the sum of block t of the rows of x[a]; a row of `wide` columns fits eight registers."""
    elements, wide, block_rows, count = integers(ints, 4)
    a, t = task // count, task % count
    first = t * block_rows * wide
    last = min(elements, first + block_rows * wide)
    p, end, out = a * elements + first, a * elements + last, task * wide
    w = lanes(x)
    zero = splat(x, 0.0)
    s0 = convert(zero, scale)
    s1, s2, s3, s4, s5, s6, s7 = s0, s0, s0, s0, s0, s0, s0
    while p < end:
        stop = min(end, p + _EXACT_ROWS * wide)
        v0, v1, v2, v3, v4, v5, v6, v7 = zero, zero, zero, zero, zero, zero, zero, zero
        if wide == 8 * w:
            while p + wide <= stop:
                v0, v1 = v0 + load(x, p), v1 + load(x, p + w)
                v2, v3 = v2 + load(x, p + 2 * w), v3 + load(x, p + 3 * w)
                v4, v5 = v4 + load(x, p + 4 * w), v5 + load(x, p + 5 * w)
                v6, v7 = v6 + load(x, p + 6 * w), v7 + load(x, p + 7 * w)
                p += wide
        while p < stop:
            n = min(wide, stop - p)  # the last row may be cut short
            v0, v1 = v0 + load_tail(x, p, n), v1 + load_tail(x, p + w, n - w)
            v2, v3 = v2 + load_tail(x, p + 2 * w, n - 2 * w), v3 + load_tail(x, p + 3 * w, n - 3 * w)
            v4, v5 = v4 + load_tail(x, p + 4 * w, n - 4 * w), v5 + load_tail(x, p + 5 * w, n - 5 * w)
            v6, v7 = v6 + load_tail(x, p + 6 * w, n - 6 * w), v7 + load_tail(x, p + 7 * w, n - 7 * w)
            p += wide
        s0, s1, s2, s3 = s0 + convert(v0, s0), s1 + convert(v1, s0), s2 + convert(v2, s0), s3 + convert(v3, s0)
        s4, s5, s6, s7 = s4 + convert(v4, s0), s5 + convert(v5, s0), s6 + convert(v6, s0), s7 + convert(v7, s0)
    store_tail(partial, out, convert(s0, partial), wide)
    store_tail(partial, out + w, convert(s1, partial), wide - w)
    store_tail(partial, out + 2 * w, convert(s2, partial), wide - 2 * w)
    store_tail(partial, out + 3 * w, convert(s3, partial), wide - 3 * w)
    store_tail(partial, out + 4 * w, convert(s4, partial), wide - 4 * w)
    store_tail(partial, out + 5 * w, convert(s5, partial), wide - 5 * w)
    store_tail(partial, out + 6 * w, convert(s6, partial), wide - 6 * w)
    store_tail(partial, out + 7 * w, convert(s7, partial), wide - 7 * w)


@kernel
def repair(task: Index, ints: I64, x: T, scale: F64, out: T):
    """Sum anew where blocks made no finite number: few rows may overflow where all of them, or their mean, do not."""
    outputs, reduced, inner = integers(ints, 3)
    for i in range(task * _REPAIR, min(outputs, (task + 1) * _REPAIR)):
        if out[i] - out[i] != 0.0:
            start, total = i // inner * reduced * inner + i % inner, 0.0
            for row in range(reduced):
                total += x[start + row * inner]
            out[i] = total * scale[0]


def _direct(x: np.ndarray, outer: int, reduced: int, inner: int, scale: float, out: np.ndarray, dtype: str) -> None:
    if inner == 1:
        chunk = max(1, _BLOCK // max(reduced, 1))
        launch(rows, -(-outer // chunk), (x, doubles(scale), out), (outer, reduced, chunk), dtype)
    else:
        tiles, each = -(-inner // _STRIP), max(1, _BLOCK // max(1, min(inner, _STRIP) * reduced))
        numbers = (reduced * inner, inner, reduced, 1, _STRIP, tiles, outer * tiles, each, True)
        launch(columns, -(-outer * tiles // each), (x, doubles(scale), out), numbers, dtype)


def sum_over(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """Solve a ReduceProblem."""
    x, out = inputs[0], outputs[0]
    outer, reduced, inner = problem.outer, problem.reduced, problem.inner
    if workspace is None:
        _direct(x, outer, reduced, inner, problem.scale, out, problem.dtype)
    else:
        _by_blocks(problem, x, out, workspace)
        numbers = (outer * inner, reduced, inner)
        launch(repair, -(-outer * inner // _REPAIR), (x, doubles(problem.scale), out), numbers, problem.dtype)


def _by_blocks(problem: Any, x: np.ndarray, out: np.ndarray, workspace: Any) -> None:
    outer, reduced, inner = problem.outer, problem.reduced, problem.inner
    wide, tile, block_rows, count = _cut(reduced, inner, numpy_lanes(problem.dtype))
    partial, numbers = workspace.view(problem.dtype), (reduced * inner, wide, block_rows, count)
    arrays = x, doubles(1.0), partial
    if tile == 0:
        launch(narrow_blocks, outer * count, arrays, numbers, problem.dtype)
    else:
        tiles = -(-wide // tile)
        pieces = outer * count * tiles
        launch(columns, pieces, arrays, (*numbers, tile, tiles, pieces, 1, False), problem.dtype)
    _direct(partial, outer, count * (wide // inner), inner, problem.scale, out, problem.dtype)


@lru_cache(maxsize=4096)
def _cut(reduced: int, inner: int, vector: int) -> tuple[int, int, int, int]:
    """Return the columns of a widened row, the columns (0: all) and rows of a block, and the number of blocks."""
    narrow = inner <= 8 * vector
    wide = inner * max(1, (8 if narrow else _RUN) * vector // inner)
    tile = 0 if narrow else min(wide, _TILE)
    rows = -(-reduced * inner // wide)
    count = -(-rows // ((_LONG_BLOCK if tile else _BLOCK) // (tile or wide)))
    return wide, tile, -(-rows // count), count


def sum_bytes(problem: Any) -> int:
    """Return the size of the workspace that `sum_over` needs."""
    limit = _BLOCK if problem.inner == 1 else _DIRECT
    if problem.reduced <= limit or not problem.outer * problem.inner:
        return 0
    wide, _, _, count = _cut(problem.reduced, problem.inner, numpy_lanes(problem.dtype))
    return problem.outer * wide * count * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("reduce", "forward"): [Candidate("cpu.vector", sum_over, workspace_bytes=sum_bytes)],
}
