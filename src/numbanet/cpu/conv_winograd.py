"""3x3 convolution with stride 1 by Winograd's F(4x4, 3x3): a quarter of the products, at a larger rounding error.

The image is cut into tiles. For each of the 36 points of a transformed tile, a matrix of tiles x channels is
multiplied by one of channels x columns (out-channels). A task does this for a block of tiles and a panel of columns,
and transforms the products back while they lie in the second-level cache. One operand is transformed ahead, by a launch
of its own: the weight, where there are many tiles, the input, where there are few. The other is transformed by the
tasks, a piece at a time, so that it never goes through memory four times its size. A prepared weight is transformed
once and for all.

No padded copy is made: the pixels of a tile at a border are given by addresses, those of zeros where they are padding.
backward_input is the same algorithm with the filter turned round and the padding complemented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet import memory, settings
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import zeros
from numbanet.cpu.parallel import launch
from numbanet.cpu.prefetch import prefetch, prefetch_result
from numbanet.cpu.simd import lanes, named, numpy_lanes, offset
from numbanet.cpu.slots import give_slot, new_slots, take_slot
from numbanet.cpu.tile import MAX_VECTORS, address, stack_buffer
from numbanet.cpu.transpose import transpose_block
from numbanet.cpu.winograd import (
    POINTS,
    SPAN,
    TILE,
    transform_input,
    transform_input_edge,
    transform_output,
    transform_output_edge,
    transform_weight,
)
from numbanet.cpu.winograd_plan import AFTER, CUT, Cut, Shape, plan_of, shape_of, tiles_of
from numbanet.cpu.winograd_tile import CHANNEL_PITCH, multiply, row_plan
from numbanet.problem.conv import ConvProblem


@device
def _begin(total, parts, i):
    """Return where part i of `total` things begins, the parts differing by one at most."""
    return i * total // parts


@device
def _weights_at(c, column, begin, width, products_before, vector):
    """Return where the transformed weights of a panel and a block of channels begin.

    Each of their 36 points is padded by a vector: else the points would fall into the same cache sets.
    """
    return POINTS * vector * (c * column + begin * width + products_before)


@device
def _aligned(p):
    """Return the first element from `p` on that starts a cache line."""
    return offset(p, (-address(p, 0) & 63) // (address(p, 1) - address(p, 0)))


@device
def _pixel_addresses(table, x, n, top, left, h, w, c, zero):
    """Write the addresses of the 6 x 6 pixels from (top, left) on."""
    for i in range(SPAN):
        row = top + i
        for j in range(SPAN):
            column = left + j
            inside = 0 <= row < h and 0 <= column < w
            table[i * SPAN + j] = address(x, ((n * h + row) * w + column) * c) if inside else zero


@device
def _result_addresses(table, y, n, top, left, p, q, k):
    """Write the addresses of the 4 x 4 output pixels from (top, left) on, 0 beyond the output."""
    for i in range(TILE):
        for j in range(TILE):
            inside = top + i < p and left + j < q
            table[i * TILE + j] = address(y, ((n * p + top + i) * q + left + j) * k) if inside else 0


@device
def _transform_inputs(ints, x, zero, first, last, channel_blocks, from_block, to_block, out, step):
    """Transform tiles first, ..., last - 1 for some blocks of channels: ``out[block][point][tile][channel]``."""
    s = named(ints, Shape)
    h, w, c, tiles_h, tiles_w = s.h, s.w, s.c, s.tiles_h, s.tiles_w
    vector = lanes(x)
    vectors = (c + vector - 1) // vector
    table = stack_buffer(ints, 64)
    n, rest = first // (tiles_h * tiles_w), first % (tiles_h * tiles_w)
    i, j = rest // tiles_w, rest % tiles_w
    for m in range(last - first):
        row, column = i * TILE - s.top, j * TILE - s.left
        inside = row >= 0 and column >= 0 and row + SPAN <= h and column + SPAN <= w
        start = ((n * h + row) * w + column) * c
        whole = c // vector * vector if inside else 0
        if whole < c:
            _pixel_addresses(table, x, n, row, column, h, w, c, address(zero, 0))
        for block in range(from_block, to_block):
            begin = _begin(vectors, channel_blocks, block) * vector
            end = _begin(vectors, channel_blocks, block + 1) * vector
            at = block * POINTS * step + m * CHANNEL_PITCH - begin
            for channel in range(begin, min(end, whole), vector):
                transform_input(offset(x, start + channel), w * c, c, offset(out, at + channel), step)
            for channel in range(max(begin, min(end, whole)), min(end, c), vector):
                transform_input_edge(table, channel, c - channel, offset(out, at + channel), step)
        j += 1
        if j == tiles_w:
            i, j = i + 1, 0
            if i == tiles_h:
                n, i = n + 1, 0


@device
def _transform_weights(ints, weight, column, width, begin, end, out, step, scratch):
    """Transform the weights of channels begin, ..., end - 1 and `width` vectors of columns: ``out[point][c][column]``.

    Forward, columns are the rows of the weight (K, 9, C); backward its last axis, and the taps are turned round.
    """
    s = named(ints, Shape)
    c, k = s.c, s.k
    vector = lanes(weight)
    for channel in range(begin, end, vector):
        rows = min(vector, end - channel)
        for j in range(0, width * vector, vector):
            here = column + j
            into = offset(out, (channel - begin) * width * vector + j)
            # Few of these addresses follow each other in memory, so what comes next is fetched by hand.
            if s.forward:
                for tap in range(9):
                    start = (here * 9 + tap) * c + channel
                    transpose_block(
                        weight, start, 9 * c, k - here, rows, scratch, tap * vector * vector, vector
                    )  # fmt: skip
                    for i in range(vector):
                        prefetch(weight, start + i * 9 * c + vector)
                for i in range(rows):
                    transform_weight(
                        offset(scratch, i * vector), vector * vector, vector,
                        offset(into, i * width * vector), step,
                    )  # fmt: skip
            else:
                for i in range(rows):
                    start = (channel + i) * 9 * k + here
                    for tap in range(9):
                        prefetch(weight, start + (4 * 9 + tap) * k)
                    transform_weight(
                        offset(weight, start + 8 * k), -k, k - here, offset(into, i * width * vector), step
                    )  # fmt: skip


@device
def _transform_outputs(ints, products, step, first, last, column, width, bias, flags, residual, y):
    """Transform the products of tiles first, ..., last - 1 and `width` vectors of columns back."""
    s = named(ints, Shape)
    p, q, k, tiles_h, tiles_w = s.p, s.q, s.k, s.tiles_h, s.tiles_w
    vector = lanes(y)
    pitch = MAX_VECTORS * vector
    table, nowhere = stack_buffer(ints, 16), stack_buffer(y, 16)
    distance = address(residual, 0) - address(y, 0)
    whole = min(k - column, width * vector) // vector * vector
    n, rest = first // (tiles_h * tiles_w), first % (tiles_h * tiles_w)
    i, j = rest // tiles_w, rest % tiles_w
    for m in range(last - first):
        inside = i * TILE + TILE <= p and j * TILE + TILE <= q
        start = ((n * p + i * TILE) * q + j * TILE) * k + column
        regular = whole if inside else 0
        for at in range(0, regular, vector):
            transform_output(
                offset(products, m * pitch + at), step, offset(y, start + at), q * k, k,
                offset(bias, column + at), flags, distance,
            )  # fmt: skip
        if regular < width * vector:
            _result_addresses(table, y, n, i * TILE, j * TILE, p, q, k)
        for at in range(regular, width * vector, vector):
            transform_output_edge(
                offset(products, m * pitch + at), step, table, column + at, k - column - at,
                offset(bias, column + at), flags, distance, nowhere,
            )  # fmt: skip
        j += 1
        if j == tiles_w:
            i, j = i + 1, 0
            if i == tiles_h:
                n, i = n + 1, 0


@device
def _prefetch_inputs(ints, x, first, last):
    """Fetch the pixels that tiles first, ..., last - 1 read and those before them did not."""
    s = named(ints, Shape)
    h, w, c, tiles_h, tiles_w = s.h, s.w, s.c, s.tiles_h, s.tiles_w
    for tile in range(first, last):
        n, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
        row, column = rest // tiles_w * TILE - s.top + SPAN - TILE, rest % tiles_w * TILE - s.left + SPAN - TILE
        for i in range(row, min(h, row + TILE)):
            start = ((n * h + i) * w + column) * c
            for at in range(start, start + TILE * c, lanes(x)):
                prefetch(x, at)


@device
def _prefetch_outputs(ints, y, first, last, column, width):
    """Fetch the memory of the results of tiles first, ..., last - 1 and `width` vectors of columns."""
    s = named(ints, Shape)
    p, q, k, tiles_h, tiles_w = s.p, s.q, s.k, s.tiles_h, s.tiles_w
    for tile in range(first, last):
        n, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
        i, j = rest // tiles_w * TILE, rest % tiles_w * TILE
        for row in range(i, min(p, i + TILE)):
            for at in range(j, min(q, j + TILE)):
                start = ((n * p + row) * q + at) * k + column
                for vector in range(width):
                    prefetch_result(y, start + vector * lanes(y))


@kernel
def transform_inputs(task: Index, ints: I64, x: T, zero: T, out: T):
    """Transform one piece of the only block of tiles and one block of channels."""
    cut = named(offset(ints, CUT), Cut)
    piece, channels = task // cut.channel_blocks, task % cut.channel_blocks
    first, last = _begin(cut.tiles, cut.pieces, piece), _begin(cut.tiles, cut.pieces, piece + 1)
    into = offset(out, first * CHANNEL_PITCH)
    _transform_inputs(ints, x, zero, first, last, cut.channel_blocks, channels, channels + 1, into, cut.in_step)


@kernel
def transform_weights(task: Index, ints: I64, weight: T, out: T):
    """Transform the weights of one panel and one block of channels."""
    shape, cut = named(ints, Shape), named(offset(ints, CUT), Cut)
    c, k, channel_blocks, panels = shape.c, shape.k, cut.channel_blocks, cut.panels
    vector = lanes(weight)
    vectors, columns = (c + vector - 1) // vector, (k + vector - 1) // vector
    panel, block = task // channel_blocks, task % channel_blocks
    column = _begin(columns, panels, panel)
    width = _begin(columns, panels, panel + 1) - column
    begin = _begin(vectors, channel_blocks, block) * vector
    end = min(c, _begin(vectors, channel_blocks, block + 1) * vector)
    _transform_weights(
        ints, weight, column * vector, width, begin, end,
        offset(out, _weights_at(c, column, begin, width, task, vector)), ((end - begin) * width + 1) * vector,
        _aligned(stack_buffer(weight, 2560)),
    )  # fmt: skip


@kernel
def winograd(
    task: Index, ints: I64, x: T, weight: T, zero: T, bias: T, residual: T, slots: I64, work: T, y: T
):  # fmt: skip
    """Convolve some blocks of tiles with some panels of columns; `x` or `weight` or both are transformed already."""
    shape, cut = named(ints, Shape), named(offset(ints, CUT), Cut)
    c, k, channel_blocks, panels, tiles = shape.c, shape.k, cut.channel_blocks, cut.panels, cut.tiles
    slot = take_slot(slots, ints[AFTER])
    vector = lanes(x)
    vectors, columns = (c + vector - 1) // vector, (k + vector - 1) // vector
    tile_part, panel_part = task // cut.panel_parts, task % cut.panel_parts
    products = offset(_aligned(work), slot * cut.work_size)
    own = offset(products, POINTS * cut.out_step)
    scratch = stack_buffer(x, 2304)
    from_block = _begin(cut.blocks, cut.tile_parts, tile_part)
    to_block = _begin(cut.blocks, cut.tile_parts, tile_part + 1)
    from_panel, to_panel = _begin(panels, cut.panel_parts, panel_part), _begin(panels, cut.panel_parts, panel_part + 1)
    for block in range(from_block, to_block):
        first, last = 2 * _begin(cut.units, cut.blocks, block), min(tiles, 2 * _begin(cut.units, cut.blocks, block + 1))
        inputs = own
        if cut.inputs_ahead:
            inputs = x
        else:
            _transform_inputs(ints, x, zero, first, last, channel_blocks, 0, channel_blocks, own, cut.in_step)
        for panel in range(from_panel, to_panel):
            column = _begin(columns, panels, panel)
            width = _begin(columns, panels, panel + 1) - column
            many_rows, all_rows = row_plan(last - first, width)
            for part in range(channel_blocks):
                begin = _begin(vectors, channel_blocks, part) * vector
                end = min(c, _begin(vectors, channel_blocks, part + 1) * vector)
                step = ((end - begin) * width + 1) * vector
                weights = own
                if cut.weights_ahead:
                    before = panel * channel_blocks + part
                    weights = offset(weight, _weights_at(c, column, begin, width, before, vector))
                else:
                    _transform_weights(ints, weight, column * vector, width, begin, end, own, step, scratch)
                for point in range(POINTS):
                    # Meanwhile, memory brings what the next steps need.
                    now, soon = _begin(last - first, POINTS, point), _begin(last - first, POINTS, point + 1)
                    if part == channel_blocks - 1:
                        _prefetch_outputs(ints, y, first + now, first + soon, column * vector, width)
                    if part + panel == 0 and cut.inputs_ahead == 0:
                        _prefetch_inputs(ints, x, last + now, min(tiles, last + soon))
                    multiply(
                        width, many_rows, all_rows, offset(inputs, (part * POINTS + point) * cut.in_step),
                        offset(weights, point * step), offset(weights, (point + 1) * step),
                        offset(products, point * cut.out_step), end - begin, part, MAX_VECTORS * vector,
                    )  # fmt: skip
            _transform_outputs(
                ints, products, cut.out_step, first, last, column * vector, width, bias, cut.flags, residual, y
            )  # fmt: skip
    give_slot(slots, slot)


def transformed_weight(p: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return what `_run` takes: the panels of the transformed weight, or the weight where tasks transform it."""
    plan = plan_of(p)
    if not plan.weights_ahead:
        return weight
    out = memory.empty((plan.weight_size,), p.dtype)
    launch(transform_weights, plan.weight_tasks, (weight, out), plan.integers, p.dtype)
    return out


