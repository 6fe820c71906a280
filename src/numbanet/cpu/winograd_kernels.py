"""The kernels of Winograd's convolution: they transform blocks of tiles, multiply, and transform back.

No padded copy is made: the pixels of a tile at a border are given by addresses, those of zeros where they are padding.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet.cpu.compile import I64, Index, Kernel, T, device, tile_kernel
from numbanet.cpu.prefetch import prefetch, prefetch_result
from numbanet.cpu.simd import lanes, named, offset
from numbanet.cpu.slots import give_slot, take_slot
from numbanet.cpu.tile import MAX_VECTORS, RESIDUAL, address, stack_buffer
from numbanet.cpu.transpose import transpose_block
from numbanet.cpu.winograd import (
    transform_input,
    transform_input_edge,
    transform_output,
    transform_output_edge,
    transform_weight,
)
from numbanet.cpu.winograd_form import Form, lacks, renamed
from numbanet.cpu.winograd_plan import AFTER, CUT, Cut, Shape
from numbanet.cpu.winograd_tile import CHANNEL_PITCH, multiply, row_plan


@device
def _begin(total, parts, i):
    """Return where part i of `total` things begins, the parts differing by one at most."""
    return i * total // parts


@device
def _weights_at(f, c, column, phase, begin, width, products_before, vector):
    """Return where the transformed weights of a panel, a phase and a block of channels begin.

    Each of their points is padded by a vector: else the points would fall into the same cache sets.
    """
    return f.points * vector * (c * (f.phase_count * column + phase * width) + begin * width + products_before)


@device
def _aligned(p):
    """Return the first element from `p` on that starts a cache line."""
    return offset(p, (-address(p, 0) & 63) // (address(p, 1) - address(p, 0)))


@device
def _before(f, phase, padding):
    """Return how many pixels of a phase, counted along an axis, lie in the padding of a result."""
    return (padding - phase + f.stride - 1) // f.stride


@device
def _first(f, forward, phase, padding):
    """Return the row, or column, of a tile of the source where a phase of that direction begins.

    For a gradient of the input, phases read the same gradients: each from where its first pixel in the result does, or
    with a tap less, from the next on.
    """
    return phase if forward else int(phase >= f.longer) + _before(f, phase, padding)


@device
def _pixel_addresses(f, ints, table, x, n, top, left, zero):
    """Write the addresses of the pixels of all phases of a tile from (top, left) on, extent x extent."""
    s = named(ints, Shape)
    h, w, c = s.h, s.w, s.c
    for i in range(f.extent):
        row = top + (i if s.forward else i // f.stride + _first(f, s.forward, i % f.stride, s.out_top))
        for j in range(f.extent):
            column = left + (j if s.forward else j // f.stride + _first(f, s.forward, j % f.stride, s.out_left))
            inside = 0 <= row < h and 0 <= column < w
            table[i * f.extent + j] = address(x, ((n * h + row) * w + column) * c) if inside else zero


@device
def _result_addresses(f, table, y, n, top, left, apart, p, q, k):
    """Write the addresses of tile x tile output pixels from (top, left) on, 0 beyond the output."""
    for i in range(f.tile):
        row = top + i * apart
        for j in range(f.tile):
            column = left + j * apart
            inside = 0 <= row < p and 0 <= column < q
            table[i * f.tile + j] = address(y, ((n * p + row) * q + column) * k) if inside else 0


@device
def _transform_inputs(f, ints, x, zero, first, last, channel_blocks, from_part, to_part, out, step):
    """Transform tiles first, ..., last - 1 for some parts: ``out[part][point][tile][channel]``.

    The parts are the blocks of channels of the first phase, then those of the second, and so on.
    """
    s = named(ints, Shape)
    h, w, c, tiles_h, tiles_w, forward = s.h, s.w, s.c, s.tiles_h, s.tiles_w, s.forward
    apart, extent = (f.stride, f.extent) if forward else (1, f.span)
    rows, columns = extent + _before(f, 0, s.out_top), extent + _before(f, 0, s.out_left)
    vector = lanes(x)
    vectors = (c + vector - 1) // vector
    table = stack_buffer(ints, 96)
    n, rest = first // (tiles_h * tiles_w), first % (tiles_h * tiles_w)
    i, j = rest // tiles_w, rest % tiles_w
    for m in range(last - first):
        row, column = i * f.tile * apart - s.top, j * f.tile * apart - s.left
        inside = row >= 0 and column >= 0 and row + rows <= h and column + columns <= w
        whole = c // vector * vector if inside else 0
        if whole < c:
            _pixel_addresses(f, ints, table, x, n, row, column, address(zero, 0))
        for part in range(from_part, to_part):
            phase, block = part // channel_blocks, part % channel_blocks
            top = row + _first(f, forward, phase // f.stride, s.out_top)
            left = column + _first(f, forward, phase % f.stride, s.out_left)
            start = ((n * h + top) * w + left) * c
            begin = _begin(vectors, channel_blocks, block) * vector
            end = _begin(vectors, channel_blocks, block + 1) * vector
            at = part * f.points * step + m * CHANNEL_PITCH - begin
            for channel in range(begin, min(end, whole), vector):
                transform_input(
                    f, phase, offset(x, start + channel), apart * w * c, apart * c, offset(out, at + channel), step
                )  # fmt: skip
            for channel in range(max(begin, min(end, whole)), min(end, c), vector):
                transform_input_edge(f, phase, table, channel, c - channel, offset(out, at + channel), step)
        j += 1
        if j == tiles_w:
            i, j = i + 1, 0
            if i == tiles_h:
                n, i = n + 1, 0


@device
def _transform_weights(f, ints, weight, phase, column, width, begin, end, out, step, scratch):
    """Transform a phase's weights of channels begin, ..., end - 1 and `width` vectors: ``out[point][c][column]``.

    Forward, columns are the rows of the weight (K, taps, C); backward its last axis, and the taps are turned round.
    """
    s = named(ints, Shape)
    c, k, taps = s.c, s.k, f.taps * f.taps
    vector = lanes(weight)
    for channel in range(begin, end, vector):
        rows = min(vector, end - channel)
        for j in range(0, width * vector, vector):
            here = column + j
            into = offset(out, (channel - begin) * width * vector + j)
            # Few of these addresses follow each other in memory, so what comes next is fetched by hand.
            if s.forward:
                for row in range(phase // f.stride, f.taps, f.stride):
                    for tap in range(row * f.taps + phase % f.stride, (row + 1) * f.taps, f.stride):
                        start = (here * taps + tap) * c + channel
                        transpose_block(
                            weight, start, taps * c, k - here, rows, scratch, tap * vector * vector, vector
                        )  # fmt: skip
                        for i in range(vector):
                            prefetch(weight, start + i * taps * c + vector)
                for i in range(rows):
                    transform_weight(
                        f, phase, offset(scratch, i * vector), vector * vector, vector,
                        offset(into, i * width * vector), step,
                    )  # fmt: skip
            else:
                for i in range(rows):
                    start = (channel + i) * taps * k + here
                    for tap in range(taps):
                        prefetch(weight, start + (4 * taps + tap) * k)
                    transform_weight(
                        f, phase, offset(weight, start + (taps - 1) * k), -k, k - here,
                        offset(into, i * width * vector), step,
                    )  # fmt: skip


@device
def _transform_outputs(f, ints, phase, products, step, first, last, column, width, bias, flags, residual, y):
    """Transform the products of tiles first, ..., last - 1 and `width` vectors of columns back."""
    s = named(ints, Shape)
    p, q, k, tiles_h, tiles_w = s.p, s.q, s.k, s.tiles_h, s.tiles_w
    apart = 1 if s.forward else f.stride
    vector = lanes(y)
    pitch = MAX_VECTORS * vector
    table, nowhere = stack_buffer(ints, 16), stack_buffer(y, 16)
    distance = address(residual, 0) - address(y, 0)
    whole = min(k - column, width * vector) // vector * vector
    n, rest = first // (tiles_h * tiles_w), first % (tiles_h * tiles_w)
    i, j = rest // tiles_w, rest % tiles_w
    more = (f.tile - 1) * apart
    for m in range(last - first):
        top, left = _corner(f, ints, phase, i, j)
        inside = top >= 0 and left >= 0 and top + more < p and left + more < q
        start = ((n * p + top) * q + left) * k + column
        regular = whole if inside else 0
        for at in range(0, regular, vector):
            transform_output(
                f, phase, offset(products, m * pitch + at), step, offset(y, start + at), apart * q * k, apart * k,
                offset(bias, column + at), flags, distance,
            )  # fmt: skip
        if regular < width * vector:
            _result_addresses(f, table, y, n, top, left, apart, p, q, k)
        for at in range(regular, width * vector, vector):
            transform_output_edge(
                f, phase, offset(products, m * pitch + at), step, table, column + at, k - column - at,
                offset(bias, column + at), flags, distance, nowhere,
            )  # fmt: skip
        j += 1
        if j == tiles_w:
            i, j = i + 1, 0
            if i == tiles_h:
                n, i = n + 1, 0


@device
def _corner(f, ints, phase, i, j):
    """Return the row and column of the first pixel of an output tile."""
    s = named(ints, Shape)
    if s.forward or f.stride == 1:
        return i * f.tile, j * f.tile
    row, column = phase // f.stride, phase % f.stride
    top = (i * f.tile + _before(f, row, s.out_top)) * f.stride + row - s.out_top
    return top, (j * f.tile + _before(f, column, s.out_left)) * f.stride + column - s.out_left


@device
def _prefetch_inputs(f, ints, x, first, last):
    """Fetch the pixels that tiles first, ..., last - 1 read and those before them did not."""
    s = named(ints, Shape)
    h, w, c, tiles_h, tiles_w = s.h, s.w, s.c, s.tiles_h, s.tiles_w
    new, extent = (f.tile * f.stride, f.extent) if s.forward else (f.tile, f.span)
    for tile in range(first, last):
        n, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
        i, j = rest // tiles_w, rest % tiles_w
        row, column = i * new - s.top + extent - new, j * new - s.left + extent - new
        for below in range(row, min(h, row + new)):
            start = ((n * h + below) * w + column) * c
            for at in range(start, start + new * c, lanes(x)):
                prefetch(x, at)


@device
def _prefetch_outputs(f, ints, phase, flags, residual, y, first, last, column, width):
    """Fetch the memory of the results of tiles first, ..., last - 1 and `width` vectors of columns, and what is added.
    """
    s = named(ints, Shape)
    p, q, k, tiles_h, tiles_w = s.p, s.q, s.k, s.tiles_h, s.tiles_w
    apart = 1 if s.forward else f.stride
    for tile in range(first, last):
        n, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
        top, left = _corner(f, ints, phase, rest // tiles_w, rest % tiles_w)
        for row in range(top, min(p, top + f.tile * apart), apart):
            for at in range(left, min(q, left + f.tile * apart), apart):
                start = ((n * p + row) * q + at) * k + column
                for vector in range(width):
                    prefetch_result(y, start + vector * lanes(y))
                    if flags & RESIDUAL:
                        prefetch(residual, start + vector * lanes(y))


class Kernels(NamedTuple):
    """The kernels of a form."""

    transform_inputs: Kernel
    transform_weights: Kernel
    winograd: Kernel


def kernels_of(f: Form) -> Kernels:
    """Make the kernels of a form."""

    def transform_inputs(task: Index, ints: I64, x: T, zero: T, out: T):
        """Transform one piece of the only block of tiles and one block of channels of a phase."""
        cut = named(offset(ints, CUT), Cut)
        parts = f.phase_count * cut.channel_blocks
        piece, part = task // parts, task % parts
        first, last = _begin(cut.tiles, cut.pieces, piece), _begin(cut.tiles, cut.pieces, piece + 1)
        into = offset(out, first * CHANNEL_PITCH)
        _transform_inputs(f, ints, x, zero, first, last, cut.channel_blocks, part, part + 1, into, cut.in_step)

    def transform_weights(task: Index, ints: I64, weight: T, out: T):
        """Transform the weights of one panel and one block of channels of a phase."""
        shape, cut = named(ints, Shape), named(offset(ints, CUT), Cut)
        c, k, channel_blocks, panels = shape.c, shape.k, cut.channel_blocks, cut.panels
        vector = lanes(weight)
        vectors, columns = (c + vector - 1) // vector, (k + vector - 1) // vector
        panel, part = task // (f.phase_count * channel_blocks), task % (f.phase_count * channel_blocks)
        phase, block = part // channel_blocks, part % channel_blocks
        column = _begin(columns, panels, panel)
        width = _begin(columns, panels, panel + 1) - column
        begin = _begin(vectors, channel_blocks, block) * vector
        end = min(c, _begin(vectors, channel_blocks, block + 1) * vector)
        _transform_weights(
            f, ints, weight, phase, column * vector, width, begin, end,
            offset(out, _weights_at(f, c, column, phase, begin, width, task, vector)),
            ((end - begin) * width + 1) * vector, stack_buffer(weight, f.scratch),
        )  # fmt: skip

    def winograd(
        task: Index, ints: I64, x: T, weight: T, zero: T, bias: T, residual: T, slots: I64, work: T, y: T
    ):  # fmt: skip
        """Convolve some blocks of tiles with some panels of columns; `x` or `weight` or both are transformed.

        Forward, a panel sums the products of all phases. Backward, each phase has panels of its own, for its pixels.
        """
        shape, cut = named(ints, Shape), named(offset(ints, CUT), Cut)
        c, k, channel_blocks, panels, tiles = shape.c, shape.k, cut.channel_blocks, cut.panels, cut.tiles
        parts = f.phase_count * channel_blocks
        summed, outputs = (parts, 1) if shape.forward else (channel_blocks, f.phase_count)
        slot = take_slot(slots, ints[AFTER])
        vector = lanes(x)
        vectors, columns = (c + vector - 1) // vector, (k + vector - 1) // vector
        tile_part, panel_part = task // cut.panel_parts, task % cut.panel_parts
        products = offset(_aligned(work), slot * cut.work_size)
        own = offset(products, f.points * cut.out_step)
        scratch = stack_buffer(x, f.scratch)
        from_block = _begin(cut.blocks, cut.tile_parts, tile_part)
        to_block = _begin(cut.blocks, cut.tile_parts, tile_part + 1)
        from_panel = _begin(outputs * panels, cut.panel_parts, panel_part)
        to_panel = _begin(outputs * panels, cut.panel_parts, panel_part + 1)
        for block in range(from_block, to_block):
            first = 2 * _begin(cut.units, cut.blocks, block)
            last = min(tiles, 2 * _begin(cut.units, cut.blocks, block + 1))
            inputs = own
            if cut.inputs_ahead:
                inputs = x
            else:
                _transform_inputs(f, ints, x, zero, first, last, channel_blocks, 0, parts, own, cut.in_step)
            for number in range(from_panel, to_panel):
                out_phase, panel = number // panels, number % panels
                column = _begin(columns, panels, panel)
                width = _begin(columns, panels, panel + 1) - column
                many_rows, all_rows = row_plan(last - first, width)
                for turn in range(summed):
                    part = out_phase * summed + turn
                    phase, channels = part // channel_blocks, part % channel_blocks
                    begin = _begin(vectors, channel_blocks, channels) * vector
                    end = min(c, _begin(vectors, channel_blocks, channels + 1) * vector)
                    step = ((end - begin) * width + 1) * vector
                    weights = own
                    if cut.weights_ahead:
                        before = panel * parts + part
                        weights = offset(weight, _weights_at(f, c, column, phase, begin, width, before, vector))
                    else:
                        _transform_weights(
                            f, ints, weight, phase, column * vector, width, begin, end, own, step, scratch
                        )  # fmt: skip
                    for point in range(f.points):
                        # Meanwhile, memory brings what the next steps need.
                        now, soon = _begin(last - first, f.points, point), _begin(last - first, f.points, point + 1)
                        if turn == summed - 1:
                            _prefetch_outputs(
                                f, ints, out_phase, cut.flags, residual, y, first + now, first + soon, column * vector,
                                width,
                            )  # fmt: skip
                        if turn + number == 0 and cut.inputs_ahead == 0:
                            _prefetch_inputs(f, ints, x, last + now, min(tiles, last + soon))
                        if lacks(f, phase, point):
                            continue
                        multiply(
                            width, many_rows, all_rows, offset(inputs, (part * f.points + point) * cut.in_step),
                            offset(weights, point * step), offset(weights, (point + 1) * step),
                            offset(products, point * cut.out_step), end - begin, turn, MAX_VECTORS * vector,
                        )  # fmt: skip
                _transform_outputs(
                    f, ints, out_phase, products, cut.out_step, first, last, column * vector, width, bias, cut.flags,
                    residual, y,
                )  # fmt: skip
        give_slot(slots, slot)

    return Kernels(*(tile_kernel(renamed(made, f)) for made in (transform_inputs, transform_weights, winograd)))
