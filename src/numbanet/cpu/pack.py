"""Packed weights: panels of a few vectors of columns, one row a (tap, channel), as register tiles read them.

The panels of a group follow each other, and all are about as wide: a tile of one vector loads a number for each
multiply-add. Lanes beyond the last column hold zeros.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from numbanet import memory
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.rows import copy_columns
from numbanet.cpu.simd import integers, lanes, numpy_lanes
from numbanet.cpu.tile import MAX_VECTORS
from numbanet.cpu.transpose import transpose_block

_TOGETHER = 8  # panels of which a task packs
_ROWS = 32  # rows: a page each, which the processor finds again for the next panel


@device
def first_vector(panel, vectors, panels):
    """Return the first vector of a panel."""
    return panel * (vectors // panels) + min(panel, vectors % panels)


@kernel
def pack_columns(task: Index, ints: I64, weight: T, taps: I64, packed: T):
    """Pack panels whose lanes are rows of the weight (K, all taps, C): what forward needs. One task a panel and tap."""
    kg, c, all_taps, count, panels = integers(ints, 5)
    panel, tap = task // count, task % count
    vectors = (kg + lanes(weight) - 1) // lanes(weight)
    group, first = panel // panels, first_vector(panel % panels, vectors, panels) * lanes(weight)
    width = first_vector(panel % panels + 1, vectors, panels) - first // lanes(weight)
    padded, pitch = vectors * lanes(weight), width * lanes(weight)
    out = group * count * c * padded + first * count * c + tap * c * pitch
    for j in range(width):
        row = first + j * lanes(weight)
        start = ((group * kg + row) * all_taps + taps[3 * tap + 2]) * c
        for column in range(0, c, lanes(weight)):
            transpose_block(
                weight, start + column, all_taps * c, kg - row, c - column,
                packed, out + column * pitch + j * lanes(weight), pitch,
            )  # fmt: skip


@kernel
def pack_rows(task: Index, ints: I64, weight: T, taps: I64, packed: T):
    """Pack panels whose lanes are columns of the weight (K, all taps, C): what backward_input needs.

    A task packs a few rows of a few panels, which share cache lines and pages.
    """
    kg, c, all_taps, count, panels, parts, chunks = integers(ints, 7)
    first_k, rest = task % chunks * _ROWS, task // chunks
    tap, rest = rest % count, rest // count
    part, group = rest % parts, rest // parts
    rows = min(_ROWS, kg - first_k)
    vectors = (c + lanes(weight) - 1) // lanes(weight)
    row = ((group * kg + first_k) * all_taps + taps[3 * tap + 2]) * c
    for panel in range(part * _TOGETHER, min(panels, (part + 1) * _TOGETHER)):
        first = first_vector(panel, vectors, panels) * lanes(weight)
        pitch = first_vector(panel + 1, vectors, panels) * lanes(weight) - first
        out = (group * vectors * lanes(weight) + first) * count * kg + (tap * kg + first_k) * pitch
        copy_columns(weight, row + first, all_taps * c, min(pitch, c - first), packed, out, pitch, rows)


def panel_count(columns: int, dtype: str) -> int:
    """Return the number of panels that hold so many columns."""
    return -(-columns // (MAX_VECTORS * numpy_lanes(dtype)))


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...], taps: int, groups: int, all_taps: int, transposed: bool, dtype: str
) -> tuple[int, int, np.ndarray]:
    """Return the size of the packed weight, the number of tasks and the block of integers."""
    kg, c = shape[0] // groups, math.prod(shape) // (shape[0] * all_taps)
    columns, reduction = (c, kg) if transposed else (kg, c)
    lanes_, panels = numpy_lanes(dtype), panel_count(columns, dtype)
    size = groups * taps * reduction * (-(-columns // lanes_) * lanes_)
    parts, chunks = (-(-panels // _TOGETHER), -(-kg // _ROWS)) if transposed else (panels, 1)
    return size, groups * parts * taps * chunks, block_of((kg, c, all_taps, taps, panels, parts, chunks))


def pack(weight: np.ndarray, taps: np.ndarray, groups: int, all_taps: int, transposed: bool, dtype: str) -> np.ndarray:
    """Return the packed panels of a weight.

    Parameters
    ----------
    weight : numpy.ndarray
        Shape (groups * K, all_taps, C) in memory.
    taps : numpy.ndarray
        Shape (count, 3), int64: the third number of each row is the tap's index in the weight.
    groups, all_taps : int
    transposed : bool
        False: columns are the K of a group and the reduction runs over C; True: the other way round.
    dtype : str

    Returns
    -------
    numpy.ndarray
        groups * count * reduction * (columns rounded up to whole vectors) numbers.
    """
    size, tasks, numbers = _plan(weight.shape, len(taps), groups, all_taps, transposed, dtype)
    packed = memory.empty((size,), dtype)
    launch(pack_rows if transposed else pack_columns, tasks, (weight, taps, packed), numbers, dtype)
    return packed
