"""Copies between memory orders, and conversion between the floating dtypes: at the speed of memory.

Axes that lie alike in both arrays become one. What is left is a pair of axes for the inner loops, and outer axes. If
both arrays are contiguous along the innermost axis, lines are copied; if each is contiguous along another axis (from
channels-last to row-major order, say), square blocks are transposed in registers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F32, F64, I64, Index, Kernel, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import convert, integers, lanes, load, load_tail, offset, splat, store, store_tail
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.cpu.transpose import transpose_tile
from numbanet.problem.base import dtype_name
from numbanet.problem.shape import CopyProblem

Ints = tuple[int, ...]

_CHUNK = 1 << 14  # elements a task
_BLOCK = 64  # of a transposed plane, a task takes a multiple of so many lines
_LONG_RUN = 512  # bytes; of shorter ones with gaps between, stores past the caches would cut lines in two
_THIN = 8  # planes with a shorter side (the three colours of an image) leave most of a block in registers empty


@device
def copy_run(x, i, y, o, count, large):
    """Copy `count` elements that follow each other; `large` says that y is (`drain` is the caller's)."""
    past = large != 0 and aligned(offset(y, o))
    end = i + count
    while end - i >= lanes(x):
        put(y, o, load(x, i), past)
        i += lanes(x)
        o += lanes(x)
    if i < end:
        store_tail(y, o, load_tail(x, i, end - i), end - i)


@device
def _place(task, ints, axes):
    """Return where a task begins in x and y, its first position on both inner axes, and how many it has there.

    `axes` holds (size, stride in x, stride in y) of each outer axis.
    """
    outer, a_size, b_size, a_chunk, b_chunk, ax, ay, bx, by = integers(ints, 9)
    b_chunks, a_chunks = (b_size + b_chunk - 1) // b_chunk, (a_size + a_chunk - 1) // a_chunk
    b, rest = (task % b_chunks) * b_chunk, task // b_chunks
    a, rest = (rest % a_chunks) * a_chunk, rest // a_chunks
    i, o = a * ax + b * bx, a * ay + b * by
    for axis in range(outer - 1, -1, -1):
        at = rest % axes[3 * axis]
        rest //= axes[3 * axis]
        i += at * axes[3 * axis + 1]
        o += at * axes[3 * axis + 2]
    return i, o, min(a_chunk, a_size - a), min(b_chunk, b_size - b)


@kernel
def copy_lines(task: Index, ints: I64, axes: I64, x: T, y: T):
    """Both arrays are contiguous along b."""
    i, o, a_count, b_count = _place(task, ints, axes)
    ax, ay, large = ints[5], ints[6], ints[9]
    for a in range(a_count):
        copy_run(x, i + a * ax, y, o + a * ay, b_count, large)
    if large:
        drain()


@kernel
def copy_transposed(task: Index, ints: I64, axes: I64, x: T, y: T):
    """x is contiguous along a, y along b."""
    i, o, a_count, b_count = _place(task, ints, axes)
    ay, bx = ints[6], ints[7]
    side = lanes(x)
    for a in range(0, a_count, side):
        for b in range(0, b_count, side):
            columns, rows = a_count - a, b_count - b
            source, destination = i + a + b * bx, o + a * ay + b
            if columns >= side and rows >= side:
                transpose_tile(x, source, bx, side, side, y, destination, ay)
            else:
                transpose_tile(x, source, bx, min(rows, side), min(columns, side), y, destination, ay)


@kernel
def copy_strided(task: Index, ints: I64, axes: I64, x: T, y: T):
    """Any strides along both axes; the inner loop takes the longer one."""
    i, o, a_count, b_count = _place(task, ints, axes)
    ax, ay, bx, by = ints[5], ints[6], ints[7], ints[8]
    if a_count > b_count:
        for b in range(b_count):
            for a in range(a_count):
                y[o + a * ay + b * by] = x[i + a * ax + b * bx]
    else:
        for a in range(a_count):
            for b in range(b_count):
                y[o + a * ay + b * by] = x[i + a * ax + b * bx]


@dataclass(frozen=True, eq=False)
class _Plan:
    kernel: Kernel
    tasks: int
    integers: tuple[int, ...]
    axes: np.ndarray


@lru_cache(maxsize=1024)
def _plan(dtype: str, shape: Ints, x_strides: Ints, y_strides: Ints) -> _Plan:
    """Choose the kernel and the inner axes a and b of a copy."""
    problem, item = CopyProblem("forward", dtype, shape, x_strides, y_strides), np.dtype(dtype).itemsize
    axes = problem.axes
    b = axes.pop() if axes else (1, 1, 1)
    along = next((position for position, axis in enumerate(axes) if axis[1] == 1), len(axes) - 1)
    a = axes.pop(along) if axes else (1, 0, 0)
    if b[1] == b[2] == 1:
        chosen = copy_lines
    elif a[1] == b[2] == 1 and min(a[0], b[0]) >= _THIN:
        chosen = copy_transposed
    else:
        chosen = copy_strided
    if chosen is copy_transposed:
        b_chunk = min(b[0], _CHUNK // _BLOCK)
        a_chunk = min(a[0], _CHUNK // b_chunk // _BLOCK * _BLOCK)
    else:
        b_chunk = min(b[0], _CHUNK)
        a_chunk = min(a[0], max(1, _CHUNK // b_chunk))
    tasks = math.prod(axis[0] for axis in axes) * -(-a[0] // a_chunk) * -(-b[0] // b_chunk)
    table = np.array([*axes, (1, 0, 0)], np.int64)
    # What is written may be a part of a larger array, such as one of those that are joined there.
    reached = 1 + sum((size - 1) * abs(step) for size, step in zip(shape, y_strides))
    whole = reached == math.prod(shape) or b[0] * item >= _LONG_RUN
    large = whole and streams(reached * item)
    return _Plan(chosen, tasks, (len(axes), a[0], b[0], a_chunk, b_chunk, *a[1:], *b[1:], large), table)


def _copy(problem: CopyProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    plan = _plan(problem.dtype, problem.shape, problem.x_strides, problem.y_strides)
    launch(plan.kernel, plan.tasks, (plan.axes, *inputs, *outputs), plan.integers, problem.dtype)


def arrange(x: np.ndarray, y: np.ndarray, shape: Ints, x_strides: Ints, y_strides: Ints) -> None:
    """Write elements of x to y, both C-contiguous and of one floating dtype; strides are counted in elements."""
    if 0 not in shape:
        dtype = dtype_name(x.dtype)
        plan = _plan(dtype, shape, x_strides, y_strides)
        launch(plan.kernel, plan.tasks, (plan.axes, x, y), plan.integers, dtype)


def transpose(x: np.ndarray, y: np.ndarray) -> None:
    """Write the transpose of a matrix; both are C-contiguous, and of one floating dtype."""
    rows, columns = x.shape
    arrange(x, y, (columns, rows), (1, columns), (rows, 1))


def transposed(x: np.ndarray) -> np.ndarray:
    """Return a C-contiguous transpose of a C-contiguous matrix."""
    y = memory.empty(x.shape[::-1], x.dtype)
    transpose(x, y)
    return y


@kernel
def zero(task: Index, ints: I64, y: T):
    """Write zeros, a chunk a task."""
    size, chunk, large = integers(ints, 3)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    past = large != 0 and aligned(y)
    while end - i >= lanes(y):
        put(y, i, splat(y, 0.0), past)
        i += lanes(y)
    if i < end:
        store_tail(y, i, splat(y, 0.0), end - i)
    if past:
        drain()


def clear(y: np.ndarray) -> None:
    """Write zeros to a C-contiguous array."""
    launch(zero, -(-y.size // _CHUNK), (y,), (y.size, _CHUNK, streams(y.nbytes)), y.dtype.name)


@device
def _convert_run(task, ints, x, y):
    size, chunk = integers(ints, 2)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while end - i >= lanes(x):
        store(y, i, convert(load(x, i), y))
        i += lanes(x)
    if i < end:
        store_tail(y, i, convert(load_tail(x, i, end - i), y), end - i)


@kernel
def widen(task: Index, ints: I64, x: F32, y: F64):
    """float32 to float64."""
    _convert_run(task, ints, x, y)


@kernel
def narrow(task: Index, ints: I64, x: F64, y: F32):
    """float64 to float32, rounded to the nearest."""
    _convert_run(task, ints, x, y)


def _convert(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    chosen = widen if problem.dtype == "float32" else narrow
    launch(chosen, -(-problem.size // _CHUNK), (*inputs, *outputs), (problem.size, _CHUNK), problem.dtype)


CANDIDATES: CandidateLists = {
    ("copy", "forward"): [Candidate("cpu.vector", _copy)],
    ("convert", "forward"): [Candidate("cpu.vector", _convert)],
}
