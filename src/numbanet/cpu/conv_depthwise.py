"""Depthwise convolution: every channel has a filter of its own, so vectors run over channels and nothing is reduced.

Forward and backward_input are one gather, with the same grids of positions and taps as direct convolution. The work is
small for the memory that it touches: four neighbouring positions share each load of the weight, and a row's pixels are
reused from the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import clear_unseen, grids, tolerance
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import fma, lanes, load, load_tail, named, select, splat, store, store_tail
from numbanet.cpu.tile import RELU, RESIDUAL, SIX, epilogue_flags, stack_buffer
from numbanet.problem.conv import ConvProblem

_TAPS = 1024  # filter positions at most: a row's table of them is on the stack
_PAIRS = 2 * _TAPS
_ROWS = 4  # rows of positions a task


@device
def _read(p, i, n):
    return load(p, i) if n >= lanes(p) else load_tail(p, i, n)


@device
def _write(p, i, v, n):
    if n >= lanes(p):
        store(p, i, v)
    else:
        store_tail(p, i, v, n)


@device
def _finish(v, y, residual, at, n, flags):
    """Add the residual, apply the activation (NaN stays NaN), and store."""
    if flags & RESIDUAL:
        v = v + _read(residual, at, n)
    if flags & RELU:
        v = select(v <= splat(y, 0.0), splat(y, 0.0), v)
    if flags & SIX:
        v = select(v >= splat(y, 6.0), splat(y, 6.0), v)
    _write(y, at, v, n)


@device
def _four(x, weight, table, count, c, source, step, start, y, out, out_step, residual, flags):
    """Compute four neighbouring positions from `count` taps."""
    for channel in range(0, c, lanes(x)):
        n = c - channel
        a0 = _read(start, channel, n)
        a1, a2, a3 = a0, a0, a0
        for t in range(count):
            at = source + table[2 * t] + channel
            w = _read(weight, table[2 * t + 1] + channel, n)
            a0 = fma(_read(x, at, n), w, a0)
            a1 = fma(_read(x, at + step, n), w, a1)
            a2 = fma(_read(x, at + 2 * step, n), w, a2)
            a3 = fma(_read(x, at + 3 * step, n), w, a3)
        _finish(a0, y, residual, out + channel, n, flags)
        _finish(a1, y, residual, out + out_step + channel, n, flags)
        _finish(a2, y, residual, out + 2 * out_step + channel, n, flags)
        _finish(a3, y, residual, out + 3 * out_step + channel, n, flags)


@device
def _one(x, weight, table, count, c, source, start, y, out, residual, flags):
    """Compute one position from `count` taps."""
    for channel in range(0, c, lanes(x)):
        n = c - channel
        a = _read(start, channel, n)
        for t in range(count):
            a = fma(_read(x, source + table[2 * t] + channel, n), _read(weight, table[2 * t + 1] + channel, n), a)
        _finish(a, y, residual, out + channel, n, flags)


class Gather(NamedTuple):
    """What the kernel reads of a problem: the integers of a launch."""

    h: int  # rows and columns of the source,
    w: int
    c: int  # and channels
    stride_h: int  # source pixels from a position of the grid to the next
    stride_w: int
    grid_h: int  # the grid of positions
    grid_w: int
    base: int  # elements of the result before the first position,
    image_step: int  # and from one to that of the next image,
    row_step: int  # row
    column_step: int  # and column
    taps: int
    rows: int  # of positions a task,
    all_rows: int  # and of all images
    flags: int  # of what completes the result


@kernel
def depthwise_gather(task: Index, ints: I64, x: T, weight: T, taps: I64, start: T, residual: T, y: T):
    """Convolve a few rows of positions; every output starts as the channel's number in `start`."""
    s = named(ints, Gather)
    h, w, c, grid_w, jump, flags = s.h, s.w, s.c, s.grid_w, s.stride_w, s.flags
    present = stack_buffer(ints, _PAIRS)  # pairs of source and weight offset: the taps whose source row exists,
    inside = stack_buffer(ints, _PAIRS)  # and those of them whose source column exists for one position
    columns = stack_buffer(ints, _TAPS)
    for row in range(task * s.rows, min(s.all_rows, (task + 1) * s.rows)):
        n, i = row // s.grid_h, row % s.grid_h
        found, low, high = 0, 0, grid_w  # from low to high, every column exists
        for t in range(s.taps):
            source, column = i * s.stride_h + taps[3 * t], taps[3 * t + 1]
            if 0 <= source < h:
                present[2 * found] = ((n * h + source) * w + column) * c
                present[2 * found + 1] = taps[3 * t + 2] * c
                columns[found] = column
                low = max(low, (-column + jump - 1) // jump)
                high = min(high, (w - column + jump - 1) // jump)
                found += 1
        out = s.base + n * s.image_step + i * s.row_step
        j = 0
        while j < grid_w:
            here, there = j * jump * c, out + j * s.column_step
            if low <= j and j + 4 <= high:
                _four(x, weight, present, found, c, here, jump * c, start, y, there, s.column_step, residual, flags)
                j += 4
            else:
                kept = 0
                for t in range(found):
                    if 0 <= j * jump + columns[t] < w:
                        inside[2 * kept] = present[2 * t]
                        inside[2 * kept + 1] = present[2 * t + 1]
                        kept += 1
                _one(x, weight, inside, kept, c, here, start, y, there, residual, flags)
                j += 1


def _by_tap(weight: np.ndarray, p: ConvProblem) -> np.ndarray:
    """Return the weight (C, R, S, 1) as (R * S, C): a few numbers a channel."""
    return np.ascontiguousarray(weight.reshape(p.c, p.r * p.s).T)


def _gather(
    p: ConvProblem,
    source: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    out: np.ndarray,
) -> None:
    start = np.zeros(p.c, p.dtype) if bias is None else bias
    by_tap = _by_tap(weight, p)
    row, image = out.shape[2] * p.c, out.shape[1] * out.shape[2] * p.c
    if p.which == "backward_input":
        clear_unseen(p, out)
    for grid in grids(p):
        rows = p.n * grid.size[0]
        integers_ = Gather(
            *source.shape[1:], *grid.stride, *grid.size,
            base=grid.start[0] * row + grid.start[1] * p.c, image_step=image, row_step=grid.step[0] * row,
            column_step=grid.step[1] * p.c, taps=len(grid.taps), rows=_ROWS, all_rows=rows,
            flags=epilogue_flags(p.epilogue),
        )  # fmt: skip
        buffers = source, by_tap, grid.taps, start, start if residual is None else residual, out
        launch(depthwise_gather, -(-rows // _ROWS), buffers, integers_, p.dtype)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _gather(p, *inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _gather(p, *inputs, None, None, outputs[0])


def _supports(p: ConvProblem) -> str | None:
    if not p.c == p.k == p.groups:
        return "not one filter of one channel for each channel"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if p.r * p.s > _TAPS:
        return f"a filter of {p.r * p.s} elements, more than {_TAPS}"
    return None


def _cost(p: ConvProblem) -> float:
    return 4.0 * p.flops  # bound by loads, not by arithmetic; direct convolution fills one lane of a vector


def _candidate(run: Any) -> list[Candidate]:
    return [Candidate("cpu.depthwise", run, _supports, _cost, tolerance=tolerance)]


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidate(_forward),
    ("conv2d", "backward_input"): _candidate(_backward_input),
}
