"""Largest and smallest elements along a dimension, with their places."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import convert, integers, lanes, load_tail, numpy_lanes, select, splat, store_tail

_CHUNK = 1 << 14  # elements a task, about


@kernel
def rows(task: Index, ints: I64, x: T, values: T, positions: I64):
    """The extremes of some runs of memory."""
    outer, reduced, chunk, largest = integers(ints, 4)
    for a in range(task * chunk, min(outer, (task + 1) * chunk)):
        i = a * reduced
        best, at = x[i], 0
        if largest:
            for r in range(1, reduced):
                if x[i + r] > best or x[i + r] != x[i + r]:
                    if best != best:
                        break
                    best, at = x[i + r], r
        else:
            for r in range(1, reduced):
                if x[i + r] < best or x[i + r] != x[i + r]:
                    if best != best:
                        break
                    best, at = x[i + r], r
        values[a], positions[a] = best, at


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
            better = (sign * v > sign * best) | ((v != v) & (best == best))
            best, at = select(better, v, best), select(better, splat(x, float(r)), at)
        store_tail(values, a * inner + b, best, n)
        store_tail(positions, a * inner + b, convert(at, positions), n)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outer, reduced, inner = problem.outer, problem.reduced, problem.inner
    if inner == 1:
        chunk = max(1, _CHUNK // reduced)
        sizes: tuple[int, ...] = (outer, reduced, chunk, problem.largest)
        launch(rows, -(-outer // chunk), (*inputs, *outputs), sizes, problem.dtype)
        return
    width = numpy_lanes(problem.dtype)
    strips, chunk = -(-inner // width), max(1, _CHUNK // (reduced * width))
    sizes = (outer, reduced, inner, strips, chunk, problem.largest)
    launch(columns, -(-outer * strips // chunk), (*inputs, *outputs), sizes, problem.dtype)


def _supports(problem: Any) -> str | None:
    exact = 1 << (24 if problem.dtype == "float32" else 53)
    return None if problem.inner == 1 or problem.reduced <= exact else f"places beyond {exact} are not exact"


CANDIDATES: CandidateLists = {("extremum", "forward"): [Candidate("cpu.vector", _forward, _supports)]}
