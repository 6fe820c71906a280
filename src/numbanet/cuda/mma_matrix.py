"""Loaders of matrices for `numbanet.cuda.mma_tile`, and for what multiplies in its place."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda import mma_tile
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import types

i32, i64 = types.int32, types.int64


@lru_cache(maxsize=16)
def loader(engine: mma_tile.Engine, name: str, across: bool) -> Any:
    """Make the loader of a matrix whose rows are whole chunks.

    Its operand is ``(matrix, start, first, step, depth, places)``: the index (64 bits) of place 0 at element 0 of the
    reduction, this block's first place, the distance of two places (of two elements of the reduction, where the matrix
    lies `across`), and how many elements and places there are.
    """
    pieces = engine.pieces(mma_tile.KINDS[name], across)
    count, depth_slice, where, bring = pieces.count, pieces.depth, pieces.where, pieces.bring

    @device
    def copy_along(operand, number, target):
        matrix, start, first, step, depth, places = operand
        for i in range(count):
            place, line = where(i)
            k, row = i32(number * depth_slice + line), i32(first + place)
            bring(target, i, matrix, start + i64(row) * step + k, k < depth and row < places)

    @device
    def copy_across(operand, number, target):
        matrix, start, first, step, depth, places = operand
        for i in range(count):
            place, line = where(i)
            k, column = i32(number * depth_slice + line), i32(first + place)
            bring(target, i, matrix, start + i64(k) * step + column, k < depth and column < places)

    return copy_across if across else copy_along
