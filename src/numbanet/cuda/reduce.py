"""Sums over one of three dimensions, added up in float64 in an order that the sizes alone decide.

Where the sums go along memory, a warp takes a row, or for long rows several blocks do; else a block takes a strip of
columns. What blocks leave as partial sums, `merge` adds up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.block import WARP, block_sum, warp_sum
from numbanet.cuda.columns import THREADS, cut, fold
from numbanet.cuda.compile import F64, Double, Int, Kernel, T, kernel
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import accesses, blocks, i32, lanes, partial_accesses, real, too_large, width

_WARPS = THREADS // WARP
_SHORT = 4096  # elements of a row that one warp adds up
_PIECE = 1 << 15  # elements of a longer row that one block adds up
f64 = types.float64
_block_sum = block_sum(THREADS)


@lru_cache(maxsize=8)
def row_sums(dtype: str, wide: int) -> Kernel:
    """Return the kernel ``y[row] = scale * sum of x[row, :]``, a warp a row."""
    number = real(dtype)
    zero = number(0)
    get, _ = accesses(wide)

    @kernel(threads=THREADS, config=f"{dtype},{wide}")
    def rows_of_a_warp(rows: Int, length: Int, scale: Double, x: T, y: T):
        values = cuda.local.array(wide, number)
        row = i32(i32(cuda.blockIdx.x) * _WARPS + (i32(cuda.threadIdx.x) >> 5))
        lane = i32(i32(cuda.threadIdx.x) & 31)
        total = f64(0)
        if row < rows:
            for i in range(i32(lane * wide), length, WARP * wide):
                get(x, i32(row * length + i), values)
                few = zero
                for j in range(wide):
                    few += values[j]
                total += f64(few)
        total = warp_sum(total)
        if row < rows and lane == 0:
            y[row] = total * scale

    return rows_of_a_warp


@lru_cache(maxsize=8)
def piece_sums(dtype: str, wide: int) -> Kernel:
    """Return the kernel that sums pieces of long rows, a block a piece."""
    number = real(dtype)
    zero = number(0)
    get, _ = partial_accesses(wide)

    @kernel(threads=THREADS, config=f"{dtype},{wide}")
    def pieces_of_a_row(length: Int, piece: Int, pieces: Int, x: T, partial: F64):
        scratch = cuda.shared.array(_WARPS, f64)
        values = cuda.local.array(wide, number)
        block = i32(cuda.blockIdx.x)
        row = i32(block // pieces)
        first = i32((block - row * pieces) * piece)
        count = i32(min(piece, length - first))
        base = i32(row * length + first)
        total = f64(0)
        for i in range(i32(i32(cuda.threadIdx.x) * wide), count, THREADS * wide):
            get(x, i32(base + i), i32(count - i), values)
            few = zero
            for j in range(wide):
                few += values[j] if i + j < count else zero
            total += f64(few)
        total = _block_sum(total, scratch)
        if cuda.threadIdx.x == 0:
            partial[block] = total

    return pieces_of_a_row


@lru_cache(maxsize=8)
def column_sums(dtype: str, wide: int) -> Kernel:
    """Return the kernel that sums each column of a strip over some rows of a matrix."""
    number = real(dtype)
    get, _ = accesses(wide)
    cells = THREADS * wide

    @kernel(threads=THREADS, config=f"{dtype},{wide}")
    def columns_of_a_strip(
        rows: Int, columns: Int, across: Int, strips: Int, span: Int, parts: Int, x: T, partial: F64
    ):  # fmt: skip
        scratch = cuda.shared.array(cells, f64)
        values, total = cuda.local.array(wide, number), cuda.local.array(wide, f64)
        t = i32(cuda.threadIdx.x)
        y, part, outer = i32(t // across), i32(cuda.blockIdx.y), i32(i32(cuda.blockIdx.x) // strips)
        strip = i32(i32(cuda.blockIdx.x) - outer * strips)
        column = i32((strip * across + (t - y * across)) * wide)
        first = i32(part * span)
        last = i32(min(rows, first + span))
        for lane in range(wide):
            total[lane] = f64(0)
        if column < columns:
            for row in range(i32(first + y), last, i32(THREADS // across)):
                get(x, i32((outer * rows + row) * columns + column), values)
                for lane in range(wide):
                    total[lane] += f64(values[lane])
        for lane in range(wide):
            scratch[i32(t * wide + lane)] = total[lane]
        fold(scratch, t, across, wide)
        if y == 0 and column < columns:
            for lane in range(wide):
                at = i32((outer * parts + part) * columns + column + lane)
                partial[at] = scratch[i32(t * wide + lane)]

    return columns_of_a_strip


@kernel(threads=THREADS)
def merge(results: Int, inner: Int, parts: Int, step: Int, start: Int, scale: Double, partial: F64, y: T):
    """y[outer, i] = scale * sum over the parts of partial[start + (outer parts + part) step + i], a warp a result."""
    result = i32(i32(cuda.blockIdx.x) * _WARPS + (i32(cuda.threadIdx.x) >> 5))
    lane = i32(i32(cuda.threadIdx.x) & 31)
    outer = i32(result // inner)
    base = i32(start + outer * parts * step + (result - outer * inner))
    total = f64(0)
    if result < results:
        for part in range(lane, parts, WARP):
            total += partial[i32(base + part * step)]
    total = warp_sum(total)
    if result < results and lane == 0:
        y[result] = total * scale


def run_merge(
    outer: int, inner: int, parts: int, scale: float, partial: Any, y: Any, dtype: str, step: int = 0, start: int = 0
) -> None:
    """Add up partial sums (outer, parts, step) in float64: of the last axis, the `inner` numbers from `start` on.

    With a step of 0 these are all.
    """
    numbers = (outer * inner, inner, parts, step or inner, start, scale)
    launch(merge, (blocks(outer * inner, _WARPS),), (*numbers, partial, y), dtype)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x,), (y,) = inputs, outputs
    dtype, outer, reduced, inner = problem.dtype, problem.outer, problem.reduced, problem.inner
    if not outer * inner:
        return
    if inner == 1 and reduced <= _SHORT:
        wide = width(dtype, reduced, x)
        launch(row_sums(dtype, wide), (blocks(outer, _WARPS),), (outer, reduced, problem.scale, x, y), dtype)
        return
    if inner == 1:
        wide = lanes(dtype) if aligned(x) and (outer == 1 or reduced % lanes(dtype) == 0) else 1
        parts = -(-reduced // _PIECE)
        partial = empty((outer * parts,), "float64")
        launch(piece_sums(dtype, wide), (outer * parts,), (reduced, _PIECE, parts, x, partial), dtype)
    else:
        wide = width(dtype, inner, x)
        layout = cut(reduced, inner, wide)
        parts = layout.parts
        partial = empty((outer * parts * inner,), "float64")
        numbers = (reduced, inner, layout.across, layout.strips, layout.span, parts)
        grid = (layout.strips * outer, parts)
        launch(column_sums(dtype, wide), grid, (*numbers, x, partial), dtype)
    run_merge(outer, inner, parts, problem.scale, partial, y, dtype)


def _supports(problem: Any) -> str | None:
    return too_large(problem.outer * problem.reduced * problem.inner, problem.outer * problem.inner)


CANDIDATES: CandidateLists = {("reduce", "forward"): [Candidate("cuda.sums", _forward, _supports)]}
