"""The tile of products by warpgroups that the copy engine feeds (TMA and wgmma), for GPUs of capability 9.0.

A block is three warpgroups. One thread of the first, the *producer*, starts the copies of one slice of the reduction
after the other into a ring of stages; the two *consumers* multiply what has arrived, 64 rows each, and hand the stage
back. So no thread computes an address of an operand, and the producer's registers go to the consumers' results. A stage
has two barriers: *full* ends a phase when all of a slice's bytes have come, *empty* when every consumer has read them.

A slice is 128 bytes of each row (64 elements of 16 bits, or 32 TF32), and a *bringer*, a device function
``bring(operand, slice, address, barrier)``, starts the copies of one operand's slice. An operand ALONG the reduction is
a line of 128 bytes for each of its rows; one ACROSS it, of 16-bit elements only, is blocks of 64 places, each with a
line of 128 bytes for each of 64 elements of the reduction. Both are what a descriptor calls the 128-byte swizzle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.mma_tile import Kind
from numbanet.cuda.ptx import cuda, sm90a, types
from numbanet.cuda.tensor_map import ELEMENTS, LINE

MULTIPROCESSORS = 132  # of an H100 or H200
ROWS = 128
THREADS = 384
_GROUP = 128  # threads of a warpgroup
_STEPS = 4  # products of a slice
PART = ROWS * LINE  # bytes of the left operand's slice
BLOCK = 64 * LINE  # bytes of 64 places of an operand across
_ALIGN = 1024  # after as many bytes the swizzle repeats
_BARRIERS = 16  # bytes of a stage's two barriers

i32, u32, u64, f32 = types.int32, types.uint32, types.uint64, types.float32
_wait_former = sm90a.wgmma_wait(1)


@dataclass(frozen=True)
class Tile:
    """The results of a block: ROWS x `columns`.

    Attributes
    ----------
    columns : int
    stages : int
        Of the ring.
    blocks : int
        That shall share a multiprocessor.
    fewer, more : int
        Registers of a producer's and of a consumer's thread: what the launch gives the block's 384, shared anew.
    """

    columns: int
    stages: int
    blocks: int
    fewer: int
    more: int

    @property
    def stage(self) -> int:
        """Bytes of a slice of both operands."""
        return PART + self.columns * LINE

    @property
    def wanted(self) -> int:
        """Blocks that a GPU shall get."""
        return MULTIPROCESSORS * self.blocks

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        return _ALIGN + self.stages * (self.stage + _BARRIERS)


TILES = (Tile(64, 4, 2, 32, 104), Tile(128, 6, 1, 40, 232), Tile(256, 4, 1, 40, 232))


def element(kind: Kind) -> str:
    """Return what the copy engine takes a kind's operands for."""
    return "uint16" if kind.narrow else "tf32"


def depth(kind: Kind) -> int:
    """Return how many elements of the reduction a slice has."""
    return LINE // ELEMENTS[element(kind)]


