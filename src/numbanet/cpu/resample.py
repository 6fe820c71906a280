"""Interpolation by tables: rows of the image are mixed into one, whose pixels are then mixed.

Mixing rows is a walk over long runs of memory. The gradient is the same sum with the tables turned round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import fma, integers, lanes, load, load_tail, offset, splat, store, store_tail

_CHUNK = 1 << 15  # elements a task, of what it reads or writes


@device
def _mix(x, i, step, index, weight, first, last, y, o, count):
    """y[o + j] = sum over k of weight[k] * x[i + index[k] * step + j], for j < count."""
    for j in range(0, count, lanes(x)):
        n = count - j
        total = splat(x, 0.0)
        if n >= lanes(x):
            for k in range(first, last):
                total = fma(load(x, i + index[k] * step + j), splat(x, weight[k]), total)
            store(y, o + j, total)
        else:
            for k in range(first, last):
                total = fma(load_tail(x, i + index[k] * step + j, n), splat(x, weight[k]), total)
            store_tail(y, o + j, total, n)


@kernel
def resample(
    task: Index, ints: I64, row_starts: I64, row_index: I64, row_weight: T, starts: I64, index: I64, weight: T,
    x: T, scratch: T, y: T,
):  # fmt: skip
    """One task some rows of y; a row that shows a single one of x is not copied."""
    rows, chunk, h, p, width, q, c = integers(ints, 7)
    for row in range(task * chunk, min(rows, (task + 1) * chunk)):
        image, line = row // p * h * width, row % p
        first, last = row_starts[line], row_starts[line + 1]
        if last - first == 1 and row_weight[first] == 1.0:
            source = offset(x, image + row_index[first] * width)
        else:
            source = offset(scratch, task * width)
            _mix(x, image, width, row_index, row_weight, first, last, source, 0, width)
        for j in range(q):
            _mix(source, 0, c, index, weight, starts[j], starts[j + 1], y, (row * q + j) * c, c)


@dataclass(frozen=True, eq=False)
class _Plan:
    tasks: int
    integers: tuple[int, ...]
    tables: tuple[np.ndarray, ...]


@lru_cache(maxsize=256)
def _plan(problem: Any) -> _Plan:
    h, w, p, q = problem.h, problem.w, problem.p, problem.q
    if problem.which != "forward":
        h, w, p, q = p, q, h, w
    rows, c = problem.n * p, problem.c
    chunk = max(1, _CHUNK // (max(w, q) * c))
    tables = []
    for table in problem.tables:
        # Never empty: a kernel's pointers point to something.
        tables += [table.starts.astype(np.int64), np.append(table.sources, 0).astype(np.int64)]
        tables += [np.append(table.weight, 0).astype(problem.dtype)]
    return _Plan(-(-rows // chunk), (rows, chunk, h, p, w * c, q, c), tuple(tables))


def _run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    plan = _plan(problem)
    arrays = (*plan.tables, *inputs, workspace.view(problem.dtype), *outputs)
    launch(resample, plan.tasks, arrays, plan.integers, problem.dtype)


def _scratch_bytes(problem: Any) -> int:
    plan = _plan(problem)
    return plan.tasks * plan.integers[4] * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("resample", which): [Candidate("cpu.tables", _run, workspace_bytes=_scratch_bytes)]
    for which in ("forward", "backward_input")
}
