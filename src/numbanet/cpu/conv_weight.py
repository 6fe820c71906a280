"""Gradient of a convolution's weight: for each filter position, a sum of outer products over all output pixels.

``dw[k, r, s, :] += g[pixel, k] * x[pixel shifted by (r, s), :]``. The pixels of an output row whose source lies inside
the image are one run with constant steps, so padding is skipped rather than multiplied. A task owns a block of rows of
the result and some (group, tap, panel of in-channels) units of it, and walks over its share of the pixels in chunks: so
short that a panel of x stays in the first-level cache while the rows pass by, and the block in the second. Where the
weight is small, the pixels are split over tasks too, each with a partial result of its own, and the partials are added
in a fixed order. Where pixels lie far apart, their lines fall into few sets of the cache: what the tiles read of a
chunk is copied first, g in strips of a few rows, and x in panels. Where several tasks read the same rows of g, a launch
before theirs packs the strips of all.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.compile import I64, Index, T, device, kernel, tile_kernel
from numbanet.cpu.conv_direct import tolerance
from numbanet.cpu.copy import clear
from numbanet.cpu.isa import host_isa
from numbanet.cpu.pack import first_vector
from numbanet.cpu.parallel import launch
from numbanet.cpu.rows import MOST, copy_columns
from numbanet.cpu.simd import integers, lanes, load, load_tail, named, numpy_lanes, offset, store, store_tail
from numbanet.cpu.tile import MAX_ROWS, MAX_VECTORS, address, outer_tile, stack_buffer, tile_rows, whole_tiles
from numbanet.problem.conv import ConvProblem

_FEW = 512  # pixels in all,
_LONG = 208  # whose chunks are longer: the result is large beside them, and shall pass by once or twice
_STRIP = 16  # rows of a strip of g at most
_STRIPS = 49152  # numbers in the strips of a chunk
_TOGETHER = 8  # strips that are packed at a time: more streams of stores are too many
_RUNS = 3 * _LONG  # numbers of the runs of a chunk
_HEAD = 8  # numbers before the runs of what is fetched ahead
_AHEAD = _HEAD + _RUNS
_WIDTH = MAX_VECTORS * numpy_lanes("float32")  # numbers of a row of a panel, or more
_PANEL = _LONG * _WIDTH  # numbers in a copied panel
# Of a chunk: a panel has 5/8 of the first-level cache at most, and shares it with g; narrow ones leave it more.
_PIXELS = max(8, min(160, caches().first * 5 // 32 // _WIDTH))
_SMALL_WEIGHT = 8 << 20  # bytes of partial results
_SHARE = 128  # pixels of a partial result at least
_FAR = 512  # bytes from a pixel of g to the next,
_FAR_X = 2 * MAX_VECTORS * host_isa().vector_bytes  # and from one of x: a panel of which fills few sets of the cache
_BLOCK_BYTES = caches().second // 2  # of the result that a task may own without passing through memory
_TASKS = 16
_PADDED = 1.25  # how much longer the rows of a group may become in strips that are packed
_PACKING = 1.25  # what packing takes, if a task's copying of the same rows takes 1,
_PACKED_READ = 0.25  # and its reading of packed strips
_REDUCE_CHUNK = 4096


class Cut(NamedTuple):
    """What the kernel reads of a problem and of how it is cut: see `_plan`."""

    p: int  # rows and columns of g,
    q: int
    k: int
    h: int  # and of x
    w: int
    c: int
    stride_h: int
    stride_w: int
    pieces: int  # of a row of g,
    length: int  # and the pixels of one
    all_pieces: int
    groups: int
    taps: int
    chunk: int  # pieces of a chunk
    splits: int  # shares of the pixels,
    blocks: int  # blocks of rows of the result,
    block: int  # rows of one
    units: int  # (group, tap, panel) of a block,
    unit_tasks: int  # and the tasks that they are shared out to
    strip: int  # rows of g that are copied together; 0: g is read where it lies
    strips: int  # in each group, where they are packed before; 0: each task copies what it reads
    chunks: int  # of a share of the pixels, at most
    copied: int  # whether x is copied in panels
    gathered: int  # whether each task has sums of its own


@device
def write_runs(runs, ints, x, g, origin, pitch, first, count, dh, dw):
    """Write the runs (address of g, address of x, pixels) of `count` row pieces for one tap; return how many.

    In g, pixel `origin` comes first, and a pixel `pitch` numbers after the other.
    """
    cut = named(ints, Cut)  # anew: to keep them all in registers until here costs more
    left = (-dw + cut.stride_w - 1) // cut.stride_w if dw < 0 else 0
    right = min((cut.w - dw + cut.stride_w - 1) // cut.stride_w if dw < cut.w else 0, cut.q)
    found = 0
    for piece in range(first, first + count):
        row = piece // cut.pieces
        low = max(left, piece % cut.pieces * cut.length)
        high = min(right, (piece % cut.pieces + 1) * cut.length)
        source = row % cut.p * cut.stride_h + dh
        if 0 <= source < cut.h and low < high:
            pixel = (row // cut.p * cut.h + source) * cut.w + low * cut.stride_w + dw
            runs[3 * found] = address(g, (row * cut.q + low - origin) * pitch)
            runs[3 * found + 1] = address(x, pixel * cut.c)
            runs[3 * found + 2] = high - low
            found += 1
    return found


@device
def outer_tiles(
    width, last, runs, found, g_step, x_step, g_first, rows, x_first, out, out_step, accumulate, strip, strip_size,
    ahead,
):  # fmt: skip
    """Run the register tiles of one panel of columns over all `rows` rows of the result.

    The rows of g come in strips, `strip_size` numbers apart, of `strip` rows: whole tiles, or all rows. Each tile
    fetches a cache line of each pixel of the following chunk. What `ahead` holds says which: how many tiles did so,
    how many lines a pixel has in g and in x, the steps from a pixel to the next, the first number in g, the step from a
    line to the next, the first number in x, and the runs.
    """
    step = tile_rows(width)
    table = stack_buffer(runs, MAX_ROWS)
    strip_start, row = g_first, 0
    for k in range(0, rows, step):
        if rows - k < step:
            for i in range(step):
                table[i] = min(i, rows - k - 1)  # rows beyond the last one read it again: nothing else is touched
        line, g_lines, x_lines, g_ahead, x_ahead, g_start, g_line, x_start = integers(ahead, 8)
        coming, start, distance = runs, 0, 0
        if line < g_lines:
            coming, start, distance = offset(ahead, _HEAD), g_start + line * g_line, g_ahead
        elif line < g_lines + x_lines:
            coming, start, distance = offset(ahead, _HEAD + 1), x_start + (line - g_lines) * lanes(out), x_ahead
        ahead[0] = line + 1
        outer_tile(
            width, runs, found, g_step, x_step, strip_start + row, x_first, table, 1,
            offset(out, k * out_step), out_step, accumulate, rows - k, last, coming, start, distance,
        )  # fmt: skip
        row += step
        if row >= strip:
            strip_start += strip_size
            row = 0


@device
def _copy_strips(g, at, k, pixels, rows, valid, strip, strips, size):
    """Copy the first `rows` numbers of each pixel, of which `valid` exist, to strips that lie pixel by pixel.

    Strips are `size` numbers apart: room for what the vectors of the last pixel hold beside it.
    """
    vectors = (strip + lanes(g) - 1) // lanes(g) * lanes(g)
    for first in range(0, rows, strip):
        copy_columns(g, at + first, k, min(vectors, valid - first), strips, first // strip * size, strip, pixels)


@device
def _copy_panel(x, runs, found, step, first, columns, pitch, panel, moved):
    """Copy `columns` numbers of each pixel of the runs to rows that are `pitch` apart; write the runs of the copy."""
    size = address(x, 1) - address(x, 0)
    out = 0
    for run in range(found):
        pixels = runs[3 * run + 2]
        moved[3 * run], moved[3 * run + 1], moved[3 * run + 2] = runs[3 * run], address(panel, out), pixels
        at = (runs[3 * run + 1] - address(x, 0)) // size + first
        copy_columns(x, at, step, columns, panel, out, pitch, pixels)
        out += pixels * pitch


@device
def _pixel(cut, piece):
    """Return the number of the first pixel of a piece."""
    return piece // cut.pieces * cut.q + piece % cut.pieces * cut.length


@device
def _strip_size(cut, vector):
    """Return how many numbers lie between two strips."""
    return cut.chunk * cut.length * cut.strip + vector


@kernel
def pack_strips(task: Index, ints: I64, g: T, packed: T):
    """Copy a few strips of one chunk, in one share of the pixels."""
    cut = named(ints, Cut)
    kg, size = cut.k // cut.groups, _strip_size(cut, lanes(g))
    parts = (cut.strips + _TOGETHER - 1) // _TOGETHER
    part, group, number = task % parts, task // parts % cut.groups, task // parts // cut.groups
    split, strip = number // cut.chunks, part * _TOGETHER
    row = split * cut.all_pieces // cut.splits + number % cut.chunks * cut.chunk
    end = (split + 1) * cut.all_pieces // cut.splits
    if row < end:
        origin, past = _pixel(cut, row), _pixel(cut, min(row + cut.chunk, end))
        first = group * kg + strip * cut.strip
        _copy_strips(
            g, origin * cut.k + first, cut.k, past - origin, min(_TOGETHER, cut.strips - strip) * cut.strip,
            cut.k - first, cut.strip, offset(packed, ((number * cut.groups + group) * cut.strips + strip) * size), size,
        )  # fmt: skip


@tile_kernel
def weight_gradient(task: Index, ints: I64, x: T, g: T, packed: T, taps: I64, sums: T):
    """Sum the outer products of some units, in one block of rows of the result, over one share of the pixels."""
    cut = named(ints, Cut)
    k, c, chunk, strip = cut.k, cut.c, cut.chunk, cut.strip
    part, rest = task % cut.unit_tasks, task // cut.unit_tasks
    split, first_k = rest // cut.blocks, rest % cut.blocks * cut.block
    first_row, end_row = split * cut.all_pieces // cut.splits, (split + 1) * cut.all_pieces // cut.splits
    kg, cg, vector = k // cut.groups, c // cut.groups, lanes(x)
    count_k = min(cut.block, kg - first_k)
    vectors = (cg + vector - 1) // vector
    panels = (vectors + MAX_VECTORS - 1) // MAX_VECTORS
    runs, moved = stack_buffer(taps, _RUNS), stack_buffer(taps, _RUNS)
    ahead = stack_buffer(taps, _AHEAD)
    strips, panel = stack_buffer(x, _STRIPS), stack_buffer(x, _PANEL)
    strip_size = _strip_size(cut, vector)
    first_unit, end_unit = part * cut.units // cut.unit_tasks, (part + 1) * cut.units // cut.unit_tasks
    first_group, last_group = first_unit // (cut.taps * panels), (end_unit - 1) // (cut.taps * panels)
    g_low, g_high = first_group * kg + first_k, last_group * kg + first_k + count_k
    first_strip = first_k // max(1, strip)  # of the group,
    end_strip = last_group * cut.strips + (first_k + count_k + strip - 1) // max(1, strip)  # of all
    low, high = first_group * cg, (last_group + 1) * cg
    if cut.taps == 1:
        low = first_group * cg + first_vector(first_unit % panels, vectors, panels) * vector
        high = min(high, last_group * cg + first_vector((end_unit - 1) % panels + 1, vectors, panels) * vector)
    for row in range(first_row, end_row, chunk):
        count = min(chunk, end_row - row)
        origin, past = _pixel(cut, row), _pixel(cut, row + count)
        region = (split * cut.chunks + (row - first_row) // chunk) * cut.groups * cut.strips * strip_size
        former_group, former_tap, found = -1, -1, 0
        ahead[0], ahead[1], ahead[2] = 0, 0, 0
        if row + count < end_row:
            tap = 2 * (cut.taps - 1)  # of rows that overlap those of this chunk, what is new
            following = min(chunk, end_row - row - count)
            coming, start, pitch, first, line, size = g, 0, k, g_low, vector, g_high - g_low
            if cut.strips:  # one piece of memory: a line has a vector for each pixel that the last tap sees
                coming, start, pitch = offset(packed, region + cut.groups * cut.strips * strip_size), past, vector
                line = (_pixel(cut, row + count + following) - past) * vector
                first = (first_group * cut.strips + first_strip) * strip_size
                size = ((end_strip * strip_size - first) * vector + line - 1) // line
            more = write_runs(
                offset(ahead, _HEAD), ints, x, coming, start, pitch, row + count, following, taps[tap], taps[tap + 1]
            )  # fmt: skip
            if more:
                ahead[1], ahead[2] = (size + vector - 1) // vector, (high - low + vector - 1) // vector
                ahead[3], ahead[4], ahead[5], ahead[6], ahead[7] = pitch, cut.stride_w * c, first, line, low
                for i in range(3 * more, 3 * chunk):
                    ahead[_HEAD + i] = ahead[_HEAD + i - 3]
        for unit in range(first_unit, end_unit):
            group, tap, which = unit // (cut.taps * panels), unit // panels % cut.taps, unit % panels
            column = first_vector(which, vectors, panels) * vector
            width = first_vector(which + 1, vectors, panels) - column // vector
            columns = min(cg - column, width * vector)
            g_first, g_step, g_origin, source = group * kg + first_k, k, 0, g
            if cut.strips:
                g_first = region + (group * cut.strips + first_strip) * strip_size
                g_step, g_origin, source = strip, origin, packed
            elif strip:
                if group != former_group:
                    _copy_strips(
                        g, origin * k + g_first, k, past - origin, count_k, k - g_first, strip, strips, strip_size
                    )  # fmt: skip
                    former_group = group
                g_first, g_step, g_origin, source = 0, strip, origin, strips
            if tap != former_tap:
                found = write_runs(
                    runs, ints, x, source, g_origin, g_step, row, count, taps[2 * tap], taps[2 * tap + 1]
                )  # fmt: skip
                former_tap = tap
            used, x_step, x_first = runs, cut.stride_w * c, group * cg + column
            if cut.copied:
                _copy_panel(x, runs, found, x_step, x_first, columns, width * vector, panel, moved)
                used, x_step, x_first = moved, width * vector, 0
            start, pitch = ((group * kg + first_k) * cut.taps + tap) * cg + column, cut.taps * cg
            if cut.gathered:
                start, pitch = (rest * cut.units + unit) * cut.block * _WIDTH, width * vector
            outer_tiles(
                width, columns - (width - 1) * vector, used, found, g_step, x_step, g_first, count_k, x_first,
                offset(sums, start), pitch, row - first_row, strip if strip else count_k, strip_size, ahead,
            )  # fmt: skip


@kernel
def gather_blocks(task: Index, ints: I64, sums: T, out: T):
    """Write one unit of one block of the result: the sums of all shares of the pixels, added in their order."""
    splits, blocks, block, units, kg, cg, all_taps = integers(ints, 7)
    vector = lanes(out)
    vectors = (cg + vector - 1) // vector
    panels = (vectors + MAX_VECTORS - 1) // MAX_VECTORS
    first, unit = task // units * block, task % units
    group, tap, which = unit // (all_taps * panels), unit // panels % all_taps, unit % panels
    column = first_vector(which, vectors, panels) * vector
    pitch = first_vector(which + 1, vectors, panels) * vector - column
    share = blocks * units * block * _WIDTH
    at = task * block * _WIDTH
    for row in range(first, min(first + block, kg)):
        here = ((group * kg + row) * all_taps + tap) * cg + column
        for j in range(0, pitch, vector):
            total = load(sums, at + j)
            for split in range(1, splits):
                total = total + load(sums, split * share + at + j)
            store_tail(out, here + j, total, cg - column - j)
        at += pitch


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
    return max(1, min(_TASKS, _SMALL_WEIGHT // max(1, weight_bytes), pixels // _SHARE))


def _as_rows(problem: ConvProblem) -> tuple[int, int, int, int, int]:
    """Return (N, P, Q, H, W), with all pixels in one row where filter, stride and padding change nothing."""
    p = problem
    pointwise = p.r == p.s == 1 and p.stride == (1, 1) and p.pads == (0, 0, 0, 0)
    return (1, 1, p.n * p.h * p.w, 1, p.n * p.h * p.w) if pointwise else (p.n, p.p, p.q, p.h, p.w)


def _size(p: ConvProblem) -> int:
    return p.k * p.r * p.s * p.cg


def _rounded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _whole_tiles(p: ConvProblem) -> int:
    """Return the smallest number of rows that is one of whole tiles in every panel."""
    return whole_tiles(-(-p.cg // numpy_lanes(p.dtype)))


def _strip(p: ConvProblem) -> int:
    """Return how many rows of g a strip has; 0: the tiles read g where it lies."""
    if p.k * np.dtype(p.dtype).itemsize < _FAR:
        return 0
    whole = _whole_tiles(p)
    return whole * max(1, _STRIP // whole)


def _strips_of_a_block(p: ConvProblem, strip: int, pixels: int) -> int:
    """Return how many strips of a chunk of so many pixels there is room for."""
    return _STRIPS // (pixels * strip + numpy_lanes(p.dtype))


def _cut(p: ConvProblem, units: int, strip: int, most_splits: int, chunk: int) -> tuple[int, int, int, bool]:
    """Return how many shares of the pixels, blocks of rows and groups of units the work is cut into; if g is packed.

    At least `_TASKS` tasks where there is so much to share out, and of these cuts the one that moves the least memory.
    """
    itemsize = np.dtype(p.dtype).itemsize
    pixels, weight = p.n * p.p * p.q, _size(p) * itemsize
    x, g = pixels * p.c * p.r * p.s * itemsize, pixels * p.k * itemsize
    strips = _rounded(p.kg, strip) // strip if strip else 1
    fewest = -(-strips // _strips_of_a_block(p, strip, chunk)) if strip else 1
    best, least = (1, fewest, units, False), math.inf
    for blocks in range(1, min(strips, fewest + _TASKS) + 1):
        for groups in range(1, min(units, 4 * _TASKS) + 1):
            splits = min(most_splits, -(-_TASKS // (blocks * groups)))
            if splits * blocks * groups < _TASKS and (blocks < strips or groups < units):
                continue
            # A block of the result that the second-level cache can't keep passes by with each chunk.
            block = weight // (blocks * groups)
            passes = 0 if block <= _BLOCK_BYTES else pixels // chunk * 2 * weight
            moved = x * blocks + passes + (3 * splits if splits > 1 else 2) * weight
            reads = max(1, groups / p.groups)  # of each row of g: a task reads those of its own groups
            ways = [(g * reads, False)] if blocks >= fewest else []  # a task has room for so many strips
            if strip and strips * strip <= _PADDED * p.kg:
                ways.append((g * (_PACKING + _PACKED_READ * reads), True))
            for more, packed in ways:
                if moved + more < least:
                    best, least = (splits, blocks, groups, packed), moved + more
    return best


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[np.ndarray, int, Cut, int, tuple[int, ...]]:
    """Return the taps, and the number of tasks and the integers of the launches."""
    n, rows, q, h, w = _as_rows(p)
    itemsize = np.dtype(p.dtype).itemsize
    units = p.groups * p.r * p.s * -(-p.cg // (MAX_VECTORS * numpy_lanes(p.dtype)))
    few = n * rows * q < _FEW
    pixels = _LONG if few else _PIXELS
    # Long rows are cut into pieces: for the cache, to share them out, and since one long chain of sums loses digits.
    pieces = -(-q // pixels)
    most_splits = 1 if few else min(split_count(_size(p) * itemsize, n * rows * q), n * rows * pieces)
    strip = _strip(p)
    if strip and not _strips_of_a_block(p, strip, pixels):
        strip = 0
    splits, blocks, unit_tasks, packed = _cut(p, units, strip, most_splits, pixels)
    block = p.kg if blocks == 1 else _rounded(-(-p.kg // blocks), strip or _whole_tiles(p))
    blocks = -(-p.kg // block)
    if n * rows == 1:
        pieces = -(-pieces // splits) * splits  # the same number for each split
    length = -(-q // pieces)
    pieces = -(-q // length)
    chunk = max(1, pixels // length)
    share = -(-n * rows * pieces // splits)  # pieces, or one less
    copied = p.stride[1] * p.c * itemsize >= _FAR_X
    taps = [(r * p.dilation[0] - p.pads[0], s * p.dilation[1] - p.pads[2]) for r in range(p.r) for s in range(p.s)]
    cut = Cut(
        p=rows, q=q, k=p.k, h=h, w=w, c=p.c, stride_h=p.stride[0], stride_w=p.stride[1], pieces=pieces, length=length,
        all_pieces=n * rows * pieces, groups=p.groups, taps=p.r * p.s, chunk=chunk, splits=splits, blocks=blocks,
        block=block, units=units, unit_tasks=unit_tasks, strip=strip, strips=-(-p.kg // strip) if packed else 0,
        chunks=-(-share // chunk), copied=int(copied), gathered=int(not few),
    )  # fmt: skip
    gather = (splits, blocks, block, units, p.kg, p.cg, p.r * p.s)
    tasks = splits * blocks * unit_tasks
    # What the kernel's buffers hold.
    assert chunk * length <= pixels and 3 * chunk <= _RUNS and strip <= MOST * numpy_lanes(p.dtype)
    assert not packed or (share <= cut.chunks * chunk and (blocks == 1 or block % strip == 0))
    assert not strip or packed or -(-min(block, p.kg) // strip) <= _strips_of_a_block(p, strip, chunk * length)
    return np.array(taps, np.int64), tasks, cut, 0 if few else blocks * units, gather


def run(problem: ConvProblem, x: np.ndarray, grad: np.ndarray, out: np.ndarray) -> None:
    """Write the gradient of the weight to `out`."""
    if x.size == 0 or grad.size == 0:
        clear(out)
        return
    taps, tasks, cut, blocks, gather = _plan(problem)
    sums = memory.empty((gather[0] * blocks * gather[2] * _WIDTH,), problem.dtype) if blocks else out
    packed = grad
    if cut.strips:
        size = _strip_size.py_func(cut, numpy_lanes(problem.dtype))
        packed = memory.empty((cut.splits * cut.chunks * cut.groups * cut.strips * size,), problem.dtype)
        parts = -(-cut.strips // _TOGETHER)
        launch(pack_strips, cut.splits * cut.chunks * cut.groups * parts, (grad, packed), cut, problem.dtype)
    launch(weight_gradient, tasks, (x, grad, packed, taps, sums), cut, problem.dtype)
    if blocks:
        launch(gather_blocks, blocks, (sums, out), gather, problem.dtype)


def _run(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    run(problem, *inputs, outputs[0])


def _cost(p: ConvProblem) -> float:
    lanes_, panels = numpy_lanes(p.dtype), -(-p.cg // numpy_lanes(p.dtype))
    rows = host_isa().tile_rows[min(MAX_VECTORS, panels) - 1]
    return p.flops * (panels * lanes_ / max(1, p.cg)) * (-(-p.kg // rows) * rows / max(1, p.kg))


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.direct", _run, cost=_cost, tolerance=tolerance)],
}
