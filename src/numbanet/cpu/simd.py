"""Explicit vectors inside kernels: the functions on them (their type and operators: `numbanet.cpu.vector`).

A kernel works on typed pointers (see `numbanet.cpu.compile`); ``load(x, i)`` reads the vector that starts at element i
of `x`, ``a + b``, ``fma(a, b, c)``, ``maximum(a, b)`` work lane by lane, ``store(y, i, v)`` writes it back::

    for i in range(0, n - lanes(x) + 1, lanes(x)):
        store(y, i, maximum(load(x, i), splat(x, 0.0)))

A vector has as many lanes as one register of the host holds (`numbanet.cpu.isa`), so the same source serves every
instruction set and both floating dtypes. LLVM's own vectoriser is not relied on: it stops at 256 bits.

Of the parameters, `p` is a typed pointer, `i` the index of an element, `v` a vector, and `n` a count of lanes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.isa import host_isa
from numbanet.cpu.vector import (
    Vec,
    ir_any,
    ir_call,
    ir_load,
    ir_masked_load,
    ir_masked_store,
    ir_scalar,
    ir_splat,
    ir_store,
    ir_tail_mask,
    ir_vector,
    vector_of,
)

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


def _vec_of_pointer(pointer: Any) -> Vec:
    return vector_of(pointer.dtype)


@intrinsic
def lanes(typingctx, p):
    """Return how many elements of `p`'s dtype a vector holds: a compile-time constant."""
    count = _vec_of_pointer(p).lanes
    return types.int64(p), lambda context, builder, sig, args: ir.Constant(_I64, count)


@intrinsic
def offset(typingctx, p, i):
    """Return the pointer to element i."""
    return p(p, types.int64), lambda context, builder, sig, args: builder.gep(args[0], [args[1]])


@intrinsic
def splat(typingctx, p, x):
    """Return the vector of `p`'s dtype with the number x in every lane."""
    vec = _vec_of_pointer(p)

    def codegen(context, builder, sig, args):
        return ir_splat(builder, args[1], vec.lanes)

    return vec(p, vec.dtype), codegen


@intrinsic
def splat_pair(typingctx, p, x):
    """Return likewise a vector of twice as many lanes (see `load_pair`)."""
    vec = Vec(p.dtype, 2 * _vec_of_pointer(p).lanes)

    def codegen(context, builder, sig, args):
        return ir_splat(builder, args[1], vec.lanes)

    return vec(p, vec.dtype), codegen


@intrinsic
def splat_as(typingctx, v, x):
    """Return the vector of v's type with the number x in every lane."""
    return v(v, v.dtype), lambda context, builder, sig, args: ir_splat(builder, args[1], v.lanes)


@intrinsic
def load(typingctx, p, i):
    """Return the vector that starts at element i."""
    vec = _vec_of_pointer(p)

    def codegen(context, builder, sig, args):
        return ir_load(builder, builder.gep(args[0], [args[1]]), vec)

    return vec(p, types.int64), codegen


@intrinsic
def load_pair(typingctx, p, i):
    """Return the two vectors that start at element i as one.

    The compiler splits what is done with it, and puts the instructions of the halves in turn: while one waits for a
    result, the other goes on. Long formulas gain by that, for a processor does not look far ahead.
    """
    vec = Vec(p.dtype, 2 * _vec_of_pointer(p).lanes)

    def codegen(context, builder, sig, args):
        return ir_load(builder, builder.gep(args[0], [args[1]]), vec)

    return vec(p, types.int64), codegen


@intrinsic
def load_tail(typingctx, p, i, n):
    """Return the vector of the n elements from element i on; the lanes beyond are zero and not read from memory."""
    vec = _vec_of_pointer(p)

    def codegen(context, builder, sig, args):
        mask = ir_tail_mask(builder, args[2], vec.lanes)
        return ir_masked_load(builder, builder.gep(args[0], [args[1]]), vec, mask)

    return vec(p, types.int64, types.int64), codegen


@intrinsic
def load_tail_or(typingctx, p, i, n, v):
    """Return the vector of the n elements from element i on; the lanes beyond are those of v."""
    vec = _vec_of_pointer(p)

    def codegen(context, builder, sig, args):
        mask = ir_tail_mask(builder, args[2], vec.lanes)
        return ir_masked_load(builder, builder.gep(args[0], [args[1]]), vec, mask, args[3])

    return vec(p, types.int64, types.int64, vec), codegen


