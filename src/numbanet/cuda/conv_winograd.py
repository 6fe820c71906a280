"""Winograd's convolution F(4x4, 3x3) in float32, forward and backward_input: 36 products of matrices in place of nine.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), section 4.3. The points of
evaluation are 0, A, -A, B, -B and infinity, as on the CPU. Input tiles are transformed to (point, tile, channel), the
filters to (point, filter, channel), `numbanet.cuda.matmul` multiplies point by point, and the sums are transformed back
with the epilogue. This goes in chunks of tiles whose transforms stay in a GPU's cache. A thread transforms one tile of
one channel; the lanes of a warp lie along the channels, so that every access is one line of memory.

backward_input is forward with the filters turned by half a turn, and channels and filters changed over.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda import types

from numbanet import settings
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import matmul, tile
from numbanet.cuda.compile import F32, Int, Kernel, device, kernel
from numbanet.cuda.conv_direct import supports
from numbanet.cuda.division import divide, divisor
from numbanet.cuda.launch import empty, launch
from numbanet.problem.conv import ConvProblem, Epilogue
from numbanet.problem.matmul import MatmulProblem

A, B = 5 / 8, 3 / 2  # points of evaluation
TILE, SPAN = 4, 6  # pixels of a tile, out and in, along each axis
POINTS = SPAN * SPAN
_LANES, _WARPS = 32, 8
_THREADS = _LANES * _WARPS
_CHUNK = 1 << 23  # numbers in the transforms of a chunk: 32 MB
_LEAST = tile.SIZE  # tiles of a chunk
_EACH = np.tile(np.arange(POINTS), (2, 1))  # product i takes matrix i of both stacks

i32, f32 = types.int32, types.float32
_AA, _BB, _AB = f32(A * A), f32(B * B), f32((A * B) ** 2)
_SUM, _A, _B = f32(A * A + B * B), f32(A), f32(B)
_AAA, _BBB = f32(A**3), f32(B**3)
# A filter's value at a point is divided by the product of the distances to the other points.
_W0, _WA, _WB = f32((A * B) ** -2), f32(1 / (2 * A**2 * (A**2 - B**2))), f32(1 / (2 * B**2 * (B**2 - A**2)))


@device
def _input(d, out, i):
    """Transform six pixels in a row: row i of `out`."""
    out[i, 0] = _AB * d[0] - _SUM * d[2] + d[4]
    even, odd = d[4] - _BB * d[2], _A * (d[3] - _BB * d[1])
    out[i, 1], out[i, 2] = even + odd, even - odd
    even, odd = d[4] - _AA * d[2], _B * (d[3] - _AA * d[1])
    out[i, 3], out[i, 4] = even + odd, even - odd
    out[i, 5] = _AB * d[1] - _SUM * d[3] + d[5]


@device
def _filter(g, out, i):
    """Transform three taps in a row: row i of `out`."""
    out[i, 0] = _W0 * g[0]
    even, odd = _WA * (g[0] + _AA * g[2]), _WA * _A * g[1]
    out[i, 1], out[i, 2] = even + odd, even - odd
    even, odd = _WB * (g[0] + _BB * g[2]), _WB * _B * g[1]
    out[i, 3], out[i, 4] = even + odd, even - odd
    out[i, 5] = g[2]


@device
def _output(m, out, i):
    """Transform six sums in a row back to four pixels: row i of `out`."""
    even_a, odd_a, even_b, odd_b = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    out[i, 0] = m[0] + even_a + even_b
    out[i, 1] = _A * odd_a + _B * odd_b
    out[i, 2] = _AA * even_a + _BB * even_b
    out[i, 3] = _AAA * odd_a + _BBB * odd_b + m[5]


@device
def _place(number, row, image, tiles_w, tiles_h):
    """Return (image, line, column) of a tile."""
    line = divide(number, row)
    n = divide(line, image)
    return n, i32(line - n * tiles_h), i32(number - line * tiles_w)


@kernel(threads=_THREADS, blocks=2)
def transform_input(
    first: Int, tiles: Int, row_by: Int, row_shift: Int, image_by: Int, image_shift: Int, tiles_h: Int, tiles_w: Int,
    top: Int, left: Int, height: Int, width: Int, channels: Int, x: F32, out: F32,
):  # fmt: skip
    """Transform the tiles from `first` on; out: (36, tiles, channels)."""
    t = i32(cuda.threadIdx.x)
    c, local = i32(cuda.blockIdx.y * _LANES + t % _LANES), i32(cuda.blockIdx.x * _WARPS + t // _LANES)
    if c >= channels or local >= tiles:
        return
    n, i, j = _place(i32(first + local), (row_by, row_shift), (image_by, image_shift), tiles_w, tiles_h)
    y0, x0 = i32(i * TILE - top), i32(j * TILE - left)
    line, half, whole = cuda.local.array(6, f32), cuda.local.array((6, 6), f32), cuda.local.array((6, 6), f32)
    for column in range(6):
        for row in range(6):
            y, x_ = i32(y0 + row), i32(x0 + column)
            inside = 0 <= y and y < height and 0 <= x_ and x_ < width
            line[row] = x[i32(((n * height + y) * width + x_) * channels + c)] if inside else f32(0)
        _input(line, half, column)
    for row in range(6):
        for column in range(6):
            line[column] = half[column, row]
        _input(line, whole, row)
    for row in range(6):
        for column in range(6):
            out[i32(((row * 6 + column) * tiles + local) * channels + c)] = whole[row, column]


@lru_cache(maxsize=2)
def transform_weight(turned: bool) -> Kernel:
    """Return the kernel that transforms the filters, turned by half a turn or not: (k, 3, 3, c) to (36, k, c)."""
    last = 2 if turned else 0
    sign = -1 if turned else 1

    @kernel(threads=_THREADS, config="turned" if turned else "")
    def transform_weight(filters: Int, channels: Int, weight: F32, out: F32):
        t = i32(cuda.threadIdx.x)
        c, k = i32(cuda.blockIdx.y * _LANES + t % _LANES), i32(cuda.blockIdx.x * _WARPS + t // _LANES)
        if c >= channels or k >= filters:
            return
        line, half, whole = cuda.local.array(6, f32), cuda.local.array((3, 6), f32), cuda.local.array((6, 6), f32)
        for column in range(3):
            for row in range(3):
                tap = i32((k * 3 + last + sign * row) * 3 + last + sign * column)
                line[row] = weight[i32(tap * channels + c)]
            _filter(line, half, column)
        for row in range(6):
            for column in range(3):
                line[column] = half[column, row]
            _filter(line, whole, row)
        for row in range(6):
            for column in range(6):
                out[i32(((row * 6 + column) * filters + k) * channels + c)] = whole[row, column]

    return transform_weight


@lru_cache(maxsize=16)
def transform_output(epilogue: Epilogue) -> Kernel:
    """Return the kernel that transforms sums (36, tiles, channels) back, and applies an epilogue."""
    finish = tile.finisher(epilogue)
    fetch_bias, fetch_addend = tile.fetcher(epilogue.bias, 1), tile.fetcher(epilogue.residual, 1)

    @kernel(threads=_THREADS, blocks=2, config=",".join(tile.words(epilogue)))
    def transform_output(
        first: Int, tiles: Int, row_by: Int, row_shift: Int, image_by: Int, image_shift: Int, tiles_h: Int,
        tiles_w: Int, height: Int, width: Int, channels: Int, sums: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        t = i32(cuda.threadIdx.x)
        c, local = i32(cuda.blockIdx.y * _LANES + t % _LANES), i32(cuda.blockIdx.x * _WARPS + t // _LANES)
        if c >= channels or local >= tiles:
            return
        n, i, j = _place(i32(first + local), (row_by, row_shift), (image_by, image_shift), tiles_w, tiles_h)
        line, half, whole = cuda.local.array(6, f32), cuda.local.array((6, 4), f32), cuda.local.array((4, 4), f32)
        for column in range(6):
            for row in range(6):
                line[row] = sums[i32(((row * 6 + column) * tiles + local) * channels + c)]
            _output(line, half, column)
        for row in range(4):
            for column in range(6):
                line[column] = half[column, row]
            _output(line, whole, row)
        added = fetch_bias(bias, c)
        for row in range(4):
            for column in range(4):
                p, q = i32(i * TILE + row), i32(j * TILE + column)
                if p < height and q < width:
                    at = i32(((n * height + p) * width + q) * channels + c)
                    y[at] = finish(whole[row, column], added, fetch_addend(residual, at))

    return transform_output


def _sides(p: ConvProblem) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int]]:
    """Return (height, width, channels) of source and result, and the padding above and to the left of the source."""
    if p.which == "forward":
        return (p.h, p.w, p.c), (p.p, p.q, p.k), (p.pads[0], p.pads[2])
    return (p.p, p.q, p.k), (p.h, p.w, p.c), (2 - p.pads[0], 2 - p.pads[2])


def _tiles(p: ConvProblem) -> tuple[int, int, int]:
    """Return the tiles of a column, of a row, and in all."""
    _, (height, width, _), _ = _sides(p)
    tiles_h, tiles_w = -(-height // TILE), -(-width // TILE)
    return tiles_h, tiles_w, p.n * tiles_h * tiles_w


def _grid(lines: int, channels: int) -> tuple[int, int]:
    return -(-lines // _WARPS), -(-channels // _LANES)


def _convolve(p: ConvProblem, inputs: Arrays, y: Any) -> None:
    source, weight, bias, residual = inputs
    (height, width, c), (out_h, out_w, k), pads = _sides(p)
    tiles_h, tiles_w, tiles = _tiles(p)
    turned = p.which == "backward_input"
    filters = empty((POINTS, p.k, p.c), "float32")
    launch(transform_weight(turned), _grid(p.k, p.c), (p.k, p.c, weight, filters))
    most = max(_CHUNK // (POINTS * (c + k)) // _LEAST, 1) * _LEAST
    where = *divisor(tiles_w), *divisor(tiles_h), tiles_h, tiles_w
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        points, sums = empty((POINTS, count, c), "float32"), empty((POINTS, count, k), "float32")
        launch(transform_input, _grid(count, c), (first, count, *where, *pads, height, width, c, source, points))
        products = MatmulProblem("forward", "float32", count, k, c, True, turned, batch=POINTS)
        matmul.run(products, (points, filters, None, None, _EACH), (sums,), None)
        numbers = first, count, *where, out_h, out_w, k
        launch(transform_output(p.epilogue), _grid(count, k), (*numbers, sums, bias, residual, y))


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, (*inputs, None, None), outputs[0])


def _supports(p: ConvProblem) -> str | None:
    if settings.get_precision() != "float32":
        return f"the precision is {settings.get_precision()!r}"
    if (p.r, p.s) != (3, 3) or p.stride != (1, 1) or p.dilation != (1, 1):
        return "not a 3 x 3 filter with stride 1 and dilation 1"
    if p.groups > 1:
        return "more than one group"
    if POINTS * p.c * p.k > matmul.MOST:
        return "transformed filters of more than 2**31 - 1 elements"
    return supports(p)


def _cost(p: ConvProblem) -> float:
    (_, _, c), (_, _, k), _ = _sides(p)
    *_, tiles = _tiles(p)
    products = matmul.cost(MatmulProblem("forward", "float32", tiles, k, c, True, True, batch=POINTS))
    # A transformed number is written and read once, which takes as long as 120 operations; the launches count, too.
    return products + 120.0 * POINTS * (tiles * (c + k) + c * k) + 5e8


def _tolerance(p: ConvProblem) -> float:
    return 1e-5


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [Candidate("cuda.winograd", _forward, _supports, _cost, tolerance=_tolerance)],
    ("conv2d", "backward_input"): [Candidate("cuda.winograd", _backward_input, _supports, _cost, tolerance=_tolerance)],
}
