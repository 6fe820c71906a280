"""The three transforms of Winograd's minimal filtering F(4x4, 3x3), on vectors of channels in registers.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), section 4.3: an output tile of
4 x 4 is ``AT [ (G g GT) * (BT d B) ] A`` with the 6 x 6 input tile d, the filter g, and the element-wise product summed
over channels. 36 products replace 144. The evaluation points are 0, 1, -1, 2, -2 and infinity.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
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

TILE = 4  # output pixels of a tile along each axis
SPAN = 6  # input pixels of a tile along each axis
POINTS = SPAN * SPAN

_I64 = ir.IntType(64)

INPUT = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
         (0, 4, 0, -5, 0, 1))  # fmt: skip
WEIGHT = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
          (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

Matrix = Sequence[Sequence[float]]
Grid = list[list[ir.Value]]


def _combination(builder: ir.IRBuilder, vec: Vec, factors: Sequence[float], values: Sequence[ir.Value]) -> ir.Value:
    """Return the sum of factor times value, without the products by 0, 1 and -1."""
    total = None
    for factor, value in zip(factors, values):
        if factor == 0:
            continue
        if total is None:
            total = {1: value}.get(factor) or builder.fmul(value, ir_constant(vec, factor))
        elif factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            total = ir_call(builder, "llvm.fma", vec, value, ir_constant(vec, factor), total)
    return total


def _both_sides(builder: ir.IRBuilder, vec: Vec, matrix: Matrix, grid: Grid) -> Grid:
    """Return ``matrix @ grid @ matrix.T``."""
    columns = [[_combination(builder, vec, row, column) for row in matrix] for column in zip(*grid)]
    rows = list(zip(*columns))
    return [[_combination(builder, vec, factors, row) for factors in matrix] for row in rows]


def _int(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


@intrinsic
def transform_input(typingctx, sources, channel, count, out, first, step):
    """Transform one vector of channels of an input tile.

    Parameters
    ----------
    sources : pointer to int64
        Addresses of the 36 pixels, row by row.
    channel, count : int
        The channels from `channel` on; so many of them exist.
    out : pointer
    first, step : int
        Point i of the transformed tile is written to ``out[first + i * step]``.
    """
    vec = vector_of(out.dtype)
    i64 = types.int64

    def codegen(context, builder, sig, args):
        sources, channel, count, out, first, step = args
        mask = ir_tail_mask(builder, count, vec.lanes)
        pixels = []
        for i in range(POINTS):
            pixel = builder.inttoptr(builder.load(builder.gep(sources, [_int(i)])), out.type)
            pixels.append(ir_masked_load(builder, builder.gep(pixel, [channel]), vec, mask))
        grid = [pixels[i : i + SPAN] for i in range(0, POINTS, SPAN)]
        for i, value in enumerate(sum(_both_sides(builder, vec, INPUT, grid), [])):
            spot = builder.gep(out, [builder.add(first, builder.mul(step, _int(i)))])
            ir_masked_store(builder, value, spot, vec, mask)
        return context.get_dummy_value()

    return types.void(sources, i64, i64, out, i64, i64), codegen


@intrinsic
def transform_weight(typingctx, packed, first, tap_step, out, start, step):
    """Transform one vector of out-channels of a packed filter: nine taps in, 36 points out."""
    vec = vector_of(out.dtype)
    i64 = types.int64

    def codegen(context, builder, sig, args):
        packed, first, tap_step, out, start, step = args
        taps = [
            ir_load(builder, builder.gep(packed, [builder.add(first, builder.mul(tap_step, _int(t)))]), vec)
            for t in range(9)
        ]
        grid = [taps[t : t + 3] for t in range(0, 9, 3)]
        for i, value in enumerate(sum(_both_sides(builder, vec, WEIGHT, grid), [])):
            ir_store(builder, value, builder.gep(out, [builder.add(start, builder.mul(step, _int(i)))]), vec)
        return context.get_dummy_value()

    return types.void(packed, i64, i64, out, i64, i64), codegen


@intrinsic
def transform_output(typingctx, products, first, step, destinations, column, count, bias, relu):
    """Transform one vector of out-channels back and store the pixels that exist.

    Parameters
    ----------
    products : pointer
    first, step : int
        Point i is read from ``products[first + i * step]``.
    destinations : pointer to int64
        Addresses of the 16 output pixels, row by row; 0 where the output has no such pixel.
    column, count : int
        The out-channels from `column` on; so many of them exist.
    bias : pointer
        One number an out-channel.
    relu : int
        Not 0: clamp at zero.
    """
    vec = vector_of(products.dtype)
    i64 = types.int64

    def codegen(context, builder, sig, args):
        products, first, step, destinations, column, count, bias, relu = args
        mask = ir_tail_mask(builder, count, vec.lanes)
        zero = ir.Constant(ir.VectorType(products.type.pointee, vec.lanes), None)
        added = ir_masked_load(builder, builder.gep(bias, [column]), vec, mask)
        clamp = builder.icmp_signed("!=", relu, _int(0))
        points = [
            ir_load(builder, builder.gep(products, [builder.add(first, builder.mul(step, _int(i)))]), vec)
            for i in range(POINTS)
        ]
        grid = [points[i : i + SPAN] for i in range(0, POINTS, SPAN)]
        for i, value in enumerate(sum(_both_sides(builder, vec, OUTPUT, grid), [])):
            value = builder.fadd(value, added)
            value = builder.select(clamp, builder.select(builder.fcmp_ordered("<=", value, zero), zero, value), value)
            address = builder.load(builder.gep(destinations, [_int(i)]))
            with builder.if_then(builder.icmp_signed("!=", address, _int(0))):
                spot = builder.gep(builder.inttoptr(address, products.type), [column])
                ir_masked_store(builder, value, spot, vec, mask)
        return context.get_dummy_value()

    return types.void(products, i64, i64, destinations, i64, i64, bias, i64), codegen