@intrinsic
def load_as(typingctx, p, i, v):
    """Return as many elements of `p` as v has lanes (for operands of another dtype)."""
    vec = Vec(p.dtype, v.lanes)

    def codegen(context, builder, sig, args):
        return ir_load(builder, builder.gep(args[0], [args[1]]), vec)

    return vec(p, types.int64, v), codegen


@intrinsic
def load_as_tail(typingctx, p, i, v, n):
    """Return n elements of `p` in a vector with as many lanes as v; the lanes beyond are zero and not read."""
    vec = Vec(p.dtype, v.lanes)

    def codegen(context, builder, sig, args):
        mask = ir_tail_mask(builder, args[3], vec.lanes)
        return ir_masked_load(builder, builder.gep(args[0], [args[1]]), vec, mask)

    return vec(p, types.int64, v, types.int64), codegen


@intrinsic
def store(typingctx, p, i, v):
    """Write the vector v to the elements from i on."""

    def codegen(context, builder, sig, args):
        ir_store(builder, args[2], builder.gep(args[0], [args[1]]), v)
        return context.get_dummy_value()

    return types.void(p, types.int64, v), codegen


@intrinsic
def store_tail(typingctx, p, i, v, n):
    """Write the first n lanes of v to the elements from i on."""

    def codegen(context, builder, sig, args):
        mask = ir_tail_mask(builder, args[3], v.lanes)
        ir_masked_store(builder, args[2], builder.gep(args[0], [args[1]]), v, mask)
        return context.get_dummy_value()

    return types.void(p, types.int64, v, types.int64), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """Return a * b + c, rounded once."""
    return a(a, a, a), lambda context, builder, sig, args: ir_call(builder, "llvm.fma", a, *args)


def _unary(name: str, llvm_name: str, doc: str) -> Any:
    def function(typingctx, v):
        return v(v), lambda context, builder, sig, args: ir_call(builder, llvm_name, v, args[0])

    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


sqrt = _unary("sqrt", "llvm.sqrt", "Return the square root of each lane.")
absolute = _unary("absolute", "llvm.fabs", "Return the absolute value of each lane.")
round_even = _unary("round_even", "llvm.rint", "Return each lane rounded to the nearest integer, ties to even.")
floor = _unary("floor", "llvm.floor", "Return the floor of each lane.")


@intrinsic
def select(typingctx, mask, a, b):
    """Return a where the mask is true, else b."""
    return a(mask, a, a), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def last_lanes(typingctx, v, n):
    """Return v with zero in every lane but the last n."""

    def codegen(context, builder, sig, args):
        before = ir_tail_mask(builder, builder.sub(ir.Constant(_I64, v.lanes), args[1]), v.lanes)
        return builder.select(before, ir.Constant(ir_vector(v), None), args[0])

    return v(v, types.int64), codegen


@intrinsic
def first_lane(typingctx, v):
    """Return the number in the first lane of v."""
    return v.dtype(v), lambda context, builder, sig, args: builder.extract_element(args[0], ir.Constant(_I32, 0))


@intrinsic
def anywhere(typingctx, mask):
    """Return whether the mask is true in any lane."""

    def codegen(context, builder, sig, args):
        return ir_any(builder, args[0], mask)

    return types.boolean(mask), codegen


def _extremum(name: str, sign: str, doc: str) -> Any:
    def function(typingctx, a, b):
        def codegen(context, builder, sig, args):
            x, y = args
            if not isinstance(a.dtype, types.Float):
                return builder.select(builder.icmp_signed(sign, x, y), x, y)
            # One instruction returns y when either operand is NaN; the second select restores a NaN of x.
            best = builder.select(builder.fcmp_ordered(sign, x, y), x, y)
            return builder.select(builder.fcmp_unordered("uno", x, x), x, best)

        return a(a, a), codegen

    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


maximum = _extremum("maximum", ">", "Return the larger of each pair of lanes; NaN where either is NaN.")
minimum = _extremum("minimum", "<", "Return the smaller of each pair of lanes; NaN where either is NaN.")


@intrinsic
def convert(typingctx, v, p):
    """Return v's lanes converted to the dtype of pointer `p` (or of vector `p`), as a C cast would."""
    target = Vec(p.dtype, v.lanes)

    def codegen(context, builder, sig, args):
        source_float, target_float = isinstance(v.dtype, types.Float), isinstance(target.dtype, types.Float)
        kind, value = ir_vector(target), args[0]
        if v.dtype == target.dtype:
            return value
        if source_float and target_float:
            widen = v.dtype.bitwidth < target.dtype.bitwidth
            return builder.fpext(value, kind) if widen else builder.fptrunc(value, kind)
        if source_float:
            return builder.fptosi(value, kind)
        signed = v.dtype != types.boolean and v.dtype.signed
        if target_float:
            return builder.sitofp(value, kind) if signed else builder.uitofp(value, kind)
        if ir_scalar(v.dtype).width > ir_scalar(target.dtype).width:
            return builder.trunc(value, kind)
        if ir_scalar(v.dtype).width == ir_scalar(target.dtype).width:
            return value
        return builder.sext(value, kind) if signed else builder.zext(value, kind)

    return target(v, p), codegen


