"""Direct convolution as an implicit matrix product: every stride, padding, dilation and number of groups.

Forward and backward_input are one algorithm, `gather`: each position of an output grid sums, over a list of taps, the
product of a source pixel and a packed weight matrix. For backward_input with stride > 1 the positions that see the same
taps form a grid of their own (stride x stride grids), so inserted zeros are never touched. A task takes a block of
positions; it writes down the source address of each (tap, position), zeros where the tap lies in the padding, and runs
register tiles over them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.addresses import source_addresses, write_positions
from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_moments import Order, Share, across_images, following, in_memory
from numbanet.cpu.copy import arrange, clear
from numbanet.cpu.isa import fetches_ahead, host_isa
from numbanet.cpu.pack import first_vector, pack, panel_count
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.prefetch import CACHE_LINE, prefetch_far
from numbanet.cpu.simd import lanes, named, numpy_lanes, offset
from numbanet.cpu.tile import (
    ACCUMULATE,
    MAX_ROWS,
    MAX_VECTORS,
    address,
    epilogue_flags,
    panel_tile,
    stack_buffer,
    tile_rows,
    whole_tiles,
)
from numbanet.problem.conv import ConvProblem

TABLE = 4096  # entries of a task's address table (on the stack)
_ROOM = TABLE + 64  # and what whole vectors write beyond
# Taps x channels of a panel: an eighth of a second-level cache, where rows pass by; more would cost digits.
_REDUCTION = max(64, min(512, caches().second // (32 * MAX_VECTORS * numpy_lanes("float32"))))
_BLOCK = 192  # positions of a block, about
_POSITIONS = 256  # and with the rows of a tile beyond them
_NARROW = 13  # columns of positions: fewer than about the rows of a tile
_SOURCE_BYTES = caches().second // 2  # source pixels of a block
_LINES_AT_ONCE = 16  # cache lines of sources that a tile may fetch: 12 gained by it, 36 lost
_TASKS = 32  # as many tasks at least, where the problem allows it
_WEIGHT_BYTES = caches().second // 4 * 3  # packed weights that stay there while positions pass by


@device
def run_tiles(
    width, last, sources, source_step, channel, taps, channels, packed, panel_step, outs, column, count, flags, bias,
    residual,
):  # fmt: skip
    """Run the register tiles of one panel over the `count` positions of a block; see `panel_tile`."""
    none = np.int64(0)  # for a literal, Numba would compile the tiles once more
    run_tiles_ahead(
        width, last, sources, source_step, channel, taps, channels, packed, panel_step, outs, column, count, flags,
        bias, residual, packed, none, none, none, none,
    )  # fmt: skip


@device
def run_tiles_ahead(
    width, last, sources, source_step, channel, taps, channels, packed, panel_step, outs, column, count, flags, bias,
    residual, x, ahead, each, step, padding,
):  # fmt: skip
    """Do the same as `run_tiles`, and with each tile prefetch `each` elements of `x`, from `ahead` on and `step` apart.

    Taps that read `padding` only are left out. Return where the prefetching ended.
    """
    rows = tile_rows(width)
    for m in range(0, count, rows):
        panel_tile(
            width, offset(sources, m), source_step, channel, taps, channels, packed, panel_step,
            offset(outs, m), column, count - m, flags, bias, residual, last, padding,
        )  # fmt: skip
        for _ in range(each):
            prefetch_far(x, ahead)
            ahead += step
    return ahead


class Gather(NamedTuple):
    """What the kernel reads of a problem and of how it is cut: the integers of a launch.

    The functions of `addresses` read the first five.
    """

    h: int  # the source: rows,
    w: int  # columns
    all_channels: int  # and channels of all groups;
    stride_h: int  # source pixels from a position of the grid to the next
    stride_w: int
    images: int  # the grid of positions
    rows: int
    columns: int
    base: int  # elements of the result before the first position,
    image_step: int  # and from one to that of the next image,
    row_step: int  # row
    column_step: int  # and column
    c: int  # channels of a group in the source
    k: int  # and in the result
    panels: int  # of columns of the packed weight, of all groups;
    parts: int  # tasks take one of so many parts of them
    taps: int
    block: int  # positions of a task,
    tap_block: int  # and taps and channels of a group that its tiles add up at once
    channel_block: int
    flags: int  # of the tiles' last stores
    fetched: int  # elements that each tile fetches of the next block's sources,
    fetch_step: int  # so far apart
    across: int  # whether positions go row by row across images
    inside: int  # whether no tap of a position lies in the padding
    blocks: int
    tasks_a_block: int  # how tasks are numbered: block by block,
    tasks_a_part: int  # or part by part


@kernel
def gather(task: Index, ints: I64, x: T, packed: T, taps: I64, zeros: T, bias: T, residual: T, y: T):
    """Convolve one block of grid positions with some of the panels."""
    s = named(ints, Gather)
    c, k, panels = s.c, s.k, s.panels
    first = task // s.tasks_a_block % s.blocks * s.block
    count = min(s.block, s.images * s.rows * s.columns - first)
    padded = s.block + MAX_ROWS
    outs, pixels = stack_buffer(taps, _POSITIONS), stack_buffer(taps, _POSITIONS)
    rows, columns = stack_buffer(taps, _POSITIONS), stack_buffer(taps, _POSITIONS)
    sources = stack_buffer(taps, _ROOM)
    write_positions(
        outs, pixels, rows, columns, first, count, padded, s.images, s.rows, s.columns, s.across, s.inside,
        y, s.base, s.image_step, s.row_step, s.column_step, x, ints,
    )  # fmt: skip

    # Tiles jump from row to row and tap to tap, and nothing foresees that: the next pixels are fetched meanwhile.
    n, rest = (first + s.block) // (s.rows * s.columns), (first + s.block) % (s.rows * s.columns)
    ahead = (n * s.h + rest // s.columns * s.stride_h) * s.w + rest % s.columns * s.stride_w
    ahead *= s.all_channels
    vector, part = lanes(x), task // s.tasks_a_part % s.parts
    vectors = (k + vector - 1) // vector
    panels_a_group = (vectors + MAX_VECTORS - 1) // MAX_VECTORS
    packed_columns = vectors * vector
    for tap in range(0, s.taps, s.tap_block):
        here = min(s.tap_block, s.taps - tap)
        for t in range(here):
            source_addresses(
                offset(sources, t * padded), padded, pixels, rows, columns, s.inside,
                x, ints, taps[3 * (tap + t)], taps[3 * (tap + t) + 1], address(zeros, 0),
            )  # fmt: skip
        for panel in range(part * panels // s.parts, (part + 1) * panels // s.parts):
            group, which = panel // panels_a_group, panel % panels_a_group
            column = first_vector(which, vectors, panels_a_group) * vector
            width = first_vector(which + 1, vectors, panels_a_group) - column // vector
            last = min(k - column - (width - 1) * vector, vector)
            pitch = width * vector
            start = (group * packed_columns + column) * s.taps * c + tap * c * pitch
            for channel in range(0, c, s.channel_block):
                channels = min(s.channel_block, c - channel)
                flags = ACCUMULATE if tap + channel > 0 else 0
                if tap + here == s.taps and channel + channels == c:
                    flags |= s.flags
                ahead = run_tiles_ahead(
                    width, last, sources, padded, group * c + channel, here, channels,
                    offset(packed, start + channel * pitch), c * pitch, outs, group * k + column, count, flags, bias,
                    address(residual, 0) - address(y, 0), x, ahead, s.fetched, s.fetch_step,
                    address(zeros, 0),
                )  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """One gather: which positions it computes and what they read.

    Attributes
    ----------
    size : (int, int)
        Rows and columns of positions an image.
    start, step : (int, int)
        Output pixel of position (i, j): start + (i, j) * step.
    stride : (int, int)
        Source pixel of position (i, j) for a tap: (i, j) * stride + the tap's shift.
    taps : numpy.ndarray
        Shape (count, 3), int64: vertical shift, horizontal shift, index of the tap in the weight.
    """

    size: tuple[int, int]
    start: tuple[int, int]
    step: tuple[int, int]
    stride: tuple[int, int]
    taps: np.ndarray


def _forward_grid(p: ConvProblem) -> Grid:
    shifts = [
        (r * p.dilation[0] - p.pads[0], s * p.dilation[1] - p.pads[2], r * p.s + s)
        for r in range(p.r)
        for s in range(p.s)
    ]
    return Grid((p.p, p.q), (0, 0), (1, 1), p.stride, np.array(shifts, np.int64))


def _residues(size: int, count: int, stride: int, dilation: int, pad: int) -> dict[int, list[tuple[int, int]]]:
    """Return, for each residue of an input coordinate modulo the stride, its (output shift, filter index) pairs.

    x[h] meets y[i] where h + pad = i * stride + r * dilation. Residues that meet nothing are left out.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    for r in range(count):
        shift, residue = divmod(r * dilation - pad, stride)
        if residue < size:
            found.setdefault(residue, []).append((-shift, r))
    return found


