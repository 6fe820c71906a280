"""Philox4x32-10, a counter-based random generator, on vectors of counters.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The 32-bit words stand in 64-bit
lanes, so that one multiplication gives both halves of a product.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.isa import host_isa
from numbanet.cpu.vector import Vec, ir_splat, ir_vector

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key grows by: the golden ratio and sqrt(3) - 1
_ROUNDS = 10
_WORD = 0xFFFFFFFF
_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def philox(typingctx, c0, c1, c2, c3, k0, k1):
    """Return the four random words of each counter (c0, c1, c2, c3) under the key (k0, k1).

    The counters are vectors of 64-bit integers that hold 32-bit words, the key two such integers. The rounds are
    unrolled, so that a loop over counters finds their keys in memory.
    """
    result = types.UniTuple(c0, 4)

    def codegen(context, builder, sig, args):
        v0, v1, v2, v3, *key = args

        def every(value):
            return ir_splat(builder, value, c0.lanes)

        word, half = every(ir.Constant(_I64, _WORD)), every(ir.Constant(_I64, 32))
        first, second = (every(ir.Constant(_I64, factor)) for factor in _MULTIPLIERS)
        for count in range(_ROUNDS):
            grown = (builder.add(k, ir.Constant(_I64, count * step)) for k, step in zip(key, _WEYL))
            keys = [every(builder.and_(k, ir.Constant(_I64, _WORD))) for k in grown]
            # Only the low halves of the lanes count, which is what the cheap 32-bit multiplication takes: to cut the
            # others off here costs no instruction, and until the end they may hold anything.
            p, q = builder.mul(builder.and_(v0, word), first), builder.mul(builder.and_(v2, word), second)
            v0, v1 = builder.xor(builder.lshr(q, half), builder.xor(v1, keys[0])), q
            v2, v3 = builder.xor(builder.lshr(p, half), builder.xor(v3, keys[1])), p
        return context.make_tuple(builder, result, [builder.and_(v, word) for v in (v0, v1, v2, v3)])

    return result(c0, c0, c0, c0, types.int64, types.int64), codegen


def _order(lanes: int) -> list[int]:
    """Return in which lane of two registers each of so many numbers stands, so that `words` is one instruction."""
    return [e % 4 // 2 * (lanes // 2) + e // 4 * 2 + e % 2 for e in range(lanes)]


@intrinsic
def counters(typingctx, p, first):
    """Return as many 64-bit numbers as a vector holds 32-bit ones, from `first` on, in an order of their own."""
    vec = Vec(types.int64, host_isa().vector_bytes // 4)
    order = _order(vec.lanes)

    def codegen(context, builder, sig, args):
        numbers = ir.Constant(ir_vector(vec), [order.index(lane) for lane in range(vec.lanes)])
        return builder.add(ir_splat(builder, args[1], vec.lanes), numbers)

    return vec(p, types.int64), codegen


@intrinsic
def words(typingctx, v):
    """Return the low halves of the lanes of what became of `counters`, as 32-bit integers in the order of counting."""
    vec = Vec(types.int32, v.lanes)

    def codegen(context, builder, sig, args):
        halves = builder.bitcast(args[0], ir.VectorType(_I32, 2 * v.lanes))
        low = ir.Constant(ir.VectorType(_I32, v.lanes), [2 * lane for lane in _order(v.lanes)])
        return builder.shuffle_vector(halves, ir.Constant(halves.type, ir.Undefined), low)

    return vec(v), codegen
