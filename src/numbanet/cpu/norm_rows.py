"""Batch normalisation: the matrix of samples by channels, how it is cut into blocks, and its rows in registers."""

from __future__ import annotations

from functools import lru_cache

from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.simd import integers, lanes, load, load_tail, numpy_lanes, store_tail

_BLOCK = 1 << 13  # elements of a block at least, if it is not short of rows,
_LONG_BLOCK = 1 << 15  # where several walks go through it, each of which adds a part of its rows
_BLOCK_ROWS = 64  # rows of a block at least
_TILE = 1024  # columns of a block at most
SPAN = 512  # columns that rows are normalised in, where they are wide: a cache holds the numbers of so many channels
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


@kernel
def repeat(task: Index, ints: I64, given: T, out: T):
    """Write each row of numbers, one a channel, side by side: once for each sample of a widened row."""
    channels, wide, rows = integers(ints, 3)
    for row in range(rows):
        for p in range(0, wide, channels):
            for c in range(0, channels, lanes(given)):
                n = channels - c
                store_tail(out, row * wide + p + c, load_tail(given, row * channels + c, n), n)


@lru_cache(maxsize=1024)
def cut(rows: int, channels: int, dtype: str) -> tuple[int, int, int, int, int]:
    """Return the columns of a widened row, rows and columns of a block, and the number of blocks down and across."""
    vectors = 4 * numpy_lanes(dtype)
    wide = channels * max(1, vectors // max(1, channels))
    tile = min(wide, _TILE) or 1
    block_rows = max(_BLOCK_ROWS, (_LONG_BLOCK if wide > vectors else _BLOCK) // tile)
    blocks = -(-rows * channels // (wide * block_rows)) if rows * channels else 0
    return wide, block_rows, tile, blocks, -(-wide // tile)


def merge_span(parts: int, dtype: str) -> int:
    """Return for how many channels, in whole vectors, one task merges that many partial results."""
    return numpy_lanes(dtype) * max(1, _MERGE // max(1, parts))


def chunk_rows(wide: int, elements: int) -> int:
    """Return how many rows a task of an elementwise pass takes."""
    return max(1, (_CHUNK if elements > _SERIAL else _SERIAL) // max(1, wide))
