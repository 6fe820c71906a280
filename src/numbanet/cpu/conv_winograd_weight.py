"""Gradient of a 3x3 filter with stride 1 by Winograd's F(3x3, 4x4): a quarter of the products of the direct method.

The 4 x 4 gradients of a tile and the 6 x 6 pixels that they met are transformed to 36 points each; at each point, the
outer products of gradients and pixels are summed over tiles; the sums are transformed back to the nine taps.

Tiles go through in chunks. The sums of a chunk stay in registers, and are transformed back and added to the result
after each chunk: so no 36 matrices of sums are kept, and no chain of sums is longer than a chunk. With many tiles, a
task does a share of the chunks, to a partial result (`weight_by_tiles`). With few tiles or a large filter, all tasks
transform one chunk after the other (`transform_tiles`), and multiply blocks of the result (`weight_by_blocks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import zeros
from numbanet.cpu.conv_weight import outer_tiles, reduce_partials
from numbanet.cpu.conv_winograd import unsupported
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.prefetch import prefetch
from numbanet.cpu.simd import integers, lanes, numpy_lanes, offset
from numbanet.cpu.slots import give_slot, new_slots, take_slot
from numbanet.cpu.tile import MAX_VECTORS, address, stack_buffer
from numbanet.cpu.winograd import POINTS, SPAN, TILE, transform_input, transform_input_edge
from numbanet.cpu.winograd_weight import transform_gradient, transform_gradient_edge, transform_sums
from numbanet.problem.conv import ConvProblem

_CHUNK = 112  # tiles of a chunk at most: their pixels at one point and 64 channels stay in the first-level cache
_SHORT_CHUNK = 32  # and at least, where each task has chunks of its own
_SHARES = 16
_ROWS, _FEW_ROWS = 48, 16  # out-channels of a block: whole vectors (and register tiles), fewer where blocks are few
_PARTIAL_BYTES = 4 << 20  # of a partial result at most


@device
def _addresses(table, size, image, n, top, left, h, w, c, zero):
    """Write the addresses of the size x size pixels from (top, left) on; `zero` where there is none."""
    for i in range(size):
        row = top + i
        for j in range(size):
            column = left + j
            inside = 0 <= row < h and 0 <= column < w
            table[i * size + j] = address(image, ((n * h + row) * w + column) * c) if inside else zero


@device
def _transform_tile(
    ints, transform, transform_edge, size, image, corner, following, h, w, c, zero, width, out, chunk, tile
):  # fmt: skip
    """Transform all channels of a tile, given by its corner, in panels of `width`; fetch what the following tile adds.

    A corner is an image, a row and a column.
    """
    vector = lanes(out)
    n, top, left = corner
    start = ((n * h + top) * w + left) * c
    coming = ((following[0] * h + following[1]) * w + following[2]) * c
    inside = top >= 0 and left >= 0 and top + size <= h and left + size <= w
    whole = c // vector * vector if inside else 0
    table = stack_buffer(ints, 64)
    if whole < c:
        _addresses(table, size, image, n, top, left, h, w, c, address(zero, 0))
    for panel in range(0, c, width):
        pitch = min(width, (c - panel + vector - 1) // vector * vector)
        # One vector between the points: at a power of two, all 36 would fall into the same cache sets.
        step = chunk * pitch + vector
        here = offset(out, panel // width * POINTS * (chunk * width + vector) + tile * pitch - panel)
        for channel in range(panel, panel + pitch, vector):
            for i in range(size - TILE, size):
                for j in range(size - TILE, size):
                    prefetch(image, coming + (i * w + j) * c + channel)
            if channel < whole:
                transform(offset(image, start + channel), w * c, c, offset(here, channel), step)
            else:
                transform_edge(table, channel, c - channel, offset(here, channel), step)


@device
def _corner(tile, tiles_h, tiles_w, top, left):
    """Return the image, row and column of a tile's first pixel."""
    n, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
    return n, rest // tiles_w * TILE - top, rest % tiles_w * TILE - left


@device
def _transform(ints, x, g, zero, first, count, spot, pixels, gradients):
    """Transform `count` tiles from the tile `first` on; they become the tiles from `spot` on of a chunk."""
    h, w, c, p, q, k, top, left, tiles_h, tiles_w, chunk, block = integers(ints, 12)
    for m in range(count):
        tile, following = first + m, first + min(m + 1, count - 1)
        _transform_tile(
            ints, transform_input, transform_input_edge, SPAN, x,
            _corner(tile, tiles_h, tiles_w, top, left), _corner(following, tiles_h, tiles_w, top, left),
            h, w, c, zero, MAX_VECTORS * lanes(x), pixels, chunk, spot + m,
        )  # fmt: skip
        _transform_tile(
            ints, transform_gradient, transform_gradient_edge, TILE, g,
            _corner(tile, tiles_h, tiles_w, 0, 0), _corner(following, tiles_h, tiles_w, 0, 0),
            p, q, k, zero, block, gradients, chunk, spot + m,
        )  # fmt: skip


