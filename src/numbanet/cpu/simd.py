"""Explicit vectors inside kernels: a Numba type for a vector register and the functions on it.

A kernel works on typed pointers (see `numbanet.cpu.compile`); ``load(x, i)`` reads the vector that starts at element i
of `x`, ``a + b``, ``fma(a, b, c)``, ``maximum(a, b)`` work lane by lane, ``store(y, i, v)`` writes it back::

    for i in range(0, n - lanes(x) + 1, lanes(x)):
        store(y, i, maximum(load(x, i), splat(x, 0.0)))

A vector has as many lanes as one register of the host holds (`numbanet.cpu.isa`), so the same source serves every
instruction set and both floating dtypes. LLVM's own vectoriser is not relied on: it stops at 256 bits.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, register_model

from numbanet.cpu.isa import host_isa

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


class Vec(types.Type):
    """The Numba type of a vector of `lanes` numbers of `dtype` (booleans: a mask)."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vec({dtype}, {lanes})")

    @property
    def mask(self) -> Vec:
        """The type of a comparison's result."""
        return Vec(types.boolean, self.lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vec):
        super().__init__(manager, fe_type, ir_vector(fe_type))


def ir_scalar(dtype: types.Type) -> ir.Type:
    """Return the LLVM type of a number."""
    if dtype == types.float32:
        return ir.FloatType()
    if dtype == types.float64:
        return ir.DoubleType()
    return ir.IntType(1 if dtype == types.boolean else dtype.bitwidth)


def ir_vector(vec: Vec) -> ir.VectorType:
    """Return the LLVM type of a vector."""
    return ir.VectorType(ir_scalar(vec.dtype), vec.lanes)


