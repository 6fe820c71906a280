"""What a thread does while it waits in machine code for another one."""

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.isa import is_x86

_PAUSES = 4096  # an eighth of a millisecond on x86: who gives way to another program comes back milliseconds later


@intrinsic
def relax(typingctx, turns):
    """Let others go on, at the given number of earlier turns: first the core's other thread, then any other thread.

    Where more threads run than the machine has cores, the one that is waited for may have none: who spins would keep
    it for the rest of his time slice.
    """

    def codegen(context, builder, sig, args):
        void = ir.VoidType()
        early = builder.icmp_signed("<", args[0], ir.Constant(args[0].type, _PAUSES))
        with builder.if_else(early) as (pause, give_way):
            with pause:
                if is_x86(context):
                    kind = ir.FunctionType(void, [])
                    builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
            with give_way:
                if sys.platform != "win32":
                    kind = ir.FunctionType(ir.IntType(32), [])
                    builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
