"""Gradient of a filter by Winograd's algorithms: fewer products, at a larger rounding error.

The gradients of a tile and the pixels that they met are transformed to the same number of points; at each point, the
outer products of gradients and pixels are summed over tiles; the sums are transformed back to the taps.

Tiles go through in chunks. The sums of a chunk stay in registers, and are transformed back and added to the result
after each chunk: so no matrix of sums is kept for each point, and no chain of sums is longer than a chunk. With many
tiles, a task does a share of the chunks, to a partial result (`weight_by_tiles`). With few tiles or a large filter, all
tasks transform one chunk after the other (`transform_tiles`), and multiply blocks of the result (`weight_by_blocks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, Kernel, T, device, kernel, tile_kernel
from numbanet.cpu.conv_direct import zeros
from numbanet.cpu.conv_weight import reduce_partials
from numbanet.cpu.conv_winograd import unsupported
from numbanet.cpu.parallel import launch
from numbanet.cpu.prefetch import prefetch
from numbanet.cpu.run_tile import MOST_RUN_ROWS, Piece, cover, run_tile
from numbanet.cpu.simd import lanes, named, numpy_lanes, offset
from numbanet.cpu.slots import give_slot, new_slots, take_slot
from numbanet.cpu.tile import MAX_VECTORS, address, stack_buffer
from numbanet.cpu.winograd import transform_input, transform_input_edge
from numbanet.cpu.winograd_form import F2X2, F2X2_OF_5X5, F4X4, F4X4_STRIDE_2, Form, lacks, renamed
from numbanet.cpu.winograd_weight import transform_gradient, transform_gradient_edge, transform_sums
from numbanet.problem.conv import ConvProblem

_CHUNK = 112  # tiles of a chunk at most: their pixels at one point and 64 channels stay in the first-level cache
_OWN_CHUNK = 64  # and at most where each task has chunks of its own,
_SHORT_CHUNK = 32  # and at least
_SHARES = 16
_ROWS, _FEW_ROWS = 48, 16  # out-channels of a block: whole vectors (and register tiles), fewer where blocks are few
_PARTIAL_BYTES = 4 << 20  # of a partial result at most


class Cut(NamedTuple):
    """What all launches read of a problem and of how it is cut: see `_plan`."""

    h: int  # rows, columns and channels of x,
    w: int
    c: int
    p: int  # and of g
    q: int
    k: int
    top: int  # padding of x
    left: int
    tiles_h: int
    tiles_w: int
    chunk: int  # tiles of a chunk
    block: int  # out-channels of a block,
    blocks: int
    step: int  # and numbers from the sums of a point to those of the next
    units: int  # blocks of the result
    pixel_size: int  # numbers in the transformed operands of a chunk
    gradient_size: int
    sum_size: int  # and in the sums of a block


_KINDS = 4  # of blocks: whether the last of the in-channels, and of the out-channels
_PIECE = len(Piece._fields)
_CUT = len(Cut._fields)


class Shares(NamedTuple):
    """How chunks are shared out, behind the integers of the cut."""

    tiles: int
    chunks: int
    shares: int
    buffers: int


class Chunk(NamedTuple):
    """A chunk whose tiles, or blocks, are shared out, behind the integers of the cut."""

    first: int
    count: int
    shares: int
    buffers: int


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
def _transform_vector(f, of_gradients, phase, source, h, w, c, table, channel, whole, out, step):
    """Transform a vector of channels of a tile of gradients, or of a phase of an input tile."""
    if of_gradients:
        if channel < whole:
            transform_gradient(f, offset(source, channel), w * c, c, out, step)
        else:
            transform_gradient_edge(f, table, channel, c - channel, out, step)
    elif channel < whole:
        start = (phase // f.stride * w + phase % f.stride) * c + channel
        transform_input(f, phase, offset(source, start), f.stride * w * c, f.stride * c, out, step)
    else:
        transform_input_edge(f, phase, table, channel, c - channel, out, step)


@device
def _transform_tile(f, ints, of_gradients, image, corner, following, h, w, c, zero, width, out, chunk, tile):
    """Transform all channels of a tile, given by its corner, in panels of `width`; fetch what the following tile adds.

    A corner is an image, a row and a column.
    """
    vector = lanes(out)
    phases, size = (1, f.tile) if of_gradients else (f.phase_count, f.extent)
    new = f.tile * (1 if of_gradients else f.stride)  # rows and columns that are not the last tile's
    n, top, left = corner
    source = offset(image, ((n * h + top) * w + left) * c)
    coming = ((following[0] * h + following[1]) * w + following[2]) * c
    inside = top >= 0 and left >= 0 and top + size <= h and left + size <= w
    whole = c // vector * vector if inside else 0
    table = stack_buffer(ints, 96)
    if whole < c:
        _addresses(table, size, image, n, top, left, h, w, c, address(zero, 0))
    for panel in range(0, c, width):
        pitch = min(width, (c - panel + vector - 1) // vector * vector)
        # One vector between the points: at a power of two, all would fall into the same cache sets.
        step = chunk * pitch + vector
        for channel in range(panel, panel + pitch, vector):
            for i in range(size - new, size):
                for j in range(size - new, size):
                    prefetch(image, coming + (i * w + j) * c + channel)
            for phase in range(phases):
                at = f.points * (panel // width * phases * (chunk * width + vector) + phase * step) + tile * pitch
                into = offset(out, at + channel - panel)
                _transform_vector(f, of_gradients, phase, source, h, w, c, table, channel, whole, into, step)


@device
def _corner(tile, new, tiles_h, tiles_w, top, left):
    """Return the image, row and column of a tile's first pixel; tiles are `new` pixels apart."""
    n, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
    return n, rest // tiles_w * new - top, rest % tiles_w * new - left


