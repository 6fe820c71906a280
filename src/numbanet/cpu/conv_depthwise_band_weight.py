"""Gradient of the weight of a depthwise convolution with stride 1, by bands: neighbours share most of what they see.

A task owns a share of the output rows and a part of the channels. Row by row, it copies what comes new of the source to
a band on the stack (see `numbanet.cpu.depthwise_band_tile`), and register tiles add what the taps of a few filter rows
see to sums that stay in the first-level cache. The sums of the shares are added in a fixed order at last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.conv_band import BUFFER, seen_too_much
from numbanet.cpu.conv_depthwise import SLOTS, refusal, row_slots
from numbanet.cpu.conv_depthwise_weight import Sums, run_shares, share_count, vector_work
from numbanet.cpu.conv_direct import tolerance
from numbanet.cpu.conv_geometry import CUT, Geometry, geometry
from numbanet.cpu.depthwise_band_tile import BAND_KINDS, band_tile, spread, vectors_of_line
from numbanet.cpu.parallel import block_of
from numbanet.cpu.simd import lanes, named, numpy_lanes, offset, splat, store
from numbanet.cpu.tile import stack_buffer
from numbanet.problem.conv import ConvProblem

_LINES = max(lines for lines, _ in BAND_KINDS)
_SEGMENT = 32  # columns of the gradient that are summed up at once, at most
_BYTES = 24576  # of a band, about: the first-level cache holds it beside what passes by


class Cut(NamedTuple):
    """What the kernel reads of how a problem is cut; it follows the sums."""

    in_part: int  # vectors of channels of a part
    segment: int  # columns of the gradient at a time
    slots: int  # for source rows in the band, beside one of zeros
    columns: int  # of the band


_CUT = CUT + len(Sums._fields)


@kernel
def depthwise_band_weight(task: Index, ints: I64, x: T, g: T, zeros: T, partials: T):
    """Sum over a share of the rows, for a part of the channels."""
    s, sums, cut = named(ints, Geometry), named(offset(ints, CUT), Sums), named(offset(ints, _CUT), Cut)
    h, w, c, p, q, slots, columns = s.h, s.w, s.c, s.p, s.q, cut.slots, cut.columns
    share, vector = task // sums.parts, lanes(x)
    begin = task % sums.parts * cut.in_part * vector
    vectors = (c + vector - 1) // vector
    in_part = min(cut.in_part, vectors - begin // vector)
    # The last vector may overlap the one before, if there is one.
    final = min((in_part - 1) * vector, c - vector - begin) if c >= vector else 0
    pitch = sums.groups * sums.lines * sums.span * vector  # sums of a vector of channels
    own = offset(partials, (share * vectors + begin // vector) * pitch)
    for i in range(0, in_part * pitch, vector):
        store(own, i, splat(x, 0.0))
    band, held, rows = stack_buffer(x, BUFFER), stack_buffer(ints, SLOTS), stack_buffer(ints, _LINES)
    size = in_part * columns * vector  # of a row of the band
    gradient = offset(band, (slots + 1) * size)
    for i in range(0, size, vector):
        store(band, slots * size + i, splat(x, 0.0))
    for first in range(0, q, cut.segment):
        for slot in range(slots):
            held[slot] = -1
        here, left = min(cut.segment, q - first), s.left - first
        seen = here - 1 + s.s
        low = min(max(left, 0), seen)
        high = max(low, min(seen, w + left))
        for number in range(share * sums.rows // sums.shares, (share + 1) * sums.rows // sums.shares):
            n, i = number // p, number % p
            g_here, step, g_plane, g_final, ahead = offset(g, (number * q + first) * c + begin), c, vector, final, q * c
            if c < vector:  # what the lanes behind read must not be NaN
                spread(g_here, c, in_part, final, 0, here, gradient, here, q * c)
                g_here, step, ahead = gradient, vector, 0
            for group in range(sums.groups):
                for t in range(sums.lines):
                    down = group * sums.lines + t
                    row = i * s.stride_h + down * s.dilation_h - s.top
                    slot = slots  # zeros
                    if 0 <= row < h and down < s.r:
                        slot = row % slots
                        if held[slot] != n * h + row:
                            held[slot] = n * h + row
                            source = offset(x, ((n * h + row) * w - left) * c + begin)
                            target = offset(band, slot * size)
                            spread(source, c, in_part, final, low, high, target, columns, s.stride_h * w * c)
                    rows[t] = slot * size
                band_tile(
                    sums.kind, band, rows, columns * vector, g_here, step, g_plane, g_final, ahead,
                    here, in_part, offset(own, group * sums.lines * sums.span * vector), pitch,
                )  # fmt: skip


def _slots(p: ConvProblem, row: int) -> int:
    """Return how many source rows of so many bytes a band has: all that a row of the result sees, or that it reads."""
    rows = [r * p.dilation[0] for r in range(p.r)]
    return rows[-1] + 1 if (rows[-1] + 2) * row <= _BYTES else row_slots(rows)


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[Sums, np.ndarray] | None:
    """Return how a problem is cut, and the integers of the launches; None where a band has no room."""
    lanes_, itemsize = numpy_lanes(p.dtype), np.dtype(p.dtype).itemsize
    kind = next(number for number, (_, span) in enumerate(BAND_KINDS) if span == p.s)
    lines, span = BAND_KINDS[kind]
    groups, vectors = -(-p.r // lines), -(-p.c // lanes_)
    segment = -(-p.q // -(-p.q // _SEGMENT))
    columns = segment - 1 + p.s
    slots = _slots(p, columns * lanes_ * itemsize)
    each = ((slots + 1) * columns + segment) * lanes_  # numbers of a vector of channels
    if slots > SLOTS or each > BUFFER:
        return None
    in_line = vectors_of_line(lanes_ * itemsize)
    most = max(1, min(_BYTES // itemsize, BUFFER) // each // in_line * in_line)  # whole cache lines
    even = -(-vectors // -(-vectors // most))  # parts of about the same size
    in_part = min(most, -(-even // in_line) * in_line)
    parts = -(-vectors // in_part)
    shares = share_count(p, parts, groups * lines * span * vectors * lanes_ * itemsize)
    shares = min(shares, max(1, p.n * p.p // (2 * slots)))  # each copies anew what its first row sees
    sums = Sums(kind, lines, groups, span, parts, shares, rows=p.n * p.p)
    shapes = geometry(p)._replace(stride_h=p.stride[0] if p.p > 1 else 1)
    return sums, block_of((*shapes, *sums, *Cut(in_part, segment, slots, columns)))


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    found = _plan(p)
    assert found is not None  # else the candidate has refused
    run_shares(depthwise_band_weight, p, *found, inputs, outputs)


def _supports(p: ConvProblem) -> str | None:
    if reason := refusal(p):
        return reason
    if (p.stride[1] != 1 and p.q > 1) or p.dilation[1] != 1 or p.s not in {span for _, span in BAND_KINDS}:
        return "not a filter of 3, 5 or 7 columns with stride 1 and dilation 1"
    return seen_too_much(p) if _plan(p) is None else None


def _cost(p: ConvProblem) -> float:
    found = _plan(p)
    return 4.0 * p.flops if found is None else 1.3 * vector_work(p, found[0])


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.depthwise_band", _run, _supports, _cost, tolerance=tolerance)],
}
