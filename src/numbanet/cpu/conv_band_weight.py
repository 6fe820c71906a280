"""Gradient of the weight for few channels, by bands (see `numbanet.cpu.conv_band`).

In a band, a filter row (s, c) is one run of memory. Register tiles have pieces of such rows in one direction and
out-channels in the other: filter elements as rows and out-channels as columns, or the other way round where that fills
vectors better. Band and gradient stay in the first-level cache while all tiles pass over them, and the tiles fetch what
the next band will read.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.conv_band import BUFFER, copy_band, copy_cost, row_runs, seen_too_much, unsuitable
from numbanet.cpu.conv_direct import tolerance
from numbanet.cpu.conv_geometry import CUT, Geometry, geometry, spans
from numbanet.cpu.conv_weight import split_count
from numbanet.cpu.parallel import launch
from numbanet.cpu.run_tile import MOST_RUN_ROWS, RUN_TILES, cover, run_tile
from numbanet.cpu.simd import lanes, load, named, numpy_lanes, offset, store
from numbanet.cpu.tile import stack_buffer
from numbanet.problem.conv import ConvProblem

_NUMBERS = caches().first // 16 * 3  # of a band and its gradient, about: three quarters of the first-level cache
_PIXELS = 96  # of a band at least: a tile reads and writes its sums once for each band
_SHARES = 16  # tasks
# Tiles read what lies behind the last element: up to so many numbers.
_ROOM = BUFFER + max(MOST_RUN_ROWS, RUN_TILES[-1][1] * numpy_lanes("float32"))


class Cut(NamedTuple):
    """What the kernels read of how a problem is cut; it follows the geometry."""

    rows: int  # of a band
    bands: int  # of an image,
    all_bands: int
    shares: int
    tiles: int
    size: int  # numbers in the sums of a share
    turned: int  # whether out-channels are the rows of tiles


class Tile(NamedTuple):
    """A register tile: a row of the table that the kernels read."""

    which: int
    shift: int  # from an output position in the band to the tile's first element
    channel: int  # the first one
    last_lanes: int  # columns of its last vector that may be read
    sums: int  # where its sums begin,
    pitch: int  # and the numbers of one of their rows
    skipped: int  # rows that another tile has too
    rows: int  # that exist,
    columns: int
    element: int  # and the first element of the filter


_TILE = len(Tile._fields)


@kernel
def band_weight_gradient(task: Index, ints: I64, x: T, g: T, tiles: I64, sums: T):
    """Sum the outer products of filter elements and gradients over one share of the bands."""
    s, cut = named(ints, Geometry), named(offset(ints, CUT), Cut)
    start, end = task * cut.all_bands // cut.shares, (task + 1) * cut.all_bands // cut.shares
    band, own, vector = stack_buffer(x, _ROOM), offset(sums, task * cut.size), lanes(x)
    for at in range(start, end):
        n, first = at // cut.bands, at % cut.bands * cut.rows
        rows = min(cut.rows, s.p - first)
        copy_band(x, ints, n, first, rows, band)
        pixels, here = rows * s.q, offset(g, (n * s.p + first) * s.q * s.k)
        # What the next band reads follows: its rows of the gradient, and then as many rows of x as this band moved on.
        x_line, g_line, x_step = s.stride_h * s.span_w * s.c, s.q * s.k, s.stride_w * s.c
        g_tiles = (s.k + vector - 1) // vector if at + 1 < end else 0
        x_lines = rows * s.stride_h * s.w * s.c // vector
        x_tiles = (x_lines + pixels - 1) // pixels if at + 1 < end else 0
        for number in range(cut.tiles):
            tile = named(offset(tiles, number * _TILE), Tile)
            ahead, step = band, 0
            if number < g_tiles:
                ahead, step = offset(here, pixels * (s.k + number * vector)), vector
            elif number < g_tiles + x_tiles:
                row = n * s.h + (first + rows - 1) * s.stride_h - s.top + s.span_h
                ahead, step = offset(x, row * s.w * s.c + (number - g_tiles) * pixels * vector), vector
            a, a_line, a_step = offset(band, tile.shift), x_line, x_step
            b, b_line, b_step = offset(here, tile.channel), g_line, s.k
            if cut.turned:
                a, a_line, a_step, b, b_line, b_step = b, b_line, b_step, a, a_line, a_step
            run_tile(
                1, tile.which, a, b, rows, s.q, a_line, b_line, a_step, b_step, tile.last_lanes, ahead, step,
                offset(own, tile.sums), tile.pitch, at - start,
            )  # fmt: skip


@kernel
def gather_bands(task: Index, ints: I64, tiles: I64, sums: T, out: T):
    """Write the gradient of one tile's filter elements: the sums of all shares, added in their order."""
    s, cut = named(ints, Geometry), named(offset(ints, CUT), Cut)
    tile = named(offset(tiles, task * _TILE), Tile)
    total, vector, elements = stack_buffer(out, 64), lanes(out), s.r * s.s * s.c
    for row in range(tile.skipped, tile.rows):
        for j in range(0, tile.columns, vector):
            at = tile.sums + row * tile.pitch + j
            value = load(sums, at)
            for share in range(1, cut.shares):
                value = value + load(sums, share * cut.size + at)
            store(total, 0, value)
            for column in range(j, min(j + vector, tile.columns)):
                k, element = (row, column) if cut.turned else (column, row)
                out[(tile.channel + k) * elements + tile.element + element] = total[column - j]


