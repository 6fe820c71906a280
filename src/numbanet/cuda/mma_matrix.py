"""Loaders of matrices for `numbanet.cuda.mma_tile`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba.cuda import types

from numbanet.cuda import mma_tile, ptx
from numbanet.cuda.compile import device

i32, i64 = types.int32, types.int64


@lru_cache(maxsize=8)
def loader(name: str, across: bool) -> Any:
    """Make the loader of a matrix whose rows are whole chunks.

    Its operand is ``(matrix, start, first, step, depth, places)``: the index (64 bits) of place 0 at element 0 of the
    reduction, this block's first place, the distance of two places (of two elements of the reduction, where the matrix
    lies `across`), and how many elements and places there are.
    """
    kind = mma_tile.KINDS[name]
    where, offset = mma_tile.brought(kind, across), mma_tile.placed(kind, across)
    depth_slice = kind.depth

    @device
    def copy_along(operand, number, address):
        matrix, start, first, step, depth, places = operand
        for i in range(2):
            place, line = where(i)
            k, row = i32(number * depth_slice + line), i32(first + place)
            count = i32(16) if k < depth and row < places else i32(0)
            ptx.copy_async16(i32(address + offset(place, line)), matrix, start + i64(row) * step + k, count)

    @device
    def copy_across(operand, number, address):
        matrix, start, first, step, depth, places = operand
        for i in range(2):
            place, line = where(i)
            k, column = i32(number * depth_slice + line), i32(first + place)
            count = i32(16) if k < depth and column < places else i32(0)
            ptx.copy_async16(i32(address + offset(place, line)), matrix, start + i64(k) * step + column, count)

    return copy_across if across else copy_along
