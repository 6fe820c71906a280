"""3x3 convolution with stride 1 by Winograd's F(4x4, 3x3): a quarter of the products, at a larger rounding error.

A task walks over blocks of tiles: it transforms their input, multiplies 36 pairs of matrices (one a point of the
transformed tile) with the register tiles of direct convolution, and transforms the products back. No padded copy is
made: the pixels of a tile are given by addresses, those of zeros where they are padding.

backward_input is the same algorithm with the filter turned round and the padding complemented.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory, settings
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import run_tiles, zeros
from numbanet.cpu.pack import pack, panel_count
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, numpy_lanes, offset
from numbanet.cpu.tile import ACCUMULATE, MAX_ROWS, MAX_VECTORS, address, stack_buffer
from numbanet.cpu.winograd import POINTS, SPAN, TILE, transform_input, transform_output, transform_weight
from numbanet.problem.conv import ConvProblem

_SHARES = 16  # tasks, each with work buffers of its own
_MOST_TILES = 48  # tiles of a block
_INPUT_BYTES = 1 << 20  # transformed input of a block
_TABLE = 128
_CHANNEL_BLOCK = 256  # channels of one chain of sums
_CHANNELS = 1024  # channels of the reduction at most: beyond, the error of the transforms exceeds the tolerance


@kernel
def transform_weights(task: Index, ints: I64, packed: T, out: T):
    """Transform one row of channels of one packed panel."""
    c, k, panels = integers(ints, 3)
    panel, channel = task // c, task % c
    width = min(MAX_VECTORS, (k - panel * MAX_VECTORS * lanes(out) + lanes(out) - 1) // lanes(out))
    pitch = width * lanes(out)
    before = panel * MAX_VECTORS * lanes(out) * c  # numbers a tap of the panels before
    for j in range(0, pitch, lanes(out)):
        at = channel * pitch + j
        transform_weight(packed, 9 * before + at, c * pitch, out, 36 * before + at, c * pitch)


@device
def _pixel_addresses(table, x, n, top, left, h, w, c, zero):
    """Write the addresses of the 6 x 6 pixels from (top, left) on."""
    for i in range(SPAN):
        row = top + i
        for j in range(SPAN):
            column = left + j
            inside = 0 <= row < h and 0 <= column < w
            table[i * SPAN + j] = address(x, ((n * h + row) * w + column) * c) if inside else zero


@device
def _result_addresses(table, y, n, top, left, p, q, k):
    """Write the addresses of the 4 x 4 output pixels from (top, left) on, 0 beyond the output."""
    for i in range(TILE):
        for j in range(TILE):
            inside = top + i < p and left + j < q
            table[i * TILE + j] = address(y, ((n * p + top + i) * q + left + j) * k) if inside else 0


@kernel
def winograd(task: Index, ints: I64, x: T, weights: T, zero: T, bias: T, work: T, y: T):
    """Convolve one share of the blocks of tiles."""
    (
        h, w, c, p, q, k, top, left, tiles_h, tiles_w, tiles, block, shares, in_step, out_step, relu,
    ) = integers(ints, 16)  # fmt: skip
    vector = lanes(x)
    pitch = MAX_VECTORS * vector
    transformed = offset(work, task * POINTS * (in_step + out_step))
    products = offset(transformed, POINTS * in_step)
    pixels, results = stack_buffer(ints, 64), stack_buffer(ints, 16)
    rows, outs = stack_buffer(ints, _TABLE), stack_buffer(ints, _TABLE)
    for m in range(block + MAX_ROWS):
        rows[m] = address(transformed, min(m, block - 1) * c)
        outs[m] = address(products, min(m, block - 1) * pitch)
    blocks = (tiles + block - 1) // block
    for b in range(task * blocks // shares, (task + 1) * blocks // shares):
        first = b * block
        count = min(block, tiles - first)
        for m in range(count):
            n, rest = (first + m) // (tiles_h * tiles_w), (first + m) % (tiles_h * tiles_w)
            i, j = rest // tiles_w * TILE, rest % tiles_w * TILE
            _pixel_addresses(pixels, x, n, i - top, j - left, h, w, c, address(zero, 0))
            for channel in range(0, c, vector):
                transform_input(pixels, channel, c - channel, transformed, m * c + channel, in_step)
        for column in range(0, k, pitch):
            width = min(MAX_VECTORS, (k - column + vector - 1) // vector)
            for point in range(POINTS):
                panel = (column * POINTS + point * width * vector) * c
                # In blocks of channels, as in direct convolution: one chain of sums over all would lose digits.
                for channel in range(0, c, _CHANNEL_BLOCK):
                    run_tiles(
                        width, vector, rows, 0, point * in_step + channel, 1, min(_CHANNEL_BLOCK, c - channel),
                        offset(weights, panel + channel * width * vector), 0,
                        outs, point * out_step, count, ACCUMULATE if channel else 0, bias, 0,
                    )  # fmt: skip
            for m in range(count):
                n, rest = (first + m) // (tiles_h * tiles_w), (first + m) % (tiles_h * tiles_w)
                _result_addresses(results, y, n, rest // tiles_w * TILE, rest % tiles_w * TILE, p, q, k)
                for j in range(0, width * vector, vector):
                    transform_output(
                        products, m * pitch + j, out_step, results, column + j, k - column - j, bias, relu
                    )  # fmt: skip


def _shape(p: ConvProblem) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int]]:
    """Return (height, width, channels) of source and result, and the padding above and to the left of the source."""
    if p.which == "forward":
        return (p.h, p.w, p.c), (p.p, p.q, p.k), (p.pads[0], p.pads[2])
    return (p.p, p.q, p.k), (p.h, p.w, p.c), (2 - p.pads[0], 2 - p.pads[2])


def _tiles(p: ConvProblem) -> tuple[int, int, int]:
    """Return the tiles of a column, of a row, and in all."""
    _, (height, width, _), _ = _shape(p)
    tiles_h, tiles_w = -(-height // TILE), -(-width // TILE)
    return tiles_h, tiles_w, p.n * tiles_h * tiles_w


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[int, int, tuple[int, ...]]:
    """Return the number of shares, the numbers in the work buffer of each, and the integers of the launch."""
    source, result, pads = _shape(p)
    tiles_h, tiles_w, tiles = _tiles(p)
    itemsize = np.dtype(p.dtype).itemsize
    most = max(12, min(_MOST_TILES, _INPUT_BYTES // (POINTS * source[2] * itemsize) // 12 * 12))
    blocks = max(-(-tiles // most), min(_SHARES, -(-tiles // 12)))
    block = min(most, -(-tiles // blocks))
    shares = min(_SHARES, -(-tiles // block))
    steps = _odd_lines(block * source[2], p.dtype), _odd_lines(block * MAX_VECTORS * numpy_lanes(p.dtype), p.dtype)
    relu = int(p.epilogue.activation == "relu")
    return shares, POINTS * sum(steps), (
        *source, *result, *pads, tiles_h, tiles_w, tiles, block, shares, *steps, relu,
    )  # fmt: skip


def _odd_lines(count: int, dtype: str) -> int:
    """Round up to an odd number of vectors: the 36 points of a tile must not fall into the same cache sets."""
    size = numpy_lanes(dtype)
    return (-(-count // size) | 1) * size


def _turned_taps(forward: bool) -> np.ndarray:
    """Return the nine taps in the order that the transform reads them."""
    order = range(9) if forward else range(8, -1, -1)
    return np.array([(0, 0, index) for index in order], np.int64)


def transformed_weight(p: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return the packed panels of the transformed filter."""
    forward = p.which == "forward"
    packed = pack(weight, _turned_taps(forward), 1, 9, not forward, p.dtype)
    c, k = (p.c, p.k) if forward else (p.k, p.c)
    out = memory.empty((4 * packed.size,), p.dtype)
    panels = panel_count(k, p.dtype)
    launch(transform_weights, panels * c, (packed, out), (c, k, panels), p.dtype)
    return out


