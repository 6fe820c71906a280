"""Register tiles: the inner loops of every matrix product and convolution, as LLVM vector code.

A tile is ``rows x vectors`` accumulators held in registers while the whole reduction runs. Two forms serve everything:

``panel_tile``
    out[i, :] (+)= sum over taps t and channels c of a[t][i][c] * panel[t][c][:]. The rows of `a` are given by their
    addresses, one for each tap and row: so padding is the address of zeros, and stride, dilation and image borders
    cost nothing inside. `panel` is packed: one row of ``vectors`` vectors a channel.
``outer_tile``
    out[i, :] (+)= sum over pixels of g[pixel][i] * x[pixel][:]: the product of two matrices that both run along the
    reduction, as in gradients of weights. Pixels come as runs with constant steps.

The number of vectors is a run-time choice among those that the host's registers allow (`numbanet.cpu.isa`), each with
its own number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import Loop, ir_conditionally, ir_grid, ir_int, ir_keep_rolled, ir_switch
from numbanet.cpu.isa import host_isa
from numbanet.cpu.prefetch import CACHE_LINE, ir_prefetch
from numbanet.cpu.vector import (
    Vec,
    ir_call,
    ir_constant,
    ir_load,
    ir_masked_load,
    ir_masked_store,
    ir_splat,
    ir_store,
    ir_tail_mask,
    vector_of,
)
from numbanet.problem.conv import Epilogue

ACCUMULATE = 1  # flags of a tile's store: add what is there already,
BIAS = 2  # add a number a column,
RESIDUAL = 4  # add what is there in an array of the result's shape,
RELU = 8  # clamp at zero,
SIX = 16  # and at six; in this order

MAX_ROWS = max(host_isa().tile_rows)
MAX_VECTORS = host_isa().tile_vectors

_I64 = ir.IntType(64)


def whole_tiles(vectors: int) -> int:
    """Return the smallest number of rows that is one of whole tiles in all panels of so many vectors of columns."""
    rows, panels = host_isa().tile_rows, max(1, -(-vectors // MAX_VECTORS))
    return math.lcm(rows[max(1, vectors // panels) - 1], rows[max(1, -(-vectors // panels)) - 1])


def epilogue_flags(epilogue: Epilogue) -> int:
    """Return the flags of a tile whose store completes the result."""
    activation = {None: 0, "relu": RELU, "relu6": RELU | SIX}[epilogue.activation]
    return (BIAS if epilogue.bias else 0) | (RESIDUAL if epilogue.residual else 0) | activation


def has_flag(builder: ir.IRBuilder, flags: ir.Value, flag: int) -> ir.Value:
    return builder.icmp_signed("!=", builder.and_(flags, ir_int(flag)), ir_int(0))


def ir_shifted(builder: ir.IRBuilder, pointer: ir.Value, count: ir.Value) -> ir.Value:
    """Return the pointer `count` bytes behind another."""
    return builder.inttoptr(builder.add(builder.ptrtoint(pointer, _I64), count), pointer.type)


def _all_equal(builder: ir.IRBuilder, table: ir.Value, count: int, value: ir.Value) -> ir.Value:
    """Return whether all of `count` integers of a table equal a value."""
    if not host_isa().masks:  # the bits of a comparison would have to be collected one by one
        different = ir_int(0)
        for i in range(count):
            number = builder.load(builder.gep(table, [ir_int(i)]))
            different = builder.or_(different, builder.xor(number, value))
        return builder.icmp_signed("==", different, ir_int(0))
    numbers = builder.load(builder.bitcast(table, ir.VectorType(_I64, count).as_pointer()))
    numbers.align = 8
    same = builder.icmp_signed("==", numbers, ir_splat(builder, value, count))
    return builder.icmp_signed("==", builder.bitcast(same, ir.IntType(count)), ir.Constant(ir.IntType(count), -1))


def ir_by_width(builder: ir.IRBuilder, width: ir.Value, emit: Any) -> None:
    """Emit ``emit(vectors, rows)`` for each tile width, chosen at run time by `width`."""
    rows = host_isa().tile_rows
    ir_switch(builder, width, range(1, MAX_VECTORS + 1), lambda vectors: emit(vectors, rows[vectors - 1]))


@intrinsic
def tile_rows(typingctx, width):
    """Return the number of rows of the tile that is `width` vectors wide."""

    def codegen(context, builder, sig, args):
        rows = ir_int(1)
        for vectors, count in enumerate(host_isa().tile_rows, 1):
            rows = builder.select(builder.icmp_signed("==", args[0], ir_int(vectors)), ir_int(count), rows)
        return rows

    return types.int64(types.int64), codegen


@intrinsic
def address(typingctx, p, i):
    """Return the address of element i as an integer."""
    return types.int64(p, types.int64), lambda context, builder, sig, args: builder.ptrtoint(
        builder.gep(args[0], [args[1]]), _I64
    )


@intrinsic(prefer_literal=True)
def stack_buffer(typingctx, p, count):
    """Return a pointer to `count` (a literal) elements of `p`'s dtype on the stack, aligned to a cache line.

    The buffer is made once a function, not once a pass of a loop.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None

    def codegen(context, builder, sig, args):
        with builder.goto_entry_block():
            kind = context.get_data_type(p.dtype)
            buffer = builder.alloca(kind, size=ir_int(count.literal_value))
        buffer.align = 64
        return buffer

    return p(p, count), codegen


