"""Grouped convolution with few channels a group: vectors run over the channels of several groups.

Forward and backward_input are one gather, with the same grids of positions and taps as direct convolution. A task owns
a band of rows and some blocks of channels. It copies the source of a few columns, for one block, to a plane that stays
in the first-level cache: there the padding is written out and a column is a whole aligned vector, so that the tiles
need neither tests nor masks, and each of their loads serves several taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I32, I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import Grid, complete_unseen, grids, of_gradient, progression, tolerance, zeros
from numbanet.cpu.conv_moments import Order, Share, following, in_tiles
from numbanet.cpu.copy import arrange, clear
from numbanet.cpu.group_tile import (
    add_columns,
    add_taps,
    at_least_zero,
    at_most_six,
    can_permute,
    repeat,
    store_columns,
)
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import lanes, load, load_tail, named, numpy_lanes, offset, splat, store
from numbanet.cpu.tile import RELU, RESIDUAL, SIX, epilogue_flags, stack_buffer
from numbanet.problem.conv import ConvProblem

_WIDE, _NARROW = 8, 4  # columns of the tiles
_SEGMENT = 32  # columns whose source is in the plane at a time
_ROWS = 8  # rows of a band at most
_PLANE = 8192  # numbers of a plane
_TASKS = 32  # as many tasks at least, where the problem allows it


class Gather(NamedTuple):
    """What the kernel reads of a problem and of how it is cut: the integers of a launch."""

    stride_h: int  # source pixels from a position of a grid to the next
    stride_w: int
    reduction: int  # in-channels of a group
    flags: int  # of what completes the result
    h: int  # rows, columns and channels of the source,
    w: int
    c: int
    k: int  # and channels of the result
    in_lanes: int  # channels of a block in the source
    out_lanes: int  # and in the result
    taps: int  # of all grids
    image: int  # elements of an image of the result
    top: int  # source pixel of the first tap of position (0, 0)
    left: int
    span_h: int  # source rows and columns of one position
    span_w: int
    band_rows: int  # positions of a band and of a segment
    segment: int
    width: int  # columns of the widest grid
    blocks: int  # of channels
    parts: int  # tasks take one of so many parts of them
    bands: int
    grids: int


class GridRow(NamedTuple):
    """A grid of positions: a row of the table that the kernel reads."""

    kind: int  # which of `SPANS`
    rows: int
    columns: int
    base: int  # elements of the result before the first position,
    row_step: int  # and from one to that of the next row
    column_step: int  # and column
    top: int  # of the first tap, from that of all grids
    left: int
    v_step: int  # source rows from a tap to the next,
    v_count: int  # and such taps
    h_step: int
    h_count: int
    first_tap: int  # in the packed weight


_GRID = len(GridRow._fields)


@dataclass(frozen=True)
class Blocks:
    """How the groups of a pass are dealt to vectors.

    Attributes
    ----------
    groups : int
        Groups of a vector.
    reduction, columns : int
        In- and out-channels of a group, as the pass sees them.
    count : int
        Number of blocks: vectors of outputs of a pixel.
    """

    groups: int
    reduction: int
    columns: int
    count: int


@lru_cache(maxsize=1024)
def blocks(p: ConvProblem) -> Blocks:
    """Return the blocks of a pass; the outputs of backward_weight's tiles have the channels of forward's."""
    reduction, columns = (p.kg, p.cg) if p.which == "backward_input" else (p.cg, p.kg)
    groups = max(1, min(p.groups, numpy_lanes(p.dtype) // max(1, reduction, columns)))
    return Blocks(groups, reduction, columns, -(-p.groups // groups))


@lru_cache(maxsize=64)
def permutations(reduction: int, columns: int, dtype: str) -> np.ndarray:
    """Return, for each in-channel of a group, which 32-bit part of the source each part of an output vector needs."""
    lanes_, parts = numpy_lanes(dtype), np.dtype(dtype).itemsize // 4
    lane = np.minimum(np.arange(lanes_) // columns * reduction, lanes_ - reduction) + np.arange(reduction)[:, None]
    words = lane[:, :, None] * parts + np.arange(parts)
    return np.ascontiguousarray(words.reshape(-1), np.int32)


@device
def copy_plane(x, n, first_row, first_column, h, w, c, channel, valid, rows, columns, plane):
    """Copy one vector of channels of a window of image n; what lies beside the image, or beyond `valid`, is zero."""
    zero, vector = splat(x, 0.0), lanes(x)
    left = min(max(-first_column, 0), columns)
    right = max(min(w - first_column, columns), left)
    for i in range(rows):
        row, at = first_row + i, i * columns * vector
        low, high = (left, right) if 0 <= row < h else (columns, columns)
        for j in range(low):
            store(plane, at + j * vector, zero)
        source = ((n * h + row) * w + first_column) * c + channel
        if valid >= vector:
            for j in range(low, high):
                store(plane, at + j * vector, load(x, source + j * c))
        else:
            for j in range(low, high):
                store(plane, at + j * vector, load_tail(x, source + j * c, valid))
        for j in range(high, columns):
            store(plane, at + j * vector, zero)


def _tile(count: int, span: int, stride: int) -> Any:
    """Make the tile that computes `count` columns of a row.

    Filter rows of `span` taps without gaps, `stride` apart, share what they load; span 1, stride 0 is for all others.
    """

    @device
    def tile(plane, at, row_step, v_count, tap_step, h_count, jump, packed, start, reduction, index, initial):
        sums = repeat(initial, count)
        vector, order_size = lanes(packed), lanes(index)
        pitch = reduction * vector
        for v in range(v_count):
            for s in range(0, h_count, span):
                for j in range(reduction):
                    sums = add_taps(
                        sums, span, stride, plane, at + v * row_step + s * tap_step, jump, packed,
                        start + ((v * h_count + s) * reduction + j) * vector, pitch, load(index, j * order_size),
                    )  # fmt: skip
        return sums

    return tile


@device
def _finish(sums, y, at, step, count, n, residual, flags):
    """Add the residual, apply the activation, and store the first `count` columns of a tile."""
    if flags & RESIDUAL:
        sums = add_columns(sums, residual, at, step, count, n)
    if flags & RELU:
        sums = at_least_zero(sums)
    if flags & SIX:
        sums = at_most_six(sums)
    store_columns(sums, y, at, step, count, n)


def _window(span: int, stride: int) -> Any:
    """Make the function that computes the positions of one grid whose source is in the plane."""
    wide, narrow = _tile(_WIDE, span, stride), _tile(_NARROW, span, stride)

    @device
    def window(plane, plane_columns, rows, columns, ints, grid, packed, start, index, initial, y, out, valid, residual):
        s, g = named(ints, Gather), named(grid, GridRow)
        vector = lanes(plane)
        h_count = g.h_count if stride == 0 else span
        row_step, tap_step = g.v_step * plane_columns * vector, g.h_step * vector
        for j in range(0, columns, _WIDE):
            for i in range(rows):
                at = ((i * s.stride_h + g.top) * plane_columns + j * s.stride_w + g.left) * vector
                place = out + i * g.row_step + j * g.column_step
                if columns - j > _NARROW:
                    sums = wide(
                        plane, at, row_step, g.v_count, tap_step, h_count, s.stride_w, packed, start, s.reduction,
                        index, initial,
                    )  # fmt: skip
                    _finish(sums, y, place, g.column_step, columns - j, valid, residual, s.flags)
                else:
                    few = narrow(
                        plane, at, row_step, g.v_count, tap_step, h_count, s.stride_w, packed, start, s.reduction,
                        index, initial,
                    )  # fmt: skip
                    _finish(few, y, place, g.column_step, columns - j, valid, residual, s.flags)

    return window


SPANS = ((1, 0), (3, 1), (3, 2), (5, 1), (5, 2))  # kinds of filter rows: number of taps and stride
_any_span, _three, _three_by_two, _five, _five_by_two = (_window(span, stride) for span, stride in SPANS)


@kernel
def grouped_gather(task: Index, ints: I64, x: T, packed: T, table: I64, index: I32, bias: T, residual: T, y: T):
    """Compute a band of rows of all grids, for some blocks of groups."""
    s = named(ints, Gather)
    part, n = task % s.parts, task // (s.parts * s.bands)
    low = task // s.parts % s.bands * s.band_rows
    plane = stack_buffer(x, _PLANE)
    for first in range(0, s.width, s.segment):
        columns = min(s.segment, s.width - first)
        plane_columns = ((columns + _NARROW - 1) // _NARROW * _NARROW - 1) * s.stride_w + s.span_w
        for block in range(part * s.blocks // s.parts, (part + 1) * s.blocks // s.parts):
            channel, source = block * s.out_lanes, block * s.in_lanes
            valid = min(s.out_lanes, s.k - channel)
            initial = load_tail(bias, channel, valid)
            copy_plane(
                x, n, low * s.stride_h + s.top, first * s.stride_w + s.left, s.h, s.w, s.c, source,
                min(s.in_lanes, s.c - source), (s.band_rows - 1) * s.stride_h + s.span_h, plane_columns, plane,
            )  # fmt: skip
            for number in range(s.grids):
                grid = offset(table, _GRID * number)
                g = named(grid, GridRow)
                kind = g.kind
                rows, here = min(s.band_rows, g.rows - low), min(columns, g.columns - first)
                start = (block * s.taps + g.first_tap) * s.reduction * lanes(x)
                out = g.base + n * s.image + low * g.row_step + first * g.column_step + channel
                if kind == 0:
                    _any_span(
                        plane, plane_columns, rows, here, ints, grid, packed, start, index, initial, y, out, valid,
                        residual,
                    )  # fmt: skip
                elif kind == 1:
                    _three(
                        plane, plane_columns, rows, here, ints, grid, packed, start, index, initial, y, out, valid,
                        residual,
                    )  # fmt: skip
                elif kind == 2:
                    _three_by_two(
                        plane, plane_columns, rows, here, ints, grid, packed, start, index, initial, y, out, valid,
                        residual,
                    )  # fmt: skip
                elif kind == 3:
                    _five(
                        plane, plane_columns, rows, here, ints, grid, packed, start, index, initial, y, out, valid,
                        residual,
                    )  # fmt: skip
                else:
                    _five_by_two(
                        plane, plane_columns, rows, here, ints, grid, packed, start, index, initial, y, out, valid,
                        residual,
                    )  # fmt: skip


@dataclass(frozen=True)
class Window:
    """How much of an image a task computes at a time, and what it reads for that.

    Attributes
    ----------
    first : (int, int)
        Source pixel of the first tap of position (0, 0).
    span : (int, int)
        Source rows and columns of one position, from the first tap to the last.
    rows, columns : int
        Rows of a band and columns of a segment of the grid; 0 rows where not one fits into the plane.
    """

    first: tuple[int, int]
    span: tuple[int, int]
    rows: int
    columns: int


@lru_cache(maxsize=1024)
def window(p: ConvProblem) -> Window:
    """Return the window of a pass: as large as the plane allows, at most `_ROWS` by `_SEGMENT` positions."""
    found = [grid for grid in grids(p) if len(grid.taps)]
    if not found:
        return Window((0, 0), (1, 1), 1, 1)
    taps = np.concatenate([grid.taps[:, :2] for grid in found])
    (top, left), (bottom, right) = taps.min(0).tolist(), taps.max(0).tolist()
    span_h, span_w = bottom - top + 1, right - left + 1
    stride_h, stride_w = found[0].stride
    height, width = (max(grid.size[axis] for grid in found) for axis in (0, 1))
    size = _PLANE // numpy_lanes(p.dtype)
    share = -(-width // -(-width // _SEGMENT))  # equal segments
    columns = -(-share // _WIDE) * _WIDE
    fitting = size // ((columns - 1) * stride_w + span_w) - span_h
    if fitting < 0:  # few columns a segment, rather than no row
        columns = max(0, (size // span_h - span_w) // stride_w + 1) // _WIDE * _WIDE
        fitting = size // ((columns - 1) * stride_w + span_w) - span_h if columns else -1
    rows = min(_ROWS, height, fitting // stride_h + 1)
    return Window((top, left), (span_h, span_w), max(0, rows), columns)


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[np.ndarray, np.ndarray, int, tuple[int, ...]]:
    """Return the table of grids, the order of the taps in the packed weight, the number of tasks and the integers."""
    backward, b, view = p.which == "backward_input", blocks(p), window(p)
    source, out = ((p.p, p.q, p.k), (p.h, p.w, p.c)) if backward else ((p.h, p.w, p.c), (p.p, p.q, p.k))
    row, found = out[1] * out[2], [grid for grid in grids(p) if len(grid.taps)]
    table: list[GridRow] = []
    order: list[int] = []
    for grid in found:
        (vertical, v_step), (horizontal, h_step) = progression(grid.taps[:, 0]), progression(grid.taps[:, 1])
        kind = (len(horizontal), grid.stride[1])
        table.append(GridRow(
            SPANS.index(kind) if h_step == 1 and kind in SPANS else 0, *grid.size,
            base=grid.start[0] * row + grid.start[1] * out[2], row_step=grid.step[0] * row,
            column_step=grid.step[1] * out[2], top=vertical[0] - view.first[0], left=horizontal[0] - view.first[1],
            v_step=v_step, v_count=len(vertical), h_step=h_step, h_count=len(horizontal), first_tap=len(order),
        ))  # fmt: skip
        order += _sorted_taps(grid)
    height, width = (max((grid.size[axis] for grid in found), default=0) for axis in (0, 1))
    bands, rows = -(-height // view.rows), view.rows
    parts = max(1, min(b.count, -(-_TASKS // max(1, p.n * bands))))
    if 0 < p.n * bands * parts < _TASKS:
        rows = -(-height // min(height, -(-_TASKS // (p.n * parts))))
        bands = -(-height // rows)
    integers_ = Gather(
        *(found[0].stride if found else (1, 1)), b.reduction, epilogue_flags(p.epilogue), *source, k=out[2],
        in_lanes=b.groups * b.reduction, out_lanes=b.groups * b.columns, taps=len(order), image=out[0] * row,
        top=view.first[0], left=view.first[1], span_h=view.span[0], span_w=view.span[1],
        band_rows=rows, segment=view.columns, width=width, blocks=b.count, parts=parts, bands=bands, grids=len(table),
    )  # fmt: skip
    return np.array(table, np.int64), np.array(order, np.intp), p.n * bands * parts, integers_


def _stored(p: ConvProblem, tasks: int, s: Gather) -> tuple[Order, Share, tuple[int, ...]]:
    """Return what each task of the forward pass stores: some blocks of groups of a band of an image."""
    bands = p.n * s.bands
    channels = [part * s.blocks // s.parts * s.out_lanes for part in range(s.parts)]
    share = Share(bands, 1, bands, bands, s.parts, s.parts, 1)
    return in_tiles(p, s.band_rows, p.q), share, (*channels, p.k)


def _sorted_taps(grid: Grid) -> list[int]:
    return grid.taps[np.lexsort((grid.taps[:, 1], grid.taps[:, 0])), 2].tolist()


def _packed(weight: np.ndarray, p: ConvProblem, order: np.ndarray) -> np.ndarray:
    """Return the weight as (blocks, taps, in-channels of a group, lanes): a few numbers a channel."""
    b, taps = blocks(p), len(order)
    group, channel = p.kg * p.r * p.s * p.cg, p.r * p.s * p.cg
    column, depth = (1, channel) if p.which == "backward_input" else (channel, 1)
    packed = memory.empty((b.count, taps, b.reduction, numpy_lanes(p.dtype)), p.dtype)
    clear(packed)
    row = b.reduction * numpy_lanes(p.dtype)
    block = taps * row
    whole = p.groups // b.groups
    in_order = np.array_equal(order, np.arange(taps))
    runs = [(0, 0, taps)] if in_order else [(place, int(tap), 1) for place, tap in enumerate(order)]
    for first, last, groups in ((0, whole, b.groups), (whole, b.count, p.groups - whole * b.groups)):
        for place, tap, count in runs:
            source = weight.reshape(-1)[first * b.groups * group + tap * p.cg :]
            target = packed.reshape(-1)[first * block + place * row :]
            shape = last - first, count, groups, b.columns, b.reduction
            steps = (b.groups * group, p.cg, group, column, depth), (block, row, b.columns, 1, numpy_lanes(p.dtype))
            arrange(source, target, shape, *steps)
    return packed


def _run(
    p: ConvProblem,
    source: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    *outputs: Any,
) -> None:
    b, out = blocks(p), outputs[0]
    table, order, tasks, integers_ = _plan(p)
    if p.which == "backward_input":
        complete_unseen(p, residual, out)
    nothing = zeros(max(out.shape[3], numpy_lanes(p.dtype)), p.dtype)
    buffers = (
        source, _packed(weight, p, order), table, permutations(b.reduction, b.columns, p.dtype),
        nothing if bias is None else bias, nothing if residual is None else residual, out,
    )  # fmt: skip
    then = following(outputs, *_stored(p, tasks, integers_)) if len(outputs) > 1 else None
    launch(grouped_gather, tasks, buffers, integers_, p.dtype, then)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(p, *inputs, *outputs)


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(p, *of_gradient(inputs), outputs[0])


def refusal(p: ConvProblem) -> str | None:
    """Return None, or why the lanes of a vector can't be channels of whole groups, whatever the pass."""
    if p.groups == 1:
        return "one group"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if max(p.cg, p.kg) > numpy_lanes(p.dtype):
        return f"a group of {max(p.cg, p.kg)} channels, more than a vector has lanes"
    if p.cg * p.kg != 1 and not can_permute():
        return f"no permutation of vectors in {host_isa().name}"
    return None


def _supports(p: ConvProblem) -> str | None:
    if p.cg == p.kg == 1:
        return "groups of one channel"
    if refusal(p) is None and window(p).rows == 0:
        return f"an output row sees more than the {_PLANE} numbers of a plane"
    return refusal(p)


def _cost(p: ConvProblem) -> float:
    """Return the operations on whole vectors, and what copies and permutations cost beside them."""
    b = blocks(p)
    return 2.6 * p.n * p.p * p.q * p.r * p.s * b.reduction * b.count * numpy_lanes(p.dtype)


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [Candidate("cpu.grouped", _forward, _supports, _cost, tolerance=tolerance)],
    ("conv2d", "backward_input"): [Candidate("cpu.grouped", _backward_input, _supports, _cost, tolerance=tolerance)],
}