def fitting(columns: int, vector: bool = True) -> Tile:
    """Return the tile that wastes least on so many columns; of equals the largest.

    Where stores take single numbers (not `vector`), the code that stores the largest tile is too long for NVVM to keep
    the results in registers.
    """
    tiles = TILES if vector else TILES[:-1]
    return min(reversed(tiles), key=lambda tile: -(-columns // tile.columns) * tile.columns)


def _descriptor(leading: int, stride: int) -> int:
    """Return the constant bits of a descriptor (PTX ISA, "Matrix Descriptor Format"); distances are in bytes."""
    return leading >> 4 << 16 | stride >> 4 << 32 | 1 << 62


# Along: 8 rows lie 1024 bytes apart. Across: so do 8 lines, and blocks of 64 places lie BLOCK bytes apart.
_ALONG, _ACROSS = _descriptor(16, 1024), _descriptor(BLOCK, 1024)
_STEP_ALONG, _STEP_ACROSS = 32, 2048  # bytes from one product's part of the reduction to the next


@device
def is_producer():
    """Return whether this thread belongs to the producer's warpgroup."""
    return cuda.threadIdx.x < _GROUP


def ring(tile: Tile) -> Any:
    """Make ``start()``: it prepares the ring, which all threads of a block do together, and returns its address."""
    stages, bytes_ = tile.stages, tile.stages * tile.stage

    @device
    def start():
        raw = ptx.shared_address(cuda.shared.array(0, u32))
        address = i32((raw + (_ALIGN - 1)) & -_ALIGN)
        if cuda.threadIdx.x == 0:
            for place in range(stages):
                full = i32(address + bytes_ + place * _BARRIERS)
                sm90a.barrier_start(full, i32(1))
                sm90a.barrier_start(i32(full + 8), i32(8))  # the consumers' warps
            sm90a.fence_barriers()
        cuda.syncthreads()
        return address

    return start


def producer(tile: Tile, bring_a: Callable, bring_b: Callable) -> Any:
    """Make ``produce(ring, first, last, a, b)``, the producer's whole work: bring slices first to last - 1."""
    stages, stage, bytes_ = tile.stages, tile.stage, tile.stages * tile.stage
    keep = sm90a.fewer_registers(tile.fewer)

    @device
    def produce(ring, first, last, a, b):
        keep()
        if cuda.threadIdx.x < 32 and sm90a.elect() != 0:
            sm90a.fence_map(a[0])
            sm90a.fence_map(b[0])
            place, parity = i32(0), i32(1)
            for number in range(first, last):
                full, target = i32(ring + bytes_ + place * _BARRIERS), i32(ring + place * stage)
                while sm90a.barrier_passed(i32(full + 8), parity) == 0:
                    pass
                sm90a.barrier_expect(full, i32(stage))
                bring_a(a, i32(number), target, full)
                bring_b(b, i32(number), i32(target + PART), full)
                place = i32(place + 1)
                if place == stages:
                    place, parity = i32(0), i32(parity ^ 1)

    return produce


def consumer(kind: Kind, tile: Tile, across_a: bool, across_b: bool) -> Any:
    """Make ``consume(ring, first, last, total)``: add slices first to last - 1 to a consumer's results.

    `total` has the shape (columns / 64, 8, 4), so that its first index counts 64 columns; see `mma_tile.writer`.
    """
    stages, stage, bytes_, blocks = tile.stages, tile.stage, tile.stages * tile.stage, tile.columns // 64
    multiply, finish = (
        sm90a.wgmma(kind.product, tile.columns, across_a, across_b), sm90a.wgmma_results(tile.columns)
    )  # fmt: skip
    bits_a, bits_b = (_ACROSS if across else _ALONG for across in (across_a, across_b))
    step_a, step_b = (_STEP_ACROSS if across else _STEP_ALONG for across in (across_a, across_b))
    take = sm90a.more_registers(tile.more)

    @device
    def described(address, bits):
        return u64(u64(u32(address)) >> u64(4)) | u64(bits)

    @device
    def consume(ring, first, last, total):
        take()
        for i in range(blocks):
            for j in range(8):
                for e in range(4):
                    total[i, j, e] = f32(0)
        t = i32(cuda.threadIdx.x)
        own = i32((t >> 7) * BLOCK - BLOCK)  # of 64 rows, either way
        place, parity, former = i32(0), i32(0), i32(0)
        for number in range(first, last):
            full, source = i32(ring + bytes_ + place * _BARRIERS), i32(ring + place * stage)
            while sm90a.barrier_passed(full, parity) == 0:
                pass
            left, right = described(i32(source + own), bits_a), described(i32(source + PART), bits_b)
            sm90a.wgmma_fence()
            for step in range(_STEPS):
                multiply(total, left + u64(step * (step_a >> 4)), right + u64(step * (step_b >> 4)))
            sm90a.wgmma_commit()
            _wait_former()
            if number > first and t & 31 == 0:  # the last slice's products are done: its stage may be filled again
                sm90a.barrier_arrive(former)
            former = i32(full + 8)
            place = i32(place + 1)
            if place == stages:
                place, parity = i32(0), i32(parity ^ 1)
        finish(total)

    return consume


@device
def results():
    """Return the (row, column) of this consumer's first result.

    Fragment (i, j) holds the results at rows r and r + 8, columns c + 64 i + 8 j and c + 64 i + 8 j + 1.
    """
    t = i32(cuda.threadIdx.x) - _GROUP
    return i32((t >> 5) * 16 + (t & 31) // 4), i32(2 * (t & 3))
