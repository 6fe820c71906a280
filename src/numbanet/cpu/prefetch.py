"""Ask for a cache line before it is needed. The address need not exist: a prefetch never faults."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CACHE_LINE = 64  # bytes
_BYTES, _I32 = ir.IntType(8).as_pointer(), ir.IntType(32)


def ir_prefetch(builder: ir.IRBuilder, spot: ir.Value, write: int = 0, locality: int = 3) -> None:
    """Emit a prefetch; `locality` is LLVM's: 3 stays in every cache, 2 in all but the first level."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    spot = builder.bitcast(spot, _BYTES)
    builder.call(function, [spot, *(ir.Constant(_I32, value) for value in (write, locality, 1))])  # 1: data


def _prefetch(name: str, write: int, locality: int, doc: str) -> Callable:
    """Make the function."""

    def prefetch(typingctx, p, i):
        def codegen(context, builder, sig, args):
            ir_prefetch(builder, builder.gep(args[0], [args[1]]), write, locality)
            return context.get_dummy_value()

        return types.void(p, types.int64), codegen

    prefetch.__name__, prefetch.__doc__ = name, doc
    return intrinsic(prefetch)


prefetch = _prefetch("prefetch", 0, 3, "Fetch the cache line of element i for reading.")
prefetch_far = _prefetch("prefetch_far", 0, 2, "Fetch the cache line of element i into the second-level cache.")
prefetch_result = _prefetch("prefetch_result", 1, 3, "Fetch the cache line of element i for writing.")
