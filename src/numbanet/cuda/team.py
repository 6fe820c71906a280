"""Sums and largest numbers of a team of threads: a warp, or a whole block."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.block import thread, warp_sum
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import i32

_STEPS = (16, 8, 4, 2, 1)


@device
def warp_max(value):
    """Return the largest of a warp's numbers, to each of its threads; NaN is less than any."""
    for step in _STEPS:
        other = ptx.shuffle_bfly(value, i32(step))
        value = other if other > value or value != value else value
    return value


@lru_cache(maxsize=4)
def team(threads: int) -> tuple[Any, Any]:
    """Return ``sum(value, scratch)`` and ``max(value, scratch)`` over a team of 32 threads, or over a block of more.

    Every thread of the block must call them, and gets the result of its team. `scratch` is shared memory of a number
    for each warp of the block; a team of 32 does not touch it.
    """
    warps = threads // 32
    if warps == 1:

        @device
        def team_sum(value, scratch):
            return warp_sum(value)

        @device
        def team_max(value, scratch):
            return warp_max(value)

        return team_sum, team_max

    @device
    def share(value, scratch):
        cuda.syncthreads()  # what a former use left here has been read
        if thread() & 31 == 0:
            scratch[i32(thread() >> 5)] = value
        cuda.syncthreads()

    @device
    def block_sum(value, scratch):
        share(warp_sum(value), scratch)
        found = scratch[0]
        for warp in range(1, warps):
            found += scratch[warp]
        return found

    @device
    def block_max(value, scratch):
        share(warp_max(value), scratch)
        found = scratch[0]
        for warp in range(1, warps):
            found = scratch[warp] if scratch[warp] > found or found != found else found
        return found

    return block_sum, block_max
