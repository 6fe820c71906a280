"""Gradient of a convolution's weight: for each filter position, a sum of outer products over all output pixels.

``dw[k, r, s, :] += g[pixel, k] * x[pixel shifted by (r, s), :]``. The pixels of an output row whose source lies inside
the image are one run with constant steps, so padding is skipped rather than multiplied. A task owns some (group, tap,
panel of in-channels) units and walks over its share of the rows in chunks that stay in the cache. Where the weight is
small, the rows are split over tasks too, each with a partial result of its own, and the partials are added in a fixed
order. Where pixels lie far apart, what the tiles read of a chunk is copied first: a panel of x, and a few rows of the
result's numbers of g at a time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import tolerance
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.prefetch import prefetch_far
from numbanet.cpu.simd import integers, lanes, load, load_tail, numpy_lanes, offset, store, store_tail
from numbanet.cpu.tile import MAX_ROWS, MAX_VECTORS, address, outer_tile, stack_buffer, tile_rows
from numbanet.problem.conv import ConvProblem

_RUNS = 1024  # rows of a chunk at most (three numbers each on the stack)
_CHUNK_PIXELS = 128  # pixels of a chunk, about: their panel of x stays in the first-level cache
_LARGE_CHUNK_PIXELS = 256  # where the weight is large, its accumulators are the traffic to save
_SMALL_WEIGHT = 8 << 20  # bytes of partial results
_FAR = 2048  # bytes from a pixel to the next
_COPIED_ROWS = 48  # rows of the result whose numbers of g are copied at once
_TASKS = 16
_REDUCE_CHUNK = 4096


@device
def write_runs(runs, ints, x, g, first, count, dh, dw):
    """Write the runs (address of g, address of x, pixels) of `count` row pieces for one tap; return how many."""
    p, q, k, h, w, c, stride_h, stride_w, pieces, length = integers(ints, 10)
    left = (-dw + stride_w - 1) // stride_w if dw < 0 else 0
    right = min((w - dw + stride_w - 1) // stride_w if dw < w else 0, q)
    found = 0
    for piece in range(first, first + count):
        row = piece // pieces
        low = max(left, piece % pieces * length)
        high = min(right, (piece % pieces + 1) * length)
        source = row % p * stride_h + dh
        if 0 <= source < h and low < high:
            runs[3 * found] = address(g, (row * q + low) * k)
            runs[3 * found + 1] = address(x, ((row // p * h + source) * w + low * stride_w + dw) * c)
            runs[3 * found + 2] = high - low
            found += 1
    return found


@device
def outer_tiles(width, last, runs, found, g_step, x_step, g_first, rows, x_first, out, out_step, accumulate):
    """Run the register tiles of one panel of columns over all `rows` rows of the result."""
    outer_tiles_ahead(
        width, last, runs, found, g_step, x_step, g_first, rows, x_first, out, out_step, accumulate, out, 0, 0
    )  # fmt: skip


@device
def outer_tiles_ahead(
    width, last, runs, found, g_step, x_step, g_first, rows, x_first, out, out_step, accumulate, g, ahead, each
):
    """Do the same as `outer_tiles` and look ahead.

    With each tile, `each` cache lines of `g` are prefetched, from element `ahead` on; return where that ended.
    """
    step = tile_rows(width)
    table = stack_buffer(runs, MAX_ROWS)
    for k in range(0, rows, step):
        for i in range(step):
            table[i] = min(i, rows - k - 1)  # rows beyond the last one read it again: nothing else is touched
        outer_tile(
            width, runs, found, g_step, x_step, g_first + k, x_first, table, 1,
            offset(out, k * out_step), out_step, accumulate, rows - k, last,
        )  # fmt: skip
        for _ in range(each):
            prefetch_far(g, ahead)
            ahead += lanes(g)
    return ahead


@device
def _copy_pixels(source, side, runs, found, step, first, columns, buffer, pitch):
    """Copy `columns` numbers of each pixel of the runs, from the `first` on, to rows that are `pitch` apart.

    `side` says which address of a run it is: 0 that of g, 1 that of x.
    """
    size = address(source, 1) - address(source, 0)
    whole = columns // lanes(source) * lanes(source)
    out = 0
    for run in range(found):
        at = (runs[3 * run + side] - address(source, 0)) // size + first
        for _ in range(runs[3 * run + 2]):
            for j in range(0, whole, lanes(source)):
                store(buffer, out + j, load(source, at + j))
            if whole < columns:
                store(buffer, out + whole, load_tail(source, at + whole, columns - whole))
            at += step
            out += pitch


@kernel
def weight_gradient(task: Index, ints: I64, x: T, g: T, taps: I64, out: T):
    """Sum the outer products of some units over one share of the output rows."""
    (
        _, q, k, _, _, c, _, stride_w, pieces, length,
        rows, groups, all_taps, chunk, splits, units, unit_tasks, size, fetched, copied,
    ) = integers(ints, 20)  # fmt: skip
    split, part = task // unit_tasks, task % unit_tasks
    first_row, end_row = split * rows // splits, (split + 1) * rows // splits
    kg, cg, vector = k // groups, c // groups, lanes(x)
    panels = (cg + MAX_VECTORS * vector - 1) // (MAX_VECTORS * vector)
    runs, copies = stack_buffer(taps, 3072), stack_buffer(taps, 3)
    x_copy, g_copy = stack_buffer(x, 16384), stack_buffer(x, 12288)
    copies[0], copies[1] = address(g_copy, 0), address(x_copy, 0)
    for row in range(first_row, end_row, chunk):
        count = min(chunk, end_row - row)
        former = -1
        found = 0
        # A tile reads a few numbers of each of many rows of g, and nothing foresees that: the next chunk is fetched
        # meanwhile.
        ahead = (row + chunk) // pieces * q * k + (row + chunk) % pieces * length * k
        each = fetched if row + chunk < end_row else 0
        for unit in range(part * units // unit_tasks, (part + 1) * units // unit_tasks):
            tap, rest = unit // (groups * panels), unit % (groups * panels)
            group, column = rest // panels, rest % panels * MAX_VECTORS * vector
            if tap != former:
                found = write_runs(runs, ints, x, g, row, count, taps[2 * tap], taps[2 * tap + 1])
                former = tap
            width = min(MAX_VECTORS, (cg - column + vector - 1) // vector)
            last = min(cg - column - (width - 1) * vector, vector)
            result = split * size + (group * kg * all_taps + tap) * cg + column
            if not copied:
                ahead = outer_tiles_ahead(
                    width, last, runs, found, k, stride_w * c, group * kg, kg, group * cg + column,
                    offset(out, result), all_taps * cg, row - first_row, g, ahead, each,
                )  # fmt: skip
                continue
            copies[2] = 0
            for run in range(found):
                copies[2] += runs[3 * run + 2]
            pitch = width * vector
            columns = min(cg - column, pitch)
            _copy_pixels(x, 1, runs, found, stride_w * c, group * cg + column, columns, x_copy, pitch)
            step = _COPIED_ROWS // tile_rows(width) * tile_rows(width)
            for first in range(0, kg, step):
                some = min(step, kg - first)
                _copy_pixels(g, 0, runs, found, k, group * kg + first, some, g_copy, _COPIED_ROWS)
                outer_tiles(
                    width, last, copies, 1, _COPIED_ROWS, pitch, 0, some, 0,
                    offset(out, result + first * all_taps * cg), all_taps * cg, row - first_row,
                )  # fmt: skip


@kernel
def add_partials(task: Index, ints: I64, partials: T, out: T):
    """Add the partial results in their order."""
    size, splits, chunk = integers(ints, 3)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i < end:
        n = end - i
        if n >= lanes(out):
            total = load(partials, i)
            for split in range(1, splits):
                total = total + load(partials, split * size + i)
            store(out, i, total)
        else:
            tail = load_tail(partials, i, n)
            for split in range(1, splits):
                tail = tail + load_tail(partials, split * size + i, n)
            store_tail(out, i, tail, n)
        i += lanes(out)


def reduce_partials(partials: np.ndarray, out: np.ndarray, splits: int, dtype: str) -> None:
    """Write the sum of `splits` partial results, added in their order, to `out`."""
    launch(add_partials, -(-out.size // _REDUCE_CHUNK), (partials, out), (out.size, splits, _REDUCE_CHUNK), dtype)


def split_count(weight_bytes: int, pixels: int) -> int:
    """Return into how many partial results the pixels are split."""
    return max(1, min(_TASKS, _SMALL_WEIGHT // max(1, weight_bytes), pixels // _CHUNK_PIXELS))


def _as_rows(problem: ConvProblem) -> tuple[int, int, int, int, int]:
    """Return (N, P, Q, H, W), with all pixels in one row where filter, stride and padding change nothing."""
    p = problem
    pointwise = p.r == p.s == 1 and p.stride == (1, 1) and p.pads == (0, 0, 0, 0)
    return (1, 1, p.n * p.h * p.w, 1, p.n * p.h * p.w) if pointwise else (p.n, p.p, p.q, p.h, p.w)


def _copied(p: ConvProblem) -> bool:
    """Return whether pixels lie so far apart that the lines of a panel fall into few sets of the first-level cache."""
    return max(2 * p.k, p.stride[1] * p.c) * np.dtype(p.dtype).itemsize >= _FAR


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[np.ndarray, int, int, tuple[int, ...]]:
    """Return the taps, the number of tasks, the number of partial results and the integers of the launch."""
    n, rows, q, h, w = _as_rows(p)
    size = p.k * p.r * p.s * p.cg
    weight_bytes = size * np.dtype(p.dtype).itemsize
    units = p.groups * p.r * p.s * -(-p.cg // (MAX_VECTORS * numpy_lanes(p.dtype)))
    # Long rows are cut into pieces: for the cache, to share them out, and since one long chain of sums loses digits.
    pieces = -(-q // _CHUNK_PIXELS)
    # Partial results only where there are fewer units than tasks.
    splits = min(split_count(weight_bytes, n * rows * q), n * rows * pieces, -(-_TASKS // units))
    if n * rows == 1:
        pieces = -(-pieces // splits) * splits  # the same number for each split
    length = -(-q // pieces)
    pieces = -(-q // length)
    all_pieces = n * rows * pieces
    unit_tasks = -(-units // (units // min(units, -(-_TASKS // splits))))
    copied = _copied(p)
    pixels = _CHUNK_PIXELS if splits > 1 and not copied else _LARGE_CHUNK_PIXELS
    chunk = max(1, min(_RUNS, pixels // length))
    # Cache lines of a chunk of g for each of the tiles that run meanwhile.
    panel_rows = host_isa().tile_rows[min(MAX_VECTORS, -(-p.cg // numpy_lanes(p.dtype))) - 1]
    tiles = max(1, units // unit_tasks * -(-p.kg // panel_rows))
    fetched = -(-chunk * length * p.k // (numpy_lanes(p.dtype) * tiles))
    taps = [(r * p.dilation[0] - p.pads[0], s * p.dilation[1] - p.pads[2]) for r in range(p.r) for s in range(p.s)]
    integers_ = (
        rows, q, p.k, h, w, p.c, *p.stride, pieces, length,
        all_pieces, p.groups, p.r * p.s, chunk, splits, units, unit_tasks, size, fetched, int(copied),
    )  # fmt: skip
    return np.array(taps, np.int64), splits * unit_tasks, splits, integers_


def run(problem: ConvProblem, x: np.ndarray, grad: np.ndarray, out: np.ndarray) -> None:
    """Write the gradient of the weight to `out`."""
    if x.size == 0 or grad.size == 0:
        out[...] = 0
        return
    taps, tasks, splits, integers_ = _plan(problem)
    target = out if splits == 1 else memory.empty((splits * out.size,), problem.dtype)
    launch(weight_gradient, tasks, (x, grad, taps, target), integers_, problem.dtype)
    if splits > 1:
        reduce_partials(target, out, splits, problem.dtype)


def _run(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    run(problem, *inputs, outputs[0])


def _cost(p: ConvProblem) -> float:
    lanes_, panels = numpy_lanes(p.dtype), -(-p.cg // numpy_lanes(p.dtype))
    rows = host_isa().tile_rows[min(MAX_VECTORS, panels) - 1]
    return p.flops * (panels * lanes_ / max(1, p.cg)) * (-(-p.kg // rows) * rows / max(1, p.kg))


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.direct", _run, cost=_cost, tolerance=tolerance)],
}