def _panel_tile(
    builder: ir.IRBuilder,
    vec: Vec,
    rows: int,
    vectors: int,
    sources: ir.Value,
    source_step: ir.Value,
    first_channel: ir.Value,
    taps: ir.Value,
    channels: ir.Value,
    panel: ir.Value,
    panel_step: ir.Value,
    outs: ir.Value,
    first_column: ir.Value,
    valid: ir.Value,
    flags: ir.Value,
    bias: ir.Value,
    residual: ir.Value,
    last_lanes: ir.Value,
    padding: ir.Value,
) -> None:
    scalar_pointer = panel.type
    zero = ir.Constant(ir.VectorType(panel.type.pointee, vec.lanes), None)

    def out_pointers() -> list[ir.Value]:
        tables = [builder.gep(outs, [ir_int(i)]) for i in range(rows)]
        starts = [builder.inttoptr(builder.load(table), scalar_pointer) for table in tables]
        return [builder.gep(start, [first_column]) for start in starts]

    ir_fetch_result(builder, vec, vectors, out_pointers, flags, residual)
    with Loop(builder, taps, [zero] * (rows * vectors), "taps") as tap:
        table = builder.gep(sources, [builder.mul(tap.index, source_step)])
        pointers = [
            builder.gep(
                builder.inttoptr(builder.load(builder.gep(table, [ir_int(i)])), scalar_pointer), [first_channel]
            )
            for i in range(rows)
        ]
        base = builder.gep(panel, [builder.mul(tap.index, panel_step)])
        seen = builder.select(_all_equal(builder, table, rows, padding), ir_int(0), channels)
        with Loop(builder, seen, list(tap.carried), "channels") as channel:
            row = builder.gep(base, [builder.mul(channel.index, ir_int(vectors * vec.lanes))])
            weights = [ir_load(builder, builder.gep(row, [ir_int(j * vec.lanes)]), vec) for j in range(vectors)]
            sums = []
            for pointer, old in zip(pointers, ir_grid(channel.carried, vectors)):
                value = ir_splat(builder, builder.load(builder.gep(pointer, [channel.index])), vec.lanes)
                sums += [ir_call(builder, "llvm.fma", vec, value, w, a) for w, a in zip(weights, old)]
            sums = channel.close(sums)
            ir_keep_rolled(builder, channel)
        sums = tap.close(sums)
        ir_keep_rolled(builder, tap)

    bias = builder.gep(bias, [first_column])
    ir_complete(builder, vec, vectors, sums, out_pointers(), bias, valid, flags, residual, last_lanes)


