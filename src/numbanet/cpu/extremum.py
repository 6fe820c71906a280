"""Largest and smallest elements along a dimension, with their places."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    convert,
    integers,
    lanes,
    load_tail,
    load_tail_or,
    numpy_lanes,
    select,
    splat,
    store,
    store_tail,
)

_CHUNK = 1 << 14  # elements a task, about


@device
def _better(sign, v, best):
    return (sign * v > sign * best) | ((v != v) & (best == best))


@kernel
def rows(task: Index, ints: I64, x: T, scratch: T, values: T, positions: I64):
    """The extremes of some runs of memory: those of each lane, then of the lanes; of equals the first."""
    outer, reduced, chunk, largest = integers(ints, 4)
    w, spot = lanes(x), 2 * task * lanes(x)
    sign = splat(x, 1.0 if largest else -1.0)
    for a in range(task * chunk, min(outer, (task + 1) * chunk)):
        i = a * reduced
        best, at = load_tail_or(x, i, reduced, splat(x, x[i])), splat(x, 0.0)
        for r in range(w, reduced, w):
            v = load_tail_or(x, i + r, reduced - r, best)
            better = _better(sign, v, best)
            best, at = select(better, v, best), select(better, splat(x, float(r)), at)
        store(scratch, spot, best)
        store(scratch, spot + w, at)
        lane, place = 0, int(scratch[spot + w])
        for k in range(1, min(w, reduced)):
            v, top, where = scratch[spot + k], scratch[spot + lane], int(scratch[spot + w + k]) + k
            beats = v > top if largest else v < top
            same = v == top or (v != v and top != top)
            if beats or (v != v and top == top) or (same and where < place):
                lane, place = k, where
        values[a], positions[a] = scratch[spot + lane], place


@kernel
def columns(task: Index, ints: I64, x: T, values: T, positions: I64):
    """The extremes down some vectors of columns; places are counted in float lanes, which hold them exactly."""
    outer, reduced, inner, strips, chunk, largest = integers(ints, 6)
    sign = splat(x, 1.0 if largest else -1.0)
    for strip in range(task * chunk, min(outer * strips, (task + 1) * chunk)):
        a, b = strip // strips, strip % strips * lanes(x)
        n, p = inner - b, a * reduced * inner + b
        best, at = load_tail(x, p, n), splat(x, 0.0)
        for r in range(1, reduced):
            v = load_tail(x, p + r * inner, n)
            better = _better(sign, v, best)
            best, at = select(better, v, best), select(better, splat(x, float(r)), at)
        store_tail(values, a * inner + b, best, n)
        store_tail(positions, a * inner + b, convert(at, positions), n)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outer, reduced, inner = problem.outer, problem.reduced, problem.inner
    if inner == 1:
        chunk = _row_chunk(problem)
        sizes: tuple[int, ...] = (outer, reduced, chunk, problem.largest)
        arrays = (*inputs, workspace.view(problem.dtype), *outputs)
        launch(rows, -(-outer // chunk), arrays, sizes, problem.dtype)
        return
    width = numpy_lanes(problem.dtype)
    strips, chunk = -(-inner // width), max(1, _CHUNK // (reduced * width))
    sizes = (outer, reduced, inner, strips, chunk, problem.largest)
    launch(columns, -(-outer * strips // chunk), (*inputs, *outputs), sizes, problem.dtype)


def _row_chunk(problem: Any) -> int:
    return max(1, _CHUNK // problem.reduced)


def _scratch_bytes(problem: Any) -> int:
    tasks = -(-problem.outer // _row_chunk(problem)) if problem.inner == 1 else 0
    return 2 * tasks * numpy_lanes(problem.dtype) * np.dtype(problem.dtype).itemsize


def _supports(problem: Any) -> str | None:
    exact = 1 << (24 if problem.dtype == "float32" else 53)
    return None if problem.reduced <= exact else f"places beyond {exact} are not exact"


CANDIDATES: CandidateLists = {
    ("extremum", "forward"): [Candidate("cpu.vector", _forward, _supports, workspace_bytes=_scratch_bytes)]
}
