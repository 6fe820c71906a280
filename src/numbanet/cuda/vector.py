"""What kernels share that read and write memory 16 bytes at a time: widths, grids, and reasons to refuse."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cuda import ptx
from numbanet.cuda.compile import FLOATS, device
from numbanet.cuda.launch import aligned
from numbanet.cuda.ptx import types

THREADS = 256  # of a block that needs no other number
MOST = 2**31 - 1  # offsets are 32 bits wide
i32 = types.int32


def real(dtype: str) -> Any:
    """Return the Numba type of a dtype; called with a number it makes a constant of that type."""
    return getattr(types, FLOATS[dtype])


def lanes(dtype: str) -> int:
    """Return how many numbers 16 bytes hold."""
    return 16 // np.dtype(FLOATS[dtype]).itemsize


def width(dtype: str, row: int, *arrays: Any) -> int:
    """Return how many numbers an access takes: 16 bytes where rows of `row` numbers, and the arrays, begin so."""
    return lanes(dtype) if row % lanes(dtype) == 0 and aligned(*arrays) else 1


def blocks(work: int, threads: int = THREADS) -> int:
    """Return the number of blocks that have a thread for each piece of work."""
    return -(-work // threads)


def too_large(*sizes: int) -> str | None:
    """Return the reason to refuse operands of so many elements, if there is one."""
    return None if max(sizes, default=0) <= MOST else f"an operand has more than {MOST} elements"


def shape_too_large(*shapes: tuple[int, ...]) -> str | None:
    """Return the reason to refuse operands of these shapes, if there is one."""
    return too_large(*map(math.prod, shapes))


@device
def pixel_of(item, vectors, width, height):
    """Return the image, the row, the column and the vector of channels that a thread of channels-last images takes."""
    pixel = i32(item // vectors)
    line = i32(pixel // width)
    n = i32(line // height)
    return n, i32(line - n * height), i32(pixel - line * width), i32(item - pixel * vectors)


@lru_cache(maxsize=8)
def accesses(width: int) -> tuple[Any, Any]:
    """Return ``get(x, i, out)`` and ``put(y, i, values)``, which move `width` (1, 2 or 4) neighbouring numbers."""
    if width == 4:

        @device
        def get(x, i, out):
            out[0], out[1], out[2], out[3] = ptx.load4(x, i)

        @device
        def put(y, i, values):
            ptx.store4(y, i, (values[0], values[1], values[2], values[3]))

    elif width == 2:

        @device
        def get(x, i, out):
            out[0], out[1] = ptx.load2(x, i)

        @device
        def put(y, i, values):
            ptx.store2(y, i, (values[0], values[1]))

    else:

        @device
        def get(x, i, out):
            out[0] = x[i]

        @device
        def put(y, i, values):
            y[i] = values[0]

    return get, put


@lru_cache(maxsize=8)
def partial_accesses(width: int) -> tuple[Any, Any]:
    """Return ``get(x, i, left, out)`` and ``put(y, i, left, values)``: as `accesses`, for the end of memory as well.

    Where fewer than `width` numbers are left, only those are touched.
    """
    whole_get, whole_put = accesses(width)
    if width == 1:

        @device
        def get(x, i, left, out):
            whole_get(x, i, out)

        @device
        def put(y, i, left, values):
            whole_put(y, i, values)

    else:

        @device
        def get(x, i, left, out):
            if left >= width:
                whole_get(x, i, out)
            else:
                for lane in range(width):
                    out[lane] = x[i32(i + min(lane, left - 1))]

        @device
        def put(y, i, left, values):
            if left >= width:
                whole_put(y, i, values)
            else:
                for lane in range(width):
                    if lane < left:
                        y[i32(i + lane)] = values[lane]

    return get, put
