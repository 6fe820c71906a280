"""Definition of adaptive maximum pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def _window(index: int, size: int, count: int) -> range:
    return range(index * size // count, -(-(index + 1) * size // count))


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """The largest element; NaN beats numbers, the last NaN the others; among equals the first wins."""
    x, (y, positions) = inputs[0], outputs
    for p, q in np.ndindex(problem.p, problem.q):
        best, at = np.full((problem.n, problem.c), -np.inf, x.dtype), np.zeros((problem.n, problem.c), np.int64)
        rows, columns = _window(p, problem.h, problem.p), _window(q, problem.w, problem.q)
        at[...] = rows[0] * problem.w + columns[0]
        for row in rows:
            for column in columns:
                value = x[:, row, column]
                better = (value > best) | np.isnan(value)
                best, at = np.where(better, value, best), np.where(better, row * problem.w + column, at)
        y[:, p, q], positions[:, p, q] = best, at


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """Each gradient goes to the element that was the maximum."""
    grad, positions = inputs
    flat = np.zeros((problem.n, problem.h * problem.w, problem.c), grad.dtype)
    n, c = np.ogrid[: problem.n, : problem.c]
    for p, q in np.ndindex(problem.p, problem.q):
        np.add.at(flat, (n, positions[:, p, q], c), grad[:, p, q])
    outputs[0][...] = flat.reshape(outputs[0].shape)


CANDIDATES: CandidateLists = {
    ("adaptive_max_pool2d", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("adaptive_max_pool2d", "backward_input"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
