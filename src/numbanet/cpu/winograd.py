"""The three transforms of Winograd's minimal filtering (`numbanet.cpu.winograd_form`), on vectors of channels.

A tile is transformed in registers. The first argument of each is the form, for which it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import ir_conditionally, ir_int, ir_switch
from numbanet.cpu.tile import RELU, RESIDUAL, SIX, has_flag, ir_shifted
from numbanet.cpu.vector import (
    Vec,
    ir_call,
    ir_constant,
    ir_load,
    ir_masked_load,
    ir_masked_store,
    ir_store,
    ir_tail_mask,
    vector_of,
)
from numbanet.cpu.winograd_form import Form, Matrix, Phase, Transform

Values = Sequence[ir.Value]


def _add_product(builder: ir.IRBuilder, vec: Vec, total: ir.Value | None, factor: float, value: ir.Value) -> ir.Value:
    """Return total + factor * value, without the product where the factor is 1 or -1."""
    if total is None:
        return value if factor == 1 else builder.fmul(value, ir_constant(vec, factor))
    if factor == 1:
        return builder.fadd(total, value)
    if factor == -1:
        return builder.fsub(total, value)
    return ir_call(builder, "llvm.fma", vec, value, ir_constant(vec, factor), total)


def _combination(builder: ir.IRBuilder, vec: Vec, factors: Sequence[float], values: Values) -> ir.Value:
    """Return the sum of factor times value; it starts with a term that needs no product, if there is one."""
    terms = sorted(((f, v) for f, v in zip(factors, values) if f), key=lambda term: term[0] != 1)
    total = None
    for factor, value in terms:
        total = _add_product(builder, vec, total, factor, value)
    return total


def _parity(a: Sequence[float], b: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """Return (e, o) with a = e + o and b = e - o, of which no place is set in both; None if a and b are not so."""
    if any(abs(x) != abs(y) for x, y in zip(a, b)):
        return None
    even = [x if x == y else 0 for x, y in zip(a, b)]
    odd = [0 if x == y else x for x, y in zip(a, b)]
    return (even, odd) if any(even) and any(odd) else None


def _pairs(vectors: Matrix) -> dict[int, int]:
    """Return the pairs of rows that are the sum and the difference of an even and an odd part: points p and -p."""
    pairs: dict[int, int] = {}
    for i, a in enumerate(vectors):
        for j in range(i + 1, len(vectors)):
            if i not in pairs.values() and j not in pairs.values() and _parity(a, vectors[j]):
                pairs[i] = j
                break
    return pairs


def _fold_columns(builder: ir.IRBuilder, matrix: Matrix, values: Values) -> tuple[list[list[float]], list[ir.Value]]:
    """Return an equal product in which values that meet as p and -p are replaced by their sum and their difference."""
    columns, folded = [list(column) for column in zip(*matrix)], list(values)
    for i, j in _pairs(columns).items():
        even, odd = _parity(columns[i], columns[j])  # type: ignore[misc]
        columns[i], columns[j] = even, odd
        folded[i], folded[j] = builder.fadd(values[i], values[j]), builder.fsub(values[i], values[j])
    return [list(row) for row in zip(*columns)], folded


def product(builder: ir.IRBuilder, vec: Vec, matrix: Matrix, rows: Sequence[int], values: Values) -> list[ir.Value]:
    """Return some rows of ``matrix @ values``, with the sums that points p and -p share formed once."""
    matrix, values = _fold_columns(builder, matrix, values)
    results: dict[int, ir.Value] = {}
    for i, j in _pairs(matrix).items():
        if i in rows and j in rows:
            even, odd = _parity(matrix[i], matrix[j])  # type: ignore[misc]
            scale = [x for x in odd if x][-1]
            base = _combination(builder, vec, even, values)
            other = _combination(builder, vec, [x / scale for x in odd], values)
            results[i] = _add_product(builder, vec, base, scale, other)
            results[j] = _add_product(builder, vec, base, -scale, other)
    return [results[i] if i in results else _combination(builder, vec, matrix[i], values) for i in rows]


def both_sides(
    builder: ir.IRBuilder,
    vec: Vec,
    transform: Transform,
    read: Callable[[int, int], ir.Value],
    write: Callable[[int, list[ir.Value]], None],
) -> None:
    """Compute ``down @ tile @ across.T``.

    Parameters
    ----------
    transform : Transform
        The matrices, and the rows of the result that each pass over the tile computes.
    read : callable
        ``read(i, j)`` returns element (i, j) of the tile; it is called once a pass.
    write : callable
        ``write(i, values)`` takes row i of the result.
    """
    down, across, passes = transform
    for rows in passes:
        halves = [
            product(builder, vec, down, rows, [read(i, j) for i in range(len(down[0]))]) for j in range(len(across[0]))
        ]
        for i, half in zip(rows, zip(*halves)):
            write(i, product(builder, vec, across, range(len(across)), half))


def _at(builder: ir.IRBuilder, base: ir.Value, *terms: tuple[int, ir.Value]) -> ir.Value:
    """Return the pointer that lies the sum of count * step behind the base."""
    for count, step in terms:
        base = builder.gep(base, [builder.mul(step, ir_int(count))])
    return base


def outlined(builder: ir.IRBuilder, name: str, args: Sequence[ir.Value], emit: Callable[..., None]) -> None:
    """Call a function of the module that ``emit(builder, *args)`` writes when it is first called.

    It stays a function of its own: inlined into a loop, the dozens of addresses of a transform would all be kept in
    memory from one pass to the next, which takes longer than to compute them.
    """
    name = f"numbanet.{name}"
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in args])
        function = ir.Function(builder.module, kind, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inside = ir.IRBuilder(function.append_basic_block("entry"))
        emit(inside, *function.args)
        inside.ret_void()
    builder.call(function, args)


def lowering(name: str, emit: Callable[..., None]) -> Callable[..., ir.Value]:
    """Return how an intrinsic of a form, without a result, is lowered: to a call of what `emit` writes."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        outlined(builder, name, args[1:], emit)
        return context.get_dummy_value()

    return codegen


