"""Depthwise convolution: every channel has a filter of its own, so vectors run over channels and nothing is reduced.

Forward and backward_input are one gather, with the same grids of positions and taps as direct convolution. The work is
small for the memory that it touches: four neighbouring positions share each load of the weight, and a row's pixels are
reused from the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import clear_unseen, grids, tolerance
from numbanet.cpu.conv_moments import Order, Share, following, in_tiles
from numbanet.cpu.copy import transposed
from numbanet.cpu.parallel import launch
from numbanet.cpu.partial import get, put
from numbanet.cpu.simd import fma, lanes, load, named, numpy_lanes, select, splat
from numbanet.cpu.tile import RELU, RESIDUAL, SIX, epilogue_flags, stack_buffer
from numbanet.problem.conv import ConvProblem
from numbanet.watch import constant

_TAPS = 1024  # filter positions at most: a row's table of them is on the stack
_PAIRS = 2 * _TAPS
_ROWS = 4  # rows of positions a task
_TASKS = 8  # as many tasks at least, where the channels allow it
_PART = 16  # vectors of channels a task at least: memory is read in its own order


class Gather(NamedTuple):
    """What the kernel reads of a problem: the integers of a launch."""

    h: int  # rows and columns of the source,
    w: int
    c: int  # and channels
    stride_h: int  # source pixels from a position of the grid to the next
    stride_w: int
    grid_h: int  # the grid of positions
    grid_w: int
    low: int  # from this column of it on
    high: int  # to before this one, every tap's source column exists
    base: int  # elements of the result before the first position,
    image_step: int  # and from one to that of the next image,
    row_step: int  # row
    column_step: int  # and column
    taps: int
    rows: int  # of positions a task,
    all_rows: int  # and of all images
    parts: int  # tasks take one of so many parts of the channels
    flags: int  # of what completes the result


@device
def _finish(v, y, residual, at, n, flags):
    """Add the residual, apply the activation (NaN stays NaN), and store."""
    if flags & RESIDUAL:
        v = v + get(residual, at, n)
    if flags & RELU:
        v = select(v <= splat(y, 0.0), splat(y, 0.0), v)
    if flags & SIX:
        v = select(v >= splat(y, 6.0), splat(y, 6.0), v)
    put(y, at, v, n)


@device
def _four(x, weight, pairs, count, begin, end, source, step, start, y, out, out_step, residual, flags):
    """Compute four neighbouring positions of which all columns exist, from `count` taps; they share its loads."""
    for channel in range(begin, end, lanes(x)):
        n = end - channel
        a0 = get(start, channel, n)
        a1, a2, a3 = a0, a0, a0
        for t in range(count):
            at = source + pairs[2 * t] + channel
            w = get(weight, pairs[2 * t + 1] + channel, n)
            a0 = fma(get(x, at, n), w, a0)
            a1 = fma(get(x, at + step, n), w, a1)
            a2 = fma(get(x, at + 2 * step, n), w, a2)
            a3 = fma(get(x, at + 3 * step, n), w, a3)
        _finish(a0, y, residual, out + channel, n, flags)
        _finish(a1, y, residual, out + out_step + channel, n, flags)
        _finish(a2, y, residual, out + 2 * out_step + channel, n, flags)
        _finish(a3, y, residual, out + 3 * out_step + channel, n, flags)


@device
def _one(x, weight, pairs, count, begin, end, start, y, out, residual, flags):
    """Compute one position from `count` taps: pairs of the offsets of source and weight."""
    v, channel = lanes(x), begin
    while channel + 4 * v <= end:  # four sums at a time, which don't wait for each other
        a0, a1 = load(start, channel), load(start, channel + v)
        a2, a3 = load(start, channel + 2 * v), load(start, channel + 3 * v)
        for t in range(count):
            p, q = pairs[2 * t] + channel, pairs[2 * t + 1] + channel
            a0, a1 = fma(load(x, p), load(weight, q), a0), fma(load(x, p + v), load(weight, q + v), a1)
            a2 = fma(load(x, p + 2 * v), load(weight, q + 2 * v), a2)
            a3 = fma(load(x, p + 3 * v), load(weight, q + 3 * v), a3)
        _finish(a0, y, residual, out + channel, v, flags)
        _finish(a1, y, residual, out + channel + v, v, flags)
        _finish(a2, y, residual, out + channel + 2 * v, v, flags)
        _finish(a3, y, residual, out + channel + 3 * v, v, flags)
        channel += 4 * v
    while channel < end:
        n = end - channel
        a = get(start, channel, n)
        for t in range(count):
            a = fma(get(x, pairs[2 * t] + channel, n), get(weight, pairs[2 * t + 1] + channel, n), a)
        _finish(a, y, residual, out + channel, n, flags)
        channel += v


@kernel
def depthwise_gather(task: Index, ints: I64, x: T, weight: T, taps: I64, start: T, residual: T, y: T):
    """Convolve a few rows of positions; every output starts as the channel's number in `start`."""
    s = named(ints, Gather)
    h, w, c, jump, flags = s.h, s.w, s.c, s.stride_w, s.flags
    present = stack_buffer(ints, _PAIRS)  # pairs of source and weight offset: the taps whose source row exists,
    inside = stack_buffer(ints, _PAIRS)  # and those of them whose source column exists for one position
    columns = stack_buffer(ints, _TAPS)
    vectors = (c + lanes(x) - 1) // lanes(x)
    part, block = task % s.parts, task // s.parts
    begin, end = part * vectors // s.parts * lanes(x), min(c, (part + 1) * vectors // s.parts * lanes(x))
    for row in range(block * s.rows, min(s.all_rows, (block + 1) * s.rows)):
        n, i = row // s.grid_h, row % s.grid_h
        found = 0
        for t in range(s.taps):
            source, column = i * s.stride_h + taps[3 * t], taps[3 * t + 1]
            if 0 <= source < h:
                present[2 * found] = ((n * h + source) * w + column) * c
                present[2 * found + 1] = taps[3 * t + 2] * c
                columns[found] = column
                found += 1
        out = s.base + n * s.image_step + i * s.row_step
        j = 0
        while j < s.grid_w:
            here, there = j * jump * c, out + j * s.column_step
            if s.low <= j and j + 4 <= s.high:
                _four(
                    x, weight, present, found, begin, end, here, jump * c, start, y, there, s.column_step, residual,
                    flags,
                )  # fmt: skip
                j += 4
            else:
                kept = 0
                for t in range(found):
                    if 0 <= j * jump + columns[t] < w:
                        inside[2 * kept] = present[2 * t] + here
                        inside[2 * kept + 1] = present[2 * t + 1]
                        kept += 1
                _one(x, weight, inside, kept, begin, end, start, y, there, residual, flags)
                j += 1