def ir_fetch_result(
    builder: ir.IRBuilder, vec: Vec, vectors: int, rows: Callable[[], list[ir.Value]], flags: ir.Value,
    residual: ir.Value,
) -> None:  # fmt: skip
    """Ask, while the sums of a tile grow, for the lines that its store writes, and for what that adds."""
    seen = range(0, vectors, max(1, CACHE_LINE // host_isa().vector_bytes))
    for pointer in rows():
        for j in seen:
            ir_prefetch(builder, builder.gep(pointer, [ir_int(j * vec.lanes)]), write=1)
    with builder.if_then(has_flag(builder, flags, RESIDUAL)):
        for pointer in rows():
            for j in seen:
                ir_prefetch(builder, builder.gep(ir_shifted(builder, pointer, residual), [ir_int(j * vec.lanes)]))


def ir_complete(
    builder: ir.IRBuilder, vec: Vec, vectors: int, sums: list[ir.Value], stored: list[ir.Value], bias: ir.Value,
    valid: ir.Value, flags: ir.Value, residual: ir.Value, last_lanes: ir.Value,
) -> None:  # fmt: skip
    """Do what the flags say with the sums of a tile, and store the first `valid` rows, which begin at `stored`."""
    mask = ir_tail_mask(builder, last_lanes, vec.lanes)
    zero, six = ir_constant(vec, 0.0), ir_constant(vec, 6.0)

    def read(base: ir.Value, j: int) -> ir.Value:
        spot = builder.gep(base, [ir_int(j * vec.lanes)])
        return ir_masked_load(builder, spot, vec, mask) if j == vectors - 1 else ir_load(builder, spot, vec)

    def accumulate(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.fadd(v, read(stored[at // vectors], at % vectors)) for at, v in enumerate(values)]

    def add_bias(values: list[ir.Value]) -> list[ir.Value]:
        loaded = [read(bias, j) for j in range(vectors)]
        return [builder.fadd(value, loaded[at % vectors]) for at, value in enumerate(values)]

    def add_residual(values: list[ir.Value]) -> list[ir.Value]:
        sources = [ir_shifted(builder, pointer, residual) for pointer in stored]
        return [builder.fadd(v, read(sources[at // vectors], at % vectors)) for at, v in enumerate(values)]

    # Ordered comparisons keep NaN.
    def relu(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.select(builder.fcmp_ordered("<=", v, zero), zero, v) for v in values]

    def clamp_at_six(values: list[ir.Value]) -> list[ir.Value]:
        return [builder.select(builder.fcmp_ordered(">=", v, six), six, v) for v in values]

    sums = ir_conditionally(builder, has_flag(builder, flags, ACCUMULATE), sums, accumulate)
    sums = ir_conditionally(builder, has_flag(builder, flags, BIAS), sums, add_bias)
    sums = ir_conditionally(builder, has_flag(builder, flags, RESIDUAL), sums, add_residual)
    sums = ir_conditionally(builder, has_flag(builder, flags, RELU), sums, relu)
    sums = ir_conditionally(builder, has_flag(builder, flags, SIX), sums, clamp_at_six)
    for i, row in enumerate(stored):
        with builder.if_then(builder.icmp_signed("<", ir_int(i), valid)):
            for j in range(vectors):
                spot, value = builder.gep(row, [ir_int(j * vec.lanes)]), sums[i * vectors + j]
                if j == vectors - 1:
                    ir_masked_store(builder, value, spot, vec, mask)
                else:
                    ir_store(builder, value, spot, vec)


@intrinsic
def panel_tile(
    typingctx, width, sources, source_step, first_channel, taps, channels, panel, panel_step, outs, first_column, valid,
    flags, bias, residual, last_lanes, padding,
):  # fmt: skip
    """Compute one tile of ``tile_rows(width)`` rows and ``width`` vectors of columns, and store it.

    Parameters
    ----------
    width : int
        Number of vectors.
    sources : pointer to int64
        ``sources[t * source_step + i]`` is the address of row i for tap t.
    source_step : int
    first_channel : int
        The reduction starts at this element of each row,
    taps, channels : int
        and runs over so many taps and channels.
    panel : pointer
        ``panel[t * panel_step + c * width * lanes + j]``.
    panel_step : int
    outs : pointer to int64
        ``outs[i]`` is the address of row i of the whole result,
    first_column : int
        of which the tile stores the columns from this one on (and adds the bias of the same columns).
    valid : int
        Rows from this one on are computed but not stored; their addresses must be readable all the same.
    flags : int
        ACCUMULATE | BIAS | RESIDUAL | RELU | SIX.
    bias : pointer
        One number a column of the whole result.
    residual : int
        Bytes from an element of the result to that of the array that RESIDUAL adds.
    last_lanes : int
        How many lanes of the last vector of columns are stored.
    padding : int
        The address of the pixel of the padding: taps that read it in every row are left out.
    """
    vec = vector_of(panel.dtype)
    i64 = types.int64
    sig = types.void(i64, sources, i64, i64, i64, i64, panel, i64, outs, i64, i64, i64, bias, i64, i64, i64)

    def codegen(context, builder, sig, args):
        ir_by_width(builder, args[0], lambda vectors, rows: _panel_tile(builder, vec, rows, vectors, *args[1:]))
        return context.get_dummy_value()

    return sig, codegen


def _outer_tile(
    builder: ir.IRBuilder,
    vec: Vec,
    rows: int,
    vectors: int,
    runs: ir.Value,
    count: ir.Value,
    steps: tuple[ir.Value, ir.Value],
    offsets: tuple[ir.Value, ir.Value],
    row_offsets: list[ir.Value],
    out: ir.Value,
    out_step: ir.Value,
    accumulate: ir.Value,
    valid: ir.Value,
    last_lanes: ir.Value,
    ahead: ir.Value,
    ahead_offset: ir.Value,
    ahead_step: ir.Value,
    masked: bool,
) -> None:
    mask = ir_tail_mask(builder, last_lanes, vec.lanes)
    pointer_type = out.type
    zero = ir.Constant(ir.VectorType(out.type.pointee, vec.lanes), None)
    for i in range(rows):
        row = builder.gep(out, [builder.mul(ir_int(i), out_step)])
        for j in range(vectors):
            ir_prefetch(builder, builder.gep(row, [ir_int(j * vec.lanes)]), write=1)
    with Loop(builder, count, [zero] * (rows * vectors), "runs") as run:
        entry = builder.gep(runs, [builder.mul(run.index, ir_int(3))])
        g = builder.gep(builder.inttoptr(builder.load(entry), pointer_type), [offsets[0]])
        x = builder.gep(builder.inttoptr(builder.load(builder.gep(entry, [ir_int(1)])), pointer_type), [offsets[1]])
        pixels = builder.load(builder.gep(entry, [ir_int(2)]))
        coming = builder.load(builder.gep(ahead, [builder.mul(run.index, ir_int(3))]))
        coming = builder.gep(builder.inttoptr(coming, pointer_type), [ahead_offset])
        with Loop(builder, pixels, [*run.carried, g, x, coming], "pixels") as pixel:
            *old, g_here, x_here, next_here = pixel.carried
            if vectors > 1:  # that of one vector waits for its loads already
                ir_prefetch(builder, next_here, locality=2)
            columns = []
            for j in range(vectors):
                spot = builder.gep(x_here, [ir_int(j * vec.lanes)])
                last = masked and j == vectors - 1
                columns.append(ir_masked_load(builder, spot, vec, mask) if last else ir_load(builder, spot, vec))
            sums = []
            for i, accumulators in enumerate(ir_grid(old, vectors)):
                value = ir_splat(builder, builder.load(builder.gep(g_here, [row_offsets[i]])), vec.lanes)
                sums += [ir_call(builder, "llvm.fma", vec, value, c, a) for c, a in zip(columns, accumulators)]
            following = [g_here, x_here, next_here], [*steps, ahead_step]
            sums = pixel.close([*sums, *(builder.gep(p, [step]) for p, step in zip(*following))])[:-3]
            ir_keep_rolled(builder, pixel)
        sums = run.close(sums)
        ir_keep_rolled(builder, run)

    adding = builder.icmp_signed("!=", accumulate, ir_int(0))
    for i in range(rows):
        row = builder.gep(out, [builder.mul(ir_int(i), out_step)])
        with builder.if_then(builder.icmp_signed("<", ir_int(i), valid)):
            for j in range(vectors):
                spot, value = builder.gep(row, [ir_int(j * vec.lanes)]), sums[i * vectors + j]
                last = masked and j == vectors - 1

                def add(values: list[ir.Value], spot: ir.Value = spot, last: bool = last) -> list[ir.Value]:
                    old = ir_masked_load(builder, spot, vec, mask) if last else ir_load(builder, spot, vec)
                    return [builder.fadd(values[0], old)]

                [value] = ir_conditionally(builder, adding, [value], add)
                if last:
                    ir_masked_store(builder, value, spot, vec, mask)
                else:
                    ir_store(builder, value, spot, vec)


@intrinsic
def outer_tile(
    typingctx, width, runs, count, g_step, x_step, g_offset, x_offset, row_offsets, contiguous,
    out, out_step, accumulate, valid, last_lanes, ahead, ahead_offset, ahead_step,
):  # fmt: skip
    """Compute one tile of ``tile_rows(width)`` rows and ``width`` vectors of columns of a sum of outer products.

    Parameters
    ----------
    width : int
        Number of vectors.
    runs : pointer to int64
        Three numbers a run of pixels: address of its first g, address of its first x, number of pixels.
    count : int
        Number of runs.
    g_step, x_step : int
        Elements from a pixel to the next.
    g_offset, x_offset : int
        Elements from a run's addresses to the tile's first row and column.
    row_offsets : pointer to int64
        Elements from there to each row's g: ``tile_rows(width)`` numbers, all of them readable,
    contiguous : int
        unless this is not 0 and the tile is whole: then row i is i elements behind the first.
    out : pointer
    out_step : int
        Elements from a row of the result to the next.
    accumulate : int
        Not 0: add to what is there.
    valid : int
        How many rows of the result are left, from the tile's first on; those beyond are not stored.
    last_lanes : int
        How many lanes of the last vector of columns exist.
    ahead : pointer to int64
        Every third number is the address of a run of pixels that are needed later. With each pixel of the run of the
        same number here, a cache line of one of those comes to the second-level cache:
    ahead_offset, ahead_step : int
        of the element so far behind the address, and so far from a pixel to the next. (`runs`, 0 and 0: of none.)
    """
    vec = vector_of(out.dtype)
    i64 = types.int64
    sig = types.void(i64, runs, i64, i64, i64, i64, i64, row_offsets, i64, out, i64, i64, i64, i64, ahead, i64, i64)

    def codegen(context, builder, sig, args):
        width, runs, count, g_step, x_step, g_offset, x_offset, table, contiguous, *rest = args

        def emit(vectors: int, rows: int) -> None:
            common = (builder, vec, rows, vectors, runs, count, (g_step, x_step), (g_offset, x_offset))
            whole = builder.icmp_signed("<=", ir_int(rows), rest[3])
            plain = builder.and_(whole, builder.icmp_signed("!=", contiguous, ir_int(0)))

            def tile(offsets: list[ir.Value]) -> None:
                if host_isa().masks:
                    _outer_tile(*common, offsets, *rest, True)
                    return
                # The loop has no register for a mask.
                with builder.if_else(builder.icmp_signed("==", rest[4], ir_int(vec.lanes))) as (unmasked, masked):
                    with unmasked:
                        _outer_tile(*common, offsets, *rest, False)
                    with masked:
                        _outer_tile(*common, offsets, *rest, True)

            with builder.if_else(plain) as (then, otherwise):
                with then:
                    tile([ir_int(i) for i in range(rows)])
                with otherwise:
                    tile([builder.load(builder.gep(table, [ir_int(i)])) for i in range(rows)])

        ir_by_width(builder, width, emit)
        return context.get_dummy_value()

    return sig, codegen


__all__ = [
    "ACCUMULATE",
    "BIAS",
    "MAX_ROWS",
    "MAX_VECTORS",
    "RELU",
    "RESIDUAL",
    "SIX",
    "address",
    "epilogue_flags",
    "outer_tile",
    "panel_tile",
    "stack_buffer",
    "tile_rows",
    "whole_tiles",
]
