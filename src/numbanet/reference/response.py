"""Definition of local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def _window(values: np.ndarray, before: int, after: int) -> np.ndarray:
    """Return the sums over the columns from c - before to c + after."""
    columns = np.arange(values.shape[1])
    inside = (columns[None] >= columns[:, None] - before) & (columns[None] <= columns[:, None] + after)
    return values @ inside.T.astype(values.dtype)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, (alpha, beta, k) = inputs
    d = k + alpha / problem.size * _window(x * x, problem.before, problem.after)
    outputs[0][...] = x / d**beta


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """With d = k + ...: grad d^-beta, less 2 alpha beta / size x times the windows' sums of grad x d^(-beta-1)."""
    grad, x, (alpha, beta, k) = inputs
    d = k + alpha / problem.size * _window(x * x, problem.before, problem.after)
    shared = _window(grad * x * d ** (-beta - 1), problem.after, problem.before)
    outputs[0][...] = grad * d**-beta - 2 * alpha * beta / problem.size * x * shared


CANDIDATES: CandidateLists = {
    ("local_response_norm", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("local_response_norm", "backward_input"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
