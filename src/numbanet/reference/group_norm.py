"""Definition of layer, group and instance normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def _grouped(problem: Any, x: np.ndarray) -> np.ndarray:
    return x.reshape(problem.n, problem.positions, problem.groups, problem.channels // problem.groups)


def _each(problem: Any, statistic: np.ndarray) -> np.ndarray:
    """Return a number a group as a number a channel, to broadcast over positions."""
    return np.repeat(statistic, problem.channels // problem.groups, axis=1)[:, None]


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, eps = inputs
    y, mean, inverse, variance = outputs
    groups = _grouped(problem, x)
    mean[...] = groups.mean((1, 3))
    variance[...] = groups.var((1, 3))
    inverse[...] = 1 / np.sqrt(variance + eps[0])
    y[...] = (x - _each(problem, mean)) * _each(problem, inverse)
    y[...] = y * (1 if weight is None else weight) + (0 if bias is None else bias)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """With h the normalised x and g = grad * weight: (g - mean(g) - h mean(g h)) / deviation, the means of a group."""
    grad, x, weight, mean, inverse = inputs
    dx, dweight, dbias = outputs
    h = (x - _each(problem, mean)) * _each(problem, inverse)
    g = grad if weight is None else grad * weight
    shared = _each(problem, _grouped(problem, g).mean((1, 3)))
    slope = _each(problem, _grouped(problem, g * h).mean((1, 3)))
    dx[...] = (g - shared - h * slope) * _each(problem, inverse)
    dweight[...] = (grad * h).sum((0, 1))
    dbias[...] = grad.sum((0, 1))


CANDIDATES: CandidateLists = {
    ("group_norm", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("group_norm", "backward"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
