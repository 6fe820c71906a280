"""Grouped convolution with few channels a group: vectors run over the channels of several groups.

Forward and backward_input are one gather, with the same grids of positions and taps as direct convolution. A task owns
a band of rows and some blocks of channels. It copies the source of a few columns, for one block, to a plane that stays
in the first-level cache: there the padding is written out and a column is a whole aligned vector, so that the tiles
need neither tests nor masks, and each of their loads serves several taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I32, I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import Grid, clear_unseen, grids, tolerance, zeros
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
from numbanet.cpu.simd import integers, lanes, load, load_tail, numpy_lanes, offset, splat, store
from numbanet.cpu.tile import RELU, RESIDUAL, SIX, epilogue_flags, stack_buffer
from numbanet.problem.conv import ConvProblem

_GRID = 13  # numbers that describe a grid of positions
_WIDE, _NARROW = 8, 4  # columns of the tiles
_SEGMENT = 32  # columns whose source is in the plane at a time
_ROWS = 8  # rows of a band at most
_PLANE = 8192  # numbers of a plane
_TASKS = 32  # as many tasks at least, where the problem allows it


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
        stride_h, stride_w, reduction, flags = integers(ints, 4)
        _, _, _, _, step_i, step_j, top, left, v_step, v_count, h_step, h_count, _ = integers(grid, _GRID)
        vector = lanes(plane)
        h_count = h_count if stride == 0 else span
        row_step, tap_step = v_step * plane_columns * vector, h_step * vector
        for j in range(0, columns, _WIDE):
            for i in range(rows):
                at = ((i * stride_h + top) * plane_columns + j * stride_w + left) * vector
                place = out + i * step_i + j * step_j
                if columns - j > _NARROW:
                    sums = wide(
                        plane, at, row_step, v_count, tap_step, h_count, stride_w, packed, start, reduction, index,
                        initial,
                    )  # fmt: skip
                    _finish(sums, y, place, step_j, columns - j, valid, residual, flags)
                else:
                    few = narrow(
                        plane, at, row_step, v_count, tap_step, h_count, stride_w, packed, start, reduction, index,
                        initial,
                    )  # fmt: skip
                    _finish(few, y, place, step_j, columns - j, valid, residual, flags)

    return window


SPANS = ((1, 0), (3, 1), (3, 2), (5, 1), (5, 2))  # kinds of filter rows: number of taps and stride
_any_span, _three, _three_by_two, _five, _five_by_two = (_window(span, stride) for span, stride in SPANS)


@kernel
def grouped_gather(task: Index, ints: I64, x: T, packed: T, table: I64, index: I32, bias: T, residual: T, y: T):
    """Compute a band of rows of all grids, for some blocks of groups."""
    (
        stride_h, stride_w, reduction, _, h, w, c, k, in_lanes, out_lanes, taps, image,
        top, left, span_h, span_w, band_rows, segment, size_w, blocks, parts, bands, grids,
    ) = integers(ints, 23)  # fmt: skip
    part, low, n = task % parts, task // parts % bands * band_rows, task // (parts * bands)
    plane = stack_buffer(x, _PLANE)
    for first in range(0, size_w, segment):
        columns = min(segment, size_w - first)
        plane_columns = ((columns + _NARROW - 1) // _NARROW * _NARROW - 1) * stride_w + span_w
        for block in range(part * blocks // parts, (part + 1) * blocks // parts):
            channel, source = block * out_lanes, block * in_lanes
            valid = min(out_lanes, k - channel)
            initial = load_tail(bias, channel, valid)
            copy_plane(
                x, n, low * stride_h + top, first * stride_w + left, h, w, c, source, min(in_lanes, c - source),
                (band_rows - 1) * stride_h + span_h, plane_columns, plane,
            )  # fmt: skip
            for number in range(grids):
                grid = offset(table, _GRID * number)
                kind, size_h, grid_w, base, step_i, step_j = integers(grid, 6)
                rows, here = min(band_rows, size_h - low), min(columns, grid_w - first)
                start = (block * taps + grid[_GRID - 1]) * reduction * lanes(x)
                out = base + n * image + low * step_i + first * step_j + channel
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


def _progression(values: np.ndarray) -> tuple[list[int], int]:
    """Return the different values in ascending order, and their (constant) difference."""
    found = sorted(set(values.tolist()))
    return found, found[1] - found[0] if len(found) > 1 else 1


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
    table: list[tuple[int, ...]] = []
    order: list[int] = []
    for grid in found:
        (vertical, v_step), (horizontal, h_step) = _progression(grid.taps[:, 0]), _progression(grid.taps[:, 1])
        kind = (len(horizontal), grid.stride[1])
        table.append((
            SPANS.index(kind) if h_step == 1 and kind in SPANS else 0,
            *grid.size, grid.start[0] * row + grid.start[1] * out[2], grid.step[0] * row, grid.step[1] * out[2],
            vertical[0] - view.first[0], horizontal[0] - view.first[1], v_step, len(vertical), h_step, len(horizontal),
            len(order),
        ))  # fmt: skip
        order += _sorted_taps(grid)
    height, width = (max((grid.size[axis] for grid in found), default=0) for axis in (0, 1))
    bands, rows = -(-height // view.rows), view.rows
    parts = max(1, min(b.count, -(-_TASKS // max(1, p.n * bands))))
    if 0 < p.n * bands * parts < _TASKS:
        rows = -(-height // min(height, -(-_TASKS // (p.n * parts))))
        bands = -(-height // rows)
    integers_ = (
        *(found[0].stride if found else (1, 1)), b.reduction, epilogue_flags(p.epilogue),
        *source, out[2], b.groups * b.reduction, b.groups * b.columns, len(order), out[0] * row,
        *view.first, *view.span, rows, view.columns, width, b.count, parts, bands, len(table),
    )  # fmt: skip
    return np.array(table, np.int64), np.array(order, np.intp), p.n * bands * parts, integers_


def _sorted_taps(grid: Grid) -> list[int]:
    return grid.taps[np.lexsort((grid.taps[:, 1], grid.taps[:, 0])), 2].tolist()


def _packed(weight: np.ndarray, p: ConvProblem, order: np.ndarray) -> np.ndarray:
    """Return the weight as (blocks, taps, in-channels of a group, lanes): a few numbers a channel."""
    b = blocks(p)
    grouped = weight.reshape(p.groups, p.kg, p.r * p.s, p.cg)
    if p.which == "backward_input":
        grouped = grouped.transpose(0, 3, 2, 1)
    if not np.array_equal(order, np.arange(p.r * p.s)):
        grouped = grouped[:, :, order]
    packed = np.zeros((b.count, len(order), b.reduction, numpy_lanes(p.dtype)), p.dtype)
    whole = p.groups // b.groups
    for first, last, groups in ((0, whole, b.groups), (whole, b.count, p.groups - whole * b.groups)):
        some = grouped[first * b.groups : first * b.groups + (last - first) * groups]
        some = some.reshape(last - first, groups * b.columns, len(order), b.reduction)
        packed[first:last, :, :, : groups * b.columns] = some.transpose(0, 2, 3, 1)
    return packed


def _run(
    p: ConvProblem,
    source: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    out: np.ndarray,
) -> None:
    b = blocks(p)
    table, order, tasks, integers_ = _plan(p)
    if p.which == "backward_input":
        clear_unseen(p, out)
    nothing = zeros(max(out.shape[3], numpy_lanes(p.dtype)), p.dtype)
    buffers = (
        source, _packed(weight, p, order), table, permutations(b.reduction, b.columns, p.dtype),
        nothing if bias is None else bias, nothing if residual is None else residual, out,
    )  # fmt: skip
    launch(grouped_gather, tasks, buffers, integers_, p.dtype)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(p, *inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(p, *inputs, None, None, outputs[0])


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
