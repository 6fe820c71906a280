"""Depthwise convolution: every channel has a filter of its own, so vectors run over channels and nothing is reduced.

Forward and backward_input are one gather, with the same grids of positions and taps as direct convolution. The work is
small for the memory that it touches: four neighbouring positions share each load of the weight, and a row's pixels are
reused from the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import Grid, clear_unseen, grids, tolerance
from numbanet.cpu.conv_weight import reduce_partials
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import fma, integers, lanes, load, load_tail, splat, store, store_tail
from numbanet.cpu.tile import stack_buffer
from numbanet.problem.conv import ConvProblem

_TAPS = 1024  # filter positions at most: a row's table of them is on the stack
_PAIRS = 2 * _TAPS
_ROWS = 4  # rows of positions a task
_SHARES = 16  # partial results of a gradient of the weight


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
def _four(x, weight, table, count, c, source, step, start, y, out, out_step):
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
        _write(y, out + channel, a0, n)
        _write(y, out + out_step + channel, a1, n)
        _write(y, out + 2 * out_step + channel, a2, n)
        _write(y, out + 3 * out_step + channel, a3, n)


@device
def _one(x, weight, table, count, c, source, start, y, out):
    """Compute one position from `count` taps."""
    for channel in range(0, c, lanes(x)):
        n = c - channel
        a = _read(start, channel, n)
        for t in range(count):
            a = fma(_read(x, source + table[2 * t] + channel, n), _read(weight, table[2 * t + 1] + channel, n), a)
        _write(y, out + channel, a, n)


@kernel
def depthwise_gather(task: Index, ints: I64, x: T, weight: T, taps: I64, start: T, y: T):
    """Convolve a few rows of positions; every output starts as the channel's number in `start`."""
    (
        h, w, c, stride_h, stride_w, grid_h, grid_w, base, step_n, step_i, step_j, count, rows, all_rows,
    ) = integers(ints, 14)  # fmt: skip
    present = stack_buffer(ints, _PAIRS)  # pairs of source and weight offset: the taps whose source row exists,
    inside = stack_buffer(ints, _PAIRS)  # and those of them whose source column exists for one position
    columns = stack_buffer(ints, _TAPS)
    for row in range(task * rows, min(all_rows, (task + 1) * rows)):
        n, i = row // grid_h, row % grid_h
        found, low, high = 0, 0, grid_w  # from low to high, every column exists
        for t in range(count):
            source, column = i * stride_h + taps[3 * t], taps[3 * t + 1]
            if 0 <= source < h:
                present[2 * found] = ((n * h + source) * w + column) * c
                present[2 * found + 1] = taps[3 * t + 2] * c
                columns[found] = column
                low = max(low, (-column + stride_w - 1) // stride_w)
                high = min(high, (w - column + stride_w - 1) // stride_w)
                found += 1
        out = base + n * step_n + i * step_i
        j = 0
        while j < grid_w:
            if low <= j and j + 4 <= high:
                _four(
                    x, weight, present, found, c, j * stride_w * c, stride_w * c, start, y, out + j * step_j, step_j
                )  # fmt: skip
                j += 4
            else:
                kept = 0
                for t in range(found):
                    if 0 <= j * stride_w + columns[t] < w:
                        inside[2 * kept] = present[2 * t]
                        inside[2 * kept + 1] = present[2 * t + 1]
                        kept += 1
                _one(x, weight, inside, kept, c, j * stride_w * c, start, y, out + j * step_j)
                j += 1


@kernel
def depthwise_weight_gradient(task: Index, ints: I64, x: T, g: T, taps: I64, out: T):
    """Sum gradient times input over one share of the output rows, for every tap and channel."""
    h, w, c, stride_h, stride_w, p, q, count, all_rows, shares = integers(ints, 10)
    base = task * count * c
    for i in range(0, count * c, lanes(x)):
        store_tail(out, base + i, splat(out, 0.0), count * c - i)
    for row in range(task * all_rows // shares, (task + 1) * all_rows // shares):
        n, i = row // p, row % p
        for t in range(count):
            source, column = i * stride_h + taps[3 * t], taps[3 * t + 1]
            low = max(0, (-column + stride_w - 1) // stride_w)
            high = min(q, (w - column + stride_w - 1) // stride_w)
            if 0 <= source < h and low < high:
                first = ((n * h + source) * w + column) * c
                for channel in range(0, c, lanes(x)):
                    left = c - channel
                    a = splat(x, 0.0)
                    b = a
                    j = low
                    while j + 2 <= high:
                        here, there = row * q * c + j * c + channel, first + j * stride_w * c + channel
                        a = fma(_read(g, here, left), _read(x, there, left), a)
                        b = fma(_read(g, here + c, left), _read(x, there + stride_w * c, left), b)
                        j += 2
                    if j < high:
                        here, there = row * q * c + j * c + channel, first + j * stride_w * c + channel
                        a = fma(_read(g, here, left), _read(x, there, left), a)
                    at = base + t * c + channel
                    _write(out, at, _read(out, at, left) + (a + b), left)


def _by_tap(weight: np.ndarray, p: ConvProblem) -> np.ndarray:
    """Return the weight (C, R, S, 1) as (R * S, C): a few numbers a channel."""
    return np.ascontiguousarray(weight.reshape(p.c, p.r * p.s).T)


def _gather(p: ConvProblem, source: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    start = np.zeros(p.c, p.dtype) if bias is None else bias
    by_tap = _by_tap(weight, p)
    row, image = out.shape[2] * p.c, out.shape[1] * out.shape[2] * p.c
    if p.which == "backward_input":
        clear_unseen(p, out)
    for grid in grids(p):
        rows = p.n * grid.size[0]
        integers_ = (
            source.shape[1], source.shape[2], p.c, *grid.stride, *grid.size,
            grid.start[0] * row + grid.start[1] * p.c, image, grid.step[0] * row, grid.step[1] * p.c,
            len(grid.taps), _ROWS, rows,
        )  # fmt: skip
        launch(depthwise_gather, -(-rows // _ROWS), (source, by_tap, grid.taps, start, out), integers_, p.dtype)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, _ = inputs
    _gather(p, x, weight, bias, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _gather(p, *inputs, None, outputs[0])


@lru_cache(maxsize=256)
def _taps(p: ConvProblem) -> Grid:
    return grids(p)[0]


def _backward_weight(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (out,) = inputs, outputs
    rows, taps = p.n * p.p, _taps(p).taps
    shares = min(_SHARES, rows)
    partials, total = memory.empty((shares * out.size,), p.dtype), memory.empty((p.r * p.s, p.c), p.dtype)
    integers_ = (p.h, p.w, p.c, *p.stride, p.p, p.q, len(taps), rows, shares)
    launch(depthwise_weight_gradient, shares, (x, grad, taps, partials), integers_, p.dtype)
    reduce_partials(partials, total, shares, p.dtype)
    out.reshape(p.c, p.r * p.s)[...] = total.T


def _supports(p: ConvProblem) -> str | None:
    if not p.c == p.k == p.groups:
        return "not one filter of one channel for each channel"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if p.r * p.s > _TAPS:
        return f"a filter of {p.r * p.s} elements, more than {_TAPS}"
    return "a fused residual or activation" if p.epilogue.residual or p.epilogue.activation else None


def _cost(p: ConvProblem) -> float:
    return 4.0 * p.flops  # bound by loads, not by arithmetic; direct convolution fills one lane of a vector


def _candidate(run: Any) -> list[Candidate]:
    return [Candidate("cpu.depthwise", run, _supports, _cost, tolerance=tolerance)]


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidate(_forward),
    ("conv2d", "backward_input"): _candidate(_backward_input),
    ("conv2d", "backward_weight"): _candidate(_backward_weight),
}