def _transformed_input(p: ConvProblem, source: np.ndarray, nothing: np.ndarray) -> np.ndarray:
    plan = plan_of(p)
    out = memory.empty((plan.input_size,), p.dtype)
    launch(transform_inputs, plan.input_tasks, (source, nothing, out), plan.integers, p.dtype)
    return out


def _run(
    p: ConvProblem,
    source: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    out: np.ndarray,
) -> None:
    plan = plan_of(p)
    nothing = zeros(max(source.shape[3], out.shape[3]), p.dtype)
    given = _transformed_input(p, source, nothing) if plan.inputs_ahead else source
    slots = new_slots(plan.tasks)
    line = 64 // np.dtype(p.dtype).itemsize  # the first buffer begins at a cache line
    work = memory.empty((slots.size * plan.work_size + line,), p.dtype)
    buffers = (
        given, weight, nothing, nothing if bias is None else bias, nothing if residual is None else residual, slots,
        work, out,
    )  # fmt: skip
    launch(winograd, plan.tasks, buffers, (*plan.integers, slots.size), p.dtype)


def _forward(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(problem, *inputs, outputs[0])


def _backward_input(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(problem, *inputs, None, None, outputs[0])


def unsupported(p: ConvProblem) -> str | None:
    """Return None, or why Winograd's algorithms can't compute a problem, or may not."""
    if settings.get_precision() == "strict":
        return "the precision is 'strict'"
    if p.dtype != "float32":
        return "float64 is for checks: its rounding shall be that of the definition"
    if (p.r, p.s) != (3, 3) or p.stride != (1, 1) or p.dilation != (1, 1):
        return "not a 3 x 3 filter with stride 1 and dilation 1"
    if p.groups > 1:
        return "more than one group"
    if 0 in (p.n, p.c, p.k):
        return "an empty operand"
    return None


def _cost(p: ConvProblem) -> float:
    *_, tiles = tiles_of(p)
    (_, _, c), (_, _, k), _ = shape_of(p)
    size = numpy_lanes(p.dtype)
    channels, columns = -(-c // size) * size, -(-k // size) * size
    # What else takes time, measured, in operations at peak: transforms of input, output and weight, and the launches.
    others = tiles * (1000.0 * channels + 900.0 * columns) + 2e5
    products, weight = 1.1 * 2.0 * POINTS * max(4, tiles) * c * columns, 450.0 * channels * columns
    # A transformed weight comes from memory, which takes as long as transforming it, but meanwhile there are products.
    return others + (max(products, weight) if p.prepared else products + weight)


def _tolerance(p: ConvProblem) -> float:
    return 1e-5


def _form(p: ConvProblem) -> tuple[str, bool, int]:
    plan = plan_of(p)
    return p.which, plan.weights_ahead, plan.weight_tasks


def _candidate(run: Callable[..., None]) -> list[Candidate]:
    return [
        Candidate(
            "cpu.winograd", run, unsupported, _cost, tolerance=_tolerance, prepare=transformed_weight, form=_form
        )  # fmt: skip
    ]


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidate(_forward),
    ("conv2d", "backward_input"): _candidate(_backward_input),
}
