"""Definition of the multi-class hinge loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def _excess(x: np.ndarray, target: np.ndarray, margin: float) -> np.ndarray:
    """Return max(0, margin - x[y] + x[j]); 0 for j = y, and where x[j] is -inf, even if x[y] is as well."""
    rows = np.arange(len(x))
    found = np.where(x == -np.inf, 0, np.maximum(margin - x[rows, target][:, None] + x, 0))
    found[rows, target] = 0
    return found


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, target, weight, numbers = inputs
    powers = _excess(x, target, numbers[0]) ** problem.power
    outputs[0][...] = weight[target] * powers.sum(1) / problem.classes


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, target, weight, (margin, scale) = inputs
    excess = _excess(x, target, margin)
    slope = (excess > 0) if problem.power == 1 else 2 * excess
    dx = slope * (weight[target] * grad * scale / problem.classes)[:, None]
    dx[np.arange(len(x)), target] = -dx.sum(1)
    outputs[0][...] = dx


CANDIDATES: CandidateLists = {
    ("multi_margin_loss", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("multi_margin_loss", "backward_input"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
