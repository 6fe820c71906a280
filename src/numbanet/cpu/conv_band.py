"""Convolution by bands: a few input rows are copied with their padding, and then no filter position needs a test.

For few in-channels (the first layer), where a filter position alone is too short a run: in the padded copy, a whole
filter row (s, c) is one run of memory. The copy is a small part of the work, and lives on the stack.

The gradient of the weight has the filter elements as the rows of its register tiles and the out-channels as the
columns, the other way round than `numbanet.cpu.conv_weight`, so that vectors are full.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import TABLE, run_tiles, tolerance
from numbanet.cpu.conv_weight import reduce_partials, split_count
from numbanet.cpu.copy import transpose
from numbanet.cpu.isa import host_isa
from numbanet.cpu.pack import pack, panel_count
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load, load_tail, numpy_lanes, offset, splat, store, store_tail
from numbanet.cpu.tile import MAX_ROWS, MAX_VECTORS, address, epilogue_flags, outer_tile, stack_buffer, tile_rows
from numbanet.problem.conv import ConvProblem

_BUFFER = 16384  # numbers in a task's band
_POSITIONS = 256  # output positions of a band, about
_ELEMENTS = 1024  # filter elements (r, s, c) at most
_SHARES = 16  # tasks of a gradient of the weight


@device
def _copy(x, source, band, out, count):
    i = 0
    while i + lanes(x) <= count:
        store(band, out + i, load(x, source + i))
        i += lanes(x)
    if i < count:
        store_tail(band, out + i, load_tail(x, source + i, count - i), count - i)


@device
def _clear(band, out, count):
    for i in range(0, count, lanes(band)):
        store_tail(band, out + i, splat(band, 0.0), count - i)


@device
def copy_band(x, geometry, n, first, rows, band):
    """Copy the input rows that `rows` output rows of image n from `first` on see, zeros where they are padding."""
    h, w, c, _, _, _, _, stride_h, _, top, left, _, _, span_h, span_w = integers(geometry, 15)
    low = min(left, span_w)
    high = max(low, min(span_w, left + w))
    for b in range((rows - 1) * stride_h + span_h):
        row = first * stride_h - top + b
        out = b * span_w * c
        if row < 0 or row >= h:
            _clear(band, out, span_w * c)
        else:
            _clear(band, out, low * c)
            _copy(x, ((n * h + row) * w + low - left) * c, band, out + low * c, (high - low) * c)
            _clear(band, out + high * c, (span_w - high) * c)


@kernel
def band_forward(task: Index, ints: I64, x: T, packed: T, bias: T, residual: T, y: T):
    """Convolve one band of one image."""
    (
        _, _, c, p, q, r_size, s_size, stride_h, stride_w, _, _, dilation_h, dilation_w, _, span_w,
        k, panels, band_rows, bands, flags,
    ) = integers(ints, 20)  # fmt: skip
    n, first = task // bands, task % bands * band_rows
    rows = min(band_rows, p - first)
    count = rows * q
    padded = count + MAX_ROWS
    band = stack_buffer(x, _BUFFER)
    sources, outs = stack_buffer(ints, TABLE), stack_buffer(ints, TABLE)
    copy_band(x, ints, n, first, rows, band)
    # In the band a filter row is one run if it is not dilated.
    s_taps = 1 if dilation_w == 1 else s_size
    taps, run = r_size * s_taps, s_size * c // s_taps
    for tap in range(taps):
        shift = (tap // s_taps * dilation_h * span_w + tap % s_taps * dilation_w) * c
        for i in range(rows):
            here = address(band, shift + i * stride_h * span_w * c)
            step = address(band, stride_w * c) - address(band, 0)
            for j in range(q):
                sources[tap * padded + i * q + j] = here + j * step
        for m in range(count, padded):
            sources[tap * padded + m] = sources[tap * padded + count - 1]
    base = (n * p + first) * q * k
    for m in range(padded):
        outs[m] = address(y, base + min(m, count - 1) * k)
    vector = lanes(x)
    for panel in range(panels):
        column = panel * MAX_VECTORS * vector
        width = min(MAX_VECTORS, (k - column + vector - 1) // vector)
        run_tiles(
            width, min(k - column - (width - 1) * vector, vector), sources, padded, 0, taps, run,
            offset(packed, column * taps * run), run * width * vector, outs, column, count, flags, bias,
            address(residual, 0) - address(y, 0),
        )  # fmt: skip


@kernel
def band_weight_gradient(task: Index, ints: I64, x: T, g: T, element_offsets: I64, out: T):
    """Sum the outer products of filter elements and gradients over one share of the bands."""
    (
        _, _, c, p, q, _, _, stride_h, stride_w, _, _, _, _, _, span_w,
        k, elements, band_rows, bands, all_bands, shares,
    ) = integers(ints, 21)  # fmt: skip
    start, end = task * all_bands // shares, (task + 1) * all_bands // shares
    band = stack_buffer(x, _BUFFER)
    runs = stack_buffer(ints, TABLE)
    vector = lanes(x)
    for at in range(start, end):
        n, first = at // bands, at % bands * band_rows
        rows = min(band_rows, p - first)
        copy_band(x, ints, n, first, rows, band)
        for i in range(rows):
            runs[3 * i] = address(band, i * stride_h * span_w * c)
            runs[3 * i + 1] = address(g, (n * p + first + i) * q * k)
            runs[3 * i + 2] = q
        for column in range(0, k, MAX_VECTORS * vector):
            width = min(MAX_VECTORS, (k - column + vector - 1) // vector)
            step = tile_rows(width)
            for element in range(0, elements, step):
                outer_tile(
                    width, runs, rows, stride_w * c, k, 0, column, offset(element_offsets, element), 0,
                    offset(out, (task * elements + element) * k + column), k, at - start, elements - element,
                    min(k - column - (width - 1) * vector, vector), runs, 0, 0,
                )  # fmt: skip


def _spans(p: ConvProblem) -> tuple[int, int]:
    """Return the input rows that one output row sees, and the columns that all output columns see."""
    return (p.r - 1) * p.dilation[0] + 1, (p.q - 1) * p.stride[1] + (p.s - 1) * p.dilation[1] + 1


def _band_rows(p: ConvProblem) -> int:
    """Return how many output rows a band has; 0 where not even one fits."""
    span_h, span_w = _spans(p)
    in_rows = _BUFFER // (span_w * p.c)
    taps = p.r if p.dilation[1] == 1 else p.r * p.s
    fitting = min((in_rows - span_h) // p.stride[0] + 1, (TABLE // taps - MAX_ROWS) // p.q, TABLE // 3)
    return max(0, min(fitting, max(1, _POSITIONS // p.q), p.p))


def _geometry(p: ConvProblem) -> tuple[int, ...]:
    return (p.h, p.w, p.c, p.p, p.q, p.r, p.s, *p.stride, p.pads[0], p.pads[2], *p.dilation, *_spans(p))


@lru_cache(maxsize=64)
def _row_taps(count: int) -> np.ndarray:
    """Return the taps of a packed weight whose filter rows are single taps: only the index matters."""
    return np.array([(0, 0, index) for index in range(count)], np.int64)


def _element_offsets(p: ConvProblem) -> np.ndarray:
    """Return where each filter element (r, s, c) lies in a band, relative to its output position."""
    r, s, c = np.meshgrid(np.arange(p.r), np.arange(p.s), np.arange(p.c), indexing="ij")
    _, span_w = _spans(p)
    offsets = ((r * p.dilation[0] * span_w + s * p.dilation[1]) * p.c + c).reshape(-1)
    return np.concatenate([offsets, np.repeat(offsets[-1:], MAX_ROWS)]).astype(np.int64)


@lru_cache(maxsize=1024)
def _forward_plan(p: ConvProblem) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return the taps, the number of tasks and the integers of the launch."""
    band_rows = _band_rows(p)
    bands = -(-p.p // band_rows)
    taps = _row_taps(p.r if p.dilation[1] == 1 else p.r * p.s)
    flags = epilogue_flags(p.epilogue)
    return taps, p.n * bands, (*_geometry(p), p.k, panel_count(p.k, p.dtype), band_rows, bands, flags)


def _prepare(p: ConvProblem, weight: np.ndarray) -> np.ndarray:
    taps, *_ = _forward_plan(p)
    return pack(weight, taps, 1, len(taps), False, p.dtype)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, packed, bias, residual = inputs
    _, tasks, integers_ = _forward_plan(p)
    unused = packed
    buffers = x, packed, unused if bias is None else bias, unused if residual is None else residual, outputs[0]
    launch(band_forward, tasks, buffers, integers_, p.dtype)


@lru_cache(maxsize=1024)
def _weight_plan(p: ConvProblem) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return the offsets of the filter elements, the number of tasks and the integers of the launch."""
    band_rows, elements = _band_rows(p), p.r * p.s * p.c
    bands = -(-p.p // band_rows)
    weight_bytes = p.k * elements * np.dtype(p.dtype).itemsize
    shares = min(_SHARES, p.n * bands, split_count(weight_bytes, p.n * p.p * p.q))
    return _element_offsets(p), shares, (*_geometry(p), p.k, elements, band_rows, bands, p.n * bands, shares)


def _backward_weight(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (out,) = inputs, outputs
    offsets, shares, integers_ = _weight_plan(p)
    elements = p.r * p.s * p.c
    partials = memory.empty((shares * out.size,), p.dtype)
    launch(band_weight_gradient, shares, (x, grad, offsets, partials), integers_, p.dtype)
    total = memory.empty((elements, p.k), p.dtype)
    reduce_partials(partials, total, shares, p.dtype)
    transpose(total, out.reshape(p.k, elements))


def _supports(p: ConvProblem) -> str | None:
    if p.groups > 1:
        return "more than one group"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if p.r * p.s * p.c > _ELEMENTS:
        return f"a filter of {p.r * p.s * p.c} elements, more than {_ELEMENTS}"
    if _band_rows(p) == 0:
        return f"an output row sees more than the {_BUFFER} numbers of a band"
    return None


def _rounded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _copy_cost(p: ConvProblem) -> float:
    """Return the cost of the copies, in operations at peak: about four a number."""
    span_h, span_w = _spans(p)
    band_rows = _band_rows(p)
    return 8.0 * p.n * -(-p.p // band_rows) * ((band_rows - 1) * p.stride[0] + span_h) * span_w * p.c


def _forward_cost(p: ConvProblem) -> float:
    run = p.s * p.c if p.dilation[1] == 1 else p.c
    products = 2.0 * p.n * p.p * p.q * p.r * p.s * p.c * _rounded(p.k, numpy_lanes(p.dtype))
    return 1.1 * products * (1 + 4 / run) + _copy_cost(p)


def _weight_cost(p: ConvProblem) -> float:
    rows = host_isa().tile_rows[min(MAX_VECTORS, -(-p.k // numpy_lanes(p.dtype))) - 1]
    elements = _rounded(p.r * p.s * p.c, rows)
    return 2.0 * p.n * p.p * p.q * elements * _rounded(p.k, numpy_lanes(p.dtype)) * 1.2 + _copy_cost(p)


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [
        Candidate(
            "cpu.band", _forward, _supports, _forward_cost, tolerance=tolerance,
            prepare=_prepare, form=lambda p: p.dilation[1] == 1,
        )  # fmt: skip
    ],
    ("conv2d", "backward_weight"): [
        Candidate("cpu.band", _backward_weight, _supports, _weight_cost, tolerance=tolerance)
    ],
}
