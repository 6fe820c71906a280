"""How Winograd's convolution is cut into blocks of tiles, panels of columns and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.conv_moments import Order, Share, in_tiles
from numbanet.cpu.simd import numpy_lanes
from numbanet.cpu.tile import MAX_VECTORS, epilogue_flags
from numbanet.cpu.winograd_form import Form
from numbanet.cpu.winograd_tile import CHANNEL_PITCH, SPARE_ROWS
from numbanet.problem.conv import ConvProblem

_TASKS = 16  # as many tasks at least, where the blocks of tiles allow it,
_FEW_TASKS = 4  # and so many by cutting panels too, each of which transforms the input again
# Tiles of a block: the fewest and the most. Every block goes through the whole transformed weight, so one that no cache
# near the core holds (bytes, up to which a line counts) asks for larger blocks.
_BLOCK_TILES = ((caches().second, 24, 32), (4 * caches().second, 32, 48), (1 << 62, 48, 64))
_LEAST_WIDTH = 2  # vectors of a panel; few tiles have narrow panels, to make more tasks
_FEWEST = 64  # up to so many tiles are one block, whose input is transformed ahead


class Shape(NamedTuple):
    """What kernels read of a problem; the integers of a launch begin with it."""

    h: int  # rows, columns and channels of the source,
    w: int
    c: int
    p: int  # and of the result
    q: int
    k: int
    top: int  # padding of the source,
    left: int
    out_top: int  # and of the result
    out_left: int
    tiles_h: int
    tiles_w: int
    forward: int  # whether it is no gradient


class Cut(NamedTuple):
    """What kernels read of how it is cut; it follows the shape."""

    units: int  # pairs of tiles,
    blocks: int  # and blocks of these
    channel_blocks: int
    in_step: int  # numbers from a point of the transformed input to the next,
    tiles: int
    panels: int  # of columns
    out_step: int  # and of the products
    tile_parts: int  # tasks are so many parts of the blocks,
    panel_parts: int  # times so many of the panels
    inputs_ahead: int
    weights_ahead: int
    flags: int
    work_size: int
    pieces: int  # tasks for each block of channels that transform the input ahead


CUT = len(Shape._fields)  # where the cut begins,
AFTER = CUT + len(Cut._fields)  # and what a launch adds


@dataclass(frozen=True)
class Plan:
    """How a problem is cut.

    Attributes
    ----------
    inputs_ahead : bool
        Whether the input is transformed ahead.
    weights_ahead : bool
        Whether the weights are: instead of the input, or because they are prepared.
    input_tasks, input_size, weight_tasks, weight_size : int
        Tasks of the launches that do so, and the numbers that they write.
    tasks, work_size : int
        Tasks of the products, and the numbers in the work buffer of each.
    integers : tuple of int
        What all kernels read.
    """

    inputs_ahead: bool
    weights_ahead: bool
    input_tasks: int
    input_size: int
    weight_tasks: int
    weight_size: int
    tasks: int
    work_size: int
    integers: tuple[int, ...]


def shape_of(f: Form, p: ConvProblem) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int, int]]:
    """Return (height, width, channels) of source and result, and the padding of both, above and to the left."""
    top, left = p.pads[0], p.pads[2]
    if p.which == "forward":
        return (p.h, p.w, p.c), (p.p, p.q, p.k), (top, left, 0, 0)
    if f.stride == 1:
        return (p.p, p.q, p.k), (p.h, p.w, p.c), (p.r - 1 - top, p.s - 1 - left, 0, 0)
    before = f.span - f.tile  # pixels of the source before those of an output tile
    return (p.p, p.q, p.k), (p.h, p.w, p.c), (before, before, top, left)


def tiles_of(f: Form, p: ConvProblem) -> tuple[int, int, int]:
    """Return the tiles of a column, of a row, and in all; of a gradient of the input, those of one phase."""
    _, (height, width, _), _ = shape_of(f, p)
    apart = f.tile if p.which == "forward" else f.tile * f.stride
    tiles_h, tiles_w = -(-height // apart), -(-width // apart)
    return tiles_h, tiles_w, p.n * tiles_h * tiles_w


def _odd_lines(count: int, dtype: str) -> int:
    """Round up to an odd number of vectors: the points of a tile must not fall into the same cache sets."""
    size = numpy_lanes(dtype)
    return (-(-count // size) | 1) * size


@lru_cache(maxsize=1024)
def plan_of(f: Form, p: ConvProblem) -> Plan:
    """Cut a problem. Tiles are counted in pairs: register tiles hold an even number of them."""
    source, result, pads = shape_of(f, p)
    tiles_h, tiles_w, tiles = tiles_of(f, p)
    vector = numpy_lanes(p.dtype)
    c, k, units = source[2], result[2], -(-tiles // 2)
    vectors, columns = -(-c // vector), -(-k // vector)
    channel_blocks = -(-vectors * vector // CHANNEL_PITCH)
    inputs_ahead = tiles <= _FEWEST
    panels = -(-columns // MAX_VECTORS)
    outputs = 1 if p.which == "forward" else f.phase_count
    if inputs_ahead:
        blocks = 1
        panels = min(-(-columns // _LEAST_WIDTH), max(panels, 8))
        tile_parts, panel_parts = 1, outputs * panels
    else:
        weight_bytes = f.phase_count * f.points * c * columns * vector * np.dtype(p.dtype).itemsize
        fewest, most_tiles = next(line[1:] for line in _BLOCK_TILES if weight_bytes <= line[0])
        # The tiles of several phases are larger.
        fewest, most_tiles = (fewest, most_tiles) if f.phase_count == 1 else (fewest // 2, most_tiles // 2)
        tile_parts = max(1, min(_TASKS, tiles // fewest))
        panel_parts = min(outputs * panels, -(-_FEW_TASKS // tile_parts))
        blocks = tile_parts * -(-units // (tile_parts * most_tiles // 2))
        tile_parts = blocks
    most = 2 * -(-units // blocks)
    in_step = _odd_lines((most + SPARE_ROWS) * CHANNEL_PITCH, p.dtype)
    out_step = _odd_lines((most + SPARE_ROWS) * MAX_VECTORS * vector, p.dtype)
    block_size = f.phase_count * channel_blocks * f.points * in_step
    pieces = max(1, min(4, tiles // 8))
    weights_ahead = p.prepared or not inputs_ahead
    weight_size = f.phase_count * f.points * vector * (c * columns + panels * channel_blocks)
    own = f.points * (CHANNEL_PITCH * MAX_VECTORS + 1) * vector if inputs_ahead else block_size
    work_size = f.points * out_step + own
    shape = Shape(*source, *result, *pads, tiles_h, tiles_w, int(p.which == "forward"))
    cut = Cut(
        units, blocks, channel_blocks, in_step, tiles, panels, out_step, tile_parts, panel_parts, int(inputs_ahead),
        int(weights_ahead), epilogue_flags(p.epilogue), work_size, pieces,
    )  # fmt: skip
    launches = f.phase_count * channel_blocks * pieces, block_size, f.phase_count * panels * channel_blocks, weight_size
    return Plan(inputs_ahead, weights_ahead, *launches, tile_parts * panel_parts, work_size, (*shape, *cut))


@lru_cache(maxsize=1024)
def stored(f: Form, p: ConvProblem) -> tuple[Order, Share, tuple[int, ...]]:
    """Return what each task of the forward pass stores."""
    cut = Cut(*plan_of(f, p).integers[CUT:])
    size = numpy_lanes(p.dtype)
    columns = -(-p.k // size)
    panels = [part * cut.panels // cut.panel_parts for part in range(cut.panel_parts)]
    channels = [panel * columns // cut.panels * size for panel in panels]
    tiles = Share(cut.tiles, 2, cut.units, cut.tile_parts, cut.panel_parts, cut.panel_parts, 1)
    return in_tiles(p, f.tile, f.tile), tiles, (*channels, p.k)
