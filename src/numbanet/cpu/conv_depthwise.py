"""Depthwise convolution: every channel has a filter of its own, so vectors run over channels and nothing is reduced.

Forward and backward_input are one gather, with the same grids of positions and taps as direct convolution. A task owns
some rows of positions, of all grids. It writes down the addresses of the columns of the source rows that it needs, with
zeros where they lie in the padding; the tiles that read by them (see `numbanet.cpu.depthwise_tile`) need no test.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.addresses import write_steps
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import Grid, apart, complete_unseen, grids, of_gradient, progression, tolerance, zeros
from numbanet.cpu.conv_moments import Order, Share, following, in_tiles
from numbanet.cpu.copy import transposed
from numbanet.cpu.depthwise_tile import FEW_CHANNELS, KINDS, NARROWEST, WIDEST, gather_tile, tile_number
from numbanet.cpu.isa import fetches_ahead, host_isa
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.prefetch import CACHE_LINE
from numbanet.cpu.simd import lanes, named, numpy_lanes, offset
from numbanet.cpu.tile import address, epilogue_flags, stack_buffer
from numbanet.problem.conv import ConvProblem
from numbanet.watch import constant

_TAPS = 1024  # filter positions at most: a row's table of them is on the stack
TABLE = 4096  # addresses of a task,
SLOTS = 1024  # and rows that they belong to, at most
_TASKS = 32  # as many tasks, about


class Gather(NamedTuple):
    """What the kernel reads of a problem: the integers of a launch."""

    h: int  # rows and columns of the source,
    w: int
    c: int  # and channels
    stride_h: int  # source pixels from a position of a grid to the next
    stride_w: int
    left: int  # source column of the first tap of position 0
    span_w: int  # source columns of one position
    below: int  # the first source row that position (0, 0) does not see
    image: int  # elements of an image of the result
    pitch: int  # elements of the weight from a tap of a line to the next
    grids: int
    width: int  # columns of the widest grid,
    segment: int  # and of a segment
    slots: int  # of source rows: no two that one position sees have the same
    rows: int  # of positions a task,
    bands: int  # and tasks an image,
    parts: int  # for each part of the channels
    flags: int  # of what completes the result
    fetched: int  # cache lines of the next source rows that a tile fetches with each vector of channels


class GridRow(NamedTuple):
    """A grid of positions: a row of the table that the kernel reads."""

    rows: int
    columns: int
    base: int  # elements of the result before the first position,
    row_step: int  # and from one to that of the next row
    column_step: int  # and column
    kind: int  # of its lines; below 0: for fewer channels than lanes
    first_line: int
    lines: int


class Line(NamedTuple):
    """Neighbouring taps of a filter row: a row of the table that the kernel reads."""

    row: int  # source row of the first tap for position (0, 0),
    column: int  # its source column, from `Gather.left`,
    tap: int  # and its number in the weight


_VECTOR_BYTES = host_isa().vector_bytes
_GRID, _LINE = len(GridRow._fields), len(Line._fields)


@device
def write_columns(table, at, count, x, row, first, w, c, nothing):
    """Write the addresses of `count` columns, from column `first` on, of row number `row` of all images.

    It is `nothing` for those beside the image.
    """
    low = min(max(-first, 0), count)
    high = max(low, min(count, w - first))
    here, step = address(x, (row * w + first) * c), address(x, c) - address(x, 0)
    for j in range(low):
        table[at + j] = nothing
    write_steps(table, at + low, here + low * step, step, high - low)
    for j in range(high, count):
        table[at + j] = nothing


@device
def channels_of_part(part, parts, c, vector):
    """Return the first channel of a part of whole vectors, and that after its last."""
    vectors = (c + vector - 1) // vector
    return part * vectors // parts * vector, min(c, (part + 1) * vectors // parts * vector)


@device
def line_of(x):
    """Return how many elements a cache line holds."""
    return CACHE_LINE * lanes(x) // _VECTOR_BYTES


@kernel
def depthwise_gather(
    task: Index, ints: I64, x: T, weight: T, grid_rows: I64, line_rows: I64, zeros: T, start: T, residual: T, y: T
):
    """Convolve a few rows of positions; every output starts as the channel's number in `start`."""
    s = named(ints, Gather)
    h, w, c, jump, slots = s.h, s.w, s.c, s.stride_w, s.slots
    part, band = task % s.parts, task // s.parts
    n, low = band // s.bands, band % s.bands * s.rows
    begin, end = channels_of_part(part, s.parts, c, lanes(x))
    table, held = stack_buffer(ints, TABLE), stack_buffer(ints, SLOTS)
    columns, weights = stack_buffer(ints, _TAPS), stack_buffer(ints, _TAPS)
    nothing = address(zeros, 0)
    for first in range(0, s.width, s.segment):
        in_table = (min(s.segment, s.width - first) + WIDEST - 1) * jump + s.span_w
        for slot in range(slots):
            held[slot] = -1
        ahead_a_tile = (end - begin + lanes(x) - 1) // lanes(x) * s.fetched * line_of(x)
        for i in range(low, low + s.rows):
            # The rows that the next positions see first: nothing else foresees them, as tiles jump from row to row.
            ahead = ((n * h + i * s.stride_h + s.below) * w + first * jump + max(0, s.left)) * c + begin
            for number in range(s.grids):
                grid = named(offset(grid_rows, number * _GRID), GridRow)
                here = min(s.segment, grid.columns - first)
                if i >= grid.rows or here <= 0:
                    continue
                found = 0
                for t in range(grid.first_line, grid.first_line + grid.lines):
                    line = named(offset(line_rows, t * _LINE), Line)
                    row = i * s.stride_h + line.row
                    if 0 <= row < h:
                        slot = row % slots
                        if held[slot] != row:
                            held[slot] = row
                            column = first * jump + s.left
                            write_columns(table, slot * in_table, in_table, x, n * h + row, column, w, c, nothing)
                        columns[found] = slot * in_table + line.column
                        weights[found] = line.tap * c
                        found += 1
                out = grid.base + n * s.image + i * grid.row_step + first * grid.column_step
                tiles = (here + WIDEST - 1) // WIDEST
                width = max(NARROWEST, (here + tiles - 1) // tiles)
                which = tile_number(grid.kind, width)
                if grid.kind < 0:
                    which, width = FEW_CHANNELS, NARROWEST
                for j in range(0, here, width):
                    place = out + j * grid.column_step
                    gather_tile(
                        which, offset(table, j * jump), jump, found, columns, weights, weight, s.pitch, begin, end,
                        start, offset(y, place), offset(residual, place), grid.column_step, here - j, s.flags,
                        offset(x, ahead), s.fetched,
                    )  # fmt: skip
                    ahead += ahead_a_tile


def row_slots(rows: list[int]) -> int:
    """Return modulo which number all rows differ: the smallest."""
    return next(count for count in range(max(1, len(rows)), 2**62) if len({row % count for row in rows}) == len(rows))


def _lines(grid: Grid, kinds: tuple[tuple[int, int], ...]) -> tuple[int, list[Line], int]:
    """Return the kind of a grid's lines, the lines, and from a tap to the next in them the step of its number."""
    (_, across), jump = progression(grid.taps[:, 1]), grid.stride[1]
    taps = grid.taps[np.lexsort((grid.taps[:, 1], grid.taps[:, 0]))].tolist()
    per_row = len({tap[1] for tap in taps})
    fitting = [span for span, stride in kinds if stride == jump and per_row % span == 0 and across == 1]
    span = max(fitting, default=1)
    kind = kinds.index((span, jump)) if (span, jump) in kinds and across == 1 else kinds.index((1, 0))
    step = taps[1][2] - taps[0][2] if span > 1 else 1
    return kind, [Line(*tap) for tap in taps[::span]], step


def fetched_lines(count: int, steps: int) -> int:
    """Return how many cache lines to prefetch with each of some steps, so that they fetch `count` bytes."""
    return -(-count // (CACHE_LINE * max(1, steps))) if fetches_ahead() else 0


@lru_cache(maxsize=256)
def _layout(p: ConvProblem) -> tuple[list[GridRow], list[Line], Gather] | None:
    """Return the grids, their lines and the integers of the launch; None where the table has no room for them."""
    source, out = ((p.h, p.w), (p.p, p.q)) if p.which == "forward" else ((p.p, p.q), (p.h, p.w))
    row, image = out[1] * p.c, out[0] * out[1] * p.c
    grid_rows: list[GridRow] = []
    lines: list[Line] = []
    pitch, found = 1, [grid for grid in grids(p) if len(grid.taps)]
    few = p.c < numpy_lanes(p.dtype)
    for grid in found:
        kind, own, step = _lines(grid, KINDS[:1] if few else KINDS)
        pitch = step if step != 1 else pitch
        grid_rows.append(GridRow(
            *grid.size, base=grid.start[0] * row + grid.start[1] * p.c, row_step=grid.step[0] * row,
            column_step=grid.step[1] * p.c, kind=-1 if few else kind, first_line=len(lines),
            lines=len(own),
        ))  # fmt: skip
        lines += own
    height, width = (max((grid.size[axis] for grid in found), default=0) for axis in (0, 1))
    # One row or column of positions has no next one, however long the step to it would be.
    stride_h, stride_w = found[0].stride if found else (1, 1)
    stride_h, stride_w = stride_h if height > 1 else 1, stride_w if width > 1 else 1
    columns = [tap for grid in found for tap in grid.taps[:, 1].tolist()] or [0]
    left, span_w = min(columns), max(columns) - min(columns) + 1
    below = max((line.row for line in lines), default=0) + 1
    slots = row_slots(sorted({line.row for line in lines}))
    segment = min(width, max(WIDEST, ((TABLE // slots - span_w) // stride_w + 1) // WIDEST * WIDEST - WIDEST))
    if slots > SLOTS or slots * ((segment + WIDEST - 1) * stride_w + span_w) > TABLE:
        return None
    vectors = -(-p.c // numpy_lanes(p.dtype))
    bands = min(max(1, height), max(1, -(-_TASKS // p.n)))
    rows = -(-max(1, height) // bands)
    bands = -(-height // rows)
    parts = max(1, min(vectors // 16, _TASKS // 2 // max(1, bands * p.n)))
    itemsize = np.dtype(p.dtype).itemsize
    steps_a_row = vectors * sum(-(-grid.size[1] // WIDEST) for grid in found)
    new = stride_h * source[1] * p.c * itemsize
    fetched = fetched_lines(new, steps_a_row) if parts == 1 else 0
    return grid_rows, [line._replace(column=line.column - left) for line in lines], Gather(
        *source, p.c, stride_h, stride_w, left=left, span_w=span_w, below=below, image=image, pitch=pitch * p.c,
        grids=len(found), width=width, segment=segment, slots=slots, rows=rows, bands=bands, parts=parts,
        flags=epilogue_flags(p.epilogue), fetched=fetched,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _plan(p: ConvProblem) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of tasks, the tables of grids and of lines, and the integers of the launch."""
    found = _layout(p)
    assert found is not None  # else the candidate has refused
    grid_rows, lines, integers_ = found
    tasks = p.n * integers_.bands * integers_.parts
    return tasks, np.array(grid_rows, np.int64), np.array(lines, np.int64), block_of(integers_)


@lru_cache(maxsize=256)
def _stored(p: ConvProblem) -> tuple[Order, Share, tuple[int, ...]]:
    """Return what each task of the forward pass stores: a part of the channels of a band of an image."""
    found = _layout(p)
    assert found is not None
    s, size = found[2], numpy_lanes(p.dtype)
    bands, vectors = p.n * s.bands, -(-p.c // size)
    channels = [part * vectors // s.parts * size for part in range(s.parts)]
    share = Share(bands, 1, bands, bands, s.parts, s.parts, 1)
    return in_tiles(p, s.rows, p.q), share, (*channels, p.c)


def _prepare(p: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return the weight (C, R, S, 1) as (R * S, C): a few numbers a channel."""
    return transposed(weight.reshape(p.c, p.r * p.s))


def _gather(
    p: ConvProblem,
    source: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    *outputs: Any,
) -> None:
    out = outputs[0]
    start = constant(zeros(p.c, p.dtype)) if bias is None else bias
    if p.which == "backward_input":
        residual = apart(residual, out)  # the last vectors overlap
        complete_unseen(p, residual, out)
    tasks, grid_rows, lines, integers_ = _plan(p)
    buffers = (
        source, weight, grid_rows, lines, zeros(p.c, p.dtype), start,
        start if residual is None else residual, out,
    )  # fmt: skip
    then = following(outputs, *_stored(p)) if len(outputs) > 1 else None
    launch(depthwise_gather, tasks, buffers, integers_, p.dtype, then)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _gather(p, *inputs, *outputs)


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _gather(p, *of_gradient(inputs), outputs[0])


def refusal(p: ConvProblem) -> str | None:
    """Return None, or why a problem is for other kernels, whatever the pass."""
    if not p.c == p.k == p.groups:
        return "not one filter of one channel for each channel"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if p.r * p.s > _TAPS:
        return f"a filter of {p.r * p.s} elements, more than {_TAPS}"
    return None


def _supports(p: ConvProblem) -> str | None:
    if reason := refusal(p):
        return reason
    if _layout(p) is None:
        return f"an output row sees more than the {TABLE} columns of a table"
    return None


def _cost(p: ConvProblem) -> float:
    return 2.0 * p.flops  # bound by loads, not by arithmetic; direct convolution fills one lane of a vector


def _candidate(run: Any) -> list[Candidate]:
    # Whatever the problem, a weight has one form.
    return [
        Candidate("cpu.depthwise", run, _supports, _cost, tolerance=tolerance, prepare=_prepare, form=lambda p: None)
    ]


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidate(_forward),
    ("conv2d", "backward_input"): _candidate(_backward_input),
}