def vector_of(dtype: types.Type) -> Vec:
    """Return the vector type that fills one register of the host with `dtype`."""
    return Vec(dtype, host_isa().vector_bytes * 8 // dtype.bitwidth)


def ir_splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """Return the vector with `value` in every lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), None))


def ir_constant(vec: Vec, value: float) -> ir.Constant:
    """Return a vector constant."""
    return ir.Constant(ir_vector(vec), [value] * vec.lanes)


def ir_load(builder: ir.IRBuilder, pointer: ir.Value, vec: Vec) -> ir.Value:
    """Load a vector from an address that need only be aligned to its elements."""
    value = builder.load(builder.bitcast(pointer, ir_vector(vec).as_pointer()))
    value.align = vec.dtype.bitwidth // 8
    return value


def ir_store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, vec: Vec) -> None:
    """Store a vector to an address that need only be aligned to its elements."""
    builder.store(value, builder.bitcast(pointer, ir_vector(vec).as_pointer())).align = vec.dtype.bitwidth // 8


def ir_tail_mask(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """Return the mask of the first `count` lanes."""
    # In 32 bits, 16 lanes are compared at once. Counts of more than the lanes mean all.
    whole = builder.icmp_signed("<", ir.Constant(_I64, lanes), count)
    count = builder.trunc(builder.select(whole, ir.Constant(_I64, lanes), count), _I32)
    iota = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", iota, ir_splat(builder, count, lanes))


def ir_masked_load(
    builder: ir.IRBuilder, pointer: ir.Value, vec: Vec, mask: ir.Value, others: ir.Value | None = None
) -> ir.Value:
    """Load the lanes of `mask`; the lanes beside are those of `others` (or zero), and their memory is not touched."""
    vector = ir_vector(vec)
    address = builder.bitcast(pointer, vector.as_pointer())
    kind = ir.FunctionType(vector, [address.type, _I32, mask.type, vector])
    name = f"llvm.masked.load.{_mangle(vec)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    others = ir.Constant(vector, None) if others is None else others
    return builder.call(function, [address, ir.Constant(_I32, vec.dtype.bitwidth // 8), mask, others])


def ir_masked_store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, vec: Vec, mask: ir.Value) -> None:
    """Store the lanes of `mask`; the memory of the others is not touched."""
    vector = ir_vector(vec)
    address = builder.bitcast(pointer, vector.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [vector, address.type, _I32, mask.type])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.{_mangle(vec)}.p0")
    builder.call(function, [value, address, ir.Constant(_I32, vec.dtype.bitwidth // 8), mask])


def _mangle(vec: Vec) -> str:
    letter = "f" if isinstance(vec.dtype, types.Float) else "i"
    return f"v{vec.lanes}{letter}{ir_scalar(vec.dtype).width if letter == 'i' else vec.dtype.bitwidth}"


def ir_call(builder: ir.IRBuilder, name: str, vec: Vec, *values: ir.Value) -> ir.Value:
    """Call an LLVM intrinsic of vectors, such as ``llvm.fma``."""
    vector = ir_vector(vec)
    kind = ir.FunctionType(vector, [vector] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"{name}.{_mangle(vec)}"), values)


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic and comparison: the ordinary operators, between vectors or a vector and a number.

_ARITHMETIC = {operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div"}
_COMPARISON = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
               operator.ne: "!="}  # fmt: skip
_LOGIC = {operator.and_: "and_", operator.or_: "or_", operator.xor: "xor"}


def _common(args: tuple) -> Vec | None:
    vectors = [a for a in args if isinstance(a, Vec)]
    if not vectors or len(args) != 2 or any(v != vectors[0] for v in vectors):
        return None
    return vectors[0] if all(isinstance(a, (Vec, types.Number)) for a in args) else None


class _ArithmeticTemplate(AbstractTemplate):
    def generic(self, args: tuple, kws: dict) -> Any:
        vec = _common(args)
        return None if vec is None else signature(vec, vec, vec)


class _ComparisonTemplate(AbstractTemplate):
    def generic(self, args: tuple, kws: dict) -> Any:
        vec = _common(args)
        return None if vec is None else signature(vec.mask, vec, vec)


def _lower_arithmetic(symbol: Any, name: str) -> None:
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        is_float = isinstance(sig.return_type.dtype, types.Float)
        return getattr(builder, f"f{name}" if is_float else name)(*args)

    infer_global(symbol)(type(f"Vec_{name}", (_ArithmeticTemplate,), {"key": symbol}))
    lower_builtin(symbol, Vec, Vec)(lower)


def _lower_comparison(symbol: Any, sign: str) -> None:
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        if not isinstance(sig.args[0].dtype, types.Float):
            return builder.icmp_signed(sign, *args)
        # IEEE: NaN is unequal to everything, itself included, and unordered.
        return builder.fcmp_unordered(sign, *args) if sign == "!=" else builder.fcmp_ordered(sign, *args)

    infer_global(symbol)(type(f"Vec_{symbol.__name__}", (_ComparisonTemplate,), {"key": symbol}))
    lower_builtin(symbol, Vec, Vec)(lower)


def _lower_logic(symbol: Any, name: str) -> None:
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return getattr(builder, name)(*args)

    infer_global(symbol)(type(f"Vec_{name}", (_ArithmeticTemplate,), {"key": symbol}))
    lower_builtin(symbol, Vec, Vec)(lower)


for _symbol, _name in _ARITHMETIC.items():
    _lower_arithmetic(_symbol, _name)
for _symbol, _name in _COMPARISON.items():
    _lower_comparison(_symbol, _name)
for _symbol, _name in _LOGIC.items():
    _lower_logic(_symbol, _name)


@infer_global(operator.neg)
class _NegTemplate(AbstractTemplate):
    key = operator.neg

    def generic(self, args: tuple, kws: dict) -> Any:
        return signature(args[0], args[0]) if len(args) == 1 and isinstance(args[0], Vec) else None


@lower_builtin(operator.neg, Vec)
def _lower_neg(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
    return builder.fneg(args[0]) if isinstance(sig.args[0].dtype, types.Float) else builder.neg(args[0])


@lower_cast(types.Number, Vec)
def _cast_number(context: Any, builder: ir.IRBuilder, fromty: Any, toty: Vec, value: ir.Value) -> ir.Value:
    return ir_splat(builder, context.cast(builder, value, fromty, toty.dtype), toty.lanes)


# ---------------------------------------------------------------------------------------------------------------------
# Functions. `p` is a typed pointer, `i` an element index, `v` a vector, `n` a count of lanes.


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


floats = integers  # how it reads for the float parameters of a problem


def numpy_lanes(dtype: str | np.dtype) -> int:
    """Return, outside kernels, how many numbers of a dtype one vector holds."""
    return host_isa().vector_bytes // np.dtype(dtype).itemsize
