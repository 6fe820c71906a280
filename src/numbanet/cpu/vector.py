"""A Numba type for a vector register: its operators, and LLVM's instructions for those who write intrinsics.

Kernels use the functions of `numbanet.cpu.simd`.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import register_model

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
    others = ir.Constant(ir_vector(vec), None) if others is None else others
    if host_isa().masked_loads:
        return _masked_load(builder, pointer, vec, mask, others)
    with builder.if_else(_all_lanes(builder, vec, mask)) as (all_lanes, some):
        with all_lanes:
            whole, after_whole = ir_load(builder, pointer, vec), builder.block
        with some:
            part, after_part = _masked_load(builder, pointer, vec, mask, others), builder.block
    value = builder.phi(whole.type)
    value.add_incoming(whole, after_whole)
    value.add_incoming(part, after_part)
    return value


def _masked_load(builder: ir.IRBuilder, pointer: ir.Value, vec: Vec, mask: ir.Value, others: ir.Value) -> ir.Value:
    vector = ir_vector(vec)
    address = builder.bitcast(pointer, vector.as_pointer())
    kind = ir.FunctionType(vector, [address.type, _I32, mask.type, vector])
    name = f"llvm.masked.load.{_mangle(vec)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [address, ir.Constant(_I32, vec.dtype.bitwidth // 8), mask, others])


def ir_masked_store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, vec: Vec, mask: ir.Value) -> None:
    """Store the lanes of `mask`; the memory of the others is not touched."""
    if host_isa().masks:
        _masked_store(builder, value, pointer, vec, mask)
        return
    with builder.if_else(_all_lanes(builder, vec, mask)) as branches:
        all_lanes, some = branches
        with all_lanes:
            ir_store(builder, value, pointer, vec)
        with some:
            _masked_store(builder, value, pointer, vec, mask)


def _all_lanes(builder: ir.IRBuilder, vec: Vec, mask: ir.Value) -> ir.Value:
    whole = ir.IntType(vec.lanes)
    return builder.icmp_signed("==", builder.bitcast(mask, whole), ir.Constant(whole, -1))


def _masked_store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, vec: Vec, mask: ir.Value) -> None:
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


def ir_any(builder: ir.IRBuilder, mask: ir.Value, vec: Vec) -> ir.Value:
    """Return whether a mask is true in any lane."""
    kind = ir.FunctionType(ir.IntType(1), [ir_vector(vec)])
    name = f"llvm.vector.reduce.or.v{vec.lanes}i1"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [mask])


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
