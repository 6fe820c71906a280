"""The transforms of Winograd's F(3x3, 4x4), which gives the gradient of a 3x3 filter, on vectors of channels.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308): here the filter is a tile of
4 x 4 gradients g, its input are 6 x 6 pixels d, and the 3 x 3 results are ``AT [ (G g GT) * (BT d B) ] A``, where the
element-wise product is summed over tiles. The points are those of F(4x4, 3x3), and so is the transform of the input. G
holds the powers of the points; what they are divided by is in AT, which is applied least often.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import ir_int
from numbanet.cpu.isa import host_isa
from numbanet.cpu.vector import ir_load, ir_masked_load, ir_masked_store, ir_tail_mask, vector_of
from numbanet.cpu.winograd import SPAN, TILE, A, B, at_an_edge, both_sides, inside, lowering

TAPS = 3  # of a filter along each axis

_MIDDLE = ((A, B), (-A, B), (B, A), (-B, A))  # points but 0 and infinity, each with that of the other pair


def _scale(point: float, other: float) -> float:
    """Return the product of the distances from a point to the other points."""
    return 2 * point**2 * (point**2 - other**2)


GRADIENT = ((1, 0, 0, 0), *(tuple(p**j for j in range(TILE)) for p, _ in _MIDDLE), (0, 0, 0, 1))
OUTPUT = tuple(
    (float(i == 0) / (A * B) ** 2, *(p**i / _scale(p, other) for p, other in _MIDDLE), float(i == 2))
    for i in range(TAPS)
)

# Where there are few registers, a tile is read in several passes (see `numbanet.cpu.winograd`).
_MANY_REGISTERS = host_isa().tile_vectors * host_isa().tile_rows[-1] > 16
_GRADIENT_PASSES = ((0, 1, 2, 3, 4, 5),) if _MANY_REGISTERS else ((0, 5), (1, 2), (3, 4))
_OUTPUT_PASSES = ((0, 1, 2),) if _MANY_REGISTERS else ((0, 2), (1,))


@intrinsic
def transform_gradient(typingctx, source, row_step, pixel_step, out, step):
    """Transform a whole vector of channels of a tile of gradients that lies inside the image.

    Parameters
    ----------
    source : pointer
        The first channel of the first pixel.
    row_step, pixel_step : int
        Elements from a pixel to the one below and to the one on the right.
    out : pointer
    step : int
        Point i of the transformed tile is written to ``out[i * step]``.
    """
    vec, i64 = vector_of(out.dtype), types.int64

    emit = inside(vec, GRADIENT, _GRADIENT_PASSES)
    return types.void(source, i64, i64, out, i64), lowering("transform_gradient", emit)


@intrinsic
def transform_gradient_edge(typingctx, pixels, channel, count, out, step):
    """Transform one vector of channels of any tile of gradients, of which `count` channels exist; the others are zero.

    Parameters
    ----------
    pixels : pointer to int64
        Addresses of the 16 pixels, row by row.
    channel, count : int
        The channels from `channel` on; so many of them exist.
    out : pointer
    step : int
        Point i of the transformed tile is written to ``out[i * step]``, a whole vector.
    """
    vec, i64 = vector_of(out.dtype), types.int64

    emit = at_an_edge(vec, GRADIENT, _GRADIENT_PASSES)
    return types.void(pixels, i64, i64, out, i64), lowering("transform_gradient_edge", emit)


@intrinsic
def transform_sums(typingctx, sums, step, out, tap_step, count, accumulate):
    """Transform one vector of in-channels of the 36 sums of products to the nine taps of a filter.

    Parameters
    ----------
    sums : pointer
    step : int
        Point i is read from ``sums[i * step]``.
    out : pointer
    tap_step : int
        Tap i is written to ``out[i * tap_step]``.
    count : int
        So many channels exist.
    accumulate : int
        Not 0: add to what is there.
    """
    vec, i64 = vector_of(sums.dtype), types.int64

    def emit(builder, sums, step, out, tap_step, count, accumulate):
        mask = ir_tail_mask(builder, count, vec.lanes)
        adding = builder.icmp_signed("!=", accumulate, ir_int(0))
        old_mask = builder.select(adding, mask, ir.Constant(mask.type, None))  # zeros where there is nothing to add to

        def read(i: int, j: int) -> ir.Value:
            return ir_load(builder, builder.gep(sums, [builder.mul(step, ir_int(i * SPAN + j))]), vec)

        def write(i: int, values: list[ir.Value]) -> None:
            for j, value in enumerate(values):
                spot = builder.gep(out, [builder.mul(tap_step, ir_int(i * TAPS + j))])
                old = ir_masked_load(builder, spot, vec, old_mask)
                ir_masked_store(builder, builder.fadd(value, old), spot, vec, mask)

        both_sides(builder, vec, OUTPUT, _OUTPUT_PASSES, read, write)

    return types.void(sums, i64, out, i64, i64, i64), lowering("transform_sums", emit)
