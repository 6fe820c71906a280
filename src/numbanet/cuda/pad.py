"""Padding, forward and backward: maps say where each element of the result comes from, or lists where it went."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I32, Int, Kernel, Number, T, device, kernel
from numbanet.cuda.launch import aligned, constant, launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, accesses, blocks, i32, lanes, real, shape_too_large
from numbanet.problem.shape import PadProblem


@lru_cache(maxsize=8)
def _forward_kernel(dtype: str, wide: int) -> Kernel:
    """Return the kernel; `axes` holds (size in y, stride in x, where its map begins) of each axis.

    With several numbers an access, the innermost axis is counted in accesses, and not padded.
    """
    number = real(dtype)
    get, put = accesses(wide)

    @kernel(threads=THREADS, config=f"{dtype},{wide}")
    def pad(work: Int, count: Int, value: Number, axes: I32, maps: I32, x: T, y: T):
        values = cuda.local.array(wide, number)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            rest, at, inside = item, i32(0), True
            for axis in range(i32(count - 1), -1, -1):
                size = axes[i32(3 * axis)]
                position = i32(rest % size)
                rest = i32(rest // size)
                source = maps[i32(axes[i32(3 * axis + 2)] + position)]
                inside = inside and source >= 0
                at = i32(at + source * axes[i32(3 * axis + 1)])
            if inside:
                get(x, at, values)
            else:
                for lane in range(wide):
                    values[lane] = value
            put(y, i32(item * wide), values)

    return pad


@device
def _shown(axes, axis, position, starts):
    """Return where the list of a position of an axis begins, and how long it is."""
    at = i32(axes[i32(4 * axis + 2)] + position)
    return starts[at], i32(starts[i32(at + 1)] - starts[at])


@lru_cache(maxsize=4)
def _backward_kernel(dtype: str) -> Kernel:
    """Return the kernel in which an element of dx adds up the gradients of all places that show it.

    `axes` holds (size in x, stride in y, where its starts begin, unused) of each axis; `places` the positions in y.
    """
    zero = real(dtype)(0)

    @kernel(threads=THREADS, config=dtype)
    def pad_backward(size: Int, count: Int, axes: I32, starts: I32, places: I32, grad: T, dx: T):
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            rest, shown = item, i32(1)
            for axis in range(i32(count - 1), -1, -1):
                n = axes[i32(4 * axis)]
                _, length = _shown(axes, axis, i32(rest % n), starts)
                rest, shown = i32(rest // n), i32(shown * length)
            total = zero
            for choice in range(shown):
                rest, which, at = item, i32(choice), i32(0)
                for axis in range(i32(count - 1), -1, -1):
                    n = axes[i32(4 * axis)]
                    first, length = _shown(axes, axis, i32(rest % n), starts)
                    at = i32(at + places[i32(first + which % length)] * axes[i32(4 * axis + 1)])
                    rest, which = i32(rest // n), i32(which // length)
                total += grad[at]
            dx[item] = total

    return pad_backward


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


@lru_cache(maxsize=256)
def _forward_tables(problem: PadProblem, wide: int) -> tuple[np.ndarray, np.ndarray]:
    maps = list(problem.maps)
    sizes, strides = list(problem.padded_shape), _strides(problem.shape)
    if wide > 1:
        sizes[-1], strides[-1], maps[-1] = sizes[-1] // wide, wide, np.arange(sizes[-1] // wide)
    starts = np.cumsum([0, *(len(axis) for axis in maps)])[:-1]
    axes = np.stack([sizes, strides, starts], 1).astype(np.int32)
    return axes, np.concatenate(maps).astype(np.int32)


@lru_cache(maxsize=256)
def _backward_tables(problem: PadProblem) -> tuple[np.ndarray, ...]:
    strides = _strides(problem.padded_shape)
    axes, starts, places = [], [], []
    known, listed = 0, 0
    for size, stride, shows in zip(problem.shape, strides, problem.maps):
        inside = np.flatnonzero(shows >= 0)
        counts = np.bincount(shows[inside], minlength=size)
        axes.append((size, stride, known, 0))
        starts.append(listed + np.concatenate([[0], np.cumsum(counts)]))
        places.append(inside[np.argsort(shows[inside], kind="stable")])
        known, listed = known + size + 1, listed + len(inside)
    return tuple(np.ascontiguousarray(np.concatenate(t), np.int32) for t in ([axes], starts, places))


def _forward(problem: PadProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, value), (y,), dtype = inputs, outputs, problem.dtype
    n = lanes(dtype)
    whole = problem.widths[-1] == (0, 0) and problem.shape[-1] % n == 0 and aligned(x, y)
    wide = n if whole else 1
    axes, maps = _forward_tables(problem, wide)
    work = math.prod(problem.padded_shape) // wide
    arrays = (constant(axes), constant(maps), x, y)
    launch(_forward_kernel(dtype, wide), (blocks(work),), (work, len(axes), float(value[0]), *arrays), dtype)


def _backward(problem: PadProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = math.prod(problem.shape)
    tables = _backward_tables(problem)
    arrays = (*map(constant, tables), *inputs, *outputs)
    launch(_backward_kernel(problem.dtype), (blocks(size),), (size, len(problem.shape), *arrays), problem.dtype)


def _supports(problem: PadProblem) -> str | None:
    return shape_too_large(problem.shape, problem.padded_shape)


CANDIDATES: CandidateLists = {
    ("pad", "forward"): [Candidate("cuda.maps", _forward, _supports)],
    ("pad", "backward_input"): [Candidate("cuda.gather", _backward, _supports)],
}
