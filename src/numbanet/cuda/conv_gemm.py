"""Convolution, forward and backward_input, as one matrix product without an im2col copy, in float32.

Rows are output pixels, columns are channels; `numbanet.cuda.tile` multiplies. What a row reads at a step of the
reduction is given by a table, so that one kernel serves every filter, stride, padding and dilation, forward and
backward: the entry of some neighbouring elements of the reduction holds (dy, dx, offset in the source, offset in the
weight), and where the pixel (y + dy, x + dx) lies outside of the source, zeros are added.
"""

from __future__ import annotations

from functools import lru_cache

from numbanet.cuda import ptx, tile
from numbanet.cuda.compile import F32, I32, Int, Kernel, device, kernel
from numbanet.cuda.conv_plan import NOWHERE
from numbanet.cuda.division import located
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import Epilogue

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=64)
def conv_gemm(vector: bool, turned: bool, epilogue: Epilogue) -> Kernel:
    """Return the kernel of one kind of access.

    Parameters
    ----------
    vector : bool
        The channels of a group are multiples of 4 on both sides, so that every access takes 4 numbers and the table has
        an entry for 4 elements; else it has one for each.
    turned : bool
        The weight is contiguous along the columns (backward_input), not along the reduction (forward).
    epilogue : Epilogue
        What happens to the results before they are stored.
    """
    entries = tile.DEPTH // 4 if vector else tile.DEPTH
    size, half, side = tile.SIZE, tile.HALF, tile.SIDE

    @device
    def gather(operand, number, out):
        """Load 4 neighbouring elements of the reduction for one row."""
        source, table, first, base, h, w, height, width, inside = operand
        for i in range(4):
            if not vector or i == 0:
                dy, dx, offset, _ = ptx.load4(table, i32(4 * (number * entries + first + i)))
                y, x = i32(h + dy), i32(w + dx)
                valid = inside and 0 <= y and y < height and 0 <= x and x < width
                if vector:
                    if valid:
                        out[0], out[1], out[2], out[3] = ptx.load4(source, i32(base + offset))
                    else:
                        out[0], out[1], out[2], out[3] = f32(0), f32(0), f32(0), f32(0)
                else:
                    out[i] = source[i32(base + offset)] if valid else f32(0)

    @device
    def filters(operand, number, out):
        """Load 4 neighbouring elements of the weight: of the reduction, or (turned) of the columns."""
        weight, table, first, base, inside = operand
        for i in range(4):
            if not vector or i == 0:
                entry = i32(number * entries + first + (0 if turned else i))
                dy, _, _, offset = ptx.load4(table, i32(4 * entry))
                at = i32(base + offset)
                if vector:
                    if inside > 0 and dy != NOWHERE:
                        out[0], out[1], out[2], out[3] = ptx.load4(weight, at)
                    else:
                        out[0], out[1], out[2], out[3] = f32(0), f32(0), f32(0), f32(0)
                elif turned:
                    out[i] = weight[i32(at + i)] if i < inside and dy != NOWHERE else f32(0)
                else:
                    out[i] = weight[at] if inside > 0 and dy != NOWHERE else f32(0)

    accumulate = tile.product(gather, False, filters, turned)
    write = tile.writer(vector, epilogue)
    results, brought_a, brought_b = tile.results, tile.brought(False), tile.brought(turned)
    words = [word for word, chosen in (("vector", vector), ("turned", turned)) if chosen] + tile.words(epilogue)

    @kernel(threads=tile.THREADS, blocks=2, config=",".join(words))
    def gemm(
        rows: Int, columns: Int, slices: Int, share: Int, parts: Int, image_by: Int, image_shift: Int, row_by: Int,
        row_shift: Int, out_h: Int, out_w: Int, stride_h: Int, stride_w: Int, top: Int, left: Int, height: Int,
        width: Int, channels: Int, group_channels: Int, weight_group: Int, weight_step: Int, full_h: Int, full_w: Int,
        step_h: Int, step_w: Int, first_h: Int, first_w: Int, all_columns: Int, part_size: Int,
        x: F32, table: I32, weight: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        group = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - group * parts)
        first_row, first_column = i32(cuda.blockIdx.x * size), i32(cuda.blockIdx.y * size)
        # What this thread brings to shared memory: 4 elements of the reduction of one row ...
        place, line = brought_a()
        m = i32(first_row + place)
        n, i, j = located(m, (image_by, image_shift), (row_by, row_shift), out_h, out_w)
        h, w = i32(i * stride_h - top), i32(j * stride_w - left)
        base = i32(((n * height + h) * width + w) * channels + group * group_channels)
        a = (x, table, i32(line >> 2) if vector else line, base, h, w, height, width, m < rows)
        # ... and 4 elements of the weight: of one column's reduction, or of neighbouring columns.
        place, line = brought_b()
        column = i32(first_column + place)
        start = i32(group * weight_group)
        if turned:
            start = i32(start + column + ((line & 3) * weight_step if vector else 0))
        else:
            start = i32(start + column * weight_step)
        b = (weight, table, i32(line >> 2) if vector else line, start, i32(columns - column))

        total = cuda.local.array((side, side), f32)
        accumulate(i32(part * share), i32(min(slices, (part + 1) * share)), a, b, total)
        at_row, at_column = results()
        for p in range(side):
            m = i32(first_row + at_row + p % 4 + p // 4 * half)
            if m < rows:
                n, i, j = located(m, (image_by, image_shift), (row_by, row_shift), out_h, out_w)
                pixel = i32((n * full_h + i * step_h + first_h) * full_w + j * step_w + first_w)
                channel = i32(group * columns)
                start = i32(part * part_size + pixel * all_columns + channel)
                write(total, p, start, i32(first_column + at_column), columns, channel, bias, residual, y)

    return gemm
