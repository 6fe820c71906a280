"""Tiles of grouped convolutions: the lanes of a vector are channels of several groups.

An output vector holds the channels of some whole groups; their in-channels lie in one vector of the source too, because
groups are small. Number j of the in-channels of every group is brought to the lanes of its group's outputs by one
permutation (where a group is one channel, by none), and is multiplied with a vector of weights. So nothing is wasted on
the zeros of a block-diagonal matrix.

A tile is a row of neighbouring columns, held in a tuple of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.isa import AVX2, AVX512, NEON, host_isa
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

_I64 = ir.IntType(64)
_PERMUTE = {AVX512.name: "llvm.x86.avx512.permvar.sf.512", AVX2.name: "llvm.x86.avx2.permps"}
_PERMUTE_BYTES = {NEON.name: "llvm.aarch64.neon.tbl1.v16i8"}


def can_permute() -> bool:
    """Whether the host moves any lane of a vector to any other in one instruction."""
    return host_isa().name in {**_PERMUTE, **_PERMUTE_BYTES}


def _permute(builder: ir.IRBuilder, value: ir.Value, index: ir.Value) -> ir.Value:
    """Return the 32-bit parts of `value` in the order of `index`; other dtypes have several parts an element."""
    name = host_isa().name
    parts, order = ir.VectorType(ir.FloatType(), index.type.count), index
    if name in _PERMUTE_BYTES:  # word i is bytes 4 i to 4 i + 3
        first = builder.mul(index, ir.Constant(index.type, [0x04040404] * index.type.count))
        order = builder.add(first, ir.Constant(index.type, [0x03020100] * index.type.count))
        parts = ir.VectorType(ir.IntType(8), 4 * index.type.count)
        order = builder.bitcast(order, parts)
    kind = ir.FunctionType(parts, [parts, order.type])
    function = cgutils.get_or_insert_function(builder.module, kind, {**_PERMUTE, **_PERMUTE_BYTES}[name])
    return builder.bitcast(builder.call(function, [builder.bitcast(value, parts), order]), value.type)


def _literals(*numbers: Any) -> list[int] | None:
    """Return the values of literal arguments; None asks Numba for literals."""
    if not all(isinstance(number, types.IntegerLiteral) for number in numbers):
        return None
    return [number.literal_value for number in numbers]


def _int(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _spot(builder: ir.IRBuilder, pointer: ir.Value, start: ir.Value, number: int, step: ir.Value) -> ir.Value:
    """Return the address of ``pointer[start + number * step]``."""
    return builder.gep(pointer, [builder.add(start, builder.mul(_int(number), step))])


def _unpack(builder: ir.IRBuilder, values: ir.Value, count: int) -> list[ir.Value]:
    return [builder.extract_value(values, i) for i in range(count)]


@intrinsic(prefer_literal=True)
def repeat(typingctx, v, count):
    """Return a tuple of `count` (a literal) times the vector v."""
    numbers = _literals(count)
    if numbers is None:
        return None
    kind = types.UniTuple(v, numbers[0])
    return kind(v, count), lambda context, builder, sig, args: context.make_tuple(builder, kind, [args[0]] * numbers[0])


@intrinsic
def tail_mask(typingctx, p, n):
    """Return the mask of the first n lanes of a vector of `p`'s dtype."""
    vec = vector_of(p.dtype)
    return vec.mask(p, types.int64), lambda context, builder, sig, args: ir_tail_mask(builder, args[1], vec.lanes)