@device
def _multiply(ints, unit, pixels, gradients, count, sums, out, accumulate):
    """Sum the products of the `count` tiles of a chunk for one block of the result, and transform them back."""
    _, _, c, _, _, k, _, _, _, _, chunk, block, blocks, step = integers(ints, 14)
    vector = lanes(out)
    panel_width = MAX_VECTORS * vector
    panel, rows_before = unit // blocks, unit % blocks * block
    column = panel * panel_width
    width = min(MAX_VECTORS, (c - column + vector - 1) // vector)
    rows, pitch = min(block, k - rows_before), width * vector
    row_pitch = min(block, (k - rows_before + vector - 1) // vector * vector)
    pixels = offset(pixels, panel * POINTS * (chunk * panel_width + vector))
    gradients = offset(gradients, unit % blocks * POINTS * (chunk * block + vector))
    run, ahead = stack_buffer(ints, 3), stack_buffer(ints, 7)
    run[2], ahead[0], ahead[1], ahead[2] = count, 0, 0, 0
    for point in range(POINTS):
        run[0] = address(gradients, point * (chunk * row_pitch + vector))
        run[1] = address(pixels, point * (chunk * pitch + vector))
        outer_tiles(
            width, vector, run, 1, row_pitch, pitch, 0, rows, 0, offset(sums, point * step), pitch, 0, rows, 0, ahead
        )  # fmt: skip
    for i in range(rows):
        for j in range(0, pitch, vector):
            into = offset(out, (rows_before + i) * 9 * c + column + j)
            transform_sums(offset(sums, i * pitch + j), step, into, c, c - column - j, accumulate)


@kernel
def weight_by_tiles(task: Index, ints: I64, x: T, g: T, zero: T, slots: I64, work: T, out: T):
    """Do one share of the chunks, with a partial result of its own."""
    (
        _, _, c, _, _, k, _, _, _, _, _, _, _, step, units, pixel_size, gradient_size, tiles, chunks, shares, buffers,
    ) = integers(ints, 21)  # fmt: skip
    slot = take_slot(slots, buffers)
    pixels = offset(work, slot * (pixel_size + gradient_size + POINTS * step))
    gradients = offset(pixels, pixel_size)
    sums = offset(gradients, gradient_size)
    begin = task * chunks // shares
    for chunk in range(begin, (task + 1) * chunks // shares):
        first = chunk * tiles // chunks
        count = (chunk + 1) * tiles // chunks - first
        _transform(ints, x, g, zero, first, count, 0, pixels, gradients)
        for unit in range(units):
            _multiply(ints, unit, pixels, gradients, count, sums, offset(out, task * k * 9 * c), chunk - begin)
    give_slot(slots, slot)


@kernel
def transform_tiles(task: Index, ints: I64, x: T, g: T, zero: T, pixels: T, gradients: T):
    """Transform one share of the tiles of a chunk."""
    _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, first, count, shares = integers(ints, 20)
    begin, end = task * count // shares, (task + 1) * count // shares
    _transform(ints, x, g, zero, first + begin, end - begin, begin, pixels, gradients)


@kernel
def weight_by_blocks(task: Index, ints: I64, pixels: T, gradients: T, slots: I64, work: T, out: T):
    """Compute what a chunk adds to one share of the blocks of the result; the chunk from tile 0 on sets them."""
    (
        _, _, _, _, _, _, _, _, _, _, _, _, _, step, units, _, _, first, count, shares, buffers,
    ) = integers(ints, 21)  # fmt: skip
    slot = take_slot(slots, buffers)
    for unit in range(task * units // shares, (task + 1) * units // shares):
        _multiply(ints, unit, pixels, gradients, count, offset(work, slot * POINTS * step), out, first)
    give_slot(slots, slot)


@dataclass(frozen=True)
class _Plan:
    """How a problem is cut.

    Attributes
    ----------
    tiles, chunks : int
    shares : int
        Partial results; 0: the tasks share the blocks of each chunk.
    units : int
        Blocks of the result.
    pixel_size, gradient_size, sum_size : int
        Numbers in the transformed operands of a chunk, and in the sums of a block.
    integers : tuple of int
        Those that all launches begin with.
    """

    tiles: int
    chunks: int
    shares: int
    units: int
    pixel_size: int
    gradient_size: int
    sum_size: int
    integers: tuple[int, ...]


def _whole(count: int, dtype: str) -> int:
    """Round up to whole vectors."""
    size = numpy_lanes(dtype)
    return -(-count // size) * size


def _cut(p: ConvProblem) -> tuple[int, int, int]:
    """Return the numbers of tiles, chunks and partial results."""
    tiles = p.n * -(-p.p // TILE) * -(-p.q // TILE)
    partial_bytes = 9 * p.c * p.k * np.dtype(p.dtype).itemsize
    shares = next((s for s in (_SHARES, _SHARES // 2) if s * _SHORT_CHUNK <= tiles), 0)
    if not shares or partial_bytes > _PARTIAL_BYTES:
        return tiles, -(-tiles // _CHUNK), 0
    return tiles, shares * -(-tiles // (shares * _CHUNK)), shares


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> _Plan:
    tiles, chunks, shares = _cut(p)
    chunk = -(-tiles // chunks)
    size = numpy_lanes(p.dtype)
    panels = -(-p.c // (MAX_VECTORS * size))
    block = _ROWS if shares or panels * -(-p.k // _ROWS) >= _SHARES else _FEW_ROWS
    blocks = -(-p.k // block)
    pixel_size = POINTS * (chunk * _whole(p.c, p.dtype) + panels * size)
    gradient_size = POINTS * (chunk * _whole(p.k, p.dtype) + blocks * size)
    step = min(block, p.k) * min(MAX_VECTORS * size, _whole(p.c, p.dtype)) + size
    integers_ = (
        p.h, p.w, p.c, p.p, p.q, p.k, p.pads[0], p.pads[2], -(-p.p // TILE), -(-p.q // TILE),
        chunk, block, blocks, step, panels * blocks, pixel_size, gradient_size,
    )  # fmt: skip
    return _Plan(tiles, chunks, shares, panels * blocks, pixel_size, gradient_size, POINTS * step, integers_)


def _run_tiles(p: ConvProblem, plan: _Plan, x: np.ndarray, g: np.ndarray, zero: np.ndarray, out: np.ndarray) -> None:
    slots = new_slots(plan.shares)
    work = memory.empty((slots.size * (plan.pixel_size + plan.gradient_size + plan.sum_size),), p.dtype)
    partials = memory.empty((plan.shares * out.size,), p.dtype)
    integers_ = (*plan.integers, plan.tiles, plan.chunks, plan.shares, slots.size)
    launch(weight_by_tiles, plan.shares, (x, g, zero, slots, work, partials), integers_, p.dtype)
    reduce_partials(partials, out, plan.shares, p.dtype)


def _run_blocks(p: ConvProblem, plan: _Plan, x: np.ndarray, g: np.ndarray, zero: np.ndarray, out: np.ndarray) -> None:
    pixels = memory.empty((plan.pixel_size,), p.dtype)
    gradients = memory.empty((plan.gradient_size,), p.dtype)
    tasks = min(2 * _SHARES, plan.units)
    slots = new_slots(tasks)
    sums = memory.empty((slots.size * plan.sum_size,), p.dtype)
    for chunk in range(plan.chunks):
        first = chunk * plan.tiles // plan.chunks
        count = (chunk + 1) * plan.tiles // plan.chunks - first
        here = (*plan.integers, first, count)
        shares = min(_SHARES, count)
        launch(transform_tiles, shares, (x, g, zero, pixels, gradients), (*here, shares), p.dtype)
        buffers = (pixels, gradients, slots, sums, out)
        launch(weight_by_blocks, tasks, buffers, (*here, tasks, slots.size), p.dtype)


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    plan = _plan(p)
    (_run_tiles if plan.shares else _run_blocks)(p, plan, *inputs, zeros(max(p.c, p.k), p.dtype), outputs[0])


def _cost(p: ConvProblem) -> float:
    tiles, chunks, _ = _cut(p)
    columns = _whole(p.c, p.dtype)
    step = host_isa().tile_rows[min(MAX_VECTORS, columns // numpy_lanes(p.dtype)) - 1]
    products = 2.0 * POINTS * tiles * columns * -(-p.k // step) * step
    # In operations of direct convolution, measured: loads from beyond the first-level cache, transforms, launches.
    transforms = 1000.0 * tiles * (columns + _whole(p.k, p.dtype)) + 860.0 * chunks * columns * p.k
    return 1.3 * products + transforms + 1e6


def _tolerance(p: ConvProblem) -> float:
    return 3e-5


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.winograd", _run, unsupported, _cost, tolerance=_tolerance)],
}
