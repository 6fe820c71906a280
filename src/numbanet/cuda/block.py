"""Sums and extremes over the threads of a warp or a block, always in the same order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import cuda, types

i32 = types.int32
WARP = 32
_STEPS = (16, 8, 4, 2, 1)


@device
def thread():
    """Return the number of the thread in its block."""
    return i32(cuda.threadIdx.x)


@device
def warp_sum(value):
    """Return the sum over a warp, to each of its threads."""
    for step in _STEPS:
        value += ptx.shuffle_bfly(value, i32(step))
    return value


@device
def first_lane(value):
    """Return the number of a warp's first thread, to each of its threads."""
    return ptx.shuffle_idx(value, i32(0))


@lru_cache(maxsize=16)
def block_sum(threads: int) -> Any:
    """Return ``f(value, scratch)``: the sum over a block, to each of its threads; `scratch` has a number for each warp.

    A barrier has to stand between two uses of the same scratch.
    """
    warps = threads // WARP

    @device
    def total(value, scratch):
        t = thread()
        value = warp_sum(value)
        if t & 31 == 0:
            scratch[i32(t >> 5)] = value
        cuda.syncthreads()
        found = scratch[0]
        for warp in range(1, warps):
            found += scratch[warp]
        return found

    return total
