"""Convolution as one matrix product without an im2col copy, in float32 on the ordinary cores (FFMA).

A block computes a tile of 128 x 128 results in slices of 8 of the reduction, double-buffered in shared memory; a thread
holds 8 x 8 of them in registers. Rows are output pixels, columns are channels. What a row reads at a step of the
reduction is given by a table, so that one kernel serves every filter, stride, padding and dilation, forward and
backward: the entry of some neighbouring elements of the reduction holds (dy, dx, offset in the source, offset in the
weight), and where the pixel (y + dy, x + dx) lies outside of the source, zeros are added.
"""

from __future__ import annotations

from functools import lru_cache

from numba import cuda
from numba.cuda import types

from numbanet.cuda import ptx
from numbanet.cuda.compile import F32, I32, Int, Kernel, device, kernel
from numbanet.problem.conv import Epilogue

ROWS, COLUMNS = 128, 128  # results of a block
DEPTH = 8  # of the reduction, a step
NOWHERE = -(1 << 30)  # a dy that no source has: the entry of elements beyond the end of the reduction
_SIDE = 8  # results of a thread along each axis
_THREADS = (ROWS // _SIDE) * (COLUMNS // _SIDE)
_A, _B = DEPTH * ROWS, DEPTH * COLUMNS
_SHARED_A, _SHARED_B = 2 * _A, 2 * _B  # Numba takes the size of a shared array by name only
_HALF = ROWS // 2

i32, f32 = types.int32, types.float32


@device
def _fragment(tile, start, out):
    """Read the 4 + 4 numbers of a thread from one line of a tile."""
    out[0], out[1], out[2], out[3] = ptx.load4(tile, i32(start))
    out[4], out[5], out[6], out[7] = ptx.load4(tile, i32(start + _HALF))


@device
def _outer(total, a, b):
    for i in range(_SIDE):
        for j in range(_SIDE):
            total[i, j] += a[i] * b[j]


@device
def _multiply(total, tile_a, tile_b, at_a, at_b, a0, b0, a1, b1):
    """Add the products of one slice; while one line is multiplied, the next is on its way to registers."""
    _fragment(tile_a, at_a, a0)
    _fragment(tile_b, at_b, b0)
    for k in range(0, DEPTH, 2):
        _fragment(tile_a, i32(at_a + (k + 1) * ROWS), a1)
        _fragment(tile_b, i32(at_b + (k + 1) * COLUMNS), b1)
        _outer(total, a0, b0)
        if k + 2 < DEPTH:
            _fragment(tile_a, i32(at_a + (k + 2) * ROWS), a0)
            _fragment(tile_b, i32(at_b + (k + 2) * COLUMNS), b0)
        _outer(total, a1, b1)


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
    adds_bias, adds_residual, activation = epilogue.bias, epilogue.residual, epilogue.activation
    clamps, clamps_above = activation is not None, activation == "relu6"

    @device
    def gather(source, base, h, w, height, width, table, entry, inside, out):
        """Load 4 neighbouring elements of the reduction for one row."""
        for i in range(4):
            if not vector or i == 0:
                e = i32(4 * (entry + i))
                dy, dx, offset, _ = ptx.load4(table, e)
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
    def filters(weight, base, table, entry, inside, out):
        """Load 4 neighbouring elements of the weight: of the reduction, or (turned) of the columns."""
        for i in range(4):
            if not vector or i == 0:
                e = entry if turned else i32(entry + i)
                dy, _, _, offset = ptx.load4(table, i32(4 * e))
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

    @device
    def finish(value, bias, residual, column, at):
        if adds_bias:
            value += bias[column]
        if adds_residual:
            value += residual[at]
        if clamps:
            value = value if value > f32(0) or value != value else f32(0)
        if clamps_above:
            value = value if value < f32(6) or value != value else f32(6)
        return value

    words = [word for word, chosen in (("vector", vector), ("turned", turned), ("bias", adds_bias)) if chosen]
    words += (["residual"] if adds_residual else []) + ([activation] if activation else [])

    @kernel(threads=_THREADS, blocks=2, config=",".join(words))
    def gemm(
        rows: Int, columns: Int, slices: Int, out_h: Int, out_w: Int, stride_h: Int, stride_w: Int, top: Int, left: Int,
        height: Int, width: Int, channels: Int, group_channels: Int, weight_group: Int, weight_step: Int,
        full_h: Int, full_w: Int, step_h: Int, step_w: Int, first_h: Int, first_w: Int, all_columns: Int,
        x: F32, table: I32, weight: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        tile_a = ptx.pointer(cuda.shared.array(_SHARED_A, f32, 128))
        tile_b = ptx.pointer(cuda.shared.array(_SHARED_B, f32, 128))
        total = cuda.local.array((_SIDE, _SIDE), f32)
        a0, a1 = cuda.local.array(_SIDE, f32), cuda.local.array(_SIDE, f32)
        b0, b1 = cuda.local.array(_SIDE, f32), cuda.local.array(_SIDE, f32)
        next_a, next_b = cuda.local.array(4, f32), cuda.local.array(4, f32)
        t = i32(cuda.threadIdx.x)
        group = i32(cuda.blockIdx.z)

        # What this thread brings to shared memory: 4 elements of the reduction of one row ...
        row, quad = i32(t >> 1), i32((t & 1) * 4)
        m = i32(cuda.blockIdx.x * ROWS + row)
        n = i32(m // (out_h * out_w))
        i = i32((m - n * (out_h * out_w)) // out_w)
        j = i32(m - (n * out_h + i) * out_w)
        h, w = i32(i * stride_h - top), i32(j * stride_w - left)
        base = i32(((n * height + h) * width + w) * channels + group * group_channels)
        inside_a = m < rows
        put_a = i32(quad * ROWS + row)
        # ... and 4 elements of the weight: of one column's reduction, or of neighbouring columns.
        if turned:
            line, column = i32(t >> 5), i32(cuda.blockIdx.y * COLUMNS + (t & 31) * 4)
            start = i32(group * weight_group + column + (line & 3) * weight_step if vector else
                        group * weight_group + column)
            put_b = i32(line * COLUMNS + (t & 31) * 4)
        else:
            line, column = quad, i32(cuda.blockIdx.y * COLUMNS + row)
            start = i32(group * weight_group + column * weight_step)
            put_b = put_a
        inside_b = i32(columns - column)
        entries = i32(DEPTH // 4 if vector else DEPTH)
        entry_a = i32(quad >> 2) if vector else quad
        entry_b = i32(line >> 2) if vector else line

        for p in range(_SIDE):
            for q in range(_SIDE):
                total[p, q] = f32(0)
        at_a, at_b = i32((t >> 4) * 4), i32((t & 15) * 4)
        gather(x, base, h, w, height, width, table, entry_a, inside_a, next_a)
        filters(weight, start, table, entry_b, inside_b, next_b)
        buffer = i32(0)
        for number in range(slices):
            for e in range(4):
                tile_a[i32(buffer * _A + put_a + e * ROWS)] = next_a[e]
            if turned:
                ptx.store4(tile_b, i32(buffer * _B + put_b), (next_b[0], next_b[1], next_b[2], next_b[3]))
            else:
                for e in range(4):
                    tile_b[i32(buffer * _B + put_b + e * COLUMNS)] = next_b[e]
            cuda.syncthreads()
            if number + 1 < slices:
                entry_a, entry_b = i32(entry_a + entries), i32(entry_b + entries)
                gather(x, base, h, w, height, width, table, entry_a, inside_a, next_a)
                filters(weight, start, table, entry_b, inside_b, next_b)
            _multiply(total, tile_a, tile_b, i32(buffer * _A + at_a), i32(buffer * _B + at_b), a0, b0, a1, b1)
            buffer = i32(buffer ^ 1)

        for p in range(_SIDE):
            m = i32(cuda.blockIdx.x * ROWS + at_a + p % 4 + p // 4 * _HALF)
            if m < rows:
                n = i32(m // (out_h * out_w))
                i = i32((m - n * (out_h * out_w)) // out_w)
                j = i32(m - (n * out_h + i) * out_w)
                place = i32((n * full_h + i * step_h + first_h) * full_w + j * step_w + first_w)
                for half in range(2):
                    k = i32(cuda.blockIdx.y * COLUMNS + at_b + half * _HALF)
                    c = i32(group * columns + k)
                    at = i32(place * all_columns + c)
                    if vector:
                        if k < columns:
                            ptx.store4(y, at, (
                                finish(total[p, 4 * half], bias, residual, c, at),
                                finish(total[p, 4 * half + 1], bias, residual, i32(c + 1), i32(at + 1)),
                                finish(total[p, 4 * half + 2], bias, residual, i32(c + 2), i32(at + 2)),
                                finish(total[p, 4 * half + 3], bias, residual, i32(c + 3), i32(at + 3)),
                            ))  # fmt: skip
                    else:
                        for q in range(4):
                            if k + q < columns:
                                y[i32(at + q)] = finish(total[p, 4 * half + q], bias, residual, i32(c + q), i32(at + q))

    return gemm
