"""Gradient of a convolution's input for few in-channels (the first layer): products of whole filter rows, then a sum.

With the in-channels alone as columns, a register tile would be mostly empty. Here its columns are a filter row (s, c):
for each input row, ``z[q, (s, c)] = sum over filter rows r and k of g[p(r), q, k] * weight[k, r, s, c]`` is a matrix
product, and each input pixel is the sum of the few z that lie over it. z stays in the cache.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.addresses import write_steps
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import TABLE, of_gradient, run_tiles, tolerance, zeros
from numbanet.cpu.conv_geometry import CUT, Geometry, geometry
from numbanet.cpu.pack import first_vector, pack, panel_count
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import lanes, load, load_tail, named, numpy_lanes, offset, splat, store, store_tail
from numbanet.cpu.tile import MAX_ROWS, RESIDUAL, address, epilogue_flags, stack_buffer
from numbanet.problem.conv import ConvProblem

_PRODUCTS = 16384  # numbers of z
_POSITIONS = 192  # positions (row, q) of a task, about
_LINE = 4096  # numbers of an input row


@device
def _sum_row(z, q, columns, c, w, s_size, stride, left, dilation, s_step, q_step, line):
    """Write an input row of `w` pixels to `line`: each is the sum of the products that lie over it."""
    for channel in range(0, c, lanes(z)):
        for j in range(w):
            # The first s whose products lie over pixel j, and the output column that it belongs to.
            s = 0
            while s < s_size and (j + left - s * dilation) % stride != 0:
                s += 1
            total, at = splat(z, 0.0), (j + left - s * dilation) // stride
            while s < s_size:
                if 0 <= at < q:
                    total = total + load(z, at * columns + s * c + channel)
                s += s_step
                at -= q_step
            if channel + lanes(z) <= c:
                store(line, j * c + channel, total)
            else:
                store_tail(line, j * c + channel, total, c - channel)


class Cut(NamedTuple):
    """What the kernel reads of how a problem is cut; it follows the geometry."""

    r_step: int  # from a filter row that lies over an input row to the next,
    p_step: int  # and between the output rows that they belong to
    s_step: int
    q_step: int
    columns: int  # of z: numbers of a filter row
    band_rows: int  # input rows of a task,
    bands: int  # and tasks for all rows of a residue
    panels: int
    flags: int  # of what completes the result


@kernel
def band_input_gradient(task: Index, ints: I64, g: T, packed: T, zero: T, residual: T, dx: T):
    """Compute a few input rows of one image that see the same filter rows."""
    s, cut = named(ints, Geometry), named(offset(ints, CUT), Cut)
    h, w, c, q, k, columns = s.h, s.w, s.c, s.q, s.k, cut.columns
    residue, band, n = task % s.stride_h, task // s.stride_h % cut.bands, task // (s.stride_h * cut.bands)
    first, vector = residue + band * cut.band_rows * s.stride_h, lanes(g)
    rows = min(cut.band_rows, (h - first + s.stride_h - 1) // s.stride_h)
    r_first = 0
    while r_first < s.r and (first + s.top - r_first * s.dilation_h) % s.stride_h != 0:
        r_first += 1
    z, line = stack_buffer(g, _PRODUCTS), stack_buffer(g, _LINE)
    sources, outs = stack_buffer(ints, TABLE), stack_buffer(ints, TABLE)
    if rows > 0 and r_first < s.r:
        count = rows * q
        padded = count + MAX_ROWS
        taps = (s.r - r_first + cut.r_step - 1) // cut.r_step
        pixel = address(g, k) - address(g, 0)
        for tap in range(taps):
            for i in range(rows):
                row = (first + i * s.stride_h + s.top - (r_first + tap * cut.r_step) * s.dilation_h) // s.stride_h
                inside = 0 <= row < s.p
                here = address(g, (n * s.p + row) * q * k) if inside else address(zero, 0)
                step = pixel if inside else 0
                write_steps(sources, tap * padded + i * q, here, step, q)
            for m in range(count, padded):
                sources[tap * padded + m] = sources[tap * padded + count - 1]
        write_steps(outs, 0, address(z, 0), address(z, columns) - address(z, 0), count)
        for m in range(count, padded):
            outs[m] = outs[count - 1]
        vectors = (columns + vector - 1) // vector
        for panel in range(cut.panels):
            column = first_vector(panel, vectors, cut.panels) * vector
            width = first_vector(panel + 1, vectors, cut.panels) - column // vector
            pitch = width * vector
            run_tiles(
                width, min(columns - column - pitch + vector, vector), sources, padded, 0, taps, k,
                offset(packed, column * s.r * k + r_first * k * pitch), cut.r_step * k * pitch,
                outs, column, count, 0, zero, 0,
            )  # fmt: skip
    for i in range(rows):
        size = s.s if r_first < s.r else 0
        _sum_row(
            offset(z, i * q * columns), q, columns, c, w, size, s.stride_w, s.left, s.dilation_w, cut.s_step,
            cut.q_step, line,
        )  # fmt: skip
        out = (n * h + first + i * s.stride_h) * w * c
        for j in range(0, w * c, vector):
            total, left = load(line, j), w * c - j
            if cut.flags & RESIDUAL:
                total = total + load_tail(residual, out + j, left)
            if left >= vector:
                store(dx, out + j, total)
            else:
                store_tail(dx, out + j, total, left)


def _steps(stride: int, dilation: int) -> tuple[int, int]:
    """Return the distance of filter positions that lie over one input pixel, and that of their output positions."""
    common = math.gcd(stride, dilation)
    return stride // common, dilation // common


def _band_rows(p: ConvProblem) -> int:
    """Return how many input rows a task has; 0 where not even one fits."""
    taps, columns = -(-p.r // _steps(p.stride[0], p.dilation[0])[0]), p.s * p.c
    fitting = min((_PRODUCTS - numpy_lanes(p.dtype)) // (p.q * columns), (TABLE // taps - MAX_ROWS) // p.q)
    return max(0, min(fitting, max(1, _POSITIONS // p.q), -(-p.h // p.stride[0])))


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return the taps of the packed weight, the number of tasks and the integers of the launch."""
    rows, columns = _band_rows(p), p.s * p.c
    height = -(-p.h // p.stride[0])  # input rows of a residue
    bands = -(-height // rows)
    cut = Cut(
        *_steps(p.stride[0], p.dilation[0]), *_steps(p.stride[1], p.dilation[1]),
        columns=columns, band_rows=rows, bands=bands, panels=panel_count(columns, p.dtype),
        flags=epilogue_flags(p.epilogue),
    )  # fmt: skip
    return np.array([(0, 0, r) for r in range(p.r)], np.int64), p.n * bands * p.stride[0], (*geometry(p), *cut)


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (grad, weight, _, residual), (dx,) = of_gradient(inputs), outputs
    taps, tasks, integers_ = _plan(p)
    packed = pack(weight, taps, 1, p.r, True, p.dtype)
    nothing = zeros(p.k, p.dtype)
    buffers = grad, packed, nothing, nothing if residual is None else residual, dx
    launch(band_input_gradient, tasks, buffers, integers_, p.dtype)


def _supports(p: ConvProblem) -> str | None:
    if p.groups > 1:
        return "more than one group"
    if p.n == 0 or p.c == 0 or p.k == 0:
        return "an empty input"
    if p.w * p.c + numpy_lanes(p.dtype) > _LINE:
        return f"an input row of {p.w * p.c} numbers, more than {_LINE - numpy_lanes(p.dtype)}"
    if _band_rows(p) == 0:
        return f"a row of products has more than {_PRODUCTS} numbers, or too many addresses"
    return None


def _cost(p: ConvProblem) -> float:
    """Return the products on whole vectors, and about ten operations at peak a vector that is summed."""
    lanes_ = numpy_lanes(p.dtype)
    products = 2.2 * p.n * p.p * p.q * p.r * p.k * (-(-p.s * p.c // lanes_) * lanes_)
    return products + 10.0 * lanes_ * p.n * p.h * p.w * (p.s / p.stride[1] + 3) * -(-p.c // lanes_)


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_input"): [Candidate("cpu.band", _run, _supports, _cost, tolerance=tolerance)],
}