def _run(p: ConvProblem, source: np.ndarray, weights: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    shares, work_size, integers_ = _plan(p)
    work = memory.empty((shares * work_size,), p.dtype)
    nothing = zeros(max(source.shape[3], out.shape[3]), p.dtype)
    buffers = (source, weights, nothing, nothing if bias is None else bias, work, out)
    launch(winograd, shares, buffers, integers_, p.dtype)


def _forward(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, _ = inputs
    _run(problem, x, weight, bias, outputs[0])


def _backward_input(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(problem, *inputs, None, outputs[0])


def _supports(p: ConvProblem) -> str | None:
    if settings.get_precision() == "strict":
        return "the precision is 'strict'"
    if p.dtype != "float32":
        return "float64 is for checks: its rounding shall be that of the definition"
    if (p.r, p.s) != (3, 3) or p.stride != (1, 1) or p.dilation != (1, 1):
        return "not a 3 x 3 filter with stride 1 and dilation 1"
    if p.groups > 1:
        return "more than one group"
    if 0 in (p.n, p.c, p.k):
        return "an empty operand"
    if p.epilogue.residual or p.epilogue.activation not in (None, "relu"):
        return "a fused residual or relu6"
    channels = p.c if p.which == "forward" else p.k
    if channels > _CHANNELS:
        return f"{channels} channels in the reduction, more than {_CHANNELS}: its rounding error would be too large"
    return None


def _cost(p: ConvProblem) -> float:
    *_, tiles = _tiles(p)
    (_, _, c), (_, _, k), _ = _shape(p)
    columns = -(-k // numpy_lanes(p.dtype)) * numpy_lanes(p.dtype)
    # What the transforms cost in operations at peak, measured: those of the weight are bound by memory.
    transforms = tiles * (1300.0 * -(-c // 16) * 16 + 1000.0 * columns + 6000.0) + 2500.0 * c * k
    return 2.0 * POINTS * tiles * c * columns + transforms


def _form(p: ConvProblem) -> str:
    return p.which


def _tolerance(p: ConvProblem) -> float:
    return 3e-5


def _candidate(run: Callable[..., None]) -> list[Candidate]:
    return [
        Candidate(
            "cpu.winograd", run, _supports, _cost, tolerance=_tolerance, prepare=transformed_weight, form=_form
        )  # fmt: skip
    ]


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidate(_forward),
    ("conv2d", "backward_input"): _candidate(_backward_input),
}
