"""One launch for many arrays: a table says which piece of which array each block takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.launch import addresses, aligned
from numbanet.cuda.vector import THREADS, i32, lanes, too_large

PIECE = 16 * THREADS  # elements of a block


@lru_cache(maxsize=256)
def pieces(sizes: tuple[int, ...]) -> np.ndarray:
    """Return (number of the array, first element, how many) of each piece, int32."""
    rows = [
        (number, first, min(PIECE, size - first))
        for number, size in enumerate(sizes)
        for first in range(0, size, PIECE)
    ]
    return np.array(rows, np.int32).reshape(-1, 3)


@lru_cache(maxsize=256)
def runs(sizes: tuple[int, ...]) -> np.ndarray:
    """Return where the pieces of each array begin, and where the last ones end, int32."""
    counts = [-(-size // PIECE) for size in sizes]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)


def table(columns: Sequence[Sequence[Any]]) -> Any:
    """Return the device table of the addresses, a row for each array of the first column."""
    return addresses([array for row in zip(*columns) for array in row])


def width_of(dtype: str, columns: Sequence[Sequence[Any]]) -> int:
    """Return how many numbers an access may take."""
    return lanes(dtype) if all(aligned(*arrays) for arrays in columns) else 1


def many_too_large(sizes: tuple[int, ...]) -> str | None:
    """Return the reason to refuse arrays of these sizes, if there is one."""
    return too_large(*sizes, 3 * sum(-(-size // PIECE) for size in sizes))


@device
def piece_of(plan, block):
    """Return the number of a block's array, the first of its elements, and how many there are."""
    return plan[i32(3 * block)], plan[i32(3 * block + 1)], plan[i32(3 * block + 2)]


@device
def array_of(like, addresses, row, columns, column):
    """Return the pointer to an array of the table, of the type of `like`."""
    return ptx.pointer_in(like, addresses, i32(row * columns + column))
