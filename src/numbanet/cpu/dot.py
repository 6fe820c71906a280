"""Products of a few rows and a matrix, which is read once, from where it lies: the inner loops.

A packed copy of the matrix would be read only a few times, and cost more than the product. Two forms, by the order of
the matrix in memory:

``dot_tile``
    Its rows run along the reduction: out[i, j] = sum over c of a[i][c] * b[j][c]. Vectors run along the reduction too,
    and the lanes of the accumulators are added in the end, many accumulators at once.
``axpy_tile``
    Its rows run along the result: out[i, :] (+)= sum over c of a[i][c] * b[c][:], for a few c.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import Loop, ir_conditionally, ir_grid, ir_int, ir_switch
from numbanet.cpu.isa import host_isa
from numbanet.cpu.vector import (
    Vec,
    ir_call,
    ir_load,
    ir_masked_load,
    ir_masked_store,
    ir_splat,
    ir_store,
    ir_tail_mask,
    vector_of,
)

FEW = (1, 2, 4)  # the rows that a tile may have

# Rows times columns of dots, or rows times terms of an axpy: half of the registers of the host.
_PRODUCTS = 16 if host_isa().tile_rows[0] > 8 else 8


# More rows of the matrix at once would push each other out of the first-level cache.
_LINES = 8


def _columns(vec: Vec, rows: int) -> int:
    return min(vec.lanes, _LINES, _PRODUCTS // rows)


def _terms(rows: int) -> int:
    return min(_LINES, _PRODUCTS // rows)


def _table(per_rows):
    """Return an intrinsic's code that looks up a number by the rows of a tile."""

    def codegen(context, builder, sig, args):
        found = ir_int(0)
        for count in FEW:
            here = builder.icmp_signed("==", args[1], ir_int(count))
            found = builder.select(here, ir_int(per_rows(count)), found)
        return found

    return codegen


@intrinsic
def dot_columns(typingctx, p, rows):
    """Return how many columns a `dot_tile` of so many rows has, for p's dtype."""
    vec = vector_of(p.dtype)
    return types.int64(p, types.int64), _table(lambda count: _columns(vec, count))


@intrinsic
def axpy_terms(typingctx, p, rows):
    """Return how many terms an `axpy_tile` of so many rows adds."""
    return types.int64(p, types.int64), _table(_terms)


