"""Gradient of the weight of a depthwise convolution: for each tap and channel, a sum of products over all pixels.

A task owns a share of the output rows and a part of the channels. Row by row, register tiles add what the taps of a few
filter rows see to sums that stay in the first-level cache; so memory is read in its own order. A table of addresses
stands for the source, as in `numbanet.cpu.conv_depthwise`. The sums of the shares are added in a fixed order at last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, Kernel, T, kernel
from numbanet.cpu.conv_depthwise import (
    SLOTS,
    TABLE,
    channels_of_part,
    fetched_lines,
    line_of,
    refusal,
    row_slots,
    write_columns,
)
from numbanet.cpu.conv_direct import tolerance, zeros
from numbanet.cpu.conv_geometry import CUT, Geometry, geometry
from numbanet.cpu.depthwise_tile import POSITIONS, SUM_KINDS, sum_tile
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.simd import lanes, load, named, numpy_lanes, offset, splat, store
from numbanet.cpu.tile import address, stack_buffer
from numbanet.problem.conv import ConvProblem

_LINES = max(kind[0] for kind in SUM_KINDS)
_SEGMENT = 32  # columns of the gradient that are summed up at once: their part of the channels stays in the cache
_SUMS = 40960  # bytes of the sums of a part's lines, about
_TASKS = 16
_SHARE = 48  # pixels of a share at least
_SMALL_WEIGHT = 8 << 20  # bytes of partial results
_BLOCKS = 16  # vectors of channels whose sums a task adds up at last


class Sums(NamedTuple):
    """What kernels read of the sums that each of their tasks makes; it follows the geometry."""

    kind: int  # of tiles
    lines: int  # at a time,
    groups: int  # of so many lines,
    span: int  # and the taps of each
    parts: int  # of the channels
    shares: int  # of the rows
    rows: int  # of the gradient, of all images


class Cut(NamedTuple):
    """What the kernel reads of how a problem is cut; it follows the sums."""

    in_row: int  # lines of a filter row
    segment: int
    slots: int  # of source rows
    in_table: int  # columns of each
    fetched: int  # cache lines of the next source rows that a tile fetches with each step,
    g_fetched: int  # and of the next row of the gradient


_CUT = CUT + len(Sums._fields)


@kernel
def depthwise_weight(task: Index, ints: I64, x: T, g: T, zeros: T, partials: T):
    """Sum over a share of the rows, for a part of the channels."""
    s, sums, cut = named(ints, Geometry), named(offset(ints, CUT), Sums), named(offset(ints, _CUT), Cut)
    h, w, c, p, q, jump, slots, in_table = s.h, s.w, s.c, s.p, s.q, s.stride_w, cut.slots, cut.in_table
    share, vector, nothing = task // sums.parts, lanes(x), address(zeros, 0)
    begin, end = channels_of_part(task % sums.parts, sums.parts, c, vector)
    vectors = (c + vector - 1) // vector
    pitch = sums.groups * sums.lines * sums.span * vector  # sums of a vector of channels
    own = offset(partials, (share * vectors + begin // vector) * pitch)
    for i in range(0, (end - begin + vector - 1) // vector * pitch, vector):
        store(own, i, splat(x, 0.0))
    table, held, columns = stack_buffer(ints, TABLE), stack_buffer(ints, SLOTS), stack_buffer(ints, _LINES)
    for j in range(in_table):
        table[slots * in_table + j] = nothing
    for first in range(0, q, cut.segment):
        for slot in range(slots):
            held[slot] = -1
        here = min(cut.segment, q - first)
        fetched = (end - begin + vector - 1) // vector * (here // POSITIONS) * line_of(x)  # with one line a step
        for number in range(share * sums.rows // sums.shares, (share + 1) * sums.rows // sums.shares):
            n, i = number // p, number % p
            row = i * s.stride_h - s.top + s.span_h
            ahead, g_ahead = ((n * h + row) * w + first * jump) * c + begin, ((number + 1) * q + first) * c + begin
            for group in range(sums.groups):
                for t in range(sums.lines):
                    line = group * sums.lines + t
                    down, across = line // cut.in_row, line % cut.in_row * sums.span
                    row = i * s.stride_h + down * s.dilation_h - s.top
                    slot = slots  # zeros
                    if 0 <= row < h and down < s.r:
                        slot = row % slots
                        if held[slot] != n * h + row:
                            held[slot] = n * h + row
                            write_columns(
                                table, slot * in_table, in_table, x, n * h + row, first * jump - s.left, w, c, nothing
                            )
                    columns[t] = slot * in_table + across * s.dilation_w
                sum_tile(
                    sums.kind, table, jump, columns, offset(g, ((n * p + i) * q + first) * c), c,
                    here, begin, end,
                    offset(own, group * sums.lines * sums.span * vector), pitch,
                    offset(x, ahead), cut.fetched, w * c, offset(g, g_ahead), cut.g_fetched,
                )  # fmt: skip
                ahead += fetched * cut.fetched
                g_ahead += fetched * cut.g_fetched


@kernel
def add_shares(task: Index, ints: I64, partials: T, out: T):
    """Write the gradient of some channels: the sums of all shares, added in their order."""
    s, sums = named(ints, Geometry), named(offset(ints, CUT), Sums)
    vector, taps, c = lanes(out), s.r * s.s, s.c
    vectors = (c + vector - 1) // vector
    pitch = sums.groups * sums.lines * sums.span * vector
    total = stack_buffer(out, 64)
    for block in range(task * _BLOCKS, min(vectors, (task + 1) * _BLOCKS)):
        for tap in range(taps):
            at = block * pitch + tap * vector
            value = load(partials, at)
            for share in range(1, sums.shares):
                value = value + load(partials, share * vectors * pitch + at)
            store(total, 0, value)
            channel = max(0, min(block * vector, c - vector))  # the last vector overlaps the one before
            for j in range(min(vector, c)):
                out[(channel + j) * taps + tap] = total[j]


def share_count(p: ConvProblem, parts: int, size: int) -> int:
    """Return into how many shares the rows are cut, beside so many parts of the channels; their sums take `size`."""
    rows = p.n * p.p
    return max(1, min(-(-_TASKS // parts), rows, rows * p.q // _SHARE, _SMALL_WEIGHT // size))


def vector_work(p: ConvProblem, sums: Sums) -> float:
    """Return the operations on whole vectors, those of the lines that fill up a tile included."""
    lanes_ = numpy_lanes(p.dtype)
    return float(p.n * p.p * p.q * sums.groups * sums.lines * sums.span * -(-p.c // lanes_) * lanes_)


def run_shares(
    weight: Kernel, p: ConvProblem, sums: Sums, integers_: np.ndarray, inputs: Arrays, outputs: Arrays
) -> None:
    """Launch a kernel that makes the sums of shares and parts, and add those up."""
    vectors, lanes_ = -(-p.c // numpy_lanes(p.dtype)), numpy_lanes(p.dtype)
    partials = memory.empty((sums.shares * vectors * sums.groups * sums.lines * sums.span * lanes_,), p.dtype)
    launch(weight, sums.parts * sums.shares, (*inputs, zeros(p.c, p.dtype), partials), integers_, p.dtype)
    launch(add_shares, -(-vectors // _BLOCKS), (partials, *outputs), integers_, p.dtype)


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[Sums, np.ndarray] | None:
    """Return how a problem is cut, and the integers of the launches; None where the table has no room."""
    lanes_, itemsize = numpy_lanes(p.dtype), np.dtype(p.dtype).itemsize
    shape = p.s, p.stride[1] if p.q > 1 else 1
    wide = p.c >= lanes_ and p.dilation[1] == 1
    kind = next((i for i, k in enumerate(SUM_KINDS) if k[1:] == shape and wide), 0)
    lines, span, _ = SUM_KINDS[kind]
    in_row = p.s // span
    groups, vectors = -(-p.r * in_row // lines), -(-p.c // lanes_)
    parts = min(vectors, -(-vectors * lines * span * lanes_ * itemsize // _SUMS))
    shares = share_count(p, parts, groups * lines * span * vectors * lanes_ * itemsize)
    slots = row_slots([r * p.dilation[0] for r in range(p.r)])
    segment, across = -(-p.q // -(-p.q // _SEGMENT)), (p.s - 1) * p.dilation[1] + 1
    segment = min(segment, max(0, TABLE // (slots + 1) - across) // shape[1] + 1)
    in_table = (segment - 1) * shape[1] + across
    if slots > SLOTS or (slots + 1) * in_table > TABLE:
        return None
    own = -(-vectors // parts) * groups * (segment // POSITIONS)  # steps over a row
    new, g_new = (segment * p.c * itemsize * step if parts == 1 else 0 for step in (shape[1], 1))
    sums = Sums(
        kind if p.c >= lanes_ else len(SUM_KINDS), lines, groups, span, parts, shares, rows=p.n * p.p
    )  # fmt: skip
    cut = Cut(in_row, segment, slots, in_table, fetched_lines(new, own), fetched_lines(g_new, own))
    shapes = geometry(p)._replace(stride_w=shape[1], stride_h=p.stride[0] if p.p > 1 else 1)
    return sums, block_of((*shapes, *sums, *cut))


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    found = _plan(p)
    assert found is not None  # else the candidate has refused
    run_shares(depthwise_weight, p, *found, inputs, outputs)


def _supports(p: ConvProblem) -> str | None:
    if reason := refusal(p):
        return reason
    return f"an output row sees more than the {TABLE} columns of a table" if _plan(p) is None else None


def _cost(p: ConvProblem) -> float:
    found = _plan(p)
    return 4.0 * p.flops if found is None else 1.8 * vector_work(p, found[0])


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.depthwise", _run, _supports, _cost, tolerance=tolerance)],
}
