"""Gradient of a convolution's weight as one matrix product without an im2col copy, in float32.

Rows are filters, columns the elements (r, s, c) of a filter, and the reduction runs over all output pixels: long, so
that it is nearly always cut into parts (`numbanet.cuda.split`). `numbanet.cuda.tile` multiplies. A table holds
(dy, dx, offset in x) for every column, or every 4 columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import conv_plan, matrix, ptx, split, tile
from numbanet.cuda.compile import F32, I32, Int, Kernel, device, kernel
from numbanet.cuda.conv_direct import cost, form, supports, tiles, tolerance
from numbanet.cuda.conv_plan import Form
from numbanet.cuda.division import divisor, located
from numbanet.cuda.launch import constant, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import ConvProblem, Epilogue

i32, i64, f32 = types.int32, types.int64, types.float32


@lru_cache(maxsize=2)
def conv_gemm_weight(vector: bool) -> Kernel:
    """Return the kernel; `vector`: the channels of a group are multiples of 4 on both sides."""
    size, half, side, depth_slice = tile.SIZE, tile.HALF, tile.SIDE, tile.DEPTH

    @device
    def gather(operand, number, out):
        """Load 4 neighbouring columns for one output pixel."""
        x, table, entry, line, pixels, image, row, out_h, out_w, stride_h, stride_w, height, width, channels = operand
        m = i32(number * depth_slice + line)
        n, i, j = located(m, image, row, out_h, out_w)
        h, w = i32(i * stride_h), i32(j * stride_w)
        base = i32(((n * height + h) * width + w) * channels)
        for e in range(4):
            if not vector or e == 0:
                dy, dx, offset, _ = ptx.load4(table, i32(4 * (entry + e)))
                y, x_ = i32(h + dy), i32(w + dx)
                valid = m < pixels and 0 <= y and y < height and 0 <= x_ and x_ < width
                if vector:
                    if valid:
                        out[0], out[1], out[2], out[3] = ptx.load4(x, i32(base + offset))
                    else:
                        out[0], out[1], out[2], out[3] = f32(0), f32(0), f32(0), f32(0)
                else:
                    out[e] = x[i32(base + offset)] if valid else f32(0)

    accumulate = tile.product(matrix.loader(vector, True), True, gather, True)
    write = tile.writer(vector, Epilogue())
    results, brought = tile.results, tile.brought(True)

    @kernel(threads=tile.THREADS, blocks=2, config="vector" if vector else "")
    def gemm_weight(
        rows: Int, columns: Int, entries: Int, pixels: Int, slices: Int, share: Int, parts: Int, part_size: Int,
        out_h: Int, out_w: Int, image_by: Int, image_shift: Int, row_by: Int, row_shift: Int, stride_h: Int,
        stride_w: Int, height: Int, width: Int, channels: Int, group_filters: Int, filters: Int,
        x: F32, table: I32, grad: F32, y: F32,
    ):  # fmt: skip
        group = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - group * parts)
        first_row, first_column = i32(cuda.blockIdx.x * size), i32(cuda.blockIdx.y * size)
        place, line = brought()
        start = i64(line) * filters + i32(group * group_filters + first_row + place)
        a = (grad, start, line, filters, pixels, i32(rows - first_row - place))
        entry = i32(group * entries + ((first_column + place) >> 2 if vector else first_column + place))
        b = (
            x, table, entry, line, pixels, (image_by, image_shift), (row_by, row_shift), out_h, out_w,
            stride_h, stride_w, height, width, channels,
        )  # fmt: skip
        total = cuda.local.array((side, side), f32)
        accumulate(i32(part * share), i32(min(slices, (part + 1) * share)), a, b, total)
        at_row, at_column = results()
        for p in range(side):
            k = i32(first_row + at_row + p % 4 + p // 4 * half)
            if k < rows:
                start_out = i32(part * part_size + (group * rows + k) * columns)
                write(total, p, start_out, i32(first_column + at_column), columns, i32(0), y, y, y)

    return gemm_weight


def integers(p: ConvProblem, form: Form, cut: split.Cut, slices: int, entries: int) -> tuple[int, ...]:
    """Return the integers of the kernel.

    Parameters
    ----------
    p : ConvProblem
    form : Form
        How it reads operands.
    cut : Cut
    slices : int
        Of the reduction over all output pixels.
    entries : int
        Of a group in the table of columns.
    """
    columns = p.r * p.s * form.cg
    return (
        p.kg, columns, entries, p.n * p.p * p.q, slices, cut.share, cut.parts, p.k * columns, p.p, p.q,
        *divisor(p.p * p.q), *divisor(p.q), *p.stride, p.h, p.w, p.groups * form.cg, form.kg, p.groups * form.kg,
    )  # fmt: skip


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (dw,) = inputs, outputs
    read = form(p, x, grad, dw)
    table = conv_plan.column_table(p, read, tile.SIZE)
    grid, slices = tiles(p.kg, p.r * p.s * p.cg), -(-p.n * p.p * p.q // tile.DEPTH)
    cut = split.cut(grid[0] * grid[1] * p.groups, slices, dw.size)
    sums = dw if cut.parts == 1 else empty((cut.parts, dw.size), "float32")
    numbers = integers(p, read, cut, slices, table.shape[1])
    launch(conv_gemm_weight(read.lanes == 4), (*grid, p.groups * cut.parts), (*numbers, x, constant(table), grad, sums))
    if cut.parts > 1:
        split.finish(cut.parts, sums, Epilogue(), None, None, dw)


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cuda.gemm", _run, supports, cost, tolerance=tolerance)],
}
