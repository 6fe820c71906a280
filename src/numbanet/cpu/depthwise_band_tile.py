"""Sums of a depthwise convolution's products over a band: a copy of a few rows, a vector of channels after another.

In the band the columns of a vector of channels follow each other, and padding is zeros. So a register tile finds all
columns that its positions and taps see by constants behind one address a filter row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.depthwise_tile import POSITIONS
from numbanet.cpu.flow import Loop, ir_grid, ir_int, ir_keep_rolled, ir_switch
from numbanet.cpu.isa import fetches_ahead
from numbanet.cpu.prefetch import CACHE_LINE, ir_prefetch
from numbanet.cpu.vector import (
    Vec,
    ir_call,
    ir_constant,
    ir_load,
    ir_masked_load,
    ir_store,
    ir_tail_mask,
    vector_of,
)

BAND_KINDS = ((3, 3), (2, 5), (1, 7))  # filter rows at a time, and taps of each: as many sums as hide each other's time
_AT_ONCE = 4  # vectors of a column that are copied together


def _each(builder: ir.IRBuilder, start: ir.Value, stop: ir.Value, emit: Callable[[ir.Value], None]) -> None:
    """Emit ``emit(number)`` in a loop that LLVM does not unroll."""
    with Loop(builder, builder.sub(stop, start), [], "each") as each:
        emit(builder.add(start, each.index))
        each.close([])
        ir_keep_rolled(builder, each)


def _at_most(builder: ir.IRBuilder, value: ir.Value, limit: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", value, limit), value, limit)


@intrinsic
def spread(typingctx, source, step, vectors, final, low, high, band, columns, ahead):
    """Copy a row to a band.

    Parameters
    ----------
    source : pointer
        The first channel of column 0, which need not exist.
    step : int
        Elements from a column to the next, which are its channels. Where they are fewer than lanes, zeros follow.
    vectors, final : int
        Vectors of channels, and the channel that the last one begins with.
    low, high : int
        The columns from `low` on and before `high` are copied; the others are zeros.
    band : pointer
    columns : int
        Of the band.
    ahead : int
        What lies so many elements behind what is copied is fetched, on processors that gain by it.
    """
    vec, i64 = vector_of(band.dtype), types.int64
    sig = types.void(source, i64, i64, i64, i64, i64, band, i64, i64)
    in_line = vectors_of_line(vec.lanes * vec.dtype.bitwidth // 8)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        source, step, vectors, final, low, high, band, columns, ahead = args
        size, zero = ir_int(vec.lanes), ir_constant(vec, 0.0)
        plane = builder.mul(columns, size)

        def target(v: ir.Value, j: ir.Value) -> ir.Value:
            return builder.gep(band, [builder.add(builder.mul(v, plane), builder.mul(j, size))])

        def clear(v: ir.Value) -> None:
            for first, last in ((ir_int(0), low), (high, columns)):
                _each(builder, first, last, lambda j: ir_store(builder, zero, target(v, j), vec))

        def copy(first: ir.Value, count: int, mask: ir.Value | None = None) -> None:
            numbers = [builder.add(first, ir_int(i)) for i in range(count)]
            starts = [_at_most(builder, builder.mul(v, size), final) for v in numbers]

            def column(j: ir.Value) -> None:
                here = builder.gep(source, [builder.mul(j, step)])
                spots = [builder.gep(here, [start]) for start in starts]
                if mask is None:
                    values = [ir_load(builder, spot, vec) for spot in spots]
                else:
                    values = [ir_masked_load(builder, spot, vec, mask) for spot in spots]
                for spot in spots[::in_line] if fetches_ahead() else ():
                    ir_prefetch(builder, builder.gep(spot, [ahead]), locality=2)
                for v, value in zip(numbers, values):
                    ir_store(builder, value, target(v, j), vec)

            _each(builder, low, high, column)

        _each(builder, ir_int(0), vectors, clear)
        with builder.if_else(builder.icmp_signed("<", step, size)) as (few, many):
            with few:
                copy(ir_int(0), 1, ir_tail_mask(builder, step, vec.lanes))
            with many:
                groups = builder.sdiv(vectors, ir_int(_AT_ONCE))
                _each(builder, ir_int(0), groups, lambda i: copy(builder.mul(i, ir_int(_AT_ONCE)), _AT_ONCE))
                _each(builder, builder.mul(groups, ir_int(_AT_ONCE)), vectors, lambda v: copy(v, 1))
        return context.get_dummy_value()

    return sig, codegen


def vectors_of_line(vector_bytes: int) -> int:
    """Return how many vectors a cache line holds, at least one."""
    return max(1, CACHE_LINE // vector_bytes)


def _band_tile(
    builder: ir.IRBuilder, vec: Vec, lines: int, span: int, band: ir.Value, rows: ir.Value, plane: ir.Value,
    gradient: ir.Value, step: ir.Value, g_plane: ir.Value, final: ir.Value, ahead: ir.Value, positions: ir.Value,
    vectors: ir.Value, sums: ir.Value, pitch: ir.Value,
) -> None:  # fmt: skip
    many = lines * span
    starts = [builder.gep(band, [builder.load(builder.gep(rows, [ir_int(line)]))]) for line in range(lines)]

    def add(count: int, times: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        """Add what so many positions see, several times."""
        with Loop(builder, times, carried, "positions") as group:
            new, (g, *here) = ir_grid(group.carried[:many], span), group.carried[many:]
            places = [builder.gep(g, [builder.mul(ir_int(t), step)]) for t in range(count)]
            gradients = [ir_load(builder, place, vec) for place in places]
            for place in places if fetches_ahead() else ():
                ir_prefetch(builder, builder.gep(place, [ahead]), locality=2)
            for column in range(count + span - 1):
                for line in range(lines):
                    pixel = ir_load(builder, builder.gep(here[line], [ir_int(column * vec.lanes)]), vec)
                    for s in range(max(0, column - count + 1), min(span, column + 1)):
                        new[line][s] = ir_call(builder, "llvm.fma", vec, pixel, gradients[column - s], new[line][s])
            following = [builder.gep(g, [builder.mul(ir_int(count), step)])]
            following += [builder.gep(pointer, [ir_int(count * vec.lanes)]) for pointer in here]
            results = group.close([*(value for row in new for value in row), *following])
            ir_keep_rolled(builder, group)
        return results

    with Loop(builder, vectors, [], "channels") as channel:
        own = builder.gep(sums, [builder.mul(channel.index, pitch)])
        spots = [builder.gep(own, [ir_int(i * vec.lanes)]) for i in range(many)]
        here = [builder.gep(start, [builder.mul(channel.index, plane)]) for start in starts]
        g = builder.gep(gradient, [_at_most(builder, builder.mul(channel.index, g_plane), final)])
        totals = [*(ir_load(builder, spot, vec) for spot in spots), g, *here]
        totals = add(POSITIONS, builder.sdiv(positions, ir_int(POSITIONS)), totals)
        totals = add(1, builder.srem(positions, ir_int(POSITIONS)), totals)
        for spot, total in zip(spots, totals):
            ir_store(builder, total, spot, vec)
        channel.close([])
        ir_keep_rolled(builder, channel)


@intrinsic
def band_tile(
    typingctx, which, band, rows, plane, gradient, step, g_plane, final, ahead, positions, vectors, sums, pitch
):  # fmt: skip
    """Add the products of a row of gradients with the source under the taps of some filter rows to their sums.

    Parameters
    ----------
    which : int
        Number in `BAND_KINDS`.
    band : pointer
    rows : pointer to int64
        For each filter row of the kind, the element of the band where what the first position sees begins.
    plane : int
        Elements of the band from a vector of channels to the next.
    gradient : pointer
        The first position.
    step, g_plane, final : int
        Elements from a position to the next, from a vector of channels to the next, and from the first to the last.
    ahead : int
        What lies so many elements behind is fetched, likewise.
    positions, vectors : int
        How many, and vectors of channels.
    sums : pointer
        For each of them, one vector a tap.
    pitch : int
        Elements from those of a vector to those of the next.
    """
    vec, i64 = vector_of(sums.dtype), types.int64
    sig = types.void(i64, band, rows, i64, gradient, i64, i64, i64, i64, i64, i64, sums, i64)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        def emit(number: int) -> None:
            _band_tile(builder, vec, *BAND_KINDS[number], *args[1:])

        ir_switch(builder, args[0], range(len(BAND_KINDS)), emit)
        return context.get_dummy_value()

    return sig, codegen
