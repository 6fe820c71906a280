"""Gradient of a 3x3 filter with stride 1 by Winograd's algorithm: the adjoint of `numbanet.cuda.conv_winograd`.

The 4 x 4 gradients of a tile and the 6 x 6 pixels that they met are transformed to 36 points each,
`numbanet.cuda.matmul` sums their outer products over the tiles of a chunk, point by point, and the sums are transformed
back to the nine taps and added to those of the chunks before: so no chain of sums is longer than a chunk.
"""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import matmul, tile
from numbanet.cuda.compile import F32, Int, kernel
from numbanet.cuda.conv_winograd import transform_input, unsupported
from numbanet.cuda.division import divisor
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.winograd import (
    EACH,
    POINTS,
    THREADS,
    TILE,
    channel_and_line,
    from_points,
    gradient_line,
    grid,
    place,
    taps_line,
    to_points,
)
from numbanet.problem.conv import ConvProblem
from numbanet.problem.matmul import MatmulProblem

_CHUNK = 1 << 25  # numbers in the transforms of a chunk: 128 MB, so that they are many more than the sums
_LEAST = tile.SIZE  # tiles of a chunk

i32, f32 = types.int32, types.float32
_put_gradients, _take_taps = to_points(4, gradient_line), from_points(3, taps_line)


@kernel(threads=THREADS, blocks=2)
def transform_gradient(
    first: Int, tiles: Int, row_by: Int, row_shift: Int, image_by: Int, image_shift: Int, tiles_h: Int, tiles_w: Int,
    height: Int, width: Int, channels: Int, grad: F32, out: F32,
):  # fmt: skip
    """Transform the tiles from `first` on; out: (36, tiles, channels)."""
    c, local = channel_and_line()
    if c >= channels or local >= tiles:
        return
    n, i, j = place(i32(first + local), (row_by, row_shift), (image_by, image_shift), tiles_w, tiles_h)
    line, half = cuda.local.array(4, f32), cuda.local.array((4, 6), f32)
    for column in range(4):
        for row in range(4):
            p, q = i32(i * TILE + row), i32(j * TILE + column)
            inside = p < height and q < width
            line[row] = grad[i32(((n * height + p) * width + q) * channels + c)] if inside else f32(0)
        gradient_line(line, half, column)
    _put_gradients(half, out, local, tiles, c, channels)


@kernel(threads=THREADS)
def transform_sums(filters: Int, channels: Int, adds: Int, sums: F32, dw: F32):
    """Transform sums (36, filters, channels) back to dw (filters, 3, 3, channels), or add (`adds`) to what is there."""
    c, k = channel_and_line()
    if c >= channels or k >= filters:
        return
    whole = cuda.local.array((3, 3), f32)
    _take_taps(sums, k, filters, c, channels, whole)
    for row in range(3):
        for column in range(3):
            at = i32((k * 9 + row * 3 + column) * channels + c)
            dw[at] = whole[row, column] + dw[at] if adds != 0 else whole[row, column]


def _tiles(p: ConvProblem) -> tuple[int, int, int]:
    """Return the tiles of a column, of a row, and in all."""
    tiles_h, tiles_w = -(-p.p // TILE), -(-p.q // TILE)
    return tiles_h, tiles_w, p.n * tiles_h * tiles_w


def _chunk(p: ConvProblem) -> int:
    """Return the most tiles of a chunk."""
    return max(_CHUNK // (POINTS * (p.c + p.k)) // _LEAST, 1) * _LEAST


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (dw,) = inputs, outputs
    tiles_h, tiles_w, tiles = _tiles(p)
    where, most = (*divisor(tiles_w), *divisor(tiles_h), tiles_h, tiles_w), _chunk(p)
    sums = empty((POINTS, p.k, p.c), "float32")
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        pixels, gradients = empty((POINTS, count, p.c), "float32"), empty((POINTS, count, p.k), "float32")
        source = p.pads[0], p.pads[2], p.h, p.w, p.c, x, pixels
        launch(transform_input, grid(count, p.c), (first, count, *where, *source))
        launch(transform_gradient, grid(count, p.k), (first, count, *where, p.p, p.q, p.k, grad, gradients))
        products = MatmulProblem("forward", "float32", p.k, p.c, count, False, True, batch=POINTS)
        matmul.run(products, (gradients, pixels, None, None, EACH), (sums,), None)
        launch(transform_sums, grid(p.k, p.c), (p.k, p.c, int(first > 0), sums, dw))


def _supports(p: ConvProblem) -> str | None:
    return unsupported(p) or (None if p.n else "no images")


def _cost(p: ConvProblem) -> float:
    *_, tiles = _tiles(p)
    products = matmul.cost(MatmulProblem("forward", "float32", p.k, p.c, max(tiles, 1), False, True, batch=POINTS))
    chunks = -(-tiles // _chunk(p))
    # A transformed number is written and read once, which takes as long as 120 operations; the launches count, too.
    return products + 120.0 * POINTS * (tiles * (p.c + p.k) + chunks * p.c * p.k) + 5e8


def _tolerance(p: ConvProblem) -> float:
    return 3e-5


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cuda.winograd", _run, _supports, _cost, tolerance=_tolerance)],
}
