"""Work buffers that the tasks of one launch share: a task takes a free one and gives it back.

There are as many as threads, so each stays in the cache of the thread that uses it, however many tasks there are. What
a task computes does not depend on which one it got: the bits stay the same for any number of threads.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.parallel import get_num_threads
from numbanet.cpu.wait import relax
from numbanet.watch import constant

_I64 = ir.IntType(64)


def new_slots(tasks: int) -> np.ndarray:
    """Return the flags of the work buffers of a launch, all free: as many as tasks can run at once."""
    return constant(np.zeros(max(1, min(tasks, get_num_threads())), np.int64))


@intrinsic
def _exchange(typingctx, flags, i, value):
    """Replace element i of `flags` by `value`, in one atomic step, and return what it was."""

    def codegen(context, builder, sig, args):
        flags, i, value = args
        return builder.atomic_rmw("xchg", builder.gep(flags, [i]), value, "acq_rel")

    return types.int64(flags, types.int64, types.int64), codegen


@device
def take_slot(flags, count):
    """Return the number of a work buffer that nobody uses, and mark it as used.

    Where more threads run than there are buffers, some wait: each holder computes, and waits for nobody, so one will be
    given back.
    """
    slot = turns = 0
    while _exchange(flags, slot, 1) != 0:
        slot += 1
        if slot == count:
            relax(turns * count)
            slot, turns = 0, turns + 1
    return slot


@device
def give_slot(flags, slot):
    """Mark a work buffer as free."""
    _exchange(flags, slot, 0)
