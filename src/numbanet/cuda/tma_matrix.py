"""Matrices as the copy engine brings them for `numbanet.cuda.tma_tile`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda.compile import device
from numbanet.cuda.mma_tile import KINDS, Kind
from numbanet.cuda.ptx import sm90a, types
from numbanet.cuda.tensor_map import ELEMENTS, LINE, Box
from numbanet.cuda.tma_tile import BLOCK, depth, element

_LINES = 64  # elements of the reduction in a block of an operand across
i32 = types.int32


@lru_cache(maxsize=1024)
def form(kind: Kind, count: int, lines: int, width: int, across: bool, places: int) -> Box:
    """Return the form of a stack of matrices.

    Parameters
    ----------
    kind : Kind
    count, lines, width : int
        Of the stack in memory.
    across : bool
        Lines are elements of the reduction, else they are places.
    places : int
        Of a slice.
    """
    size = ELEMENTS[element(kind)]
    line = width * size
    box = (LINE // size, _LINES if across else places, 1)
    return Box(element(kind), (width, lines, count), (line, line * lines), box)


@lru_cache(maxsize=16)
def bringer(name: str, across: bool, places: int) -> Any:
    """Make the bringer of a matrix: its operand is ``(map, first place, number of the matrix in its stack)``."""
    step, blocks, width = depth(KINDS[name]), places // _LINES, _LINES

    @device
    def along(operand, number, address, barrier):
        tensor, first, index = operand
        sm90a.copy_box(address, tensor, (i32(number * step), first, index), barrier)

    @device
    def lines(operand, number, address, barrier):
        tensor, first, index = operand
        for block in range(blocks):
            corner = i32(first + block * width), i32(number * step), index
            sm90a.copy_box(i32(address + block * BLOCK), tensor, corner, barrier)

    return lines if across else along