@lru_cache(maxsize=256)
def _plan(p: ConvProblem) -> list[tuple[int, np.ndarray, Gather]]:
    """Return for each grid of positions: the number of tasks, the taps, and the integers of its launch."""
    source, out = ((p.h, p.w), (p.p, p.q)) if p.which == "forward" else ((p.p, p.q), (p.h, p.w))
    row, image = out[1] * p.c, out[0] * out[1] * p.c
    launches = []
    for grid in grids(p):
        jump, rows = grid.stride[1], p.n * grid.size[0]
        blocks, vectors = -(-rows // _ROWS), -(-p.c // numpy_lanes(p.dtype))
        parts = max(1, min(vectors // _PART, -(-_TASKS // max(1, blocks))))
        columns = grid.taps[:, 1] if len(grid.taps) else np.zeros(1, np.int64)
        low, high = max(0, -(int(columns.min()) // jump)), (source[1] - 1 - int(columns.max())) // jump + 1
        integers_ = Gather(
            *source, p.c, *grid.stride, *grid.size, low=low, high=min(high, grid.size[1]),
            base=grid.start[0] * row + grid.start[1] * p.c, image_step=image, row_step=grid.step[0] * row,
            column_step=grid.step[1] * p.c, taps=len(grid.taps), rows=_ROWS, all_rows=rows, parts=parts,
            flags=epilogue_flags(p.epilogue),
        )  # fmt: skip
        launches.append((blocks * parts, grid.taps, integers_))
    return launches


def _stored(p: ConvProblem, tasks: int, s: Gather) -> tuple[Order, Share, tuple[int, ...]]:
    """Return what each task of the forward pass stores: a part of the channels of a few rows."""
    blocks, size = tasks // s.parts, numpy_lanes(p.dtype)
    vectors = -(-p.c // size)
    channels = [part * vectors // s.parts * size for part in range(s.parts)]
    share = Share(s.all_rows, s.rows, blocks, blocks, s.parts, s.parts, 1)
    return in_tiles(p, 1, p.q), share, (*channels, p.c)


def _by_tap(weight: np.ndarray, p: ConvProblem) -> np.ndarray:
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
    start = constant(np.zeros(p.c, p.dtype)) if bias is None else bias
    by_tap = _by_tap(weight, p)
    if p.which == "backward_input":
        clear_unseen(p, out)
    for tasks, taps, integers_ in _plan(p):
        buffers = source, by_tap, taps, start, start if residual is None else residual, out
        then = following(outputs, *_stored(p, tasks, integers_)) if len(outputs) > 1 else None
        launch(depthwise_gather, tasks, buffers, integers_, p.dtype, then)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _gather(p, *inputs, *outputs)


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
