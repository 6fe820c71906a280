"""Padding: lines made of runs of the input and of the constant, and the sum that takes gradients back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.copy import copy_run
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load, load_tail, splat, store, store_tail
from numbanet.cpu.stream import drain, streams
from numbanet.problem.shape import PadProblem

_CHUNK = 1 << 12  # elements a task, about


@device
def fill_run(y, o, count, value):
    """Write `value` to `count` elements that follow each other."""
    end = o + count
    v = splat(y, value)
    while end - o >= lanes(y):
        store(y, o, v)
        o += lanes(y)
    if o < end:
        store_tail(y, o, v, end - o)


@kernel
def pad(task: Index, ints: I64, axes: I64, maps: I64, runs: I64, x: T, value: F64, y: T):
    """One task some lines of y.

    `axes` holds (size in y, stride in x, start in `maps`) of each outer axis, `runs` the (first in x or -1, count) of
    the pieces of a line, in units of `inner` elements.
    """
    lines, chunk, outer, pieces, inner, line_size, large = integers(ints, 7)
    for line in range(task * chunk, min(lines, (task + 1) * chunk)):
        i, rest, outside = 0, line, False
        for axis in range(outer - 1, -1, -1):
            at = maps[axes[3 * axis + 2] + rest % axes[3 * axis]]
            rest //= axes[3 * axis]
            outside |= at < 0
            i += at * axes[3 * axis + 1]
        o = line * line_size
        for piece in range(pieces):
            first, count = runs[2 * piece], runs[2 * piece + 1] * inner
            if outside or first < 0:
                fill_run(y, o, count, value[0])
            else:
                copy_run(x, i + first * inner, y, o, count, large)
            o += count
    if large:
        drain()


@device
def add_run(x, i, y, o, count):
    """Add `count` elements of x that follow each other to those of y."""
    end = i + count
    while end - i >= lanes(x):
        store(y, o, load(y, o) + load(x, i))
        i += lanes(x)
        o += lanes(x)
    if i < end:
        n = end - i
        store_tail(y, o, load_tail(y, o, n) + load_tail(x, i, n), n)


@kernel
def fold(task: Index, ints: I64, starts: I64, sources: I64, grad: T, dx: T):
    """One task some of the (outer, size) runs of dx, shape (outer, size, inner), from grad, (outer, padded, inner).

    Element l of the axis is the sum of those numbered ``sources[starts[l]:starts[l + 1]]``, in that order.
    """
    runs, chunk, size, padded, inner, large = integers(ints, 6)
    for run in range(task * chunk, min(runs, (task + 1) * chunk)):
        outer, at = run // size, run % size
        o = run * inner
        if starts[at] == starts[at + 1]:
            fill_run(dx, o, inner, 0.0)
        for k in range(starts[at], starts[at + 1]):
            i = (outer * padded + sources[k]) * inner
            if k == starts[at]:
                copy_run(grad, i, dx, o, inner, large)
            else:
                add_run(grad, i, dx, o, inner)
    if large:
        drain()


@dataclass(frozen=True, eq=False)
class _Plan:
    tasks: int
    integers: tuple[int, ...]
    axes: np.ndarray
    maps: np.ndarray
    runs: np.ndarray


def _runs(table: np.ndarray) -> np.ndarray:
    """Return the (first, count) of the longest pieces of a map that ascend by one, or that stay -1."""
    steps = np.diff(table)
    same = (steps == 1) & (table[:-1] >= 0) | (table[:-1] < 0) & (table[1:] < 0)
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    return np.stack([table[starts], np.diff([*starts, len(table)])], 1).astype(np.int64)


@lru_cache(maxsize=1024)
def _plan(problem: PadProblem) -> _Plan:
    """Return the tables of a padding; the last axis that changes is that of the lines."""
    maps, shape = problem.maps, problem.padded_shape
    changed = [axis for axis, width in enumerate(problem.widths) if width != (0, 0)]
    line = changed[-1] if changed else len(shape) - 1
    inner = math.prod(shape[line + 1 :])
    starts = np.cumsum([0, *shape[:line]])
    axes = [(shape[a], math.prod(problem.shape[a + 1 :]), starts[a]) for a in range(line)]
    lines, line_size = math.prod(shape[:line]), shape[line] * inner
    chunk = max(1, _CHUNK // line_size)
    large = streams(lines * line_size * np.dtype(problem.dtype).itemsize)
    runs = _runs(maps[line])
    integers = (lines, chunk, len(axes), len(runs), inner, line_size, large)
    table = np.concatenate([*maps[:line], [0]]).astype(np.int64)
    return _Plan(-(-lines // chunk), integers, np.array([*axes, (1, 0, 0)], np.int64), table, runs)


def _pad(problem: PadProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    plan = _plan(problem)
    launch(pad, plan.tasks, (plan.axes, plan.maps, plan.runs, *inputs, *outputs), plan.integers, problem.dtype)


@lru_cache(maxsize=1024)
def _sources(problem: PadProblem, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which places of the padded axis show each element: where each list starts, and the lists."""
    table = problem.maps[axis]
    shown = np.flatnonzero(table >= 0)
    order = shown[np.argsort(table[shown], kind="stable")]
    counts = np.bincount(table[shown], minlength=problem.shape[axis])
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.append(order, 0).astype(np.int64)


def _pad_backward(problem: PadProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """Fold one axis after the other."""
    changed = [axis for axis, width in enumerate(problem.widths) if width != (0, 0)] or [0]
    shape, grad = list(problem.padded_shape), inputs[0]
    for axis in changed:
        padded, shape[axis] = shape[axis], problem.shape[axis]
        dx = outputs[0] if axis == changed[-1] else memory.empty(tuple(shape), problem.dtype)
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        runs, chunk = outer * shape[axis], max(1, _CHUNK // max(inner, 1))
        ints = (runs, chunk, shape[axis], padded, inner, streams(dx.nbytes))
        launch(fold, -(-runs // chunk), (*_sources(problem, axis), grad, dx), ints, problem.dtype)
        grad = dx


CANDIDATES: CandidateLists = {
    ("pad", "forward"): [Candidate("cpu.vector", _pad)],
    ("pad", "backward_input"): [Candidate("cpu.vector", _pad_backward)],
}
