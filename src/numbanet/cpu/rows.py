"""Copies of a few vectors of each of many rows: columns of a matrix that shall lie together."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.flow import Loop, ir_int, ir_switch
from numbanet.cpu.simd import lanes, load, load_tail, offset, store
from numbanet.cpu.vector import ir_load, ir_store, vector_of

MOST = 12  # vectors of a row


@intrinsic
def copy_rows(typingctx, width, source, step, out, pitch, count):
    """Copy `width` vectors of each of `count` rows: a loop for each width, without one inside.

    Parameters
    ----------
    width : int
        Between 1 and `MOST`.
    source : pointer
    step : int
        Elements from a row to the next,
    out : pointer
    pitch : int
        and from one copy to the next: copies may overlap, later rows stay.
    count : int
    """
    vec, i64 = vector_of(source.dtype), types.int64

    def codegen(context, builder, sig, args):
        width, source, step, out, pitch, count = args

        def emit(vectors: int) -> None:
            with Loop(builder, count, [source, out], "rows") as row:
                here, there = row.carried
                spots = [ir_int(j * vec.lanes) for j in range(vectors)]
                values: list[ir.Value] = [ir_load(builder, builder.gep(here, [spot]), vec) for spot in spots]
                for value, spot in zip(values, spots):
                    ir_store(builder, value, builder.gep(there, [spot]), vec)
                row.close([builder.gep(here, [step]), builder.gep(there, [pitch])])

        ir_switch(builder, width, range(1, MOST + 1), emit)
        return context.get_dummy_value()

    return types.void(i64, source, i64, source, i64, i64), codegen


@device
def copy_columns(source, at, step, columns, out, place, pitch, count):
    """Copy `columns` numbers of each of `count` rows; what the last vector holds beside them is zero."""
    whole = columns // lanes(source) * lanes(source)
    if whole == columns:
        copy_rows(columns // lanes(source), offset(source, at), step, offset(out, place), pitch, count)
        return
    for _ in range(count):  # row by row: a copy may reach into the next one
        for j in range(0, whole, lanes(source)):
            store(out, place + j, load(source, at + j))
        store(out, place + whole, load_tail(source, at + whole, columns - whole))
        at += step
        place += pitch
