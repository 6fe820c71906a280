"""Definition of interpolation: the product with a matrix down, and with another across."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.problem.resample import Table


def matrix(table: Table, size: int) -> np.ndarray:
    """Return the matrix of a table: a row an output, a column an input."""
    found = np.zeros((len(table.starts) - 1, size))
    rows = np.repeat(np.arange(len(found)), np.diff(table.starts))
    np.add.at(found, (rows, table.sources), table.weight)
    return found


def _run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x = inputs[0]
    rows, columns = problem.tables
    outputs[0][...] = np.einsum("ph,qw,nhwc->npqc", matrix(rows, x.shape[1]), matrix(columns, x.shape[2]), x)


CANDIDATES: CandidateLists = {
    ("resample", which): [Candidate("reference", _run, cost=lambda p: float("inf"))]
    for which in ("forward", "backward_input")
}
