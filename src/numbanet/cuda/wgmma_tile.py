"""The tile of 16-bit products by warpgroups (wgmma), for GPUs of capability 9.0: 8 warps share what 8 warps repeat.

A warpgroup of four warps multiplies operands that lie in shared memory, without reading fragments of them to registers
first: that leaves the memory's bandwidth, and most of the instructions, to what feeds it. Two warpgroups compute 64 x
128 results each. Loaders, slices, stages and the arrangement in shared memory are those of `numbanet.cuda.mma_tile`:

- an operand ALONG the reduction is 128 rows of 64 bytes, which the descriptor calls the 64-byte swizzle;
- one ACROSS it is two blocks of 64 places, a line of 128 bytes for each element of the reduction: the 128-byte swizzle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.mma_tile import PART, SHARED, SIZE, STAGE, STAGES, Engine, Kind, pieces
from numbanet.cuda.ptx import cuda, sm90a, types

_FRAGMENTS = SIZE // 8  # of a row of results

i32, u32, u64, f32 = types.int32, types.uint32, types.uint64, types.float32
_wait_copies, _wait_products = ptx.copy_wait(STAGES - 2), sm90a.wgmma_wait(0)


def _descriptor(leading: int, stride: int, swizzle: int) -> int:
    """Return the constant bits of a descriptor (PTX ISA, "Matrix Descriptor Format"); distances are in bytes."""
    return leading >> 4 << 16 | stride >> 4 << 32 | swizzle << 62


# Along: 8 rows lie 512 bytes apart. Across: 8 lines lie 1024 bytes apart, 64 places 4096.
_ALONG, _ACROSS = _descriptor(16, 512, 2), _descriptor(4096, 1024, 1)
_STEP_ALONG, _STEP_ACROSS = 32, 2048  # bytes from one 16 elements of the reduction to the next


def product(kind: Kind, copy_a: Callable, across_a: bool, copy_b: Callable, across_b: bool) -> Any:
    """Make the device function ``accumulate(first, last, a, b, total)``, as `mma_tile.product` does; 16 bits only."""
    if not kind.narrow:
        raise ValueError(f"kind must be one of 16 bits, which alone may lie across the reduction, got {kind.name!r}")
    multiply, finish = sm90a.wgmma(kind.product, SIZE, across_a, across_b), sm90a.wgmma_results(SIZE)
    bits_a, bits_b = (_ACROSS if across else _ALONG for across in (across_a, across_b))
    step_a, step_b = (_STEP_ACROSS if across else _STEP_ALONG for across in (across_a, across_b))
    half_a = PART // 2  # of 64 rows, either way

    @device
    def described(address, bits):
        return u64(u64(u32(address)) >> u64(4)) | u64(bits)

    @device
    def accumulate(first, last, a, b, total):
        start = ptx.shared_address(cuda.shared.array(SHARED, u32, 1024))
        for j in range(_FRAGMENTS):
            for e in range(4):
                total[0, j, e] = f32(0)
        own = i32((cuda.threadIdx.x >> 7) * half_a)
        for ahead in range(STAGES - 1):
            if first + ahead < last:
                copy_a(a, i32(first + ahead), i32(start + ahead * STAGE))
                copy_b(b, i32(first + ahead), i32(start + ahead * STAGE + PART))
            ptx.copy_commit()
        here, there = i32(start), i32(start + (STAGES - 1) * STAGE)
        for number in range(first, last):
            _wait_copies()
            sm90a.fence_async()
            _wait_products()  # those of the last slice, whose place the next copies take
            cuda.syncthreads()
            left, right = described(i32(here + own), bits_a), described(i32(here + PART), bits_b)
            sm90a.wgmma_fence()
            for step in range(2):
                multiply(total, left + u64(step * (step_a >> 4)), right + u64(step * (step_b >> 4)))
            sm90a.wgmma_commit()
            coming = i32(number + STAGES - 1)
            if coming < last:
                copy_a(a, coming, there)
                copy_b(b, coming, i32(there + PART))
            ptx.copy_commit()
            there = here
            here = i32(here + STAGE)
            if here == start + STAGES * STAGE:
                here = i32(start)
        finish(total)

    return accumulate


@device
def results():
    """Return the (row, column) of this thread's first result; see `mma_tile.results`."""
    t = i32(cuda.threadIdx.x)
    return i32((t >> 5) * 16 + (t & 31) // 4), i32(2 * (t & 3))


WGMMA = Engine("wgmma", 1, _FRAGMENTS, product, results, pieces)