def _lane_sums(builder: ir.IRBuilder, vec: Vec, vectors: list[ir.Value]) -> ir.Value:
    """Return a vector whose first lanes are the sums of the lanes of each vector, their number a power of two."""
    lanes = list(range(vec.lanes))
    index = ir.VectorType(ir.IntType(32), vec.lanes)

    def shuffled(a: ir.Value, b: ir.Value, order: list[int]) -> ir.Value:
        return builder.shuffle_vector(a, b, ir.Constant(index, order))

    count, half = len(vectors), vec.lanes // 2
    while len(vectors) > 1:  # two vectors become one: half of its lanes belong to each
        middle = len(vectors) // 2
        low = [j if not j & half else vec.lanes + j - half for j in lanes]
        high = [j + half if not j & half else vec.lanes + j for j in lanes]
        pairs = zip(vectors[:middle], vectors[middle:])
        vectors = [builder.fadd(shuffled(a, b, low), shuffled(a, b, high)) for a, b in pairs]
        half //= 2
    total = vectors[0]
    while half:
        total = builder.fadd(total, shuffled(total, total, [j ^ half for j in lanes]))
        half //= 2
    return shuffled(total, total, [j * (vec.lanes // count) % vec.lanes for j in lanes])


def _dot_tile(builder, vec, rows, a, a_step, b, b_step, count, out, out_step, valid_rows, valid_columns):
    columns = _columns(vec, rows)

    def clamped(i: int, valid: ir.Value) -> ir.Value:
        within = builder.icmp_signed("<", ir_int(i), valid)
        return builder.select(within, ir_int(i), builder.sub(valid, ir_int(1)))

    lefts = [builder.gep(a, [builder.mul(clamped(i, valid_rows), a_step)]) for i in range(rows)]
    rights = [builder.gep(b, [builder.mul(clamped(j, valid_columns), b_step)]) for j in range(columns)]
    zero = ir.Constant(ir.VectorType(out.type.pointee, vec.lanes), None)
    sums = [zero] * (rows * columns)

    def add_products(old: list[ir.Value], read) -> list[ir.Value]:
        values = [read(pointer) for pointer in lefts]
        new = list(old)
        for j, pointer in enumerate(rights):
            weight = read(pointer)
            for i, value in enumerate(values):
                new[i * columns + j] = ir_call(builder, "llvm.fma", vec, value, weight, new[i * columns + j])
        return new

    unroll = _PRODUCTS // (rows * columns)
    size = ir_int(vec.lanes * unroll)
    blocks = builder.sdiv(count, size)
    with Loop(builder, blocks, sums * unroll, "dots") as loop:
        first = builder.mul(loop.index, size)
        sums = []
        for u, part in enumerate(ir_grid(loop.carried, rows * columns)):
            at = builder.add(first, ir_int(u * vec.lanes))
            sums += add_products(part, lambda p, at=at: ir_load(builder, builder.gep(p, [at]), vec))
        sums = loop.close(sums)
    parts = ir_grid(sums, rows * columns)
    sums = parts[0]
    for part in parts[1:]:
        sums = [builder.fadd(x, y) for x, y in zip(sums, part)]
    begun = builder.mul(blocks, size)
    whole = builder.sdiv(count, ir_int(vec.lanes))
    with Loop(builder, builder.sub(whole, builder.mul(blocks, ir_int(unroll))), sums, "dots") as loop:
        at = builder.add(begun, builder.mul(loop.index, ir_int(vec.lanes)))
        sums = loop.close(add_products(loop.carried, lambda p: ir_load(builder, builder.gep(p, [at]), vec)))
    done = builder.mul(whole, ir_int(vec.lanes))
    mask = ir_tail_mask(builder, builder.sub(count, done), vec.lanes)

    def add_rest(old: list[ir.Value]) -> list[ir.Value]:
        return add_products(old, lambda p: ir_masked_load(builder, builder.gep(p, [done]), vec, mask))

    sums = ir_conditionally(builder, builder.icmp_signed("<", done, count), sums, add_rest)
    stored = ir_tail_mask(builder, valid_columns, vec.lanes)
    if columns < vec.lanes:
        stored = builder.and_(stored, ir_tail_mask(builder, ir_int(columns), vec.lanes))
    for i, row in enumerate(ir_grid(sums, columns)):
        with builder.if_then(builder.icmp_signed("<", ir_int(i), valid_rows)):
            spot = builder.gep(out, [builder.mul(ir_int(i), out_step)])
            ir_masked_store(builder, _lane_sums(builder, vec, row), spot, vec, stored)


@intrinsic
def dot_tile(typingctx, rows, a, a_step, b, b_step, count, out, out_step, valid_rows, valid_columns):
    """Write the scalar products of a few rows of `a` and ``dot_columns(a, rows)`` rows of `b`.

    Parameters
    ----------
    rows : int
        One of `FEW`.
    a, b : pointer
    a_step, b_step : int
        Elements from a row to the next.
    count : int
        Elements of a row.
    out : pointer
        ``out[i * out_step + j]`` is row i of `a` times row j of `b`.
    out_step : int
    valid_rows, valid_columns : int
        How many rows of `a` and `b` there are, at least one; no memory beyond them is touched.
    """
    vec, i64 = vector_of(out.dtype), types.int64

    def codegen(context, builder, sig, args):
        ir_switch(builder, args[0], FEW, lambda count: _dot_tile(builder, vec, count, *args[1:]))
        return context.get_dummy_value()

    return types.void(i64, a, i64, b, i64, i64, out, i64, i64, i64), codegen


def _axpy_tile(builder, vec, rows, terms, a, a_step, term_step, b, b_step, out, out_step, columns, accumulate):
    factors = []
    for i in range(rows):
        for c in range(terms):
            place = builder.add(builder.mul(ir_int(i), a_step), builder.mul(ir_int(c), term_step))
            factors.append(ir_splat(builder, builder.load(builder.gep(a, [place])), vec.lanes))
    lines = [builder.gep(b, [builder.mul(ir_int(c), b_step)]) for c in range(terms)]
    outs = [builder.gep(out, [builder.mul(ir_int(i), out_step)]) for i in range(rows)]
    adding = builder.icmp_signed("!=", accumulate, ir_int(0))

    def add_terms(at: ir.Value, read, write) -> None:
        values = [read(builder.gep(line, [at])) for line in lines]
        spots = [builder.gep(out, [at]) for out in outs]
        sums = []
        for row in ir_grid(factors, terms):
            total = builder.fmul(row[0], values[0])
            for factor, value in zip(row[1:], values[1:]):
                total = ir_call(builder, "llvm.fma", vec, factor, value, total)
            sums.append(total)
        sums = ir_conditionally(
            builder, adding, sums, lambda new: [builder.fadd(s, read(spot)) for s, spot in zip(new, spots)]
        )
        for value, spot in zip(sums, spots):
            write(value, spot)

    whole = builder.sdiv(columns, ir_int(vec.lanes))
    with Loop(builder, whole, [], "axpys") as loop:
        add_terms(
            builder.mul(loop.index, ir_int(vec.lanes)),
            lambda spot: ir_load(builder, spot, vec),
            lambda value, spot: ir_store(builder, value, spot, vec),
        )
        loop.close([])
    done = builder.mul(whole, ir_int(vec.lanes))
    mask = ir_tail_mask(builder, builder.sub(columns, done), vec.lanes)
    with builder.if_then(builder.icmp_signed("<", done, columns)):
        add_terms(
            done,
            lambda spot: ir_masked_load(builder, spot, vec, mask),
            lambda value, spot: ir_masked_store(builder, value, spot, vec, mask),
        )


@intrinsic
def axpy_tile(typingctx, rows, single, a, a_step, term_step, b, b_step, out, out_step, columns, accumulate):
    """Add ``axpy_terms(a, rows)`` rows of `b`, each times a number, to each of a few rows of `out`.

    Parameters
    ----------
    rows : int
        One of `FEW`.
    single : int
        Not 0: one row of `b` only.
    a : pointer
        ``a[i * a_step + c * term_step]`` is the factor of row c of `b` for row i of `out`.
    a_step, term_step : int
    b, out : pointer
    b_step, out_step : int
        Elements from a row to the next.
    columns : int
    accumulate : int
        Not 0: add to what is there.
    """
    vec, i64 = vector_of(out.dtype), types.int64

    def codegen(context, builder, sig, args):
        def emit(count: int) -> None:
            with builder.if_else(builder.icmp_signed("==", args[1], ir_int(0))) as (several, one):
                with several:
                    _axpy_tile(builder, vec, count, _terms(count), *args[2:])
                with one:
                    _axpy_tile(builder, vec, count, 1, *args[2:])

        ir_switch(builder, args[0], FEW, emit)
        return context.get_dummy_value()

    return types.void(i64, i64, a, i64, i64, b, i64, out, i64, i64, i64), codegen
