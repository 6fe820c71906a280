"""The tile of TF32 products by warpgroups (wgmma) whose operands both lie across the reduction, on capability 9.0.

Warpgroups multiply 32-bit operands only where either is contiguous along the reduction in shared memory, while the
gradient of a weight is a sum over pixels, of which memory holds the channels side by side: no copy, asynchronous or by
the copy engine, turns them. So threads do it: each loads pieces of 4 places, rounds them, and stores each number to the
row of its place. While a slice is multiplied, the loads of the next one are under way, and the other block of the
multiprocessor may store.

A slice is 32 elements of the reduction: rows of 128 bytes, in what a descriptor calls the 128-byte swizzle. The lanes
of a warp bring 8 elements of 16 neighbouring places: 64 bytes in a row from memory. Which of its 4 numbers a lane
stores first depends on its places, so that the 32 numbers of a store lie in 32 banks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.mma_tile import SIZE, Engine, Kind, Pieces
from numbanet.cuda.ptx import cuda, sm90a, types
from numbanet.cuda.wgmma_tile import results

_DEPTH, _LANES, _COUNT = 32, 4, 4  # of a slice; numbers of a piece; pieces of a thread
_STAGES = 2  # while a warpgroup writes to one, the other one's products may still read the other
_PART = SIZE * 4 * _DEPTH
_STAGE = 2 * _PART
_ALIGN = 1024  # after as many bytes the swizzle repeats
_FRAGMENTS = SIZE // 8  # of a row of results
_ALONG = 16 >> 4 << 16 | 1024 >> 4 << 32 | 1 << 62  # a descriptor's constant bits: 8 rows lie 1024 bytes apart
_STEP = 32 >> 4  # from one product's 8 elements of the reduction to the next, as a descriptor counts

i32, u32, u64, f32 = types.int32, types.uint32, types.uint64, types.float32
_wait_products = sm90a.wgmma_wait(0)


@device
def _where(i):
    t = i32(cuda.threadIdx.x)
    return i32((t >> 3) * 4), i32((t & 7) + 8 * i)


@device
def _bring(values, i, source, at, valid):
    if valid:
        values[i, 0], values[i, 1], values[i, 2], values[i, 3] = ptx.load4(source, at)
    else:
        values[i, 0], values[i, 1], values[i, 2], values[i, 3] = f32(0), f32(0), f32(0), f32(0)


@device
def _put(values, part):
    """Store a thread's pieces of one operand, rounded, to its part of a stage."""
    t = i32(cuda.threadIdx.x)
    other = t & 16 != 0
    place, _ = _where(0)
    flip = i32(2) if other else i32(0)
    for i in range(_COUNT):
        _, line = _where(i)
        for e in range(_LANES):
            value = values[i, e ^ 2] if other else values[i, e]
            row = i32(place + (e ^ flip))
            at = i32(row * 128 + (((line >> 2) ^ (row & 7)) << 4) + ((line & 3) << 2))
            ptx.store_shared(i32(part + at), ptx.round_tf32(value))


def product(kind: Kind, load_a: Callable, across_a: bool, load_b: Callable, across_b: bool) -> Any:
    """Make the device function ``accumulate(first, last, a, b, total)``, as `mma_tile.product` does.

    ``load(operand, slice, values)`` brings a thread's pieces to registers.
    """
    if kind.narrow or not (across_a and across_b):
        raise ValueError("operands are turned where both are TF32 and lie across the reduction")
    multiply, finish = sm90a.wgmma(kind.product, SIZE, False, False), sm90a.wgmma_results(SIZE)

    @device
    def described(address):
        return u64(u64(u32(address)) >> u64(4)) | u64(_ALONG)

    @device
    def accumulate(first, last, a, b, total):
        raw = ptx.shared_address(cuda.shared.array(0, u32))
        start = i32((raw + (_ALIGN - 1)) & -_ALIGN)
        left, right = cuda.local.array((_COUNT, _LANES), f32), cuda.local.array((_COUNT, _LANES), f32)
        for j in range(_FRAGMENTS):
            for e in range(4):
                total[0, j, e] = f32(0)
        own = i32((cuda.threadIdx.x >> 7) * (_PART // 2))  # of 64 rows
        if first < last:
            load_a(a, first, left)
            load_b(b, first, right)
        here = i32(start)
        for number in range(first, last):
            _put(left, here)
            _put(right, i32(here + _PART))
            sm90a.fence_async()
            cuda.syncthreads()
            if number + 1 < last:
                load_a(a, i32(number + 1), left)
                load_b(b, i32(number + 1), right)
            mine, theirs = described(i32(here + own)), described(i32(here + _PART))
            sm90a.wgmma_fence()
            for step in range(_DEPTH // 8):
                multiply(total, mine + u64(step * _STEP), theirs + u64(step * _STEP))
            sm90a.wgmma_commit()
            _wait_products()  # at once: with the branches of loads before it, ptxas lets each product wait for the last
            here = i32(start + start + _STAGE - here)
        finish(total)

    return accumulate


@lru_cache(maxsize=1)
def pieces(kind: Kind, across: bool) -> Pieces:
    """Return how threads bring a slice: to registers."""
    return Pieces(_COUNT, _DEPTH, _where, _bring)


TURNED = Engine("wgmma_turned", 1, _FRAGMENTS, product, results, pieces, _ALIGN + _STAGES * _STAGE)
