"""Products of matrices by warpgroups that the copy engine feeds, on GPUs of capability 9.0.

TF32 products of warpgroups need either operand contiguous along the reduction: one that is not is copied first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import matmul as plain
from numbanet.cuda import mma_tile, split, tile, tma_matrix, tma_tile
from numbanet.cuda.compile import F32, I64, U64, Int, Kernel, kernel
from numbanet.cuda.conv_mma import chosen_kind, refusal, tolerance
from numbanet.cuda.conv_tma import LEAST, NARROW, WIDE
from numbanet.cuda.launch import MOST_YZ, aligned, constant, empty, launch
from numbanet.cuda.matmul_mma import shapes
from numbanet.cuda.mma_tile import Kind
from numbanet.cuda.pack import exchanged, filled, operand
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.tensor_map import TensorMap
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=64)
def gemm(
    name: str, shape: tma_tile.Tile, across_a: bool, across_b: bool, vector: bool, epilogue: Epilogue
) -> Kernel:
    """Return the kernel of one pair of memory orders; `vector`: n is even, so that a store takes 2 numbers."""
    kind = mma_tile.KINDS[name]
    bring_a = tma_matrix.bringer(name, across_a, tma_tile.ROWS)
    bring_b = tma_matrix.bringer(name, across_b, shape.columns)
    start, produce = tma_tile.ring(shape), tma_tile.producer(shape, bring_a, bring_b)
    consume = tma_tile.consumer(kind, shape, across_a, across_b)
    blocks, rows_tile, columns_tile = shape.columns // 64, tma_tile.ROWS, shape.columns
    write = mma_tile.writer(8, vector, epilogue)
    flags = ("across_a", across_a), ("across_b", across_b), ("vector", vector)
    words = [name, str(shape.columns)] + [word for word, chosen in flags if chosen] + tile.words(epilogue)

    @kernel(
        threads=tma_tile.THREADS, blocks=shape.blocks, shared_bytes=shape.shared_bytes, config=",".join(words)
    )
    def matmul(
        m: Int, n: Int, slices: Int, share: Int, parts: Int, part_size: Int, first: Int, batch: Int,
        a: U64, b: U64, index: I64, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        product = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - product * parts)
        product = i32(product + first)
        first_row, first_column = i32(cuda.blockIdx.x * rows_tile), i32(cuda.blockIdx.y * columns_tile)
        begin, end = i32(part * share), i32(min(slices, (part + 1) * share))
        ring = start()
        if tma_tile.is_producer():
            at_a, at_b = i32(0), i32(0)
            if batch > 1:
                at_a, at_b = i32(index[product]), i32(index[batch + product])
            produce(ring, begin, end, (a, first_row, at_a), (b, first_column, at_b))
        else:
            total = cuda.local.array((blocks, 8, 4), f32)
            consume(ring, begin, end, total)
            at_row, at_column = tma_tile.results()
            for half in range(2):
                row = i32(first_row + at_row + 8 * half)
                if row < m:
                    at = i32(part * part_size + (product * m + row) * n)
                    for block in range(blocks):
                        column = i32(first_column + at_column + 64 * block)
                        write(total, block, half, at, column, n, i32(0), bias, residual, y)

    return matmul


def _run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (a, b, bias, residual), y, kind = inputs[:4], outputs[0], chosen_kind()
    index = constant(inputs[4]) if p.batch > 1 else None
    vector = p.n % 2 == 0 and aligned(bias, residual, y, size=8)
    shape = tma_tile.fitting(p.n, vector)
    across = _across(p, kind)
    sides = zip((a, b), shapes(p), (not p.a_rows, p.b_rows), across, (tma_tile.ROWS, shape.columns))
    maps = [_map(kind, *side) for side in sides]
    grid, slices = (-(-p.m // tma_tile.ROWS), -(-p.n // shape.columns)), -(-p.k // tma_tile.depth(kind))
    cut = split.cut(grid[0] * grid[1] * p.batch, slices, y.size, shape.wanted, LEAST)
    sums = y if cut.parts == 1 else empty((cut.parts, y.size), "float32")
    chosen = gemm(kind.name, shape, *across, vector, p.epilogue if cut.parts == 1 else Epilogue())
    step = plain.MOST_BATCH // cut.parts
    for first in range(0, p.batch, step):
        blocks = min(step, p.batch - first) * cut.parts
        sizes = p.m, p.n, slices, cut.share, cut.parts, y.size, first, p.batch
        launch(chosen, (*grid, blocks), (*sizes, *maps, index, bias, residual, sums))
    if cut.parts > 1:
        split.finish(cut.parts, sums, p.epilogue, bias, residual, y)


def _across(p: MatmulProblem, kind: Kind) -> tuple[bool, bool]:
    """Return whether the kernel takes either operand across the reduction; TF32 ones are exchanged before."""
    return (not p.a_rows and kind.narrow), (p.b_rows and kind.narrow)


def _map(kind: Kind, matrix: Any, shape: tuple[int, int], lies_across: bool, across: bool, places: int) -> TensorMap:
    """Return a stack of matrices of a shape as the kernel takes it."""
    lines, width = shape
    count = matrix.size // (lines * width)
    if lies_across and not across:
        packed, lines, width = exchanged(kind, matrix, count, lines, 1, width), width, lines
    else:
        packed = operand(kind, matrix, 1, count * lines, 1, width)
    return TensorMap(packed, tma_matrix.form(kind, count, lines, filled(width, kind.lanes), across, places))


def _supports(p: MatmulProblem) -> str | None:
    reason = refusal(p.dtype, warpgroups=True) or plain.supports(p)
    if reason is not None:
        return reason
    if not p.m * p.n * p.k * p.batch:
        return "nothing to multiply"
    most = MOST_YZ * tma_tile.TILES[0].columns
    if p.n > most:
        return f"the result has more than {most} columns"
    # `numbanet.cuda.pack` counts in 32 bits.
    lanes = chosen_kind().lanes
    packed = max(filled(lines, lanes) * filled(width, lanes) for lines, width in shapes(p))
    return f"an operand has more than {plain.MOST} elements" if p.batch * packed > plain.MOST else None


def _cost(p: MatmulProblem) -> float:
    """In operations of the float32 kernels."""
    kind, columns = chosen_kind(), tma_tile.fitting(p.n, p.n % 2 == 0).columns
    rows_padded, columns_padded = filled(p.m, tma_tile.ROWS), filled(p.n, columns)
    narrow = kind.narrow
    packed = 0 if p.a_rows and not narrow else p.m * p.k
    packed += 0 if not p.b_rows and not narrow else p.k * p.n
    products = 2.0 * p.batch * rows_padded * columns_padded * filled(p.k, tma_tile.depth(kind))
    return products / (NARROW if narrow else WIDE) + 90.0 * p.batch * packed


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("cuda.wgmma_tma", _run, _supports, _cost, tolerance=lambda p: tolerance(p.k))],
}
