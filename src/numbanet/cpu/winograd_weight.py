"""The transforms of the gradient of a filter by Winograd's algorithms (`numbanet.cpu.winograd_form`).

The tile of gradients takes the place of the filter, and the sums of the products over all tiles give the filter's taps.
The first argument of each is the form, for which it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.flow import ir_int
from numbanet.cpu.vector import ir_load, ir_masked_load, ir_masked_store, ir_tail_mask, vector_of
from numbanet.cpu.winograd import at_an_edge, both_sides, inside, lowering, lowering_of_phase, tap_of
from numbanet.cpu.winograd_form import Phase


@intrinsic
def transform_gradient(typingctx, f, source, row_step, pixel_step, out, step):
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

    emit = inside(vec, f.form.span, f.form.gradient)
    return types.void(f, source, i64, i64, out, i64), lowering("transform_gradient", emit)


@intrinsic
def transform_gradient_edge(typingctx, f, pixels, channel, count, out, step):
    """Transform one vector of channels of any tile of gradients, of which `count` channels exist; the others are zero.

    Parameters
    ----------
    pixels : pointer to int64
        Addresses of the tile x tile pixels, row by row.
    channel, count : int
        The channels from `channel` on; so many of them exist.
    out : pointer
    step : int
        Point i of the transformed tile is written to ``out[i * step]``, a whole vector.
    """
    vec, i64 = vector_of(out.dtype), types.int64

    emit = at_an_edge(vec, f.form.span, f.form.gradient, lambda i, j: i * f.form.tile + j)
    return types.void(f, pixels, i64, i64, out, i64), lowering("transform_gradient_edge", emit)


@intrinsic
def transform_sums(typingctx, f, phase, sums, step, out, tap_step, count, accumulate):
    """Transform one vector of in-channels of the sums of products at all points to a phase's taps of a filter.

    Parameters
    ----------
    phase : int
    sums : pointer
    step : int
        Point i is read from ``sums[i * step]``.
    out : pointer
        The first tap of the filter.
    tap_step : int
        Tap i is written to ``out[i * tap_step]``.
    count : int
        So many channels exist.
    accumulate : int
        Not 0: add to what is there.
    """
    form, vec, i64 = f.form, vector_of(sums.dtype), types.int64

    def emit(phase: Phase) -> Callable[..., None]:
        def emit_phase(builder, sums, step, out, tap_step, count, accumulate):
            mask = ir_tail_mask(builder, count, vec.lanes)
            adding = builder.icmp_signed("!=", accumulate, ir_int(0))
            old_mask = builder.select(adding, mask, ir.Constant(mask.type, None))  # zeros: there is nothing to add to

            def read(i: int, j: int) -> ir.Value:
                return ir_load(builder, builder.gep(sums, [builder.mul(step, ir_int(i * form.span + j))]), vec)

            def write(i: int, values: list[ir.Value]) -> None:
                for j, value in enumerate(values):
                    tap = tap_of(form, phase, i, j)
                    spot = builder.gep(out, [builder.mul(tap_step, ir_int(tap))])
                    old = ir_masked_load(builder, spot, vec, old_mask)
                    ir_masked_store(builder, builder.fadd(value, old), spot, vec, mask)

            both_sides(builder, vec, phase.sums, read, write)

        return emit_phase

    signature = types.void(f, i64, sums, i64, out, i64, i64, i64)
    return signature, lowering_of_phase("transform_sums", form, emit)
