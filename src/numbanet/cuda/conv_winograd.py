"""Winograd's convolution F(4x4, 3x3) in float32, forward and backward_input: 36 products of matrices in place of nine.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), section 4.3. Input tiles are
transformed (`numbanet.cuda.winograd`) to (point, tile, channel), the filters to (point, filter, channel),
`numbanet.cuda.matmul` multiplies point by point, and the sums are transformed back with the epilogue. This goes in
chunks of tiles whose transforms stay in a GPU's cache.

backward_input is forward with the filters turned by half a turn, and channels and filters changed over.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet import settings
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import matmul, tile
from numbanet.cuda.compile import F32, Int, Kernel, kernel
from numbanet.cuda.conv_direct import supports
from numbanet.cuda.conv_plan import MOST_COLUMNS
from numbanet.cuda.division import divisor
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.winograd import (
    EACH,
    POINTS,
    THREADS,
    TILE,
    channel_and_line,
    filter_line,
    from_points,
    grid,
    input_line,
    output_line,
    place,
    to_points,
)
from numbanet.problem.conv import ConvProblem, Epilogue
from numbanet.problem.matmul import MatmulProblem

_CHUNK = 1 << 23  # numbers in the transforms of a chunk: 32 MB
_LEAST = tile.SIZE  # tiles of a chunk

i32, f32 = types.int32, types.float32
_put_pixels, _put_taps = to_points(6, input_line), to_points(3, filter_line)
_take_results = from_points(4, output_line)


@kernel(threads=THREADS, blocks=2)
def transform_input(
    first: Int, tiles: Int, row_by: Int, row_shift: Int, image_by: Int, image_shift: Int, tiles_h: Int, tiles_w: Int,
    top: Int, left: Int, height: Int, width: Int, channels: Int, x: F32, out: F32,
):  # fmt: skip
    """Transform the tiles from `first` on; out: (36, tiles, channels)."""
    c, local = channel_and_line()
    if c >= channels or local >= tiles:
        return
    n, i, j = place(i32(first + local), (row_by, row_shift), (image_by, image_shift), tiles_w, tiles_h)
    y0, x0 = i32(i * TILE - top), i32(j * TILE - left)
    line, half = cuda.local.array(6, f32), cuda.local.array((6, 6), f32)
    for column in range(6):
        for row in range(6):
            y, x_ = i32(y0 + row), i32(x0 + column)
            inside = 0 <= y and y < height and 0 <= x_ and x_ < width
            line[row] = x[i32(((n * height + y) * width + x_) * channels + c)] if inside else f32(0)
        input_line(line, half, column)
    _put_pixels(half, out, local, tiles, c, channels)


@lru_cache(maxsize=2)
def transform_weight(turned: bool) -> Kernel:
    """Return the kernel that transforms the filters, turned by half a turn or not: (k, 3, 3, c) to (36, k, c)."""
    last = 2 if turned else 0
    sign = -1 if turned else 1

    @kernel(threads=THREADS, config="turned" if turned else "")
    def transform_weight(filters: Int, channels: Int, weight: F32, out: F32):
        c, k = channel_and_line()
        if c >= channels or k >= filters:
            return
        line, half = cuda.local.array(3, f32), cuda.local.array((3, 6), f32)
        for column in range(3):
            for row in range(3):
                tap = i32((k * 3 + last + sign * row) * 3 + last + sign * column)
                line[row] = weight[i32(tap * channels + c)]
            filter_line(line, half, column)
        _put_taps(half, out, k, filters, c, channels)

    return transform_weight


@lru_cache(maxsize=16)
def transform_output(epilogue: Epilogue) -> Kernel:
    """Return the kernel that transforms sums (36, tiles, channels) back, and applies an epilogue."""
    finish = tile.finisher(epilogue)
    fetch_bias, fetch_addend = tile.fetcher(epilogue.bias, 1), tile.fetcher(epilogue.residual, 1)

    @kernel(threads=THREADS, blocks=2, config=",".join(tile.words(epilogue)))
    def transform_output(
        first: Int, tiles: Int, row_by: Int, row_shift: Int, image_by: Int, image_shift: Int, tiles_h: Int,
        tiles_w: Int, height: Int, width: Int, channels: Int, sums: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        c, local = channel_and_line()
        if c >= channels or local >= tiles:
            return
        n, i, j = place(i32(first + local), (row_by, row_shift), (image_by, image_shift), tiles_w, tiles_h)
        whole = cuda.local.array((4, 4), f32)
        _take_results(sums, local, tiles, c, channels, whole)
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


def _convolve(p: ConvProblem, inputs: Arrays, y: Any) -> None:
    source, weight, bias, residual = inputs
    (height, width, c), (out_h, out_w, k), pads = _sides(p)
    tiles_h, tiles_w, tiles = _tiles(p)
    turned = p.which == "backward_input"
    filters = empty((POINTS, p.k, p.c), "float32")
    launch(transform_weight(turned), grid(p.k, p.c), (p.k, p.c, weight, filters))
    most = max(_CHUNK // (POINTS * (c + k)) // _LEAST, 1) * _LEAST
    where = *divisor(tiles_w), *divisor(tiles_h), tiles_h, tiles_w
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        points, sums = empty((POINTS, count, c), "float32"), empty((POINTS, count, k), "float32")
        launch(transform_input, grid(count, c), (first, count, *where, *pads, height, width, c, source, points))
        products = MatmulProblem("forward", "float32", count, k, c, True, turned, batch=POINTS)
        matmul.run(products, (points, filters, None, None, EACH), (sums,), None)
        numbers = first, count, *where, out_h, out_w, k
        launch(transform_output(p.epilogue), grid(count, k), (*numbers, sums, bias, residual, y))


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, (*inputs, None, None), outputs[0])


def unsupported(p: ConvProblem) -> str | None:
    """Return None, or why Winograd's algorithms can't compute a problem, or may not."""
    if settings.get_precision() != "float32":
        return f"the precision is {settings.get_precision()!r}"
    if (p.r, p.s) != (3, 3) or p.stride != (1, 1) or p.dilation != (1, 1):
        return "not a 3 x 3 filter with stride 1 and dilation 1"
    if p.groups > 1:
        return "more than one group"
    if max(p.c, p.k) > MOST_COLUMNS:
        return f"more than {MOST_COLUMNS} channels or filters"
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
    ("conv2d", "forward"): [Candidate("cuda.winograd", _forward, unsupported, _cost, tolerance=_tolerance)],
    ("conv2d", "backward_input"): [
        Candidate("cuda.winograd", _backward_input, unsupported, _cost, tolerance=_tolerance),
    ],
}