@intrinsic(prefer_literal=True)
def add_taps(typingctx, sums, span, stride, plane, at, jump, weight, start, pitch, index):
    """Add the products of `span` neighbouring taps to a row of output columns.

    Parameters
    ----------
    sums : tuple of vectors
        One vector an output column.
    span : literal int
        Number of taps: ``weight[start + s * pitch]`` is the vector of tap s.
    stride : literal int
        Source columns from an output column to the next; 0: they are `jump`, and `span` is 1.
    plane : pointer
    at : int
        ``plane[at]`` is what the first tap of the first column reads.
    jump : int
    weight : pointer
    start, pitch : int
    index : vector of int32
        The order into which the lanes of the source are brought.
    """
    numbers = _literals(span, stride)
    if numbers is None:
        return None
    spans, strides = numbers
    vec, i64 = sums.dtype, types.int64
    sig = sums(sums, span, stride, plane, i64, i64, weight, i64, i64, index)

    def codegen(context, builder, sig, args):
        old, _, _, plane, at, jump, weight, start, pitch, index = args
        step = builder.mul(_int(vec.lanes), _int(1) if strides else jump)
        weights = [ir_load(builder, _spot(builder, weight, start, s, pitch), vec) for s in range(spans)]
        values = _unpack(builder, old, sums.count)
        pixels: dict[int, ir.Value] = {}
        for t in range(sums.count):
            for s in range(spans):
                column = t * strides + s if strides else t
                if column not in pixels:
                    pixel = ir_load(builder, _spot(builder, plane, at, column, step), vec)
                    pixels[column] = _permute(builder, pixel, index)
                values[t] = ir_call(builder, "llvm.fma", vec, pixels[column], weights[s], values[t])
        return context.make_tuple(builder, sums, values)

    return sig, codegen


@intrinsic
def add_columns(typingctx, sums, p, at, step, count, n):
    """Add the first n lanes of the vectors at ``p[at + t * step]`` to the first `count` columns of a tile."""
    vec, i64 = sums.dtype, types.int64

    def codegen(context, builder, sig, args):
        old, p, at, step, count, n = args
        values = _unpack(builder, old, sums.count)
        for t in range(sums.count):
            # Of the columns beyond, no lane.
            lanes = builder.select(builder.icmp_signed("<", _int(t), count), n, _int(0))
            mask = ir_tail_mask(builder, lanes, vec.lanes)
            values[t] = builder.fadd(values[t], ir_masked_load(builder, _spot(builder, p, at, t, step), vec, mask))
        return context.make_tuple(builder, sums, values)

    return sums(sums, p, i64, i64, i64, i64), codegen


def _clamp(sign: str, limit: float) -> Callable[..., Any]:
    def bound(typingctx: Any, sums: Any) -> Any:
        vec = sums.dtype

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
            bounds, values = ir_constant(vec, limit), _unpack(builder, args[0], sums.count)
            # An ordered comparison keeps NaN.
            clamped = [builder.select(builder.fcmp_ordered(sign, v, bounds), bounds, v) for v in values]
            return context.make_tuple(builder, sums, clamped)

        return sums(sums), codegen

    return intrinsic(bound)


at_least_zero = _clamp("<=", 0.0)
at_most_six = _clamp(">=", 6.0)


@intrinsic
def store_columns(typingctx, sums, p, at, step, count, n):
    """Write the first n lanes of the first `count` columns of a tile to ``p[at + t * step]``."""
    vec, i64 = sums.dtype, types.int64

    def codegen(context, builder, sig, args):
        old, p, at, step, count, n = args
        values = _unpack(builder, old, sums.count)
        spots = [_spot(builder, p, at, t, step) for t in range(sums.count)]
        whole = builder.icmp_signed(">=", n, _int(vec.lanes))
        with builder.if_else(whole) as (full, tail):
            with full:
                for t, value in enumerate(values):
                    with builder.if_then(builder.icmp_signed("<", _int(t), count)):
                        ir_store(builder, value, spots[t], vec)
            with tail:
                mask = ir_tail_mask(builder, n, vec.lanes)
                for t, value in enumerate(values):
                    with builder.if_then(builder.icmp_signed("<", _int(t), count)):
                        ir_masked_store(builder, value, spots[t], vec, mask)
        return context.get_dummy_value()

    return types.void(sums, p, i64, i64, i64, i64), codegen


def _loader(
    builder: ir.IRBuilder,
    vec: Vec,
    x: ir.Value,
    at: ir.Value,
    step: ir.Value,
    column: ir.Value,
    width: ir.Value,
    zeros: ir.Value,
    mask: ir.Value,
) -> Callable[[ir.Value], ir.Value]:
    """Return the function that loads the source a number of columns behind ``x[at]``; zeros beside the image."""

    def load(distance: ir.Value) -> ir.Value:
        inside = builder.icmp_unsigned("<", builder.add(column, distance), width)
        here = builder.gep(x, [builder.add(at, builder.mul(distance, step))])
        return ir_masked_load(builder, builder.select(inside, here, zeros), vec, mask)

    return load


