"""Stores that go past the caches, for results far larger than them.

An ordinary store first reads the line that it writes. Of a result that the caches cannot hold until it is read again,
that is a third of the traffic of a pass like ``y = relu(x)``; and every line of it drives out one that may be needed.
For smaller results ordinary stores are faster, since the next operation finds them in a cache.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.isa import host_isa, is_x86
from numbanet.cpu.vector import ir_store, ir_vector

_LARGE = caches().last // 2  # bytes, of a result and of its operands each
_I64 = ir.IntType(64)


def streams(nbytes: int, given: int | None = None) -> bool:
    """Return whether a result of so many bytes is so large that `put` shall go past the caches.

    That is where no cache holds it and its operands, of `given` bytes (as many if None), together.
    """
    return nbytes + (nbytes if given is None else min(given, 3 * nbytes)) >= 2 * _LARGE


@intrinsic
def aligned(typingctx, p):
    """Return whether an address is one of whole vectors, as stores past the caches need it."""
    vector_bytes = host_isa().vector_bytes

    def codegen(context, builder, sig, args):
        low = builder.and_(builder.ptrtoint(args[0], _I64), ir.Constant(_I64, vector_bytes - 1))
        return builder.icmp_unsigned("==", low, ir.Constant(_I64, 0))

    return types.boolean(p), codegen


@intrinsic
def put(typingctx, p, i, v, past):
    """Write the vector v to the elements from i on; with `past`, past the caches.

    Then the array must be `aligned`, and i a multiple of the lanes: so the address is one of whole vectors, or of as
    many bytes as are written, if these are fewer.
    """

    def codegen(context, builder, sig, args):
        pointer = builder.gep(args[0], [args[1]])
        with builder.if_else(args[3]) as (then, otherwise):
            with then:
                written = builder.store(args[2], builder.bitcast(pointer, ir_vector(v).as_pointer()))
                written.align = min(host_isa().vector_bytes, v.lanes * v.dtype.bitwidth // 8)
                one = ir.Constant(ir.IntType(32), 1)
                written.set_metadata("nontemporal", builder.module.add_metadata([one]))
            with otherwise:
                ir_store(builder, args[2], pointer, v)
        return context.get_dummy_value()

    return types.void(p, types.int64, v, types.boolean), codegen


@intrinsic
def drain(typingctx):
    """Make the stores past the caches visible to other threads, as ordinary stores are: the end of a task."""

    def codegen(context, builder, sig, args):
        if is_x86(context):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.sfence"), [])
        return context.get_dummy_value()

    return types.void(), codegen