@device
def _transform(f, ints, x, g, zero, first, count, spot, pixels, gradients):
    """Transform `count` tiles from the tile `first` on; they become the tiles from `spot` on of a chunk."""
    cut = named(ints, Cut)
    tiles_h, tiles_w, new = cut.tiles_h, cut.tiles_w, f.tile * f.stride
    for m in range(count):
        tile, following = first + m, first + min(m + 1, count - 1)
        # No literals, for each of which Numba would compile this large function anew: LLVM inlines it with these.
        _transform_tile(
            f, ints, bool(0), x,
            _corner(tile, new, tiles_h, tiles_w, cut.top, cut.left),
            _corner(following, new, tiles_h, tiles_w, cut.top, cut.left),
            cut.h, cut.w, cut.c, zero, MAX_VECTORS * lanes(x), pixels, cut.chunk, spot + m,
        )  # fmt: skip
        _transform_tile(
            f, ints, bool(1), g,
            _corner(tile, f.tile, tiles_h, tiles_w, 0, 0), _corner(following, f.tile, tiles_h, tiles_w, 0, 0),
            cut.p, cut.q, cut.k, zero, cut.block, gradients, cut.chunk, spot + m,
        )  # fmt: skip


@device
def _multiply(f, ints, unit, pixels, gradients, count, tiles, sums, out, accumulate):
    """Sum the products of the `count` tiles of a chunk for one block of the result, and transform them back."""
    cut = named(ints, Cut)
    c, k, chunk, block, step = cut.c, cut.k, cut.chunk, cut.block, cut.step
    vector = lanes(out)
    panel_width = MAX_VECTORS * vector
    panel, rows_before = unit // cut.blocks, unit % cut.blocks * block
    column = panel * panel_width
    width = min(MAX_VECTORS, (c - column + vector - 1) // vector)
    rows, pitch = min(block, k - rows_before), width * vector
    row_pitch = min(block, (k - rows_before + vector - 1) // vector * vector)
    gradients = offset(gradients, unit % cut.blocks * f.points * (chunk * block + vector))
    kind = 2 * (panel + 1 == cut.units // cut.blocks) + (unit % cut.blocks + 1 == cut.blocks)
    for phase in range(f.phase_count):
        before = panel * f.phase_count * (chunk * panel_width + vector) + phase * (chunk * pitch + vector)
        ours = offset(pixels, f.points * before)
        for point in range(f.points):
            if lacks(f, phase, point):
                continue
            here = offset(gradients, point * (chunk * row_pitch + vector))
            there = offset(ours, point * (chunk * pitch + vector))
            for number in range(tiles[kind], tiles[kind + 1]):
                piece = named(offset(tiles, _KINDS + 1 + number * _PIECE), Piece)
                first = piece.vector * vector
                run_tile(
                    0, piece.which, offset(here, piece.row), offset(there, first), 1, count, 0, 0, row_pitch, pitch,
                    vector, there, 0, offset(sums, point * step + piece.row * pitch + first), pitch, 0,
                )  # fmt: skip
        for i in range(rows):
            for j in range(0, pitch, vector):
                into = offset(out, (rows_before + i) * f.taps * f.taps * c + column + j)
                transform_sums(f, phase, offset(sums, i * pitch + j), step, into, c, c - column - j, accumulate)


class Kernels(NamedTuple):
    """The kernels of a form."""

    weight_by_tiles: Kernel
    transform_tiles: Kernel
    weight_by_blocks: Kernel


def kernels_of(f: Form) -> Kernels:
    """Make the kernels of a form."""

    def weight_by_tiles(task: Index, ints: I64, x: T, g: T, zero: T, tiles: I64, slots: I64, work: T, out: T):
        """Do one share of the chunks, with a partial result of its own."""
        cut, all_ = named(ints, Cut), named(offset(ints, _CUT), Shares)
        slot = take_slot(slots, all_.buffers)
        pixels = offset(work, slot * (cut.pixel_size + cut.gradient_size + cut.sum_size))
        gradients = offset(pixels, cut.pixel_size)
        sums = offset(gradients, cut.gradient_size)
        own = offset(out, task * cut.k * f.taps * f.taps * cut.c)
        begin = task * all_.chunks // all_.shares
        for chunk in range(begin, (task + 1) * all_.chunks // all_.shares):
            first = chunk * all_.tiles // all_.chunks
            count = (chunk + 1) * all_.tiles // all_.chunks - first
            _transform(f, ints, x, g, zero, first, count, 0, pixels, gradients)
            for unit in range(cut.units):
                _multiply(f, ints, unit, pixels, gradients, count, tiles, sums, own, chunk - begin)
        give_slot(slots, slot)

    def transform_tiles(task: Index, ints: I64, x: T, g: T, zero: T, pixels: T, gradients: T):
        """Transform one share of the tiles of a chunk."""
        chunk = named(offset(ints, _CUT), Chunk)
        begin, end = task * chunk.count // chunk.shares, (task + 1) * chunk.count // chunk.shares
        _transform(f, ints, x, g, zero, chunk.first + begin, end - begin, begin, pixels, gradients)

    def weight_by_blocks(task: Index, ints: I64, pixels: T, gradients: T, tiles: I64, slots: I64, work: T, out: T):
        """Compute what a chunk adds to one share of the blocks of the result; the chunk from tile 0 on sets them."""
        cut, chunk = named(ints, Cut), named(offset(ints, _CUT), Chunk)
        slot = take_slot(slots, chunk.buffers)
        sums = offset(work, slot * cut.sum_size)
        for unit in range(task * cut.units // chunk.shares, (task + 1) * cut.units // chunk.shares):
            _multiply(f, ints, unit, pixels, gradients, chunk.count, tiles, sums, out, chunk.first)
        give_slot(slots, slot)

    # Tiles of 16 channels take 3 % more time when LLVM optimises their transforms once.
    transforming = [kernel(renamed(made, f)) for made in (weight_by_tiles, transform_tiles)]
    return Kernels(*transforming, tile_kernel(renamed(weight_by_blocks, f)))


class Costs(NamedTuple):
    """What takes time beside the products, measured, in operations at peak."""

    tile: float  # for a channel of a tile: its transforms,
    sums: float  # and for a filter of one channel, after each chunk


@dataclass(frozen=True)
class _Plan:
    """How a problem is cut.

    Attributes
    ----------
    count, chunks : int
        Of tiles of the image, and of chunks of these.
    shares : int
        Partial results; 0: the tasks share the blocks of each chunk.
    cut : Cut
    tiles : array of int64
        Register tiles: those of each kind of blocks begin where the first numbers say, and of `Piece` each.
    """

    count: int
    chunks: int
    shares: int
    cut: Cut
    tiles: np.ndarray


def _whole(count: int, dtype: str) -> int:
    """Round up to whole vectors."""
    size = numpy_lanes(dtype)
    return -(-count // size) * size


def _cut(f: Form, p: ConvProblem) -> tuple[int, int, int]:
    """Return the numbers of tiles, chunks and partial results."""
    tiles = p.n * -(-p.p // f.tile) * -(-p.q // f.tile)
    partial_bytes = p.r * p.s * p.c * p.k * np.dtype(p.dtype).itemsize
    shares = next((s for s in (_SHARES, _SHARES // 2) if s * _SHORT_CHUNK <= tiles), 0)
    if not shares or partial_bytes > _PARTIAL_BYTES:
        return tiles, -(-tiles // _CHUNK), 0
    return tiles, shares * -(-tiles // (shares * _OWN_CHUNK)), shares


def _pieces(p: ConvProblem, panels: int, block: int, blocks: int) -> np.ndarray:
    """Return the register tiles of each kind of blocks."""
    vectors = _whole(p.c, p.dtype) // numpy_lanes(p.dtype)
    widths = min(MAX_VECTORS, vectors), vectors - (panels - 1) * MAX_VECTORS
    heights = min(block, p.k), p.k - (blocks - 1) * block
    kinds = [cover(rows, width)[1] for width in widths for rows in heights]
    starts = np.cumsum([0, *map(len, kinds)])
    return np.concatenate([starts, *(np.reshape(pieces, -1) for pieces in kinds)]).astype(np.int64)


@lru_cache(maxsize=1024)
def _plan(f: Form, p: ConvProblem) -> _Plan:
    tiles, chunks, shares = _cut(f, p)
    chunk = -(-tiles // chunks)
    size = numpy_lanes(p.dtype)
    panels = -(-p.c // (MAX_VECTORS * size))
    block = _ROWS if shares or panels * -(-p.k // _ROWS) >= _SHARES else _FEW_ROWS
    blocks = -(-p.k // block)
    pixel_size = f.phase_count * f.points * (chunk * _whole(p.c, p.dtype) + panels * size)
    # Register tiles may have more rows than a block: they read and write beyond its last one.
    gradient_size = f.points * (chunk * _whole(p.k, p.dtype) + blocks * size) + _whole(MOST_RUN_ROWS, p.dtype)
    step = min(block, p.k) * min(MAX_VECTORS * size, _whole(p.c, p.dtype)) + size
    return _Plan(tiles, chunks, shares, Cut(
        h=p.h, w=p.w, c=p.c, p=p.p, q=p.q, k=p.k, top=p.pads[0], left=p.pads[2],
        tiles_h=-(-p.p // f.tile), tiles_w=-(-p.q // f.tile), chunk=chunk, block=block, blocks=blocks, step=step,
        units=panels * blocks, pixel_size=pixel_size, gradient_size=gradient_size,
        sum_size=f.points * step + MOST_RUN_ROWS * MAX_VECTORS * size,
    ), _pieces(p, panels, block, blocks))  # fmt: skip


class WinogradWeight:
    """One algorithm.

    Parameters
    ----------
    form : Form
    costs : Costs
    """

    def __init__(self, form: Form, costs: Costs):
        self._form, self._costs, self._kernels = form, costs, kernels_of(form)

    def run(self, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        """Compute the gradient of the weight."""
        plan, zero = _plan(self._form, p), zeros(max(p.c, p.k), p.dtype)
        (self._run_tiles if plan.shares else self._run_blocks)(p, plan, *inputs, zero, outputs[0])

    def _run_tiles(
        self, p: ConvProblem, plan: _Plan, x: np.ndarray, g: np.ndarray, zero: np.ndarray, out: np.ndarray
    ) -> None:
        slots = new_slots(plan.shares)
        work_size = plan.cut.pixel_size + plan.cut.gradient_size + plan.cut.sum_size
        work = memory.empty((slots.size * work_size,), p.dtype)
        partials = memory.empty((plan.shares * out.size,), p.dtype)
        integers_ = *plan.cut, *Shares(plan.count, plan.chunks, plan.shares, slots.size)
        operands = x, g, zero, plan.tiles, slots, work, partials
        launch(self._kernels.weight_by_tiles, plan.shares, operands, integers_, p.dtype)
        reduce_partials(partials, out, plan.shares, p.dtype)

    def _run_blocks(
        self, p: ConvProblem, plan: _Plan, x: np.ndarray, g: np.ndarray, zero: np.ndarray, out: np.ndarray
    ) -> None:
        pixels = memory.empty((plan.cut.pixel_size,), p.dtype)
        gradients = memory.empty((plan.cut.gradient_size,), p.dtype)
        tasks = min(2 * _SHARES, plan.cut.units)
        slots = new_slots(tasks)
        sums = memory.empty((slots.size * plan.cut.sum_size,), p.dtype)
        by_tiles, by_blocks = self._kernels.transform_tiles, self._kernels.weight_by_blocks
        for chunk in range(plan.chunks):
            first = chunk * plan.count // plan.chunks
            count = (chunk + 1) * plan.count // plan.chunks - first
            shares = min(_SHARES, count)
            tiles, blocks = Chunk(first, count, shares, buffers=0), Chunk(first, count, tasks, slots.size)
            launch(by_tiles, shares, (x, g, zero, pixels, gradients), (*plan.cut, *tiles), p.dtype)
            operands = pixels, gradients, plan.tiles, slots, sums, out
            launch(by_blocks, tasks, operands, (*plan.cut, *blocks), p.dtype)

    def _cost(self, p: ConvProblem) -> float:
        tiles, chunks, _ = _cut(self._form, p)
        columns, size = _whole(p.c, p.dtype), numpy_lanes(p.dtype)
        rows, width = min(p.k, _ROWS), min(columns // size, MAX_VECTORS)
        blocks = p.k / rows * columns / (width * size)
        products = self._form.products * tiles * blocks * cover(rows, width)[0] * 4 * size
        # In operations of direct convolution, measured: loads from beyond the first-level cache, transforms, launches.
        transforms = self._costs.tile * tiles * (columns + _whole(p.k, p.dtype))
        return 1.3 * products + transforms + self._costs.sums * chunks * columns * p.k + 1e6

    def candidate(self) -> Candidate:
        """Return the candidate."""
        return Candidate(
            f"cpu.winograd{self._form.suffix}", self.run, lambda p: unsupported(self._form, p), self._cost,
            tolerance=lambda p: 3e-5,
        )  # fmt: skip


ALGORITHMS = (
    WinogradWeight(F4X4, Costs(tile=1000.0, sums=860.0)),
    WinogradWeight(F2X2, Costs(tile=350.0, sums=500.0)),
    WinogradWeight(F2X2_OF_5X5, Costs(tile=200.0, sums=1150.0)),
    WinogradWeight(F4X4_STRIDE_2, Costs(tile=900.0, sums=900.0)),
)

CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [algorithm.candidate() for algorithm in ALGORITHMS],
}
