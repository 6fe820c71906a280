"""Convolution as one matrix product on tensor cores (`numbanet.cuda.mma_tile`), without an im2col copy.

Rows, columns, reductions and tables are those of the float32 kernels (`conv_gemm`, `conv_weight`); an entry of a table
stands for one chunk of 16 bytes, which an asynchronous copy brings, or replaces by zeros, outside of the image.
"""

from __future__ import annotations

from functools import lru_cache

from numbanet.cuda import mma_matrix, mma_tile, ptx, tile
from numbanet.cuda.compile import F32, I32, Int, Kernel, T, device, kernel
from numbanet.cuda.conv_plan import NOWHERE
from numbanet.cuda.division import located
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import Epilogue

i32, i64, f32 = types.int32, types.int64, types.float32
_BLOCKS = 2


@lru_cache(maxsize=64)
def conv_mma(engine: mma_tile.Engine, name: str, turned: bool, vector: bool, epilogue: Epilogue) -> Kernel:
    """Return the kernel of forward, or (`turned`) of backward_input.

    Parameters
    ----------
    engine : Engine
    name : str
        What the tensor cores multiply: a key of `mma_tile.KINDS`.
    turned : bool
        The weight is contiguous along the columns (backward_input), not along the reduction (forward).
    vector : bool
        Rows of the result have an even number of channels, so that a store takes 2.
    epilogue : Epilogue
        What happens to the results before they are stored.
    """
    kind = mma_tile.KINDS[name]
    lanes, entries, far = kind.lanes, kind.depth // kind.lanes, NOWHERE // 2
    where_a, offset_a = mma_tile.brought(kind, False), mma_tile.placed(kind, False)
    where_b, offset_b = mma_tile.brought(kind, turned), mma_tile.placed(kind, turned)

    @device
    def gather(operand, number, address):
        """Copy one chunk of the reduction for each of two rows."""
        source, table, height, width, base0, h0, w0, base1, h1, w1 = operand
        place, line = where_a(0)
        dy, dx, offset, _ = ptx.load4(table, i32(4 * (number * entries + line // lanes)))
        y, x = i32(h0 + dy), i32(w0 + dx)
        count = i32(16) if 0 <= y and y < height and 0 <= x and x < width else i32(0)
        ptx.copy_async16(i32(address + offset_a(place, line)), source, i32(base0 + offset), count)
        place, line = where_a(1)
        y, x = i32(h1 + dy), i32(w1 + dx)
        count = i32(16) if 0 <= y and y < height and 0 <= x and x < width else i32(0)
        ptx.copy_async16(i32(address + offset_a(place, line)), source, i32(base1 + offset), count)

    @device
    def filters(operand, number, address):
        """Copy two chunks of the weight: of columns' reduction, or (turned) of neighbouring columns."""
        weight, table, start, step, first, columns = operand
        for i in range(2):
            place, line = where_b(i)
            dy, _, _, offset = ptx.load4(table, i32(4 * (number * entries + line // lanes)))
            column = i32(first + place)
            at = i32(start + offset + (line % lanes * step + column if turned else column * step))
            count = i32(16) if column < columns and dy != NOWHERE else i32(0)
            ptx.copy_async16(i32(address + offset_b(place, line)), weight, at, count)

    accumulate = engine.product(kind, gather, False, filters, turned)
    write = mma_tile.writer(engine.columns, vector, epilogue)
    results, size, fragments, fragments_row = engine.results, mma_tile.SIZE, engine.rows, engine.columns
    words = [engine.name, name] + [word for word, chosen in (("vector", vector), ("turned", turned)) if chosen]

    @kernel(threads=mma_tile.THREADS, blocks=_BLOCKS, config=",".join(words + tile.words(epilogue)))
    def mma(
        rows: Int, columns: Int, slices: Int, share: Int, parts: Int, image_by: Int, image_shift: Int, row_by: Int,
        row_shift: Int, out_h: Int, out_w: Int, stride_h: Int, stride_w: Int, top: Int, left: Int, height: Int,
        width: Int, channels: Int, group_channels: Int, weight_group: Int, weight_step: Int, full_h: Int, full_w: Int,
        step_h: Int, step_w: Int, first_h: Int, first_w: Int, all_columns: Int, part_size: Int,
        x: T, table: I32, weight: T, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        group = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - group * parts)
        first_row, first_column = i32(cuda.blockIdx.x * size), i32(cuda.blockIdx.y * size)
        base, hs, ws = cuda.local.array(2, i32), cuda.local.array(2, i32), cuda.local.array(2, i32)
        for e in range(2):
            place, _ = where_a(e)
            m = i32(first_row + place)
            n, i, j = located(m, (image_by, image_shift), (row_by, row_shift), out_h, out_w)
            h, w = i32(i * stride_h - top), i32(j * stride_w - left)
            base[e] = i32(((n * height + h) * width + w) * channels + group * group_channels)
            hs[e], ws[e] = (h if m < rows else i32(far)), w
        a = (x, table, height, width, base[0], hs[0], ws[0], base[1], hs[1], ws[1])
        b = (weight, table, i32(group * weight_group), weight_step, first_column, columns)
        total = cuda.local.array((fragments, fragments_row, 4), f32)
        accumulate(i32(part * share), i32(min(slices, (part + 1) * share)), a, b, total)
        at_row, at_column = results()
        for e in range(fragments):
            for half in range(2):
                m = i32(first_row + at_row + 16 * e + 8 * half)
                if m < rows:
                    n, i, j = located(m, (image_by, image_shift), (row_by, row_shift), out_h, out_w)
                    pixel = i32((n * full_h + i * step_h + first_h) * full_w + j * step_w + first_w)
                    channel = i32(group * columns)
                    start = i32(part * part_size + pixel * all_columns + channel)
                    column = i32(first_column + at_column)
                    write(total, e, half, start, column, columns, channel, bias, residual, y)

    return mma


@lru_cache(maxsize=8)
def conv_mma_weight(engine: mma_tile.Engine, name: str) -> Kernel:
    """Return the kernel of backward_weight."""
    kind = mma_tile.KINDS[name]
    pieces, lanes = engine.pieces(kind, True), kind.lanes
    count, depth_slice, where, bring = pieces.count, pieces.depth, pieces.where, pieces.bring

    @device
    def gather(operand, number, target):
        """Bring a chunk of columns for each of some output pixels."""
        x, table, entry, pixels, image, row, out_h, out_w, stride_h, stride_w, height, width, channels = operand
        dy, dx, step, _ = ptx.load4(table, i32(4 * entry))
        for e in range(count):
            _, line = where(e)
            m = i32(number * depth_slice + line)
            n, i, j = located(m, image, row, out_h, out_w)
            h, w = i32(i * stride_h), i32(j * stride_w)
            at = i32(((n * height + h) * width + w) * channels + step)
            y, x_ = i32(h + dy), i32(w + dx)
            valid = m < pixels and 0 <= y and y < height and 0 <= x_ and x_ < width
            bring(target, e, x, at, valid)

    accumulate = engine.product(kind, mma_matrix.loader(engine, name, True), True, gather, True)
    write = mma_tile.writer(engine.columns, True, Epilogue())
    results, size, fragments, fragments_row = engine.results, mma_tile.SIZE, engine.rows, engine.columns

    @kernel(
        threads=mma_tile.THREADS, blocks=_BLOCKS, shared_bytes=engine.shared_bytes, config=f"{engine.name},{name}"
    )
    def mma_weight(
        rows: Int, columns: Int, entries: Int, pixels: Int, slices: Int, share: Int, parts: Int, part_size: Int,
        out_h: Int, out_w: Int, image_by: Int, image_shift: Int, row_by: Int, row_shift: Int, stride_h: Int,
        stride_w: Int, height: Int, width: Int, channels: Int, group_filters: Int, filters: Int,
        x: T, table: I32, grad: T, y: F32,
    ):  # fmt: skip
        group = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - group * parts)
        first_row, first_column = i32(cuda.blockIdx.x * size), i32(cuda.blockIdx.y * size)
        place, _ = where(0)
        entry = i32(group * entries + (first_column + place) // lanes)
        a = (grad, i64(group * group_filters), first_row, filters, pixels, rows)
        b = (
            x, table, entry, pixels, (image_by, image_shift), (row_by, row_shift), out_h, out_w, stride_h, stride_w,
            height, width, channels,
        )  # fmt: skip
        total = cuda.local.array((fragments, fragments_row, 4), f32)
        accumulate(i32(part * share), i32(min(slices, (part + 1) * share)), a, b, total)
        at_row, at_column = results()
        for e in range(fragments):
            for half in range(2):
                k = i32(first_row + at_row + 16 * e + 8 * half)
                if k < rows:
                    start = i32(part * part_size + (group * rows + k) * columns)
                    write(total, e, half, start, i32(first_column + at_column), columns, i32(0), y, y, y)

    return mma_weight
