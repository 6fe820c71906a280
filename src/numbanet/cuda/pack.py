"""Copy operands to the form that tensor cores take: of 16 bits, and channels in whole chunks of 16 bytes.

Rounding to 16 bits here, and not on the way to shared memory, reads an operand once where a filter of 3 x 3 would read
it nine times; what is read nine times then has half the size, and comes by asynchronous copies, which know no
conversion. A group's channels are filled up with zeros to whole chunks, so that one kernel serves every number of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import F32, I32, Int, Kernel, device, kernel
from numbanet.cuda.division import divide, divisor
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.mma_tile import KINDS, Kind
from numbanet.cuda.ptx import cuda, types

_THREADS = 256

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=4)
def _storer(name: str) -> Any:
    """Make ``store(values, y, at)``: a chunk's numbers become 16 bytes of one kind, which begin at word `at` of y."""
    round_pair = {"bf16": ptx.pack_bf16, "fp16": ptx.pack_f16, "tf32": None}[name]

    @device
    def narrow(values, y, at):
        ptx.store4(y, at, (
            i32(round_pair(values[0], values[1])), i32(round_pair(values[2], values[3])),
            i32(round_pair(values[4], values[5])), i32(round_pair(values[6], values[7])),
        ))  # fmt: skip

    @device
    def wide(values, y, at):
        ptx.store4(y, at, (
            i32(ptx.float_bits(values[0])), i32(ptx.float_bits(values[1])),
            i32(ptx.float_bits(values[2])), i32(ptx.float_bits(values[3])),
        ))  # fmt: skip

    return narrow if KINDS[name].narrow else wide


@lru_cache(maxsize=8)
def pack(name: str, vector: bool) -> Kernel:
    """Return the kernel of one kind of operand; `vector`: the width is a multiple of 4.

    The source is (groups, rows, inner, width) and the target (groups, all_rows, inner, chunks), of 16 bytes a chunk.
    """
    lanes, store = KINDS[name].lanes, _storer(name)
    threads = _THREADS

    @kernel(threads=_THREADS, config=name + (",vector" if vector else ""))
    def packed(
        size: Int, rows: Int, width: Int, chunks: Int, chunks_by: Int, chunks_shift: Int, inner: Int, inner_by: Int,
        inner_shift: Int, all_rows: Int, rows_by: Int, rows_shift: Int, x: F32, y: I32,
    ):  # fmt: skip
        at = i32(cuda.blockIdx.x * threads + cuda.threadIdx.x)
        if at >= size:
            return
        values = cuda.local.array(lanes, f32)
        line = divide(at, (chunks_by, chunks_shift))
        first = i32((at - line * chunks) * lanes)
        above = divide(line, (inner_by, inner_shift))
        group = divide(above, (rows_by, rows_shift))
        row = i32(above - group * all_rows)
        source = i32(((group * rows + row) * inner + line - above * inner) * width + first)
        left = i32(width - first) if row < rows else i32(0)
        for e in range(0, lanes, 4):
            if vector:
                if e < left:
                    values[e], values[e + 1], values[e + 2], values[e + 3] = ptx.load4(x, i32(source + e))
                else:
                    values[e], values[e + 1], values[e + 2], values[e + 3] = f32(0), f32(0), f32(0), f32(0)
            else:
                for i in range(4):
                    values[e + i] = x[i32(source + e + i)] if e + i < left else f32(0)
        store(values, y, i32(4 * at))

    return packed


def filled(count: int, lanes: int) -> int:
    """Return the next multiple of `lanes`."""
    return -(-count // lanes) * lanes


def operand(kind: Kind, x: Any, groups: int, rows: int, inner: int, width: int, all_rows: int = 0) -> Any:
    """Return a float32 array of shape (groups, rows, inner, width) as tensor cores take it.

    Parameters
    ----------
    kind : Kind
    x : device array
    groups, rows, inner, width : int
        The width becomes the next multiple of a chunk.
    all_rows : int
        Rows that a group shall have, if more.
    """
    all_rows = max(rows, all_rows)
    if kind.stored == "float32" and width % kind.lanes == 0 and all_rows == rows and aligned(x):
        return x
    chunks = filled(width, kind.lanes) // kind.lanes
    y = empty((groups, all_rows, inner, chunks * kind.lanes), kind.stored)
    size = groups * all_rows * inner * chunks
    integers = (
        size, rows, width, chunks, *divisor(max(chunks, 1)), inner, *divisor(inner), all_rows,
        *divisor(max(all_rows, 1)),
    )  # fmt: skip
    launch(pack(kind.name, width % 4 == 0 and aligned(x)), (-(-size // _THREADS),), (*integers, x, y))
    return y


@lru_cache(maxsize=4)
def exchange(name: str) -> Kernel:
    """Return the kernel of `exchanged`: neighbouring threads take neighbouring columns, as they lie in the source."""
    lanes, store = KINDS[name].lanes, _storer(name)
    threads = _THREADS

    @kernel(threads=_THREADS, config=name)
    def packed_exchanged(
        size: Int, rows: Int, columns: Int, columns_by: Int, columns_shift: Int, chunks: Int, chunks_by: Int,
        chunks_shift: Int, inner: Int, inner_by: Int, inner_shift: Int, x: F32, y: I32,
    ):  # fmt: skip
        at = i32(cuda.blockIdx.x * threads + cuda.threadIdx.x)
        if at >= size:
            return
        values = cuda.local.array(lanes, f32)
        above = divide(at, (columns_by, columns_shift))
        column = i32(at - above * columns)
        line = divide(above, (chunks_by, chunks_shift))
        chunk = i32(above - line * chunks)
        group = divide(line, (inner_by, inner_shift))
        place = i32(line - group * inner)
        for e in range(lanes):
            row = i32(chunk * lanes + e)
            source = i32(((group * rows + row) * inner + place) * columns + column)
            values[e] = x[source] if row < rows else f32(0)
        store(values, y, i32(4 * (((group * columns + column) * inner + place) * chunks + chunk)))

    return packed_exchanged


def exchanged(kind: Kind, x: Any, groups: int, rows: int, inner: int, columns: int) -> Any:
    """Return a float32 array of shape (groups, rows, inner, columns) as (groups, columns, inner, filled rows)."""
    chunks = filled(rows, kind.lanes) // kind.lanes
    y = empty((groups, columns, inner, chunks * kind.lanes), kind.stored)
    size = groups * columns * inner * chunks
    integers = (
        size, rows, columns, *divisor(max(columns, 1)), chunks, *divisor(max(chunks, 1)), inner,
        *divisor(max(inner, 1)),
    )  # fmt: skip
    launch(exchange(kind.name), (-(-size // _THREADS),), (*integers, x, y))
    return y