@intrinsic(prefer_literal=True)
def add_outer(
    typingctx, sums, columns, span, stride, channels, permuted, x, at, step, column, width, jump, zeros,
    g, g_at, g_step, mask, g_mask, index, index_at,
):  # fmt: skip
    """Add the products of neighbouring gradients with the source pixels under `span` taps.

    Parameters
    ----------
    sums : tuple of vectors
        Number ``(d * span + s) * channels + j`` is partial sum d of tap s and in-channel j. The columns of the gradient
        take turns among the partial sums, so that not every addition waits for the last.
    columns, span, stride, channels, permuted : literal int
        Columns of the gradient, taps, source columns from one column of the gradient to the next (0: they are `jump`,
        and `span` is 1), in-channels of a group, and whether the lanes of the source are permuted.
    x : pointer
    at, step, column, width : int
        ``x[at]`` is source column number `column` of `width`, `step` elements before the next.
    jump : int
    zeros : pointer
        A vector of zeros, for columns beside the image.
    g : pointer
    g_at, g_step : int
        ``g[g_at + t * g_step]`` is column t of the gradient.
    mask, g_mask : mask
        The lanes of source and gradient that exist.
    index : pointer to int32
    index_at : int
        One vector of numbers of lanes for each in-channel, from this element on.
    """
    numbers = _literals(columns, span, stride, channels, permuted)
    if numbers is None:
        return None
    count, spans, strides, reduced, permutes = numbers
    vec, i64 = sums.dtype, types.int64
    words = vector_of(types.int32)
    sig = sums(
        sums, columns, span, stride, channels, permuted, x, i64, i64, i64, i64, i64, x, g, i64, i64,
        mask, g_mask, index, i64,
    )  # fmt: skip

    def codegen(context, builder, sig, args):
        old, _, _, _, _, _, x, at, step, column, width, jump, zeros, g, g_at, g_step, mask, g_mask = args[:18]
        index, index_at = args[18:]
        load = _loader(builder, vec, x, at, step, column, width, zeros, mask)
        values = _unpack(builder, old, sums.count)
        orders = []
        if permutes:
            spots = [builder.add(index_at, _int(j * words.lanes)) for j in range(reduced)]
            orders = [ir_load(builder, builder.gep(index, [spot]), words) for spot in spots]
        pixels: dict[int, list[ir.Value]] = {}
        for t in range(count):
            gradient = ir_masked_load(builder, _spot(builder, g, g_at, t, g_step), vec, g_mask)
            for s in range(spans):
                number = t * strides + s if strides else t
                if number not in pixels:
                    pixel = load(_int(number) if strides else builder.mul(_int(t), jump))
                    pixels[number] = [_permute(builder, pixel, order) for order in orders] or [pixel]
                for j, pixel in enumerate(pixels[number]):
                    which = ((t * spans + s) * reduced + j) % sums.count
                    values[which] = ir_call(builder, "llvm.fma", vec, gradient, pixel, values[which])
        return context.make_tuple(builder, sums, values)

    return sig, codegen


@intrinsic(prefer_literal=True)
def add_to_memory(typingctx, sums, span, channels, p, at, pitch):
    """Add the sums of `add_outer` to the vectors at ``p[at + s * pitch + j * lanes]``."""
    numbers = _literals(span, channels)
    if numbers is None:
        return None
    spans, reduced = numbers
    vec, i64 = sums.dtype, types.int64

    def codegen(context, builder, sig, args):
        old, _, _, p, at, pitch = args
        values = _unpack(builder, old, sums.count)
        for s in range(spans):
            for j in range(reduced):
                total, *parts = values[s * reduced + j :: spans * reduced]
                for part in parts:
                    total = builder.fadd(total, part)
                spot = builder.gep(_spot(builder, p, at, s, pitch), [_int(j * vec.lanes)])
                ir_store(builder, builder.fadd(ir_load(builder, spot, vec), total), spot, vec)
        return context.get_dummy_value()

    return types.void(sums, span, channels, p, i64, i64), codegen
