"""Register tiles of depthwise convolutions: neighbouring positions of a row, for one vector of channels after another.

The source is read by a table of addresses, one a column of a source row, and zeros stand for those beside the image. So
no tile needs a test, a filter row (a *line*) of `span` neighbouring taps reads each column once for all positions and
taps that see it, and the table serves all channels and lines.

The last vector of channels ends with the last channel, and may overlap the one before: then the same numbers are
written twice. Only where there are fewer channels than lanes, there is a mask.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.flow import Loop, ir_conditionally, ir_grid, ir_int, ir_keep_rolled, ir_switch
from numbanet.cpu.prefetch import CACHE_LINE, ir_prefetch
from numbanet.cpu.tile import RELU, RESIDUAL, SIX, has_flag
from numbanet.cpu.vector import (
    Vec,
    ir_call,
    ir_constant,
    ir_load,
    ir_masked_load,
    ir_masked_store,
    ir_store,
    ir_tail_mask,
    vector_of,
)

# Kinds of lines: number of neighbouring taps, and source columns from a position to the next (0: any; then one tap).
KINDS = ((1, 0), (1, 1), (2, 1), (3, 1), (5, 1), (3, 2), (5, 2))
NARROWEST, WIDEST = 4, 8  # positions of a tile: its sums wait for products less where they are eight
_WIDTHS = WIDEST - NARROWEST + 1
_TILES = tuple((*kind, width) for kind in KINDS for width in range(NARROWEST, WIDEST + 1))
FEW_CHANNELS = len(_TILES)  # the tile for fewer channels than lanes, of any line of one tap

# Kinds of lines of gradients of weights: lines at a time, taps of each, and source columns from a position to the next.
# Nine sums or so don't wait for products, and leave registers for the gradients of four positions.
SUM_KINDS = ((8, 1, 0), (3, 3, 2), (2, 5, 2))
POSITIONS = 4


@device
def tile_number(kind, width):
    """Return the number of the tile of a kind and of `NARROWEST` to `WIDEST` positions."""
    return kind * _WIDTHS + width - NARROWEST


class _Channels:
    """A loop over the vectors of channels from `begin` to `end`, and their loads and stores."""

    def __init__(self, builder: ir.IRBuilder, vec: Vec, begin: ir.Value, end: ir.Value, few: bool = False):
        self.builder, self.vec = builder, vec
        size = ir_int(vec.lanes)
        count = builder.sdiv(builder.add(builder.sub(end, begin), ir_int(vec.lanes - 1)), size)
        self.mask = ir_tail_mask(builder, builder.sub(end, begin), vec.lanes) if few else None
        self.loop = Loop(builder, count, [], "channels")
        self.begin, self.end = begin, end

    def __enter__(self) -> _Channels:
        builder = self.builder
        self.loop.__enter__()
        here = builder.add(self.begin, builder.mul(self.loop.index, ir_int(self.vec.lanes)))
        last = builder.sub(self.end, ir_int(self.vec.lanes))
        overlapping = builder.icmp_signed("<", last, here)
        self.here = here if self.mask is not None else builder.select(overlapping, last, here)
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.close([])
        ir_keep_rolled(self.builder, self.loop)

    def fetch(self, ahead: list[ir.Value], each: ir.Value, step: ir.Value) -> None:
        """Prefetch the `each` cache lines behind pointers that are the turn of step number `step`."""
        builder, size = self.builder, ir_int(CACHE_LINE * 8 // self.vec.dtype.bitwidth)
        firsts = [builder.gep(pointer, [builder.mul(builder.mul(step, each), size)]) for pointer in ahead]
        with Loop(builder, each, [], "ahead") as line:
            for first in firsts:
                ir_prefetch(builder, builder.gep(first, [builder.mul(line.index, size)]), locality=2)
            line.close([])
            ir_keep_rolled(builder, line)

    def load(self, pointer: ir.Value) -> ir.Value:
        """Load this vector of the channels from a pointer to the first one."""
        spot = self.builder.gep(pointer, [self.here])
        if self.mask is not None:
            return ir_masked_load(self.builder, spot, self.vec, self.mask)
        return ir_load(self.builder, spot, self.vec)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """Store it likewise."""
        spot = self.builder.gep(pointer, [self.here])
        if self.mask is not None:
            ir_masked_store(self.builder, value, spot, self.vec, self.mask)
        else:
            ir_store(self.builder, value, spot, self.vec)


def _column(builder: ir.IRBuilder, table: ir.Value, number: ir.Value, kind: ir.Type) -> ir.Value:
    """Return the pointer that a table has for a column."""
    return builder.inttoptr(builder.load(builder.gep(table, [number])), kind)


def _finish(builder: ir.IRBuilder, vec: Vec, sums: list[ir.Value], flags: ir.Value, residual: Any) -> list[ir.Value]:
    """Add the residual and apply the activation."""
    zero, six = ir_constant(vec, 0.0), ir_constant(vec, 6.0)

    def add(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.fadd(value, residual(t)) for t, value in enumerate(values)]

    # Ordered comparisons keep NaN.
    def relu(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.select(builder.fcmp_ordered("<=", v, zero), zero, v) for v in values]

    def clamp_at_six(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.select(builder.fcmp_ordered(">=", v, six), six, v) for v in values]

    sums = ir_conditionally(builder, has_flag(builder, flags, RESIDUAL), sums, add)
    sums = ir_conditionally(builder, has_flag(builder, flags, RELU), sums, relu)
    return ir_conditionally(builder, has_flag(builder, flags, SIX), sums, clamp_at_six)


def _gather_tile(
    builder: ir.IRBuilder, vec: Vec, span: int, stride: int, width: int, few: bool, table: ir.Value, jump: ir.Value,
    lines: ir.Value, columns: ir.Value, weights: ir.Value, weight: ir.Value, pitch: ir.Value, begin: ir.Value,
    end: ir.Value, start: ir.Value, y: ir.Value, residual: ir.Value, step: ir.Value, count: ir.Value, flags: ir.Value,
    ahead: ir.Value, each: ir.Value,
) -> None:  # fmt: skip
    scalar = weight.type

    def spot(pointer: ir.Value, t: int) -> ir.Value:
        return builder.gep(pointer, [builder.mul(ir_int(t), step)])

    def residue(t: int) -> ir.Value:
        # Beyond the last position, that is read again.
        return channels.load(builder.gep(residual, [builder.mul(places[t], step)]))

    last = builder.sub(count, ir_int(1))
    places = [builder.select(builder.icmp_signed("<", ir_int(t), count), ir_int(t), last) for t in range(width)]
    with _Channels(builder, vec, begin, end, few) as channels:
        channels.fetch([ahead], each, channels.loop.index)
        initial = channels.load(start)
        with Loop(builder, lines, [initial] * width, "lines") as line:
            sums = list(line.carried)
            here = builder.gep(table, [builder.load(builder.gep(columns, [line.index]))])
            first = builder.gep(weight, [builder.load(builder.gep(weights, [line.index]))])
            taps = [channels.load(builder.gep(first, [builder.mul(ir_int(s), pitch)])) for s in range(span)]
            for column in range((width - 1) * max(1, stride) + span):
                number = ir_int(column) if stride else builder.mul(ir_int(column), jump)
                pixel = channels.load(_column(builder, here, number, scalar))
                for s in range(span):
                    t, rest = divmod(column - s, max(1, stride))
                    if rest == 0 and 0 <= t < width:
                        sums[t] = ir_call(builder, "llvm.fma", vec, pixel, taps[s], sums[t])
            sums = line.close(sums)
            ir_keep_rolled(builder, line)
        sums = _finish(builder, vec, sums, flags, residue)
        with builder.if_else(builder.icmp_signed(">=", count, ir_int(width))) as (whole, some):
            with whole:
                for t, value in enumerate(sums):
                    channels.store(value, spot(y, t))
            with some:
                for t, value in enumerate(sums[:-1]):
                    with builder.if_then(builder.icmp_signed("<", ir_int(t), count)):
                        channels.store(value, spot(y, t))


@intrinsic
def gather_tile(
    typingctx, which, table, jump, lines, columns, weights, weight, pitch, begin, end, start, y, residual, step, count,
    flags, ahead, each,
):  # fmt: skip
    """Compute neighbouring positions for the channels from `begin` to `end`, and store them.

    Parameters
    ----------
    which : int
        The tile: see `tile_number`, or `FEW_CHANNELS`.
    table : pointer to int64
        Addresses of source columns.
    jump : int
        Columns from a position to the next.
    lines : int
        Number of lines.
    columns, weights : pointer to int64
        For each line, where in the table its first column stands, and the element of `weight` where its first tap does.
    weight : pointer
    pitch : int
        Elements of it from a tap of a line to the next.
    begin, end : int
    start : pointer
        What the sums of the channels start with.
    y, residual : pointer
        The first position.
    step : int
        Elements from a position to the next.
    count : int
        Positions that exist: 1 or more.
    flags : int
        Of what completes the result.
    ahead : pointer
        What the next tiles read: with each vector of channels, the following lines of it are prefetched,
    each : int
        so many.
    """
    vec, i64 = vector_of(y.dtype), types.int64
    sig = types.void(
        i64, table, i64, i64, columns, weights, weight, i64, i64, i64, start, y, residual, i64, i64, i64,
        ahead, i64,
    )  # fmt: skip

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        def emit(number: int) -> None:
            shape = (1, 0, NARROWEST) if number == FEW_CHANNELS else _TILES[number]
            _gather_tile(builder, vec, *shape, number == FEW_CHANNELS, *args[1:])

        ir_switch(builder, args[0], range(FEW_CHANNELS + 1), emit)
        return context.get_dummy_value()

    return sig, codegen


def _sum_tile(
    builder: ir.IRBuilder, vec: Vec, lines: int, span: int, stride: int, few: bool, table: ir.Value, jump: ir.Value,
    columns: ir.Value, gradient: ir.Value, step: ir.Value, count: ir.Value, begin: ir.Value, end: ir.Value,
    sums: ir.Value, pitch: ir.Value, ahead: ir.Value, each: ir.Value, row: ir.Value, g_ahead: ir.Value,
    g_each: ir.Value,
) -> None:  # fmt: skip
    scalar = gradient.type
    here = [builder.gep(table, [builder.load(builder.gep(columns, [ir_int(line)]))]) for line in range(lines)]

    def add(channels: _Channels, old: list[ir.Value], first: ir.Value, positions: int) -> list[ir.Value]:
        new = ir_grid(list(old), span)
        distance = builder.mul(first, jump)
        starts = [builder.gep(pointer, [distance]) for pointer in here]
        places = [builder.mul(builder.add(first, ir_int(t)), step) for t in range(positions)]
        gradients = [channels.load(builder.gep(gradient, [place])) for place in places]
        for column in range((positions - 1) * max(1, stride) + span):
            number = ir_int(column) if stride else builder.mul(ir_int(column), jump)
            for line in range(lines):
                pixel = channels.load(_column(builder, starts[line], number, scalar))
                for s in range(span):
                    t, rest = divmod(column - s, max(1, stride))
                    if rest == 0 and 0 <= t < positions:
                        new[line][s] = ir_call(builder, "llvm.fma", vec, pixel, gradients[t], new[line][s])
        return [value for row in new for value in row]

    next_rows = [builder.gep(ahead, [builder.mul(ir_int(i), row)]) for i in range(max(1, stride))]
    with _Channels(builder, vec, begin, end, few) as channels:
        own = builder.gep(sums, [builder.mul(channels.loop.index, pitch)])
        spots = [builder.gep(own, [ir_int(i * vec.lanes)]) for i in range(lines * span)]
        totals = [ir_load(builder, spot, vec) for spot in spots]
        whole = builder.sdiv(count, ir_int(POSITIONS))
        with Loop(builder, whole, totals, "positions") as group:
            number = builder.add(builder.mul(channels.loop.index, whole), group.index)
            channels.fetch(next_rows, each, number)
            channels.fetch([g_ahead], g_each, number)
            first = builder.mul(group.index, ir_int(POSITIONS))
            totals = group.close(add(channels, group.carried, first, POSITIONS))
            ir_keep_rolled(builder, group)
        done = builder.mul(whole, ir_int(POSITIONS))
        with Loop(builder, builder.sub(count, done), totals, "rest") as one:
            totals = one.close(add(channels, one.carried, builder.add(done, one.index), 1))
            ir_keep_rolled(builder, one)
        for spot, total in zip(spots, totals):
            ir_store(builder, total, spot, vec)


@intrinsic
def sum_tile(
    typingctx, which, table, jump, columns, gradient, step, count, begin, end, sums, pitch, ahead, each, row,
    g_ahead, g_each,
):  # fmt: skip
    """Add the products of a row of gradients with the source under the taps of some lines to their sums.

    Parameters
    ----------
    which : int
        Number in `SUM_KINDS`; that many more: for fewer channels than lanes, and the first kind.
    table : pointer to int64
        Addresses of source columns.
    jump : int
        Columns from a position to the next.
    columns : pointer to int64
        For each line of the kind, where in the table the first column of its first tap stands.
    gradient : pointer
        The first position.
    step, count : int
        Elements from a position to the next, and number of positions.
    begin, end : int
        Channels.
    sums : pointer
        For each vector of the channels, one vector a tap.
    pitch : int
        Elements from those of a vector to those of the next.
    ahead, g_ahead : pointer
        What the next tiles read of source and gradient: with `POSITIONS` positions of a vector of channels, the
        following lines of them are prefetched,
    each, g_each : int
        so many,
    row : int
        and, where positions skip source rows, as many of each row: elements from one to the next.
    """
    vec, i64 = vector_of(sums.dtype), types.int64
    sig = types.void(i64, table, i64, columns, gradient, i64, i64, i64, i64, sums, i64, ahead, i64, i64, g_ahead, i64)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        def emit(number: int) -> None:
            few = number == len(SUM_KINDS)
            _sum_tile(builder, vec, *SUM_KINDS[0 if few else number], few, *args[1:])

        ir_switch(builder, args[0], range(len(SUM_KINDS) + 1), emit)
        return context.get_dummy_value()

    return sig, codegen
