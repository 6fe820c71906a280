"""The matrix products of Winograd's algorithm: many small ones, on operands that lie as the register tiles want them.

Both the rows of transformed input and the rows of products have a fixed distance, so that one pointer reaches all rows
of a register tile by constant offsets; the products are padded, so that every store is a whole tile.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.flow import Loop, ir_conditionally, ir_int, ir_switch
from numbanet.cpu.isa import host_isa
from numbanet.cpu.prefetch import ir_prefetch
from numbanet.cpu.simd import lanes, offset
from numbanet.cpu.tile import MAX_VECTORS, tile_rows
from numbanet.cpu.vector import Vec, ir_call, ir_load, ir_splat, ir_store, vector_of

CHANNEL_PITCH = 64  # elements from a row of transformed input to the next: the most channels of one product
SPARE_ROWS = 3  # at most so many rows are computed in vain


def _few_rows(rows: int) -> int:
    """Return the rows of the smaller of two tiles: sums of both make every even number of rows from 4 (or 2) on."""
    return 4 if rows > 4 else 2


def _multiply(
    builder: ir.IRBuilder, vec: Vec, rows: int, vectors: int, a: ir.Value, b: ir.Value, ahead: ir.Value,
    out: ir.Value, channels: ir.Value, accumulate: ir.Value,
) -> None:  # fmt: skip
    zero = ir.Constant(ir.VectorType(b.type.pointee, vec.lanes), None)
    with Loop(builder, channels, [zero] * (rows * vectors), "channels") as channel:
        row = builder.gep(b, [builder.mul(channel.index, ir_int(vectors * vec.lanes))])
        columns = [ir_load(builder, builder.gep(row, [ir_int(j * vec.lanes)]), vec) for j in range(vectors)]
        ir_prefetch(builder, builder.gep(ahead, [builder.mul(channel.index, ir_int(vec.lanes))]), locality=2)
        here = builder.gep(a, [channel.index])
        sums = []
        for i in range(rows):
            value = ir_splat(builder, builder.load(builder.gep(here, [ir_int(i * CHANNEL_PITCH)])), vec.lanes)
            old = channel.carried[i * vectors : (i + 1) * vectors]
            sums += [ir_call(builder, "llvm.fma", vec, value, c, s) for c, s in zip(columns, old)]
        sums = channel.close(sums)
    pitch = MAX_VECTORS * vec.lanes
    spots = [builder.gep(out, [ir_int(i * pitch + j * vec.lanes)]) for i in range(rows) for j in range(vectors)]

    def add(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.fadd(value, ir_load(builder, spot, vec)) for value, spot in zip(values, spots)]

    sums = ir_conditionally(builder, builder.icmp_signed("!=", accumulate, ir_int(0)), sums, add)
    for value, spot in zip(sums, spots):
        ir_store(builder, value, spot, vec)


@intrinsic
def multiply_tile(typingctx, width, few, a, b, ahead, out, channels, accumulate):
    """Compute one register tile of ``out (+)= a @ b``.

    Parameters
    ----------
    width : int
        Vectors of columns.
    few : int
        Not 0: the tile with fewer rows of the two that the width has.
    a : pointer
        Rows of `channels` elements, `CHANNEL_PITCH` apart.
    b : pointer
        `channels` rows of `width` vectors, without gaps.
    ahead : pointer
        `channels` cache lines from here on are fetched into the second-level cache meanwhile.
    out : pointer
        Rows `MAX_VECTORS` vectors apart.
    channels : int
    accumulate : int
        Not 0: add to what is there.
    """
    vec, i64 = vector_of(b.dtype), types.int64

    def codegen(context, builder, sig, args):
        width, few, *rest = args

        def emit(case: int) -> None:
            vectors, few = divmod(case, 2)
            many = host_isa().tile_rows[vectors - 1]
            _multiply(builder, vec, _few_rows(many) if few else many, vectors, *rest)

        case = builder.add(builder.mul(width, ir_int(2)), few)
        ir_switch(builder, case, range(2, 2 * MAX_VECTORS + 2), emit)
        return context.get_dummy_value()

    return types.void(i64, i64, a, b, ahead, out, i64, i64), codegen


@device
def row_plan(count, width):
    """Return the rows that tiles of the larger kind compute, and all rows computed: the fewest that hold `count`."""
    many = tile_rows(width)
    few = 4 if many > 4 else 2
    best_many, best = 0, (count + few - 1) // few * few
    for rows in range(many, count + many, many):
        total = rows + (max(0, count - rows) + few - 1) // few * few
        if total <= best:
            best_many, best = rows, total
    return best_many, best


@device
def multiply(width, many_rows, all_rows, a, b, following, out, channels, accumulate, pitch):
    """Compute all rows of ``out (+)= a @ b``, as `row_plan` cut them; `pitch` is that of `out`.

    The tiles fetch what lies at `following`, where the next b is, a part of it each.
    """
    rows = tile_rows(width)
    part = 0
    for m in range(0, many_rows, rows):
        multiply_tile(
            width, 0, offset(a, m * CHANNEL_PITCH), b, offset(following, part), offset(out, m * pitch), channels,
            accumulate,
        )  # fmt: skip
        part = min(part + channels * lanes(b), channels * (width - 1) * lanes(b))
    rows = 4 if rows > 4 else 2
    for m in range(many_rows, all_rows, rows):
        multiply_tile(
            width, 1, offset(a, m * CHANNEL_PITCH), b, offset(following, part), offset(out, m * pitch), channels,
            accumulate,
        )  # fmt: skip
        part = min(part + channels * lanes(b), channels * (width - 1) * lanes(b))