@intrinsic
def bits(typingctx, v):
    """Return a float vector's bit patterns as signed integers of the same width."""
    target = Vec(types.int32 if v.dtype == types.float32 else types.int64, v.lanes)
    return target(v), lambda context, builder, sig, args: builder.bitcast(args[0], ir_vector(target))


@intrinsic
def from_bits(typingctx, v):
    """Return the float vector whose bit patterns are v's integers."""
    target = Vec(types.float32 if v.dtype.bitwidth == 32 else types.float64, v.lanes)
    return target(v), lambda context, builder, sig, args: builder.bitcast(args[0], ir_vector(target))


@intrinsic
def shift_left(typingctx, v, count):
    """Return v's integer lanes shifted left by a number of bits."""

    def codegen(context, builder, sig, args):
        return builder.shl(args[0], ir_splat(builder, args[1], v.lanes))

    return v(v, v.dtype), codegen


@intrinsic
def shift_right(typingctx, v, count):
    """Return v's integer lanes shifted right by a number of bits; zeros come in from the left."""

    def codegen(context, builder, sig, args):
        return builder.lshr(args[0], ir_splat(builder, args[1], v.lanes))

    return v(v, v.dtype), codegen


@intrinsic
def lane_numbers(typingctx, p):
    """Return the vector 0, 1, 2, ... of the integer dtype of `p`."""
    vec = _vec_of_pointer(p)
    return vec(p), lambda context, builder, sig, args: ir.Constant(ir_vector(vec), list(range(vec.lanes)))


@intrinsic
def reduce_add(typingctx, v):
    """Return the sum of the lanes, added as a balanced tree (a fixed order on every machine)."""
    return v.dtype(v), lambda context, builder, sig, args: _tree(builder, args[0], v, "fadd")


@intrinsic
def reduce_max(typingctx, v):
    """Return the largest lane (NaN lanes lose against numbers: use it on numbers)."""
    return v.dtype(v), lambda context, builder, sig, args: _tree(builder, args[0], v, "max")


def _tree(builder: ir.IRBuilder, value: ir.Value, vec: Vec, operation: str) -> ir.Value:
    count = vec.lanes
    while count > 1:
        count //= 2
        halves = []
        for start in (0, count):
            indices = ir.Constant(ir.VectorType(_I32, count), [start + j for j in range(count)])
            halves.append(builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), indices))
        if operation == "max":
            larger = builder.fcmp_ordered if isinstance(vec.dtype, types.Float) else builder.icmp_signed
            value = builder.select(larger(">", *halves), *halves)
        else:
            value = getattr(builder, operation if isinstance(vec.dtype, types.Float) else "add")(*halves)
    return builder.extract_element(value, ir.Constant(_I32, 0))


@intrinsic(prefer_literal=True)
def integers(typingctx, p, count):
    """Return the first `count` (a literal) numbers at `p` as a tuple."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    number = count.literal_value
    result = types.UniTuple(p.dtype, number)

    def codegen(context, builder, sig, args):
        values = [builder.load(builder.gep(args[0], [ir.Constant(_I64, j)])) for j in range(number)]
        return context.make_tuple(builder, result, values)

    return result(p, count), codegen


@intrinsic
def named(typingctx, p, form):
    """Return the numbers at `p` as a named tuple, whose class is `form`: those that are not used cost nothing."""
    if not isinstance(form, types.NamedTupleClass):
        return None
    number = len(form.instance_class._fields)
    result = types.NamedUniTuple(p.dtype, number, form.instance_class)

    def codegen(context, builder, sig, args):
        values = [builder.load(builder.gep(args[0], [ir.Constant(_I64, j)])) for j in range(number)]
        return context.make_tuple(builder, result, values)

    return result(p, form), codegen


floats = integers  # how it reads for the float parameters of a problem


@lru_cache(maxsize=64)
def numpy_lanes(dtype: str | np.dtype) -> int:
    """Return, outside kernels, how many numbers of a dtype one vector holds."""
    return host_isa().vector_bytes // np.dtype(dtype).itemsize
