"""The transforms of Winograd's minimal filtering F(4x4, 3x3), and of its adjoint, for the kernels that make them.

The points of evaluation are 0, A, -A, B, -B and infinity, as on the CPU. A kernel gives a thread one tile of one
channel; the lanes of a warp lie along the channels, so that every access is one line of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.cuda.compile import device
from numbanet.cuda.division import divide
from numbanet.cuda.ptx import cuda, types

A, B = 5 / 8, 3 / 2  # points of evaluation
TILE, SPAN = 4, 6  # pixels of a tile, out and in, along each axis
POINTS = SPAN * SPAN
LANES, WARPS = 32, 8
THREADS = LANES * WARPS
EACH = np.tile(np.arange(POINTS), (2, 1))  # product i takes matrix i of both stacks

i32, f32 = types.int32, types.float32
_AA, _BB, _AB = f32(A * A), f32(B * B), f32((A * B) ** 2)
_SUM, _A, _B = f32(A * A + B * B), f32(A), f32(B)
_AAA, _BBB = f32(A**3), f32(B**3)
# A filter's value at a point is divided by the product of the distances to the other points.
_W0, _WA, _WB = f32((A * B) ** -2), f32(1 / (2 * A**2 * (A**2 - B**2))), f32(1 / (2 * B**2 * (B**2 - A**2)))


@device
def input_line(d, out, i):
    """Transform six pixels in a row: row i of `out`."""
    out[i, 0] = _AB * d[0] - _SUM * d[2] + d[4]
    even, odd = d[4] - _BB * d[2], _A * (d[3] - _BB * d[1])
    out[i, 1], out[i, 2] = even + odd, even - odd
    even, odd = d[4] - _AA * d[2], _B * (d[3] - _AA * d[1])
    out[i, 3], out[i, 4] = even + odd, even - odd
    out[i, 5] = _AB * d[1] - _SUM * d[3] + d[5]


@device
def filter_line(g, out, i):
    """Transform three taps in a row: row i of `out`."""
    out[i, 0] = _W0 * g[0]
    even, odd = _WA * (g[0] + _AA * g[2]), _WA * _A * g[1]
    out[i, 1], out[i, 2] = even + odd, even - odd
    even, odd = _WB * (g[0] + _BB * g[2]), _WB * _B * g[1]
    out[i, 3], out[i, 4] = even + odd, even - odd
    out[i, 5] = g[2]


@device
def output_line(m, out, i):
    """Transform six sums in a row back to four pixels: row i of `out`."""
    even_a, odd_a, even_b, odd_b = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    out[i, 0] = m[0] + even_a + even_b
    out[i, 1] = _A * odd_a + _B * odd_b
    out[i, 2] = _AA * even_a + _BB * even_b
    out[i, 3] = _AAA * odd_a + _BBB * odd_b + m[5]


@device
def place(number, row, image, tiles_w, tiles_h):
    """Return (image, line, column) of a tile."""
    line = divide(number, row)
    n = divide(line, image)
    return n, i32(line - n * tiles_h), i32(number - line * tiles_w)


@device
def gradient_line(d, out, i):
    """Transform four gradients in a row, for the gradient of the filter: row i of `out`."""
    out[i, 0] = d[0]
    even, odd = d[0] + _AA * d[2], _A * d[1] + _AAA * d[3]
    out[i, 1], out[i, 2] = even + odd, even - odd
    even, odd = d[0] + _BB * d[2], _B * d[1] + _BBB * d[3]
    out[i, 3], out[i, 4] = even + odd, even - odd
    out[i, 5] = d[3]


@device
def taps_line(m, out, i):
    """Transform six sums in a row back to three taps: row i of `out`."""
    even_a, odd_a, even_b, odd_b = _WA * (m[1] + m[2]), _WA * (m[1] - m[2]), _WB * (m[3] + m[4]), _WB * (m[3] - m[4])
    out[i, 0] = _W0 * m[0] + even_a + even_b
    out[i, 1] = _A * odd_a + _B * odd_b
    out[i, 2] = _AA * even_a + _BB * even_b + m[5]


@device
def channel_and_line():
    """Return the channel and the line (a tile or a filter) of a thread: see `grid`."""
    t = i32(cuda.threadIdx.x)
    return i32(cuda.blockIdx.y * LANES + t % LANES), i32(cuda.blockIdx.x * WARPS + t // LANES)


def to_points(size: int, along: Any) -> Any:
    """Make ``put(half, out, line, lines, c, channels)``, the second half of a transform of size x size numbers.

    `half` holds the columns after ``along(column, half, i)``, and `out` is (36, lines, channels).
    """

    @device
    def put(half, out, line, lines, c, channels):
        taken, whole = cuda.local.array(size, f32), cuda.local.array((6, 6), f32)
        for row in range(6):
            for column in range(size):
                taken[column] = half[column, row]
            along(taken, whole, row)
        for row in range(6):
            for column in range(6):
                out[i32(((row * 6 + column) * lines + line) * channels + c)] = whole[row, column]

    return put


def from_points(size: int, along: Any) -> Any:
    """Make ``take(sums, line, lines, c, channels, whole)``: from sums (36, lines, channels) to size x size numbers."""

    @device
    def take(sums, line, lines, c, channels, whole):
        taken, half = cuda.local.array(6, f32), cuda.local.array((6, size), f32)
        for column in range(6):
            for row in range(6):
                taken[row] = sums[i32(((row * 6 + column) * lines + line) * channels + c)]
            along(taken, half, column)
        for row in range(size):
            for column in range(6):
                taken[column] = half[column, row]
            along(taken, whole, row)

    return take


def grid(lines: int, channels: int) -> tuple[int, int]:
    """Return the blocks that give each line (a tile or a filter) of each channel a thread."""
    return -(-lines // WARPS), -(-channels // LANES)
