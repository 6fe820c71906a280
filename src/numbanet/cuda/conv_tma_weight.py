"""Backward_weight by warpgroups that the copy engine feeds, on GPUs of capability 9.0, in products of 16-bit operands.

The product of each group has its filters for rows and, for columns, blocks of 64: up to 64 channels of one tap. Both
operands lie across the reduction, which is over all pixels of y: the gradient as it is, and of x the pixels that the
block's tap meets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import conv_plan, conv_tma_plan, mma_tile, split, tma_matrix, tma_tile
from numbanet.cuda.compile import F32, U64, Int, Kernel, device, kernel
from numbanet.cuda.conv_mma import chosen_kind, refusal, tolerance
from numbanet.cuda.conv_plan import Form
from numbanet.cuda.conv_tma import LEAST, NARROW
from numbanet.cuda.division import divide, divisor, located
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.pack import filled, operand
from numbanet.cuda.ptx import cuda, sm90a, types
from numbanet.cuda.tensor_map import Pixels, TensorMap
from numbanet.problem.conv import ConvProblem, Epilogue

_BLOCK = 64  # columns, and pixels of a slice

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=16)
def conv_tma_weight(name: str, shape: tma_tile.Tile, vector: bool) -> Kernel:
    """Return the kernel; `vector`: a group has an even number of channels, so that a store takes 2."""
    kind = mma_tile.KINDS[name]
    rows_tile, blocks, block_columns = tma_tile.ROWS, shape.columns // _BLOCK, _BLOCK
    part = tma_tile.BLOCK

    @device
    def placed(block, chunks, chunks_by, taps_w, taps_by):
        """Return (tap's row, tap's column, first channel) of a block of columns."""
        tap = divide(block, chunks_by)
        r = divide(tap, taps_by)
        return r, i32(tap - r * taps_w), i32((block - tap * chunks) * block_columns)

    @device
    def pixels(operand, number, address, barrier):
        x, walk, first, last, channel, image, row, out_h, out_w, step_h, step_w, lower_h, lower_w, apart_h, apart_w = (
            operand
        )
        n, i, j = located(i32(number * block_columns), image, row, out_h, out_w)
        w, h = i32(lower_w + j * step_w), i32(lower_h + i * step_h)
        for block in range(blocks):  # those beyond the last one repeat it: their results are dropped
            r, s, c = placed(i32(min(first + block, last)), walk[0], walk[1], walk[2], walk[3])
            offset = i32(s * apart_w), i32(r * apart_h)
            sm90a.copy_pixels(i32(address + block * part), x, (i32(channel + c), w, h, n), offset, barrier)

    start = tma_tile.ring(shape)
    produce = tma_tile.producer(shape, tma_matrix.bringer(name, True, rows_tile), pixels)
    consume = tma_tile.consumer(kind, shape, True, True)
    write = mma_tile.writer(8, vector, Epilogue())
    words = [name, str(shape.columns)] + (["vector"] if vector else [])

    @kernel(
        threads=tma_tile.THREADS, blocks=shape.blocks, shared_bytes=shape.shared_bytes, config=",".join(words)
    )
    def weight_gradient(
        rows: Int, columns: Int, slices: Int, share: Int, parts: Int, part_size: Int, out_h: Int, out_w: Int,
        image_by: Int, image_shift: Int, row_by: Int, row_shift: Int, step_h: Int, step_w: Int, lower_h: Int,
        lower_w: Int, apart_h: Int, apart_w: Int, chunks: Int, chunks_by: Int, chunks_shift: Int, taps: Int,
        taps_w: Int, taps_by: Int, taps_shift: Int, group_rows: Int, group_columns: Int,
        x: U64, grad: U64, y: F32,
    ):  # fmt: skip
        group = i32(cuda.blockIdx.z // parts)
        part = i32(cuda.blockIdx.z - group * parts)
        first_row, first_block = i32(cuda.blockIdx.x * rows_tile), i32(cuda.blockIdx.y * blocks)
        begin, end = i32(part * share), i32(min(slices, (part + 1) * share))
        chunks_divisor, taps_divisor = (chunks_by, chunks_shift), (taps_by, taps_shift)
        last = i32(taps * chunks - 1)
        ring = start()
        if tma_tile.is_producer():
            a = (grad, i32(group * group_rows + first_row), i32(0))
            b = (
                x, (chunks, chunks_divisor, taps_w, taps_divisor), first_block, last, i32(group * group_columns),
                (image_by, image_shift), (row_by, row_shift), out_h, out_w, step_h, step_w, lower_h, lower_w, apart_h,
                apart_w,
            )  # fmt: skip
            produce(ring, begin, end, a, b)
        else:
            total = cuda.local.array((blocks, 8, 4), f32)
            consume(ring, begin, end, total)
            at_row, at_column = tma_tile.results()
            for block in range(blocks):
                if first_block + block <= last:
                    r, s, c = placed(i32(first_block + block), chunks, chunks_divisor, taps_w, taps_divisor)
                    for half in range(2):
                        k = i32(first_row + at_row + 8 * half)
                        if k < rows:
                            line = i32((group * rows + k) * taps + r * taps_w + s)
                            at = i32(part * part_size + line * columns)
                            write(total, block, half, at, i32(c + at_column), columns, i32(0), y, y, y)

    return weight_gradient


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem, element: str, channels: int) -> tuple[tuple[int, ...], Pixels]:
    """Return the kernel's integers after those of the cut, and how x is read."""
    ((v, h),) = conv_tma_plan.axes(p)
    chunks = -(-channels // _BLOCK)
    source = Pixels(
        element, (p.groups * channels, p.w, p.h, p.n), (h.lower, v.lower), (h.upper, v.upper), (h.step, v.step), _BLOCK
    )
    return (
        p.p, p.q, *divisor(p.p * p.q), *divisor(p.q), v.step, h.step, v.lower, h.lower, v.apart, h.apart, chunks,
        *divisor(chunks), p.r * p.s, p.s, *divisor(p.s),
    ), source  # fmt: skip


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (dw,), kind = inputs, outputs, chosen_kind()
    channels, filters, pixels = filled(p.cg, kind.lanes), filled(p.kg, kind.lanes), p.n * p.p * p.q
    source = operand(kind, x, 1, p.n * p.h * p.w, p.groups, p.cg)
    grads = operand(kind, grad, 1, pixels, p.groups, p.kg)
    integers, read = _plan(p, tma_tile.element(kind), channels)
    width, vector = _width(p), p.cg % 2 == 0 and aligned(dw, size=8)
    shape = tma_tile.fitting(width, vector)
    grid, slices = (-(-p.kg // tma_tile.ROWS), -(-width // shape.columns)), -(-pixels // _BLOCK)
    cut = split.cut(grid[0] * grid[1] * p.groups, slices, dw.size, shape.wanted, LEAST)
    sums = dw if cut.parts == 1 else empty((cut.parts, dw.size), "float32")
    numbers = p.kg, p.cg, slices, cut.share, cut.parts, dw.size, *integers, filters, channels
    written = TensorMap(grads, tma_matrix.form(kind, 1, pixels, p.groups * filters, True, tma_tile.ROWS))
    arguments = *numbers, TensorMap(source, read), written, sums
    launch(conv_tma_weight(kind.name, shape, vector), (*grid, p.groups * cut.parts), arguments)
    if cut.parts > 1:
        split.finish(cut.parts, sums, Epilogue(), None, None, dw)


def _width(p: ConvProblem) -> int:
    """Return the columns of all blocks."""
    return p.r * p.s * filled(p.cg, _BLOCK)


def _supports(p: ConvProblem) -> str | None:
    reason = refusal(p.dtype, warpgroups=True)
    if reason is not None:
        return reason
    kind = chosen_kind()
    if not kind.narrow:
        return "the operands are not contiguous along the reduction, as TF32 products of warpgroups need them"
    if not p.n * p.cg * p.kg:
        return "nothing to multiply"
    if _width(p) > conv_plan.MOST_COLUMNS:
        return f"a result of more than {conv_plan.MOST_COLUMNS} columns"
    form = Form(kind.lanes, _BLOCK, filled(p.cg, kind.lanes), filled(p.kg, kind.lanes))
    return conv_plan.too_large(p, form) or conv_tma_plan.refusal(p)


def _cost(p: ConvProblem) -> float:
    """In operations of the float32 kernels."""
    shape = tma_tile.fitting(_width(p), p.cg % 2 == 0)
    results = filled(p.kg, tma_tile.ROWS) * filled(_width(p), shape.columns)
    packing = 90.0 * (p.n * p.c * p.h * p.w + p.n * p.k * p.p * p.q)
    return 2.0 * p.groups * results * filled(p.n * p.p * p.q, _BLOCK) / NARROW + packing


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [
        Candidate("cuda.wgmma_tma", _run, _supports, _cost, tolerance=lambda p: tolerance(p.reduction)),
    ],
}