def _turned(p: ConvProblem) -> tuple[float, bool]:
    """Return the cycles of the tiles for an output position, and whether their rows are out-channels."""
    taps, run = row_runs(p)
    size = numpy_lanes(p.dtype)
    cycles, _ = cover(run, -(-p.k // size))
    other, pieces = cover(p.k, -(-run // size))
    # The gradient ends with its last row: there must be as many as a tile has.
    turned = other < cycles and all(RUN_TILES[piece.which][0] <= p.k for piece in pieces)
    return taps * (other if turned else cycles), turned


def _table(p: ConvProblem) -> tuple[np.ndarray, int]:
    """Return the tiles of all taps, and the numbers in their sums."""
    taps, run = row_runs(p)
    size, (_, span_w), (_, turned) = numpy_lanes(p.dtype), spans(p), _turned(p)
    all_rows, all_columns = (p.k, run) if turned else (run, p.k)
    _, pieces = cover(all_rows, -(-all_columns // size))
    table, sums = [], 0
    for vector in sorted({piece.vector for piece in pieces}):  # the same columns for all taps
        for tap in range(taps):
            r, s = divmod(tap, taps // p.r)
            shift = (r * p.dilation[0] * span_w + s * p.dilation[1]) * p.c
            for which, row, _ in (piece for piece in pieces if piece.vector == vector):
                count, vectors = RUN_TILES[which]
                first = min(row, all_rows - count) if turned else row
                column, columns = vector * size, min(vectors * size, all_columns - vector * size)
                element, channel = (column, first) if turned else (first, column)
                table.append(Tile(
                    which=which, shift=shift + element, channel=channel,
                    last_lanes=size if turned else columns - (vectors - 1) * size, sums=sums, pitch=vectors * size,
                    skipped=row - first, rows=min(count, all_rows - first), columns=columns,
                    element=tap * run + element,
                ))  # fmt: skip
                sums += count * vectors * size
    return np.array(table, np.int64), sums


def _fitting(p: ConvProblem) -> int:
    """Return how many output rows there is room for; 0 or less: not even for one."""
    span_h, span_w = spans(p)
    return (BUFFER // (span_w * p.c) - span_h) // p.stride[0] + 1


def _rows(p: ConvProblem) -> int:
    """Return how many output rows a band has."""
    _, span_w = spans(p)
    columns = min(p.k, RUN_TILES[-1][1] * numpy_lanes(p.dtype))
    fast = _NUMBERS // (p.stride[0] * span_w * p.c + p.q * columns)
    return min(_fitting(p), p.p, max(fast, -(-_PIXELS // p.q)))


def _refusal(p: ConvProblem) -> str | None:
    return unsuitable(p) or (None if _fitting(p) > 0 else seen_too_much(p))


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[np.ndarray, Cut, tuple[int, ...]]:
    """Return the table of tiles, the cut, and the integers of the launches."""
    table, size = _table(p)
    bands = -(-p.p // _rows(p))
    shares = min(_SHARES, p.n * bands, split_count(size * np.dtype(p.dtype).itemsize, p.n * p.p * p.q))
    cut = Cut(
        rows=-(-p.p // bands), bands=bands, all_bands=p.n * bands, shares=shares,
        tiles=len(table), size=size, turned=_turned(p)[1],
    )  # fmt: skip
    return table, cut, (*geometry(p), *cut)


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    table, cut, integers_ = _plan(p)
    sums = memory.empty((cut.shares * cut.size,), p.dtype)
    launch(band_weight_gradient, cut.shares, (*inputs, table, sums), integers_, p.dtype)
    launch(gather_bands, cut.tiles, (table, sums, *outputs), integers_, p.dtype)


def _cost(p: ConvProblem) -> float:
    """Return the cycles of the tiles, as operations at peak, and what copies cost."""
    return 4.0 * numpy_lanes(p.dtype) * p.n * p.p * p.q * _turned(p)[0] + copy_cost(p, _rows(p))


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.band", _run, _refusal, _cost, tolerance=tolerance)],
}
