"""The gradient of indexing with arrays: rows of a gradient are added where they were read."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.pad import add_run, fill_run
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers

_COLUMNS = 256


@kernel
def index_add(task: Index, ints: I64, grad: T, positions: I64, dx: T):
    """One task a block of columns, so that rows which occur twice are added in their order, without races."""
    rows, count, inner, block = integers(ints, 4)
    first = task * block
    n = min(block, inner - first)
    for row in range(rows):
        fill_run(dx, row * inner + first, n, 0.0)
    for k in range(count):
        add_run(grad, k * inner + first, dx, positions[k] * inner + first, n)


def _index_add(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    tasks = -(-problem.inner // _COLUMNS)
    launch(index_add, tasks, (*inputs, *outputs), (problem.rows, problem.count, problem.inner, _COLUMNS), problem.dtype)


CANDIDATES: CandidateLists = {("index_add", "forward"): [Candidate("cpu.vector", _index_add)]}
