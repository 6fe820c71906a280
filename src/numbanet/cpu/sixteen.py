"""Sixteen bytes at a time: the registers that every instruction set can shuffle by a table.

Pixels of a few bytes (three colours, say) are moved so, whatever the numbers in them are.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.isa import target
from numbanet.cpu.vector import Vec, ir_load, ir_store

NOTHING = 0x80  # in a table of `shuffle`: a zero
_BYTES = Vec(types.uint8, 16)
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@intrinsic
def load_sixteen(typingctx, p, i):
    """Return the 16 bytes from byte i on."""

    def codegen(context, builder, sig, args):
        return ir_load(builder, builder.gep(args[0], [args[1]]), _BYTES)

    return _BYTES(p, types.int64), codegen


@intrinsic
def store_sixteen(typingctx, p, i, v):
    """Write 16 bytes, from byte i on."""

    def codegen(context, builder, sig, args):
        ir_store(builder, args[2], builder.gep(args[0], [args[1]]), _BYTES)
        return context.get_dummy_value()

    return types.void(p, types.int64, v), codegen


@intrinsic
def shuffle(typingctx, v, table):
    """Return the bytes of v that the table names: in lane l byte number ``table[l]``, or zero where it is `NOTHING`."""
    return _BYTES(v, table), lambda context, builder, sig, args: ir_shuffle(builder, *args)


def ir_shuffle(builder: ir.IRBuilder, v: ir.Value, table: ir.Value) -> ir.Value:
    """Shuffle as the target does it."""
    triple, _, features = target()
    if triple.startswith(("aarch64", "arm64")):
        name = "llvm.aarch64.neon.tbl1.v16i8"  # it gives zeros for all numbers beyond the lanes
    elif "ssse3" in features:
        name = "llvm.x86.ssse3.pshuf.b.128"
    else:
        return _one_by_one(builder, v, table)
    kind = ir.FunctionType(v.type, [v.type, v.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [v, table])


def _one_by_one(builder: ir.IRBuilder, v: ir.Value, table: ir.Value) -> ir.Value:
    slot = cgutils.alloca_once_value(builder, v)
    first = builder.bitcast(slot, _I8.as_pointer())
    found = ir.Constant(v.type, None)
    for lane in range(_BYTES.lanes):
        number = builder.extract_element(table, ir.Constant(_I32, lane))
        low = builder.zext(builder.and_(number, ir.Constant(_I8, _BYTES.lanes - 1)), _I64)
        byte = builder.load(builder.gep(first, [low]))
        inside = builder.icmp_unsigned("<", number, ir.Constant(_I8, NOTHING))
        byte = builder.select(inside, byte, ir.Constant(_I8, 0))
        found = builder.insert_element(found, byte, ir.Constant(_I32, lane))
    return found


@intrinsic
def as_pointer(typingctx, p, i, q):
    """Return the pointer to byte i of p, as one to numbers of the dtype of the pointer q."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.bitcast(builder.gep(args[0], [args[1]]), args[2].type)

    return q(p, types.int64, q), codegen
