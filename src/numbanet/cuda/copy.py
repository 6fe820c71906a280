"""Copies between memory orders, and conversion between dtypes.

Axes that lie alike in both arrays are one. If both are contiguous along the innermost axis, threads copy 16 bytes of a
line; if each is contiguous along another axis (from channels-last to row-major order), tiles turn in shared memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import F32, F64, I32, Int, Kernel, T, device, kernel
from numbanet.cuda.launch import aligned, constant, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import THREADS, blocks, i32, lanes, partial_accesses, real, too_large
from numbanet.problem.shape import CopyProblem

_TILE = 32
_THIN = 8  # planes with a shorter side (the three colours of an image) would leave most of a tile empty
_LINE = _TILE + 1  # one more than a tile's side: a column of a tile then lies in 32 different banks
_CELLS = _TILE * _LINE


@device
def _place(rest, axes, count):
    """Return the offsets in x and y of a number of the outer axes; `axes` holds (size, stride in x, stride in y)."""
    at_x, at_y = i32(0), i32(0)
    for axis in range(i32(count - 1), -1, -1):
        size = axes[i32(3 * axis)]
        position = i32(rest % size)
        rest = i32(rest // size)
        at_x = i32(at_x + position * axes[i32(3 * axis + 1)])
        at_y = i32(at_y + position * axes[i32(3 * axis + 2)])
    return at_x, at_y


@lru_cache(maxsize=8)
def copy_lines(dtype: str, wide: int) -> Kernel:
    """Return the kernel that copies lines of `length` elements, `step_x` and `step_y` apart: 1 where `wide` is not."""
    number = real(dtype)
    get, put = partial_accesses(wide)

    @kernel(threads=THREADS, config=f"{dtype},{wide}")
    def lines(work: Int, count: Int, length: Int, pieces: Int, step_x: Int, step_y: Int, axes: I32, x: T, y: T):
        values = cuda.local.array(wide, number)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            line = i32(item // pieces)
            i = i32((item - line * pieces) * wide)
            at_x, at_y = _place(line, axes, count)
            get(x, i32(at_x + i * step_x), i32(length - i), values)
            put(y, i32(at_y + i * step_y), i32(length - i), values)

    return lines


@lru_cache(maxsize=4)
def copy_transposed(dtype: str) -> Kernel:
    """Return the kernel for planes in which x is contiguous along a, and y along b."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def turned(count: Int, a_size: Int, b_size: Int, a_y: Int, b_x: Int, b_tiles: Int, axes: I32, x: T, y: T):
        tile = cuda.shared.array(_CELLS, number)
        t = i32(cuda.threadIdx.x)
        column, row = i32(t & 31), i32(t >> 5)
        a_tile = i32(i32(cuda.blockIdx.x) // b_tiles)
        a = i32(a_tile * _TILE)
        b = i32((i32(cuda.blockIdx.x) - a_tile * b_tiles) * _TILE)
        at_x, at_y = _place(i32(cuda.blockIdx.y), axes, count)
        for i in range(4):
            j = i32(row + 8 * i)
            if b + j < b_size and a + column < a_size:
                tile[i32(j * _LINE + column)] = x[i32(at_x + (b + j) * b_x + a + column)]
        cuda.syncthreads()
        for i in range(4):
            j = i32(row + 8 * i)
            if a + j < a_size and b + column < b_size:
                y[i32(at_y + (a + j) * a_y + b + column)] = tile[i32(column * _LINE + j)]

    return turned


@dataclass(frozen=True, eq=False)
class _Plan:
    """The axes of a copy: outer ones in a table, the one or two inner ones as (size, stride in x, stride in y)."""

    axes: np.ndarray
    outer: int
    a: tuple[int, int, int]
    b: tuple[int, int, int]
    turned: bool


@lru_cache(maxsize=1024)
def _plan(problem: CopyProblem) -> _Plan:
    axes = list(problem.axes)
    b = axes.pop() if axes else (1, 1, 1)
    a = (1, 0, 0)
    along = next((position for position, axis in enumerate(axes) if axis[1] == 1), None)
    turned = b[2] == 1 and b[1] != 1 and along is not None and min(axes[along][0], b[0]) >= _THIN
    if turned:
        a = axes.pop(along)
    outer = math.prod(axis[0] for axis in axes)
    if turned and outer > 65535:  # of a grid's second dimension
        axes, a, turned, outer = [*axes[:along], a, *axes[along:]], (1, 0, 0), False, outer * a[0]
    return _Plan(np.array([*axes, (1, 0, 0)], np.int32), len(axes), a, b, turned)


def _vectors(plan: _Plan, dtype: str, x: Any, y: Any) -> int:
    """Return how many elements of a line an access may take."""
    n = lanes(dtype)
    steps = plan.axes[: plan.outer, 1:]
    fits = plan.b[1] == plan.b[2] == 1 and not (steps % n).any() and aligned(x, y)
    return n if fits and (plan.outer == 0 or plan.b[0] % n == 0) else 1


def _copy(problem: CopyProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x,), (y,) = inputs, outputs
    if 0 in problem.shape:
        return
    plan, dtype = _plan(problem), problem.dtype
    axes, outer = constant(plan.axes), math.prod(plan.axes[: plan.outer, 0].tolist())
    if plan.turned:
        tiles = [-(-axis[0] // _TILE) for axis in (plan.a, plan.b)]
        sizes = (plan.outer, plan.a[0], plan.b[0], plan.a[2], plan.b[1], tiles[1])
        launch(copy_transposed(dtype), (tiles[0] * tiles[1], outer), (*sizes, axes, x, y), dtype)
        return
    wide = _vectors(plan, dtype, x, y)
    pieces = -(-plan.b[0] // wide)
    sizes = (outer * pieces, plan.outer, plan.b[0], pieces, plan.b[1], plan.b[2])
    launch(copy_lines(dtype, wide), (blocks(outer * pieces),), (*sizes, axes, x, y), dtype)


def _supports(problem: CopyProblem) -> str | None:
    spans = (
        1 + sum(abs(stride) * (size - 1) for stride, size in zip(strides, problem.shape))
        for strides in (problem.x_strides, problem.y_strides)
    )
    return too_large(math.prod(problem.shape), *spans)


@kernel(threads=THREADS)
def widen(size: Int, x: F32, y: F64):
    """float32 to float64."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        y[i] = types.float64(x[i])


@kernel(threads=THREADS)
def narrow(size: Int, x: F64, y: F32):
    """float64 to float32, rounded to the nearest."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        y[i] = types.float32(x[i])


def _convert(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    chosen = widen if problem.dtype == "float32" else narrow
    launch(chosen, (blocks(problem.size),), (problem.size, *inputs, *outputs), problem.dtype)


def _converts(problem: Any) -> str | None:
    return too_large(problem.size)


CANDIDATES: CandidateLists = {
    ("copy", "forward"): [Candidate("cuda.tiles", _copy, _supports)],
    ("convert", "forward"): [Candidate("cuda.flat", _convert, _converts)],
}
