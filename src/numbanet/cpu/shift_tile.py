"""Register tiles in which a tap is the same shift for all rows, as it is in a band, where padding is copied.

So a tile looks up the addresses of its rows once, not once a tap. Otherwise they are those of
`numbanet.cpu.tile.panel_tile`, and give the same bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import Loop, ir_grid, ir_int, ir_keep_rolled
from numbanet.cpu.tile import ir_by_width, ir_complete, ir_fetch_result
from numbanet.cpu.vector import Vec, ir_call, ir_load, ir_splat, vector_of


def _shift_tile(
    builder: ir.IRBuilder, vec: Vec, rows: int, vectors: int, sources: ir.Value, shifts: ir.Value,
    taps: ir.Value, channels: ir.Value, panel: ir.Value, out: ir.Value, out_step: ir.Value, valid: ir.Value,
    flags: ir.Value, bias: ir.Value, residual: ir.Value, last_lanes: ir.Value,
) -> None:  # fmt: skip
    zero = ir.Constant(ir.VectorType(panel.type.pointee, vec.lanes), None)

    def out_pointers() -> list[ir.Value]:
        return [builder.gep(out, [builder.mul(ir_int(i), out_step)]) for i in range(rows)]

    addresses = [builder.load(builder.gep(sources, [ir_int(i)])) for i in range(rows)]
    pointers = [builder.inttoptr(number, panel.type) for number in addresses]
    ir_fetch_result(builder, vec, vectors, out_pointers, flags, residual)
    with Loop(builder, taps, [zero] * (rows * vectors) + [panel], "taps") as tap:
        *sums, weights = tap.carried
        shift = builder.load(builder.gep(shifts, [tap.index]))
        with Loop(builder, channels, [*sums, weights, shift], "channels") as channel:
            *sums, weights, here = channel.carried
            columns = [ir_load(builder, builder.gep(weights, [ir_int(j * vec.lanes)]), vec) for j in range(vectors)]
            new = []
            for pointer, old in zip(pointers, ir_grid(sums, vectors)):
                value = ir_splat(builder, builder.load(builder.gep(pointer, [here])), vec.lanes)
                new += [ir_call(builder, "llvm.fma", vec, value, w, a) for w, a in zip(columns, old)]
            behind = builder.gep(weights, [ir_int(vectors * vec.lanes)])
            *sums, weights, _ = channel.close([*new, behind, builder.add(here, ir_int(1))])
            ir_keep_rolled(builder, channel)
        *sums, _ = tap.close([*sums, weights])
        ir_keep_rolled(builder, tap)
    ir_complete(builder, vec, vectors, sums, out_pointers(), bias, valid, flags, residual, last_lanes)


@intrinsic
def shift_tile(
    typingctx, width, sources, shifts, taps, channels, panel, out, out_step, valid, flags, bias, residual, last_lanes
):  # fmt: skip
    """Compute one tile of ``tile_rows(width)`` rows and ``width`` vectors of columns, and store it.

    Parameters
    ----------
    width : int
        Number of vectors.
    sources : pointer to int64
        The addresses of the rows.
    shifts : pointer to int64
        For each tap, the elements from a row to its first channel.
    taps, channels : int
    panel : pointer
        ``panel[(t * channels + c) * width * lanes + j]``.
    out, bias : pointer
        Where the tile begins in the result and in the bias, which has one number a column,
    out_step : int
        and elements from a row of the result to the next.
    valid : int
        Rows from this one on are computed but not stored; their addresses must be readable all the same.
    flags : int
        BIAS | RESIDUAL | RELU | SIX.
    residual : int
        Bytes from an element of the result to that of the array that RESIDUAL adds.
    last_lanes : int
        How many lanes of the last vector of columns are stored.
    """
    vec, i64 = vector_of(panel.dtype), types.int64
    sig = types.void(i64, sources, shifts, i64, i64, panel, out, i64, i64, i64, bias, i64, i64)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        ir_by_width(builder, args[0], lambda vectors, rows: _shift_tile(builder, vec, rows, vectors, *args[1:]))
        return context.get_dummy_value()

    return sig, codegen
