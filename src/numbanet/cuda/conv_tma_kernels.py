"""Convolution as one product of matrices by warpgroups, fed by the copy engine: see `numbanet.cuda.tma_tile`."""

from __future__ import annotations

from functools import lru_cache

from numbanet.cuda import mma_tile, tile, tma_tile
from numbanet.cuda.compile import F32, U64, Int, Kernel, device, kernel
from numbanet.cuda.division import divide, located
from numbanet.cuda.ptx import cuda, sm90a, types
from numbanet.problem.conv import Epilogue

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=64)
def conv_tma(name: str, shape: tma_tile.Tile, vector: bool, epilogue: Epilogue) -> Kernel:
    """Return the kernel of forward and of backward_input.

    Parameters
    ----------
    name : str
        What the tensor cores multiply: a key of `mma_tile.KINDS`.
    shape : Tile
    vector : bool
        Rows of the result have an even number of channels, so that a store takes 2.
    epilogue : Epilogue
        What happens to the results before they are stored.
    """
    kind = mma_tile.KINDS[name]
    depth, rows_tile, columns_tile = tma_tile.depth(kind), tma_tile.ROWS, shape.columns

    @device
    def place(number, chunks, chunks_by, width, width_by):
        """Return (tap's row, tap's column, first channel) of a slice."""
        tap = divide(number, chunks_by)
        r = divide(tap, width_by)
        return r, i32(tap - r * width), i32((number - tap * chunks) * depth)

    @device
    def pixels(operand, number, address, barrier):
        source, walk, apart_h, apart_w, channel, w, h, n = operand
        r, s, c = place(number, walk[0], walk[1], walk[2], walk[3])
        offset = i32(s * apart_w), i32(r * apart_h)
        sm90a.copy_pixels(address, source, (i32(channel + c), w, h, n), offset, barrier)

    @device
    def filters(operand, number, address, barrier):
        weight, walk, first_tap, tap_h, tap_w, column = operand
        r, s, c = place(number, walk[0], walk[1], walk[2], walk[3])
        sm90a.copy_box(address, weight, (c, i32(first_tap + r * tap_h + s * tap_w), column), barrier)

    start, produce = tma_tile.ring(shape), tma_tile.producer(shape, pixels, filters)
    consume = tma_tile.consumer(kind, shape, False, False)
    blocks = shape.columns // 64
    write = mma_tile.writer(8, vector, epilogue)
    words = [name, str(shape.columns)] + (["vector"] if vector else []) + tile.words(epilogue)

    @kernel(
        threads=tma_tile.THREADS, blocks=shape.blocks, shared_bytes=shape.shared_bytes, config=",".join(words)
    )
    def convolve(
        rows: Int, columns: Int, slices: Int, share: Int, parts: Int, image_by: Int, image_shift: Int, row_by: Int,
        row_shift: Int, out_h: Int, out_w: Int, step_h: Int, step_w: Int, lower_h: Int, lower_w: Int, chunks_by: Int,
        chunks_shift: Int, chunks: Int, taps_by: Int, taps_shift: Int, taps_w: Int, apart_h: Int, apart_w: Int,
        first_tap: Int, tap_h: Int, tap_w: Int, group_channels: Int, full_h: Int, full_w: Int, every_h: Int,
        every_w: Int, first_h: Int, first_w: Int, all_columns: Int, part_size: Int,
        x: U64, weight: U64, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        group = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - group * parts)
        first_row, first_column = i32(cuda.blockIdx.x * rows_tile), i32(cuda.blockIdx.y * columns_tile)
        first, last = i32(part * share), i32(min(slices, (part + 1) * share))
        image, row = (image_by, image_shift), (row_by, row_shift)
        ring = start()
        if tma_tile.is_producer():
            n, i, j = located(first_row, image, row, out_h, out_w)
            walk = chunks, (chunks_by, chunks_shift), taps_w, (taps_by, taps_shift)
            corner = i32(lower_w + j * step_w), i32(lower_h + i * step_h), n
            a = (x, walk, apart_h, apart_w, i32(group * group_channels), corner[0], corner[1], corner[2])
            b = (weight, walk, first_tap, tap_h, tap_w, i32(group * columns + first_column))
            produce(ring, first, last, a, b)
        else:
            total = cuda.local.array((blocks, 8, 4), f32)
            consume(ring, first, last, total)
            at_row, at_column = tma_tile.results()
            for half in range(2):
                m = i32(first_row + at_row + 8 * half)
                if m < rows:
                    n, i, j = located(m, image, row, out_h, out_w)
                    pixel = i32((n * full_h + i * every_h + first_h) * full_w + j * every_w + first_w)
                    channel = i32(group * columns)
                    at = i32(part * part_size + pixel * all_columns + channel)
                    for block in range(blocks):
                        column = i32(first_column + at_column + 64 * block)
                        write(total, block, half, at, column, columns, channel, bias, residual, y)

    return convolve
