"""Products of matrices on tensor cores, where the precision allows it."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import matmul as plain
from numbanet.cuda import mma_matrix, mma_tile, split, tile
from numbanet.cuda.compile import F32, I64, Int, Kernel, Long, T, kernel
from numbanet.cuda.conv_direct import tiles
from numbanet.cuda.conv_mma import DTYPES, LEAST, chosen_kind, engine_refusal, speed, tolerance
from numbanet.cuda.launch import aligned, constant, empty, launch
from numbanet.cuda.pack import filled, operand
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.wgmma_tile import WGMMA
from numbanet.cuda.wgmma_turned import TURNED
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem

i32, i64 = types.int32, types.int64


@lru_cache(maxsize=64)
def gemm(
    engine: mma_tile.Engine, name: str, a_rows: bool, b_rows: bool, vector: bool, epilogue: Epilogue
) -> Kernel:
    """Return the kernel of one pair of memory orders; `vector`: n is even, so that a store takes 2 numbers."""
    kind = mma_tile.KINDS[name]
    load_a, load_b = mma_matrix.loader(engine, name, not a_rows), mma_matrix.loader(engine, name, b_rows)
    accumulate = engine.product(kind, load_a, not a_rows, load_b, b_rows)
    write = mma_tile.writer(engine.columns, vector, epilogue)
    results, size, fragments, fragments_row = engine.results, mma_tile.SIZE, engine.rows, engine.columns
    flags = ("a_rows", a_rows), ("b_rows", b_rows), ("vector", vector)
    words = [engine.name, name] + [word for word, chosen in flags if chosen]

    @kernel(
        threads=mma_tile.THREADS, blocks=2, shared_bytes=engine.shared_bytes,
        config=",".join(words + tile.words(epilogue)),
    )  # fmt: skip
    def matmul(
        m: Int, n: Int, k: Int, slices: Int, share: Int, parts: Int, part_size: Int, first: Int, batch: Int,
        a_step: Int, a_size: Long, b_step: Int, b_size: Long,
        a: T, b: T, index: I64, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        product = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - product * parts)
        product = i32(product + first)
        at_a, at_b = i64(0), i64(0)
        if batch > 1:
            at_a, at_b = index[product] * a_size, index[batch + product] * b_size
        first_row, first_column = i32(cuda.blockIdx.x * size), i32(cuda.blockIdx.y * size)
        left, right = (a, at_a, first_row, a_step, k, m), (b, at_b, first_column, b_step, k, n)
        total = cuda.local.array((fragments, fragments_row, 4), types.float32)
        accumulate(i32(part * share), i32(min(slices, (part + 1) * share)), left, right, total)
        at_row, at_column = results()
        for e in range(fragments):
            for half in range(2):
                row = i32(first_row + at_row + 16 * e + 8 * half)
                if row < m:
                    start = i32(part * part_size + (product * m + row) * n)
                    write(total, e, half, start, i32(first_column + at_column), n, i32(0), bias, residual, y)

    return matmul


def _run(engine: mma_tile.Engine, p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (a, b, bias, residual), y, kind = inputs[:4], outputs[0], chosen_kind()
    index = constant(inputs[4]) if p.batch > 1 else None
    (a_lines, a_width), (b_lines, b_width) = shapes(p)
    left = operand(kind, a, 1, a.size // max(a_width, 1), 1, a_width)
    right = operand(kind, b, 1, b.size // max(b_width, 1), 1, b_width)
    a_step, b_step = filled(a_width, kind.lanes), filled(b_width, kind.lanes)
    grid, slices = tiles(p.m, p.n), -(-p.k // engine.pieces(kind, True).depth)
    cut = split.cut(grid[0] * grid[1] * p.batch, slices, y.size, least=LEAST)
    sums = y if cut.parts == 1 else empty((cut.parts, y.size), "float32")
    vector = p.n % 2 == 0 and aligned(bias, residual, y, size=8)
    chosen = gemm(engine, kind.name, p.a_rows, p.b_rows, vector, p.epilogue if cut.parts == 1 else Epilogue())
    step = plain.MOST_BATCH // cut.parts
    for first in range(0, p.batch, step):
        count = min(step, p.batch - first)
        sizes = p.m, p.n, p.k, slices, cut.share, cut.parts, y.size, first, p.batch
        strides = a_step, a_lines * a_step, b_step, b_lines * b_step
        arguments = *sizes, *strides, left, right, index, bias, residual, sums
        launch(chosen, (*grid, count * cut.parts), arguments, DTYPES[kind.name])
    if cut.parts > 1:
        split.finish(cut.parts, sums, p.epilogue, bias, residual, y)


def shapes(p: MatmulProblem) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of one a and one b as they lie in memory."""
    return (p.m, p.k) if p.a_rows else (p.k, p.m), (p.k, p.n) if p.b_rows else (p.n, p.k)


def _supports(engine: mma_tile.Engine, p: MatmulProblem) -> str | None:
    reason = engine_refusal(engine, p.dtype, p.b_rows and not p.a_rows) or plain.supports(p)
    if reason is not None:
        return reason
    # `numbanet.cuda.pack` counts in 32 bits.
    packed = max(lines * filled(width, chosen_kind().lanes) for lines, width in shapes(p))
    return f"an operand has more than {plain.MOST} elements" if p.batch * packed > plain.MOST else None


def _cost(engine: mma_tile.Engine, p: MatmulProblem) -> float:
    packing = 90.0 * p.batch * (p.m * p.k + p.k * p.n) if chosen_kind().narrow else 0.0
    return plain.cost(p) / speed(engine) + packing


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [
        Candidate(
            f"cuda.{engine.name}", partial(_run, engine), partial(_supports, engine), partial(_cost, engine),
            tolerance=lambda p: tolerance(p.k),
        )
        for engine in (WGMMA, TURNED, mma_tile.MMA)
    ],
}  # fmt: skip
