"""Register tiles of sums of outer products whose rows follow each other in memory, as copies and transforms leave them.

Where the rows of a tile are a run of memory, their addresses are one register and constants. So a tile may have as many
rows as there are registers for sums, and one that is a single vector wide, which loads a number for each multiply-add,
takes it from memory in the same instruction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import Loop, ir_conditionally, ir_grid, ir_int, ir_keep_rolled, ir_switch
from numbanet.cpu.isa import host_isa
from numbanet.cpu.prefetch import ir_prefetch
from numbanet.cpu.vector import (
    Vec,
    ir_call,
    ir_load,
    ir_masked_load,
    ir_splat,
    ir_store,
    ir_tail_mask,
    vector_of,
)

# (rows, vectors) of each tile: its number here is what kernels call it by.
RUN_TILES = tuple((rows, vectors) for vectors, sizes in enumerate(host_isa().run_rows, 1) for rows in sizes)
MOST_RUN_ROWS = max(rows for rows, _ in RUN_TILES)


def _run_tile(
    builder: ir.IRBuilder, vec: Vec, rows: int, vectors: int, a: ir.Value, b: ir.Value, lines: ir.Value,
    pixels: ir.Value, a_line: ir.Value, b_line: ir.Value, a_step: ir.Value, b_step: ir.Value, last_lanes: ir.Value,
    ahead: ir.Value, ahead_step: ir.Value, sums: ir.Value, pitch: ir.Value, accumulate: ir.Value, fetch: bool,
) -> None:  # fmt: skip
    mask = ir_tail_mask(builder, last_lanes, vec.lanes)
    zero = ir.Constant(ir.VectorType(sums.type.pointee, vec.lanes), None)

    def column(here: ir.Value, j: int) -> ir.Value:
        spot = builder.gep(here, [ir_int(j * vec.lanes)])
        return ir_masked_load(builder, spot, vec, mask) if j == vectors - 1 else ir_load(builder, spot, vec)

    with Loop(builder, lines, [zero] * (rows * vectors) + [a, b, ahead], "lines") as line:
        *totals, a_start, b_start, coming = line.carried
        with Loop(builder, pixels, [*totals, a_start, b_start, coming], "pixels") as pixel:
            *old, a_here, b_here, coming = pixel.carried
            if fetch:
                ir_prefetch(builder, coming, locality=2)
            columns = [column(b_here, j) for j in range(vectors)]
            new = []
            for i, accumulators in enumerate(ir_grid(old, vectors)):
                value = ir_splat(builder, builder.load(builder.gep(a_here, [ir_int(i)])), vec.lanes)
                new += [ir_call(builder, "llvm.fma", vec, value, c, t) for c, t in zip(columns, accumulators)]
            following = zip((a_here, b_here, coming), (a_step, b_step, ahead_step))
            *new, _, _, coming = pixel.close([*new, *(builder.gep(p, [step]) for p, step in following)])
            ir_keep_rolled(builder, pixel)
        *totals, _, _, _ = line.close([*new, builder.gep(a_start, [a_line]), builder.gep(b_start, [b_line]), coming])
    spots = [
        builder.gep(sums, [builder.add(builder.mul(ir_int(i), pitch), ir_int(j * vec.lanes))])
        for i in range(rows) for j in range(vectors)
    ]  # fmt: skip

    def add(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.fadd(ir_load(builder, spot, vec), value) for spot, value in zip(spots, values)]

    adding = builder.icmp_signed("!=", accumulate, ir_int(0))
    for spot, total in zip(spots, ir_conditionally(builder, adding, totals, add)):
        ir_store(builder, total, spot, vec)


@intrinsic(prefer_literal=True)
def run_tile(
    typingctx, fetch, which, a, b, lines, pixels, a_line, b_line, a_step, b_step, last_lanes, ahead, ahead_step,
    sums, pitch, accumulate,
):  # fmt: skip
    """Compute one tile of ``sums[i, :] (+)= sum over lines and pixels of a[line][pixel][i] * b[line][pixel][:]``.

    Parameters
    ----------
    fetch : literal int
        Not 0: fetch what lies ahead.
    which : int
        The tile, a number in `RUN_TILES`.
    a : pointer
        The first row at the first pixel; the others follow. All rows of the tile are read.
    b : pointer
        The first column at the first pixel.
    lines, pixels : int
        Lines, and pixels of each.
    a_line, b_line : int
        Elements from a line to the next,
    a_step, b_step : int
        and from a pixel to the next.
    last_lanes : int
        How many lanes of the last vector of columns exist: no others are read.
    ahead : pointer
        With each pixel, a cache line comes to the second-level cache: that of this element,
    ahead_step : int
        and of one so far behind for each pixel.
    sums : pointer
        The rows of the tile, in whole vectors,
    pitch : int
        and the elements from one to the next.
    accumulate : int
        Not 0: add to what is there.
    """
    if not isinstance(fetch, types.IntegerLiteral):
        return None
    vec = vector_of(sums.dtype)
    i64 = types.int64
    sig = types.void(fetch, i64, a, b, i64, i64, i64, i64, i64, i64, i64, ahead, i64, sums, i64, i64)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        def emit(number: int) -> None:
            _run_tile(builder, vec, *RUN_TILES[number], *args[2:], bool(fetch.literal_value))

        ir_switch(builder, args[1], range(len(RUN_TILES)), emit)
        return context.get_dummy_value()

    return sig, codegen


class Piece(NamedTuple):
    """A tile of a matrix of sums."""

    which: int
    row: int  # where it begins: its first row
    vector: int  # and its first vector of columns


def _cycles(rows: int, vectors: int) -> float:
    """Return about how many cycles a tile takes for a pixel, on cores with two ports for products and two for loads.

    Operands in the first-level cache of a Cascade Lake; of a few shapes the rates were measured, the rest is counted.
    """
    numbers = rows + vectors + 1  # that are loaded or fetched: two a cycle, as products
    waits = 4.2  # each product for the last one of the same sum
    return 0.3 + max(rows * vectors / 2, numbers / 2, waits)


@lru_cache(maxsize=1024)
def _cover_rows(rows: int, width: int) -> tuple[float, tuple[int, ...]]:
    """Return the cheapest tiles of one width that cover so many rows: their cycles a pixel, and their numbers."""
    tiles = [(number, tile[0]) for number, tile in enumerate(RUN_TILES) if tile[1] == width]
    largest, most = tiles[-1]
    whole = max(0, rows // most - 2)  # far from the end, the largest tiles
    best: list[tuple[float, tuple[int, ...]]] = [(whole * _cycles(most, width), (largest,) * whole)]
    for count in range(1, rows - whole * most + 1):
        shorter = [(best[max(0, count - size)], number, size) for number, size in tiles]
        best.append(min((cycles + _cycles(size, width), (*used, number)) for (cycles, used), number, size in shorter))
    return best[-1]


@lru_cache(maxsize=1024)
def cover(rows: int, vectors: int) -> tuple[float, tuple[Piece, ...]]:
    """Return the cheapest tiles that cover a matrix of so many rows and vectors: their cycles a pixel, and the tiles.

    The last ones may have rows beyond the last row.
    """
    widths = range(1, RUN_TILES[-1][1] + 1)
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for count in range(1, vectors + 1):
        narrower = [(best[count - width], width) for width in widths if width <= count]
        best.append(min((cycles + _cover_rows(rows, width)[0], (*used, width)) for (cycles, used), width in narrower))
    pieces, vector = [], 0
    for width in best[vectors][1]:
        row = 0
        for which in _cover_rows(rows, width)[1]:
            pieces.append(Piece(which, row, vector))
            row += RUN_TILES[which][0]
        vector += width
    return best[vectors][0], tuple(pieces)
