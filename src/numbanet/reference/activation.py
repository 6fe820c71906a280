"""Definitions of the activation functions and their derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0); NaN stays NaN."""
    return np.maximum(x, 0)


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient passes where the result is not zero (torch: where it is not <= 0, so NaN passes)."""
    return np.where(y <= 0, 0, grad)


_FORWARD: dict[str, Any] = {"relu": relu}
_BACKWARD: dict[str, Any] = {"relu": relu_backward}


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outputs[0][...] = _FORWARD[problem.function](inputs[0])


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outputs[0][...] = _BACKWARD[problem.function](*inputs)


CANDIDATES: CandidateLists = {
    ("activation", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("activation", "backward_input"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
