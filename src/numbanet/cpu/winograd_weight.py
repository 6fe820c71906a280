"""The three transforms of Winograd's F(3x3, 4x4), which gives the gradient of a 3x3 filter, on vectors of channels.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308): here the filter is a tile of
4 x 4 gradients g, its input are 6 x 6 pixels d, and the 3 x 3 results are ``AT [ (G g GT) * (BT d B) ] A``, where the
element-wise product is summed over tiles. The points are those of F(4x4, 3x3): 0, 1, -1, 2, -2 and infinity; so is BT.

The points come in pairs 1, -1 and 2, -2: of such a pair, one needs the even and the odd part only, their sum and their
difference. So each matrix is written as a `_butterfly` and a matrix with half as many numbers in it. G is free of
fractions: they are in AT, which is applied least often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.simd import (
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

TILE = 4  # gradients of a tile along each axis
SPAN = 6  # input pixels of a tile along each axis
POINTS = SPAN * SPAN
TAPS = 3

_I64 = ir.IntType(64)

# Rows: the values at 0, even and odd part at 1, even and odd part at 2, the value at infinity.
INPUT = ((4, 0, -5, 0, 1, 0), (0, 0, -4, 0, 1, 0), (0, -4, 0, 1, 0, 0), (0, 0, -1, 0, 1, 0), (0, -2, 0, 2, 0, 0),
         (0, 4, 0, -5, 0, 1))  # fmt: skip
GRADIENT = ((1, 0, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 4, 0), (0, 2, 0, 8), (0, 0, 0, 1))
# Columns: likewise.
OUTPUT = ((1 / 4, -1 / 6, 0, 1 / 24, 0, 0), (0, 0, -1 / 6, 0, 1 / 12, 0), (0, -1 / 6, 0, 1 / 6, 0, 1))

Values = Sequence[ir.Value]
Line = Callable[[ir.IRBuilder, Vec, Values], list[ir.Value]]


def _combination(builder: ir.IRBuilder, vec: Vec, factors: Sequence[float], values: Values) -> ir.Value:
    """Return the sum of factor times value, with no product by 0, 1 and -1."""
    terms = sorted((f != 1, at) for at, f in enumerate(factors) if f)  # begin with one that needs no product
    total = None
    for _, at in terms:
        factor, value = factors[at], values[at]
        if total is None:
            total = value if factor == 1 else builder.fmul(value, ir_constant(vec, factor))
        elif factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            total = ir_call(builder, "llvm.fma", vec, value, ir_constant(vec, factor), total)
    return total


def _butterfly(builder: ir.IRBuilder, values: Values) -> list[ir.Value]:
    """Replace the second and third value, and the fourth and fifth, by their sum and their difference."""
    first, a, b, c, d, last = values
    return [first, builder.fadd(a, b), builder.fsub(a, b), builder.fadd(c, d), builder.fsub(c, d), last]


def _input_line(builder: ir.IRBuilder, vec: Vec, values: Values) -> list[ir.Value]:
    return _butterfly(builder, [_combination(builder, vec, row, values) for row in INPUT])


def _gradient_line(builder: ir.IRBuilder, vec: Vec, values: Values) -> list[ir.Value]:
    return _butterfly(builder, [_combination(builder, vec, row, values) for row in GRADIENT])


def _output_line(builder: ir.IRBuilder, vec: Vec, values: Values) -> list[ir.Value]:
    values = _butterfly(builder, values)
    return [_combination(builder, vec, row, values) for row in OUTPUT]


def _both_sides(builder: ir.IRBuilder, vec: Vec, line: Line, values: Values, size: int) -> list[ir.Value]:
    """Transform the columns, then the rows, of a grid with rows of `size` values."""
    columns = [line(builder, vec, values[i::size]) for i in range(size)]
    return [value for row in zip(*columns) for value in line(builder, vec, row)]


def _int(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _forth(line: Line, size: int) -> Callable:
    """Return the code generator of a transform of size x size pixels to the points."""

    def function(typingctx, sources, channel, count, out, first, step):
        vec = vector_of(out.dtype)
        i64 = types.int64

        def codegen(context, builder, sig, args):
            sources, channel, count, out, first, step = args
            mask = ir_tail_mask(builder, count, vec.lanes)
            pixels = []
            for i in range(size * size):
                pixel = builder.inttoptr(builder.load(builder.gep(sources, [_int(i)])), out.type)
                pixels.append(ir_masked_load(builder, builder.gep(pixel, [channel]), vec, mask))
            for i, value in enumerate(_both_sides(builder, vec, line, pixels, size)):
                ir_store(builder, value, builder.gep(out, [builder.add(first, builder.mul(step, _int(i)))]), vec)
            return context.get_dummy_value()

        return types.void(sources, i64, i64, out, i64, i64), codegen

    return function


def _transform(line: Line, size: int, name: str, what: str) -> Callable:
    function = _forth(line, size)
    function.__name__ = name
    function.__doc__ = f"""Transform one vector of channels of a tile of {what}.

    Parameters
    ----------
    sources : pointer to int64
        Addresses of the {size} x {size} pixels, row by row.
    channel, count : int
        The channels from `channel` on; so many of them exist. The lanes beyond become zeros.
    out : pointer
    first, step : int
        Point i of the transformed tile is written to ``out[first + i * step]``, a whole vector.
    """
    return intrinsic(function)


transform_pixels = _transform(_input_line, SPAN, "transform_pixels", "the input")
transform_gradient = _transform(_gradient_line, TILE, "transform_gradient", "gradients")


@intrinsic
def transform_back(typingctx, points, first, step, out, start, tap_step, count, accumulate):
    """Transform one vector of in-channels of the 36 summed products to the nine taps of a filter.

    Parameters
    ----------
    points : pointer
    first, step : int
        Point i is read from ``points[first + i * step]``.
    out : pointer
    start, tap_step : int
        Tap i is written to ``out[start + i * tap_step]``.
    count : int
        So many channels exist.
    accumulate : int
        Not 0: add to what is there.
    """
    vec = vector_of(points.dtype)
    i64 = types.int64

    def codegen(context, builder, sig, args):
        points, first, step, out, start, tap_step, count, accumulate = args
        mask = ir_tail_mask(builder, count, vec.lanes)
        adding = builder.icmp_signed("!=", accumulate, _int(0))
        old_mask = builder.select(adding, mask, ir.Constant(mask.type, None))  # zeros where there is nothing to add to
        values = [
            ir_load(builder, builder.gep(points, [builder.add(first, builder.mul(step, _int(i)))]), vec)
            for i in range(POINTS)
        ]
        for i, value in enumerate(_both_sides(builder, vec, _output_line, values, SPAN)):
            spot = builder.gep(out, [builder.add(start, builder.mul(tap_step, _int(i)))])
            old = ir_masked_load(builder, spot, vec, old_mask)
            ir_masked_store(builder, builder.fadd(value, old), spot, vec, mask)
        return context.get_dummy_value()

    return types.void(points, i64, i64, out, i64, i64, i64, i64), codegen


@intrinsic
def prefetch(typingctx, p, address, i):
    """Ask for the cache line of element i, of `p`'s dtype, behind an address, before it is needed."""

    def codegen(context, builder, sig, args):
        p, address, i = args
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        element = builder.bitcast(builder.gep(builder.inttoptr(address, p.type), [i]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [element, *(ir.Constant(i32, number) for number in (0, 3, 1))])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(p, types.int64, types.int64), codegen
