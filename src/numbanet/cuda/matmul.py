"""Products of matrices in all memory orders, one or many, in float32: `numbanet.cuda.tile` multiplies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import matrix, split, tile
from numbanet.cuda.compile import F32, I64, Int, Kernel, device, kernel
from numbanet.cuda.conv_direct import tiles
from numbanet.cuda.launch import MOST_YZ, aligned, constant, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem

MOST = 2**31 - 1
MOST_BATCH = 65535  # blocks along z

i32, i64, f32 = types.int32, types.int64, types.float32


@lru_cache(maxsize=64)
def gemm(a_rows: bool, b_rows: bool, vector: bool, epilogue: Epilogue) -> Kernel:
    """Return the kernel of one pair of memory orders; `vector`: rows and columns in memory are multiples of 4."""
    load_a, load_b = matrix.loader(vector, not a_rows), matrix.loader(vector, b_rows)
    accumulate = tile.product(load_a, not a_rows, load_b, b_rows)
    brought_a, brought_b, results = tile.brought(not a_rows), tile.brought(b_rows), tile.results
    write = tile.writer(vector, epilogue)
    size, half, side = tile.SIZE, tile.HALF, tile.SIDE

    @device
    def operand(matrix, at, place, line, places, depth, across):
        """Return what the loader takes; the matrix holds the reduction in its rows, or its columns (`across`)."""
        inside = i32(places - place)
        if across:
            return (matrix, at + i64(line) * places + place, line, places, depth, inside)
        return (matrix, at + i64(place) * depth + line, line, i32(1), depth, inside)

    words = [word for word, chosen in (("a_rows", a_rows), ("b_rows", b_rows), ("vector", vector)) if chosen]

    @kernel(threads=tile.THREADS, blocks=2, config=",".join(words + tile.words(epilogue)))
    def matmul(
        m: Int, n: Int, k: Int, slices: Int, share: Int, parts: Int, part_size: Int, first: Int, batch: Int,
        a: F32, b: F32, index: I64, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        product = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - product * parts)
        product = i32(product + first)
        at_a, at_b = i64(0), i64(0)
        if batch > 1:
            at_a, at_b = index[product] * m * k, index[batch + product] * k * n
        first_row, first_column = i32(cuda.blockIdx.x * size), i32(cuda.blockIdx.y * size)
        place, line = brought_a()
        left = operand(a, at_a, i32(first_row + place), line, m, k, not a_rows)
        place, line = brought_b()
        right = operand(b, at_b, i32(first_column + place), line, n, k, b_rows)
        total = cuda.local.array((side, side), f32)
        accumulate(i32(part * share), i32(min(slices, (part + 1) * share)), left, right, total)
        at_row, at_column = results()
        for p in range(side):
            row = i32(first_row + at_row + p % 4 + p // 4 * half)
            if row < m:
                start = i32(part * part_size + (product * m + row) * n)
                write(total, p, start, i32(first_column + at_column), n, i32(0), bias, residual, y)

    return matmul


def _vector(p: MatmulProblem) -> bool:
    return p.n % 4 == 0 and (p.k if p.a_rows else p.m) % 4 == 0 and (p.n if p.b_rows else p.k) % 4 == 0


@lru_cache(maxsize=1024)
def _plan(p: MatmulProblem) -> tuple[tuple[int, int], split.Cut, tuple[int, ...]]:
    grid, slices, size = tiles(p.m, p.n), -(-p.k // tile.DEPTH), p.batch * p.m * p.n
    cut = split.cut(grid[0] * grid[1] * p.batch, slices, size)
    return grid, cut, (p.m, p.n, p.k, slices, cut.share, cut.parts, size)


def run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """Compute the products: the candidate's `run`."""
    a, b, bias, residual = inputs[:4]
    y = outputs[0]
    index = constant(inputs[4]) if p.batch > 1 else None
    vector = _vector(p) and aligned(*inputs[:4], y)
    grid, cut, integers = _plan(p)
    sums = y if cut.parts == 1 else empty((cut.parts, y.size), "float32")
    kernel = gemm(p.a_rows, p.b_rows, vector, p.epilogue if cut.parts == 1 else Epilogue())
    step = MOST_BATCH // cut.parts
    for first in range(0, p.batch, step):
        count = min(step, p.batch - first)
        arguments = *integers, first, p.batch, a, b, index, bias, residual, sums
        launch(kernel, (*grid, count * cut.parts), arguments)
    if cut.parts > 1:
        split.finish(cut.parts, sums, p.epilogue, bias, residual, y)


def supports(p: MatmulProblem) -> str | None:
    """Return None, or why the kernels on this tile can't compute a problem."""
    if p.dtype != "float32":
        return f"the kernel is for float32, not {p.dtype}"
    if max(p.m, p.n, p.k, p.batch * p.m * p.n) > MOST:
        return "the result has more than 2**31 - 1 elements"
    if tiles(p.m, p.n)[1] > MOST_YZ:
        return f"the result has more than {MOST_YZ} tiles of columns"
    return None


def cost(p: MatmulProblem) -> float:
    """Return the operations of all tiles, whole or not."""
    across, down = tiles(p.m, p.n)
    return 2.0 * p.batch * across * down * tile.SIZE * tile.SIZE * p.k


def tolerance(p: MatmulProblem) -> float:
    """Return the expected relative error of a sum in float32."""
    return 3e-6 * (p.k / 1000 + 1) ** 0.5


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("cuda.gemm", run, supports, cost, tolerance=tolerance)],
}