def lowering_of_phase(name: str, form: Form, emit: Callable[[Phase], Callable[..., None]]) -> Callable[..., ir.Value]:
    """Likewise, for an intrinsic whose second argument is the number of a phase."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        def call(number: int) -> None:
            outlined(builder, f"{name}.{number}", args[2:], emit(form.phases[number]))

        ir_switch(builder, args[1], range(form.phase_count), call)
        return context.get_dummy_value()

    return codegen


def store_points(builder: ir.IRBuilder, vec: Vec, span: int, out: ir.Value, step: ir.Value) -> Callable:
    """Return a `write` for `both_sides` that stores point i, counted row by row, to ``out[i * step]``."""

    def write(i: int, values: list[ir.Value]) -> None:
        spot = _at(builder, out, (i * span, step))
        for value in values:
            ir_store(builder, value, spot, vec)
            spot = builder.gep(spot, [step])

    return write


def inside(vec: Vec, span: int, transform: Transform) -> Callable[..., None]:
    """Return the `emit` that transforms whole vectors of channels of a tile inside the image: see `transform_input`."""

    def emit(builder, source, row_step, pixel_step, out, step):
        def read(i: int, j: int) -> ir.Value:
            return ir_load(builder, _at(builder, source, (i, row_step), (j, pixel_step)), vec)

        both_sides(builder, vec, transform, read, store_points(builder, vec, span, out, step))

    return emit


def at_an_edge(vec: Vec, span: int, transform: Transform, spot: Callable[[int, int], int]) -> Callable[..., None]:
    """Return the `emit` that transforms any tile, by the addresses of its pixels: see `transform_input_edge`.

    That of pixel (i, j) is number ``spot(i, j)``.
    """

    def emit(builder, pixels, channel, count, out, step):
        mask = ir_tail_mask(builder, count, vec.lanes)

        def read(i: int, j: int) -> ir.Value:
            pixel = builder.inttoptr(builder.load(builder.gep(pixels, [ir_int(spot(i, j))])), out.type)
            return ir_masked_load(builder, builder.gep(pixel, [channel]), vec, mask)

        both_sides(builder, vec, transform, read, store_points(builder, vec, span, out, step))

    return emit


@intrinsic
def transform_input(typingctx, f, phase, source, row_step, pixel_step, out, step):
    """Transform a whole vector of channels of a phase of an input tile that lies inside the image.

    Parameters
    ----------
    phase : int
    source : pointer
        The first channel of the first pixel of the phase.
    row_step, pixel_step : int
        Elements from a pixel to the next of the phase below and on the right.
    out : pointer
    step : int
        Point i of the transformed tile is written to ``out[i * step]``.
    """
    form, vec, i64 = f.form, vector_of(out.dtype), types.int64

    def emit(phase: Phase) -> Callable[..., None]:
        return inside(vec, form.span, phase.input)

    return types.void(f, i64, source, i64, i64, out, i64), lowering_of_phase("transform_input", form, emit)


@intrinsic
def transform_input_edge(typingctx, f, phase, pixels, channel, count, out, step):
    """Transform one vector of channels of a phase of any input tile; `count` channels exist, the others are zero.

    Parameters
    ----------
    phase : int
    pixels : pointer to int64
        Addresses of the extent x extent pixels of the tile, row by row.
    channel, count : int
        The channels from `channel` on; so many of them exist.
    out : pointer
    step : int
        Point i of the transformed tile is written to ``out[i * step]``, a whole vector.
    """
    form, vec, i64 = f.form, vector_of(out.dtype), types.int64

    def emit(phase: Phase) -> Callable[..., None]:
        def spot(i: int, j: int) -> int:
            return (phase.row + form.stride * i) * form.extent + phase.column + form.stride * j

        return at_an_edge(vec, form.span, phase.input, spot)

    return types.void(f, i64, pixels, i64, i64, out, i64), lowering_of_phase("transform_input_edge", form, emit)


@intrinsic
def transform_weight(typingctx, f, phase, taps, tap_step, count, out, step):
    """Transform one vector of columns of a phase of a filter: taps in, points out.

    Parameters
    ----------
    phase : int
    taps : pointer
        The first tap of the filter; tap t lies ``t * tap_step`` elements behind.
    tap_step : int
    count : int
        So many columns exist; the others are zero.
    out : pointer
    step : int
        Point i is written to ``out[i * step]``, a whole vector.
    """
    form, vec, i64 = f.form, vector_of(out.dtype), types.int64

    def emit(phase: Phase) -> Callable[..., None]:
        def emit_phase(builder, taps, tap_step, count, out, step):
            mask = ir_tail_mask(builder, count, vec.lanes)

            def read(i: int, j: int) -> ir.Value:
                tap = tap_of(form, phase, i, j)
                return ir_masked_load(builder, _at(builder, taps, (tap, tap_step)), vec, mask)

            both_sides(builder, vec, phase.weight, read, store_points(builder, vec, form.span, out, step))

        return emit_phase

    return types.void(f, i64, taps, i64, i64, out, i64), lowering_of_phase("transform_weight", form, emit)


def tap_of(form: Form, phase: Phase, i: int, j: int) -> int:
    """Return the number, within its filter, of tap (i, j) of a phase."""
    return form.taps * (phase.row + form.stride * i) + phase.column + form.stride * j


def _transform_output(
    span: int, transform: Transform, builder: ir.IRBuilder, vec: Vec, products: ir.Value, step: ir.Value,
    bias: ir.Value, flags: ir.Value, residual: Callable[[int, int], ir.Value],
    write: Callable[[int, int, ir.Value], None],
) -> None:  # fmt: skip
    zero, six = ir_constant(vec, 0.0), ir_constant(vec, 6.0)

    def read(i: int, j: int) -> ir.Value:
        return ir_load(builder, _at(builder, products, (i * span + j, step)), vec)

    def finish(i: int, values: list[ir.Value]) -> None:
        def add_residual(values: list[ir.Value]) -> list[ir.Value]:
            return [builder.fadd(value, residual(i, j)) for j, value in enumerate(values)]

        # Ordered comparisons keep NaN; in this form each is one instruction.
        def relu(values: list[ir.Value]) -> list[ir.Value]:
            return [builder.select(builder.fcmp_ordered(">", zero, v), zero, v) for v in values]

        def clamp_at_six(values: list[ir.Value]) -> list[ir.Value]:
            return [builder.select(builder.fcmp_ordered("<", six, v), six, v) for v in values]

        values = [builder.fadd(value, bias) for value in values]
        values = ir_conditionally(builder, has_flag(builder, flags, RESIDUAL), values, add_residual)
        values = ir_conditionally(builder, has_flag(builder, flags, RELU), values, relu)
        values = ir_conditionally(builder, has_flag(builder, flags, SIX), values, clamp_at_six)
        for j, value in enumerate(values):
            write(i, j, value)

    both_sides(builder, vec, transform, read, finish)


@intrinsic
def transform_output(typingctx, f, phase, products, step, out, row_step, pixel_step, bias, flags, residual):
    """Transform a whole vector of out-channels back and store a tile that lies inside the output.

    Parameters
    ----------
    phase : int
        That of the output; 0 where the products are of all phases.
    products : pointer
    step : int
        Point i is read from ``products[i * step]``.
    out : pointer
        The first channel of the first output pixel.
    row_step, pixel_step : int
        Elements from a pixel to the next below and on the right.
    bias : pointer
        One number an out-channel, from the same channel on: always added.
    flags : int
        RESIDUAL | RELU | SIX.
    residual : int
        Bytes from an element of the output to that of the array that RESIDUAL adds.
    """
    form, vec, i64 = f.form, vector_of(products.dtype), types.int64

    def emit(phase: Phase) -> Callable[..., None]:
        def emit_phase(builder, products, step, out, row_step, pixel_step, bias, flags, residual):
            def spot(i: int, j: int) -> ir.Value:
                return _at(builder, out, (i, row_step), (j, pixel_step))

            _transform_output(
                form.span, phase.output, builder, vec, products, step, ir_load(builder, bias, vec), flags,
                lambda i, j: ir_load(builder, ir_shifted(builder, spot(i, j), residual), vec),
                lambda i, j, value: ir_store(builder, value, spot(i, j), vec),
            )  # fmt: skip

        return emit_phase

    signature = types.void(f, i64, products, i64, out, i64, i64, bias, i64, i64)
    return signature, lowering_of_phase("transform_output", form, emit)


@intrinsic
def transform_output_edge(typingctx, f, phase, products, step, pixels, channel, count, bias, flags, residual, nowhere):
    """Transform one vector of out-channels back and store the pixels and channels that exist.

    Parameters
    ----------
    phase : int
        That of the output; 0 where the products are of all phases.
    products : pointer
    step : int
        Point i is read from ``products[i * step]``.
    pixels : pointer to int64
        Addresses of the tile x tile output pixels, row by row; 0 where the output has no such pixel.
    channel, count : int
        The out-channels from `channel` on; so many of them exist.
    bias, flags, residual
        As for `transform_output`.
    nowhere : pointer
        A vector that takes what belongs to pixels that do not exist. (A masked store to no memory at all takes a
        hundred times as long as one to some.)
    """
    form, vec, i64 = f.form, vector_of(products.dtype), types.int64

    def emit(phase: Phase) -> Callable[..., None]:
        def emit_phase(builder, products, step, pixels, channel, count, bias, flags, residual, nowhere):
            mask = ir_tail_mask(builder, count, vec.lanes)

            def spot(i: int, j: int, distance: ir.Value) -> ir.Value:
                pixel = builder.load(builder.gep(pixels, [ir_int(i * form.tile + j)]))
                there = builder.gep(builder.inttoptr(builder.add(pixel, distance), products.type), [channel])
                return builder.select(builder.icmp_signed("!=", pixel, ir_int(0)), there, nowhere)

            def read_residual(i: int, j: int) -> ir.Value:
                return ir_masked_load(builder, spot(i, j, residual), vec, mask)

            def write(i: int, j: int, value: ir.Value) -> None:
                ir_masked_store(builder, value, spot(i, j, ir_int(0)), vec, mask)

            added = ir_masked_load(builder, bias, vec, mask)
            _transform_output(
                form.span, phase.output, builder, vec, products, step, added, flags, read_residual, write
            )  # fmt: skip

        return emit_phase

    signature = types.void(f, i64, products, i64, pixels, i64, i64, bias, i64, i64, products)
    return signature, lowering_of_phase("transform_output_edge", form, emit)
