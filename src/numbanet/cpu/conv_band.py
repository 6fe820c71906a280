"""Convolution by bands: a few input rows are copied with their padding, and then no filter position needs a test.

For few in-channels (the first layer), where a filter position alone is too short a run: in the padded copy, a whole
filter row (s, c) is one run of memory. The copy is a small part of the work, and lives on the stack.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.addresses import write_steps
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import tolerance
from numbanet.cpu.conv_geometry import CUT, Geometry, geometry, spans
from numbanet.cpu.conv_moments import Order, Share, following, in_tiles
from numbanet.cpu.pack import first_vector, pack, panel_count
from numbanet.cpu.parallel import launch
from numbanet.cpu.shift_tile import shift_tile
from numbanet.cpu.simd import lanes, load, load_tail, named, numpy_lanes, offset, splat, store
from numbanet.cpu.tile import MAX_ROWS, address, epilogue_flags, stack_buffer, tile_rows
from numbanet.problem.conv import ConvProblem

BUFFER = 16384  # numbers in a task's band
_ROOM = BUFFER + 64  # and what whole vectors write beyond
_POSITIONS = 256  # output positions of a band, about
_ADDRESSES = 4096  # of output positions at most
_ELEMENTS = 1024  # filter elements (r, s, c) at most


@device
def _copy(x, source, band, out, count):
    i = 0
    while i + lanes(x) <= count:
        store(band, out + i, load(x, source + i))
        i += lanes(x)
    if i < count:
        store(band, out + i, load_tail(x, source + i, count - i))


@device
def _clear(band, out, count):
    for i in range(0, count, lanes(band)):
        store(band, out + i, splat(band, 0.0))


class Cut(NamedTuple):
    """What the kernel reads of how a problem is cut; it follows the geometry."""

    panels: int
    band_rows: int
    bands: int  # of an image
    flags: int  # of the tiles' stores


@device
def copy_band(x, ints, n, first, rows, band):
    """Copy the input rows that `rows` output rows of image n from `first` on see, zeros where they are padding.

    Whole vectors are stored, which masked ones take longer than: what they write beyond a part is written again by the
    next one, and less than a vector beyond the last.
    """
    g = named(ints, Geometry)
    c, span = g.c, g.span_w
    low = min(g.left, span)
    high = max(low, min(span, g.left + g.w))
    for b in range((rows - 1) * g.stride_h + g.span_h):
        row = first * g.stride_h - g.top + b
        out = b * span * c
        if row < 0 or row >= g.h:
            _clear(band, out, span * c)
        else:
            _clear(band, out, low * c)
            _copy(x, ((n * g.h + row) * g.w + low - g.left) * c, band, out + low * c, (high - low) * c)
            _clear(band, out + high * c, (span - high) * c)


@kernel
def band_forward(task: Index, ints: I64, x: T, packed: T, bias: T, residual: T, y: T):
    """Convolve one band of one image."""
    g, cut = named(ints, Geometry), named(offset(ints, CUT), Cut)
    c, q, k = g.c, g.q, g.k
    n, first = task // cut.bands, task % cut.bands * cut.band_rows
    rows = min(cut.band_rows, g.p - first)
    count = rows * q
    band, shifts, sources = stack_buffer(x, _ROOM), stack_buffer(ints, _ELEMENTS), stack_buffer(ints, _ADDRESSES)
    copy_band(x, ints, n, first, rows, band)
    # In the band a filter row is one run if it is not dilated.
    s_taps = 1 if g.dilation_w == 1 else g.s
    taps, run = g.r * s_taps, g.s * c // s_taps
    for tap in range(taps):
        shifts[tap] = (tap // s_taps * g.dilation_h * g.span_w + tap % s_taps * g.dilation_w) * c
    step = address(band, g.stride_w * c) - address(band, 0)
    for i in range(rows):
        write_steps(sources, i * q, address(band, i * g.stride_h * g.span_w * c), step, q)
    for m in range(count, count + MAX_ROWS):
        sources[m] = sources[count - 1]
    vector, start = lanes(x), (n * g.p + first) * q * k
    vectors, to_residual = (k + vector - 1) // vector, address(residual, 0) - address(y, 0)
    for panel in range(cut.panels):
        column = first_vector(panel, vectors, cut.panels) * vector
        width = first_vector(panel + 1, vectors, cut.panels) - column // vector
        last = min(k - column - (width - 1) * vector, vector)
        for m in range(0, count, tile_rows(width)):
            shift_tile(
                width, offset(sources, m), shifts, taps, run, offset(packed, column * taps * run),
                offset(y, start + m * k + column), k, count - m, cut.flags, offset(bias, column), to_residual, last,
            )  # fmt: skip


def row_runs(p: ConvProblem) -> tuple[int, int]:
    """Return how many runs of a band an output position sees, and how long they are: filter rows, or pixels."""
    return (p.r, p.s * p.c) if p.dilation[1] == 1 else (p.r * p.s, p.c)


def _band_rows(p: ConvProblem) -> int:
    """Return how many output rows a band has; 0 where not even one fits."""
    span_h, span_w = spans(p)
    in_rows = BUFFER // (span_w * p.c)
    fitting = min((in_rows - span_h) // p.stride[0] + 1, (_ADDRESSES - MAX_ROWS) // p.q)
    return max(0, min(fitting, max(1, _POSITIONS // p.q), p.p))


@lru_cache(maxsize=64)
def _row_taps(count: int) -> np.ndarray:
    """Return the taps of a packed weight whose filter rows are single taps: only the index matters."""
    return np.array([(0, 0, index) for index in range(count)], np.int64)


@lru_cache(maxsize=1024)
def _forward_plan(p: ConvProblem) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return the taps, the number of tasks and the integers of the launch."""
    band_rows = _band_rows(p)
    bands = -(-p.p // band_rows)
    taps = _row_taps(row_runs(p)[0])
    cut = Cut(panel_count(p.k, p.dtype), band_rows, bands, epilogue_flags(p.epilogue))
    return taps, p.n * bands, (*geometry(p), *cut)


def _stored(p: ConvProblem, tasks: int) -> tuple[Order, Share, tuple[int, ...]]:
    """Return what each task stores: a band of an image."""
    return in_tiles(p, _band_rows(p), p.q), Share(tasks, 1, tasks, tasks, 1, 1, 1), (0, p.k)


def _prepare(p: ConvProblem, weight: np.ndarray) -> np.ndarray:
    taps, *_ = _forward_plan(p)
    return pack(weight, taps, 1, len(taps), False, p.dtype)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, packed, bias, residual = inputs
    _, tasks, integers_ = _forward_plan(p)
    unused = packed
    buffers = x, packed, unused if bias is None else bias, unused if residual is None else residual, outputs[0]
    then = following(outputs, *_stored(p, tasks)) if len(outputs) > 1 else None
    launch(band_forward, tasks, buffers, integers_, p.dtype, then)


def unsuitable(p: ConvProblem) -> str | None:
    """Return why a problem has no bands, however short, or None."""
    if p.groups > 1:
        return "more than one group"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if p.r * p.s * p.c > _ELEMENTS:
        return f"a filter of {p.r * p.s * p.c} elements, more than {_ELEMENTS}"
    return None


def seen_too_much(p: ConvProblem) -> str:
    """Return why not even a band of one output row fits."""
    span_h, span_w = spans(p)
    return f"an output row sees {span_h * span_w * p.c} numbers, and a band holds {BUFFER}"


def _supports(p: ConvProblem) -> str | None:
    if reason := unsuitable(p):
        return reason
    if _band_rows(p) > 0:
        return None
    span_h, span_w = spans(p)
    if span_h * span_w * p.c > BUFFER:
        return seen_too_much(p)
    return f"an output row has {p.q} positions, more than there is room for"


def _rounded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def copy_cost(p: ConvProblem, band_rows: int) -> float:
    """Return the cost of the copies, in operations at peak: about four a number."""
    span_h, span_w = spans(p)
    return 8.0 * p.n * -(-p.p // band_rows) * ((band_rows - 1) * p.stride[0] + span_h) * span_w * p.c


def _forward_cost(p: ConvProblem) -> float:
    _, run = row_runs(p)
    products = 2.0 * p.n * p.p * p.q * p.r * p.s * p.c * _rounded(p.k, numpy_lanes(p.dtype))
    return 1.1 * products * (1 + 4 / run) + copy_cost(p, _band_rows(p))


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [
        Candidate(
            "cpu.band", _forward, _supports, _forward_cost, tolerance=tolerance,
            prepare=_prepare, form=lambda p: p.dilation[1] == 1,
        )  # fmt: skip
    ],
}