def _backward_grids(p: ConvProblem) -> list[Grid]:
    """One grid for each residue of the input pixel modulo the stride: its pixels see the same taps."""
    rows = _residues(p.h, p.r, p.stride[0], p.dilation[0], p.pads[0])
    columns = _residues(p.w, p.s, p.stride[1], p.dilation[1], p.pads[2])
    grids = []
    for a, vertical in rows.items():
        for b, horizontal in columns.items():
            taps = [(i, j, r * p.s + s) for i, r in vertical for j, s in horizontal]
            size = -(-(p.h - a) // p.stride[0]), -(-(p.w - b) // p.stride[1])
            grids.append(Grid(size, (a, b), p.stride, (1, 1), np.array(taps, np.int64)))
    return grids


def complete_unseen(p: ConvProblem, residual: np.ndarray | None, out: np.ndarray) -> None:
    """Write zeros, or the residual, where no grid writes: to input pixels that a stride passes over."""
    if sum(grid.size[0] * grid.size[1] for grid in grids(p)) < p.h * p.w:
        if residual is None:
            clear(out)
        elif residual is not out:
            arrange(residual, out, (out.size,), (1,), (1,))


def apart(residual: np.ndarray | None, out: np.ndarray) -> np.ndarray | None:
    """Return the residual, copied if it is the result: for kernels that write some numbers before they add to them."""
    if residual is not out:
        return residual
    copy = memory.empty(out.shape, out.dtype)
    arrange(out, copy, (out.size,), (1,), (1,))
    return copy


def block_size(positions: int, columns: int, source_bytes: int, limit: int, dtype: str, least: int = 1) -> int:
    """Return how many positions a block has: whole tiles, even blocks, sources within a share of the cache.

    There are `least` blocks at least, if there are as many tiles.
    """
    rows = whole_tiles(-(-columns // numpy_lanes(dtype)))
    most = max(rows, min(_BLOCK, limit - MAX_ROWS, _SOURCE_BYTES // source_bytes) // rows * rows)
    blocks = max(1, -(-positions // most), min(least, -(-positions // rows)))  # no position at all: an empty batch
    return -(-positions // (blocks * rows)) * rows


@lru_cache(maxsize=1024)
def grids(p: ConvProblem) -> tuple[Grid, ...]:
    """Return the grids of positions that make up a pass; the taps of backward_weight are those of forward."""
    return tuple(_backward_grids(p)) if p.which == "backward_input" else (_forward_grid(p),)


def _inside(grid: Grid, axis: int, size: int) -> bool:
    """Return whether no tap of a position lies before or behind the rows (axis 0) or columns of the source."""
    shifts = grid.taps[:, axis]
    last = (grid.size[axis] - 1) * grid.stride[axis]
    return not len(shifts) or bool(shifts.min() >= 0 and shifts.max() + last < size)


def _across(grid: Grid, height: int) -> bool:
    """Return whether positions go row by row across images: then the tiles of narrow images at the upper and lower
    border hold positions of one row, which leave out the same taps.
    """
    return grid.size[1] < _NARROW and not _inside(grid, 0, height)


def _as_one_row(p: ConvProblem) -> ConvProblem:
    """Return a problem whose pixels are one row of one image if each of them sees itself only, else the problem."""
    pointwise = p.r * p.s == 1 and p.stride == (1, 1) and not any(p.pads)
    return replace(p, n=1, h=1, w=p.n * p.h * p.w) if pointwise and p.n else p


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> list[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
    """Return, for each grid, its taps, the pixel of the padding, the number of tasks and the block of integers."""
    p = _as_one_row(p)
    forward = p.which == "forward"
    if forward:
        source, out, reduction, columns = (p.h, p.w, p.c), (p.p, p.q, p.k), p.cg, p.kg
    else:
        source, out, reduction, columns = (p.p, p.q, p.k), (p.h, p.w, p.c), p.kg, p.cg
    itemsize = np.dtype(p.dtype).itemsize
    launches = []
    for grid in grids(p):
        taps = len(grid.taps)
        tap_block = max(1, min(taps, _REDUCTION // max(1, reduction), TABLE // (4 * MAX_ROWS)))
        channel_block = -(-reduction // max(1, -(-reduction // _REDUCTION)))
        positions = p.n * grid.size[0] * grid.size[1]
        source_bytes = source[2] * itemsize * grid.stride[0] * grid.stride[1]
        panels = p.groups * panel_count(columns, p.dtype)
        # A larger weight is read by one thread each of its panels, and so few blocks of positions come again to it.
        weight_first = taps * reduction * p.groups * columns * itemsize > _WEIGHT_BYTES
        least = -(-_TASKS // (2 * max(1, panels)))
        block = block_size(positions, columns, source_bytes, TABLE // tap_block, p.dtype, least)
        blocks = -(-positions // block)
        parts = min(panels, -(-_TASKS // blocks))
        image, row = out[0] * out[1] * out[2], out[1] * out[2]
        across = int(_across(grid, source[0]))
        width = -(-columns // (numpy_lanes(p.dtype) * panel_count(columns, p.dtype)))
        steps = -(-taps // tap_block) * -(-reduction // max(1, channel_block)) * (panels // parts)
        tiles = max(1, steps * -(-block // host_isa().tile_rows[width - 1]))
        # Each line once if a tile fetches few of them; more at a time come slower than when they are asked for twice.
        few = block * source_bytes <= _LINES_AT_ONCE * CACHE_LINE * tiles
        fetch_bytes = max(CACHE_LINE, host_isa().vector_bytes) if few else host_isa().vector_bytes
        reused = taps >= grid.stride[0] * grid.stride[1] and not across
        fetched = -(-block * source_bytes // (fetch_bytes * tiles)) if reused and fetches_ahead() else 0
        integers_ = Gather(
            *source, *grid.stride, p.n, *grid.size,
            base=grid.start[0] * row + grid.start[1] * out[2], image_step=image, row_step=grid.step[0] * row,
            column_step=grid.step[1] * out[2], c=reduction, k=columns, panels=panels, parts=parts, taps=taps,
            block=block, tap_block=tap_block, channel_block=max(1, channel_block), flags=epilogue_flags(p.epilogue),
            fetched=fetched, fetch_step=fetch_bytes // itemsize, across=across,
            inside=int(_inside(grid, 0, source[0]) and _inside(grid, 1, source[1])), blocks=blocks,
            tasks_a_block=1 if weight_first else parts, tasks_a_part=blocks if weight_first else 1,
        )  # fmt: skip
        launches.append((grid.taps, zeros(source[2], p.dtype), blocks * parts, block_of(integers_)))
    return launches


def _at_once(numbers: np.ndarray) -> bool:
    """Return whether a launch stores each number once, not after each of several blocks of taps and channels."""
    s = Gather(*numbers[:-1].tolist())
    return s.taps <= s.tap_block and s.c <= s.channel_block


@lru_cache(maxsize=1024)
def _stored(p: ConvProblem) -> tuple[Order, Share, tuple[int, ...]]:
    """Return what the tasks of the forward pass store."""
    s = Gather(*_plan(p)[0][3][:-1].tolist())
    size, panels = numpy_lanes(p.dtype), s.panels // p.groups
    starts = [divmod(part * s.panels // s.parts, panels) for part in range(s.parts)]
    channels = [group * p.kg + first_vector.py_func(panel, -(-p.kg // size), panels) * size for group, panel in starts]
    share = Share(s.images * s.rows * s.columns, s.block, s.blocks, s.blocks, s.parts, s.tasks_a_block, s.tasks_a_part)
    return across_images(p) if s.across else in_memory(p), share, (*channels, p.k)


@cache  # for good: a recording reads them where they are
def zeros(count: int, dtype: str) -> np.ndarray:
    """Return the pixel of the padding."""
    return np.zeros(count, dtype)


def progression(values: np.ndarray) -> tuple[list[int], int]:
    """Return the different values in ascending order, and their (constant) difference."""
    found = sorted(set(values.tolist()))
    return found, found[1] - found[0] if len(found) > 1 else 1


def _padded(p: ConvProblem) -> ConvProblem:
    """Return a problem with a reduction: the sum over no channel is that over one of zeros."""
    if p.reduction:
        return p
    return replace(p, c=p.groups) if p.which == "forward" else replace(p, k=p.groups)


def prepare(p: ConvProblem, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the packed weight of each grid."""
    if not weight.size and not p.reduction:
        p = _padded(p)
        weight = np.zeros((p.k, p.r, p.s, p.cg), p.dtype)
    transposed = p.which == "backward_input"
    return tuple([pack(weight, grid.taps, p.groups, p.r * p.s, transposed, p.dtype) for grid in grids(p)])


def form(p: ConvProblem) -> tuple:
    """Return what of a problem decides about the packed weight, beside the weight."""
    return p.which, p.groups, p if p.which == "backward_input" else None


def run(
    p: ConvProblem,
    source: np.ndarray,
    packed: tuple[np.ndarray, ...],
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    *outputs: Any,
) -> None:
    """Convolve forward (`source` is x, the first output y) or backward (`source` is the gradient of y, it that of x).

    Forward, a second output takes the result's moments.
    """
    out = outputs[0]
    if not source.shape[3]:  # nothing to sum
        p, source = _padded(p), np.zeros((*source.shape[:3], p.groups), p.dtype)
    launches = _plan(p)
    if p.which == "backward_input":
        if residual is out and not all(_at_once(numbers) for *_, numbers in launches):
            residual = apart(residual, out)
        complete_unseen(p, residual, out)
    for (taps, padding, tasks, numbers), panels in zip(launches, packed):
        buffers = (
            source, panels, taps, padding, padding if bias is None else bias,
            padding if residual is None else residual, out,
        )  # fmt: skip
        then = following(outputs, *_stored(p)) if len(outputs) > 1 else None
        launch(gather, tasks, buffers, numbers, p.dtype, then)


def of_gradient(inputs: Arrays) -> Arrays:
    """Return the operands of backward_input as those of forward: source, weight, bias, and residual or None."""
    grad, weight, *residual = inputs
    return grad, weight, None, residual[0] if residual else None


def _forward(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    run(problem, *inputs, *outputs)


def _backward_input(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    run(problem, *of_gradient(inputs), outputs[0])


def tolerance(problem: ConvProblem) -> float:
    """Return the expected relative error: rounding errors add up like a random walk."""
    unit = 3e-6 if problem.dtype == "float32" else 6e-15
    return unit * (problem.reduction / 1000 + 1) ** 0.5


def _seen(p: ConvProblem) -> float:
    """Return which part of the products is computed: tiles leave out taps that none of their positions sees."""
    height, seen, every = p.h if p.which == "forward" else p.p, 0, 0
    for grid in grids(p):
        rows = np.arange(grid.size[0])[:, None] * grid.stride[0] + grid.taps[:, 0]
        every += rows.size
        one_row = _across(grid, height) and p.n * grid.size[1] >= MAX_ROWS
        seen += np.count_nonzero((rows >= 0) & (rows < height)) if one_row else rows.size
    return seen / max(1, every)


def cost(problem: ConvProblem) -> float:
    """Return the floating-point operations, counting whole vectors of columns and what each tap costs beside them."""
    forward = problem.which == "forward"
    columns, reduction = (problem.kg, problem.cg) if forward else (problem.cg, problem.kg)
    size = numpy_lanes(problem.dtype)
    operations = problem.flops * (-(-columns // size) * size) / max(1, columns) * (1 + 3 / max(1, reduction))
    return operations * _seen(problem)


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [
        Candidate("cpu.direct", _forward, cost=cost, tolerance=tolerance, prepare=prepare, form=form)
    ],
    ("conv2d", "backward_input"): [
        Candidate("cpu.direct", _backward_input, cost=cost, tolerance=tolerance, prepare=prepare, form=form)
    ],
}
