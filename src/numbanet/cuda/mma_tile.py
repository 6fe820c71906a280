"""The tile of products on tensor cores (mma.sync), for whatever the operands are copied from.

A block of 256 threads computes 128 x 128 results: 8 warps of 64 x 32. The reduction goes in slices of 64 bytes a row
(32 elements of 16 bits, or 16 TF32), which asynchronous copies bring to shared memory, three slices deep. All moves in
chunks of 16 bytes, and a *loader*, a device function ``copy(operand, slice, address)``, starts the two copies a thread
owes a slice. An operand that is contiguous ALONG the reduction lies in shared memory as 128 rows of 64 bytes, one that
is contiguous ACROSS it as one line of places for each element of the reduction (of 16 bits: two, of 64 places each).
Chunks are permuted within their line so that neither the copies nor the reads of fragments meet in a bank. The
arrangement of 16 bits is what `numbanet.cuda.wgmma_tile` needs, too.

16-bit fragments come by ldmatrix, transposed where the operand lies across; ldmatrix knows no transposition of 32-bit
elements, so those fragments are read one by one. TF32 operands are float32 in memory: their fragments are rounded
(to nearest, which the tensor core would not do) on the way to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.tile import fetcher, finisher
from numbanet.problem.conv import Epilogue

SIZE = 128  # rows, and columns, of a block
THREADS = 256
STAGES = 3
PART = SIZE * 64  # bytes of an operand's slice
STAGE = 2 * PART
SHARED = STAGES * STAGE // 4  # Numba takes the size of a shared array by name only
_ROWS, _COLUMNS = 4, 4  # fragments of 16 rows, of 8 columns, of a warp: 64 x 32
_PAIRS = _COLUMNS // 2

i32, u32, f32 = types.int32, types.uint32, types.float32
_wait = ptx.copy_wait(STAGES - 2)


@dataclass(frozen=True)
class Kind:
    """What the tensor cores multiply.

    Attributes
    ----------
    name : str
        A precision: "bf16", "fp16" or "tf32".
    product : str
        What PTX calls it.
    stored : str
        The dtype of operands in memory.
    lanes : int
        Elements of a chunk of 16 bytes.
    depth : int
        Elements of a slice of the reduction.
    """

    name: str
    product: str
    stored: str
    lanes: int
    depth: int

    @property
    def narrow(self) -> bool:
        """Whether operands have 16 bits."""
        return self.stored == "uint16"


KINDS = {
    "bf16": Kind("bf16", "bf16", "uint16", 8, 32),
    "fp16": Kind("fp16", "f16", "uint16", 8, 32),
    "tf32": Kind("tf32", "tf32", "float32", 4, 16),
}


@dataclass(frozen=True, eq=False)
class Pieces:
    """How a block's threads bring a slice of an operand: in pieces of 16 bytes.

    Attributes
    ----------
    count : int
        Of a thread.
    depth : int
        Elements of the reduction in a slice.
    where : device function
        ``where(i)``: the (place, element of the slice) at which piece i of this thread begins.
    bring : device function
        ``bring(target, i, source, at, valid)`` brings piece i from ``source[at]``, or zeros if it is not valid. The
        target is what the tile hands to loaders: the operand's part of shared memory, or registers.
    """

    count: int
    depth: int
    where: Any
    bring: Any


@dataclass(frozen=True, eq=False)
class Engine:
    """A way to multiply what lies in shared memory.

    Attributes
    ----------
    name : str
    rows, columns : int
        Fragments of 16 rows, and of 8 columns, that a thread has a part of: results are of shape (rows, columns, 4).
    product : callable
        See `product`.
    results : device function
        See `results`.
    pieces : callable
        See `pieces`.
    shared_bytes : int
        Dynamic shared memory of a block.
    """

    name: str
    rows: int
    columns: int
    product: Callable
    results: Any
    pieces: Callable[[Kind, bool], Pieces]
    shared_bytes: int = 0


@lru_cache(maxsize=8)
def brought(kind: Kind, across: bool) -> Any:
    """Make ``where(i)``: the (place, element of the slice) at which copy i (0 or 1) of this thread begins."""
    lanes = kind.lanes
    chunks = SIZE // lanes  # of a line
    more = THREADS // chunks

    @device
    def along(i):
        t = i32(cuda.threadIdx.x)
        return i32((t >> 2) + 64 * i), i32((t & 3) * lanes)

    @device
    def lines(i):
        t = i32(cuda.threadIdx.x)
        return i32(t % chunks * lanes), i32(t // chunks + more * i)

    return lines if across else along


@lru_cache(maxsize=8)
def placed(kind: Kind, across: bool) -> Any:
    """Make ``offset(place, line)``: at which byte of an operand's slice the chunk lies that begins there."""
    lanes, depth = kind.lanes, kind.depth

    @device
    def along(place, line):
        return i32(place * 64 + ((line // lanes ^ (place >> 1 & 3)) << 4))

    @device
    def halves(place, line):
        return i32(((place >> 6) * depth + line) * 128 + (((place & 63) // lanes ^ (line & 7)) << 4))

    @device
    def lines(place, line):
        return i32(line * 512 + ((place // lanes ^ (line & 3) << 1) << 4))

    return along if not across else halves if kind.lanes == 8 else lines


@lru_cache(maxsize=8)
def pieces(kind: Kind, across: bool) -> Pieces:
    """Return how threads bring a slice: by asynchronous copies to shared memory."""
    where, offset = brought(kind, across), placed(kind, across)

    @device
    def bring(address, i, source, at, valid):
        place, line = where(i)
        ptx.copy_async16(i32(address + offset(place, line)), source, at, i32(16) if valid else i32(0))

    return Pieces(2, kind.depth, where, bring)


def _fragments(kind: Kind, across: bool, right: bool) -> Any:
    """Make ``read(part, first, step, out, i)``: four registers of the 16 rows (of b: columns) from `first` on.

    They belong to step `step` (0 or 1) of the slice at the shared address `part`, and become row i of `out`.
    """
    offset = placed(kind, across)
    lanes, rounds = kind.lanes, not kind.narrow

    @device
    def rounded(out, i):
        if rounds:
            for e in range(4):
                out[i, e] = ptx.round_tf32(ptx.bits_float(out[i, e]))

    @device
    def along(part, first, step, out, i):
        lane = i32(cuda.threadIdx.x & 31)
        if right:
            row, half = i32((lane & 7) + (lane >> 4 << 3)), i32(lane >> 3 & 1)
        else:
            row, half = i32(lane & 15), i32(lane >> 4)
        at = offset(i32(first + row), i32((2 * step + half) * lanes))
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = ptx.load_matrices(i32(part + at))
        rounded(out, i)

    @device
    def lines(part, first, step, out, i):
        lane = i32(cuda.threadIdx.x & 31)
        if right:
            line, half = i32((lane & 7) + ((lane >> 3 & 1) << 3)), i32(lane >> 4)
        else:
            line, half = i32((lane & 7) + (lane >> 4 << 3)), i32(lane >> 3 & 1)
        at = offset(i32(first + 8 * half), i32(16 * step + line))
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = ptx.load_matrices_transposed(i32(part + at))

    @device
    def single(part, first, step, out, i):
        lane = i32(cuda.threadIdx.x & 31)
        for e in range(4):
            # Registers of a: rows first; of b, two fragments of 8 columns: lines first.
            down, over = (e & 1, e >> 1) if right else (e >> 1, e & 1)
            place, line = i32(first + (lane >> 2) + 8 * over), i32(8 * step + (lane & 3) + 4 * down)
            at = i32(part + offset(place, line) + ((place & 3) << 2))
            out[i, e] = ptx.load_shared(at)
        rounded(out, i)

    return single if across and rounds else lines if across else along


def product(kind: Kind, copy_a: Callable, across_a: bool, copy_b: Callable, across_b: bool) -> Any:
    """Make the device function ``accumulate(first, last, a, b, total)``: add slices first to last - 1 to the results.

    Parameters
    ----------
    kind : Kind
    copy_a, copy_b : device function
        ``copy(operand, slice, address)`` starts this thread's two copies to the operand's part at a shared address;
        what lies beyond the operand's ends becomes zero.
    across_a, across_b : bool
        A chunk holds neighbouring rows (of b: columns), not neighbours along the reduction.
    """
    read_a, read_b = _fragments(kind, across_a, False), _fragments(kind, across_b, True)
    multiply = {"bf16": ptx.multiply_bf16, "f16": ptx.multiply_f16, "tf32": ptx.multiply_tf32}[kind.product]

    @device
    def accumulate(first, last, a, b, total):
        start = ptx.shared_address(cuda.shared.array(SHARED, u32, 128))
        left, right = cuda.local.array((_ROWS, 4), u32), cuda.local.array((_PAIRS, 4), u32)
        warp = i32(cuda.threadIdx.x >> 5)
        row, column = i32((warp >> 2) * 64), i32((warp & 3) * 32)
        for i in range(_ROWS):
            for j in range(_COLUMNS):
                for e in range(4):
                    total[i, j, e] = f32(0)
        for ahead in range(STAGES - 1):
            if first + ahead < last:
                copy_a(a, i32(first + ahead), i32(start + ahead * STAGE))
                copy_b(b, i32(first + ahead), i32(start + ahead * STAGE + PART))
            ptx.copy_commit()
        here, there = i32(start), i32(start + (STAGES - 1) * STAGE)
        for number in range(first, last):
            _wait()
            cuda.syncthreads()
            coming = i32(number + STAGES - 1)
            if coming < last:
                copy_a(a, coming, there)
                copy_b(b, coming, i32(there + PART))
            ptx.copy_commit()
            for step in range(2):
                for i in range(_ROWS):
                    read_a(here, i32(row + 16 * i), step, left, i)
                for j in range(_PAIRS):
                    read_b(i32(here + PART), i32(column + 16 * j), step, right, j)
                for i in range(_ROWS):
                    for j in range(_COLUMNS):
                        half = 2 * (j & 1)
                        total[i, j, 0], total[i, j, 1], total[i, j, 2], total[i, j, 3] = multiply(
                            (left[i, 0], left[i, 1], left[i, 2], left[i, 3]),
                            (right[j >> 1, half], right[j >> 1, half + 1]),
                            (total[i, j, 0], total[i, j, 1], total[i, j, 2], total[i, j, 3]),
                        )
            there = here
            here = i32(here + STAGE)
            if here == start + STAGES * STAGE:
                here = i32(start)

    return accumulate


@device
def results():
    """Return the (row, column) of this thread's first result.

    Fragment (i, j) holds the results at rows r + 16 i and r + 16 i + 8, columns c + 8 j and c + 8 j + 1.
    """
    t = i32(cuda.threadIdx.x)
    lane, warp = i32(t & 31), i32(t >> 5)
    return i32((warp >> 2) * 64 + (lane >> 2)), i32((warp & 3) * 32 + 2 * (lane & 3))


MMA = Engine("mma", _ROWS, _COLUMNS, product, results, pieces)


def writer(fragments: int, vector: bool, epilogue: Epilogue) -> Any:
    """Make the device function ``write(total, i, half, start, column, columns, first, bias, residual, y)``.

    It stores row r + 16 i + 8 half of a thread's results, of so many fragments: that of column j goes to
    ``y[start + j]``, and j's bias is ``bias[first + j]``; `column` is the thread's first, and those from `columns` on
    are dropped. With `vector`, all of these numbers are even.
    """
    finish = finisher(epilogue)
    fetch_bias, fetch_addend = (fetcher(used, 2 if vector else 1) for used in (epilogue.bias, epilogue.residual))

    @device
    def write_vector(total, i, half, start, column, columns, first, bias, residual, y):
        for j in range(fragments):
            k = i32(column + 8 * j)
            if k < columns:
                b, addend = fetch_bias(bias, i32(first + k)), fetch_addend(residual, i32(start + k))
                ptx.store2(y, i32(start + k), (
                    finish(total[i, j, 2 * half], b[0], addend[0]),
                    finish(total[i, j, 2 * half + 1], b[1], addend[1]),
                ))  # fmt: skip

    @device
    def write_single(total, i, half, start, column, columns, first, bias, residual, y):
        for j in range(fragments):
            for e in range(2):
                k = i32(column + 8 * j + e)
                if k < columns:
                    at = i32(start + k)
                    b, addend = fetch_bias(bias, i32(first + k)), fetch_addend(residual, at)
                    y[at] = finish(total[i, j, 2 * half + e], b, addend)

    return write_vector if vector else write_single
