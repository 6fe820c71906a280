"""Words that several threads read and change: 64-bit numbers at an address, by their index."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I64 = ir.IntType(64)
_ORDER = "seq_cst"  # crews ask "is anyone in?" after they said "closed": a weaker order would let the question overtake


def _spot(builder, base, i):
    return builder.gep(builder.inttoptr(base, _I64.as_pointer()), [i])


@intrinsic
def add(typingctx, base, i, value):
    """Add to a word in one step; return what it was."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _spot(builder, *args[:2]), args[2], _ORDER)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def read(typingctx, base, i):
    """Return a word."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_spot(builder, *args), _ORDER, 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def put(typingctx, base, i, value):
    """Set a word. What was set before it is seen by whoever sees it."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _spot(builder, *args[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
