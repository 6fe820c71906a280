"""Definitions of the activation functions and their derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists

_normal_cdf = np.frompyfunc(lambda x: 0.5 * math.erfc(-float(x) / math.sqrt(2)), 1, 1)


def relu(x: np.ndarray, parameter: float) -> np.ndarray:
    """max(x, 0); NaN stays NaN."""
    return np.maximum(x, 0)


def relu_backward(grad: np.ndarray, y: np.ndarray, parameter: float) -> np.ndarray:
    """The gradient passes where the result is not zero (torch: where it is not <= 0, so NaN passes)."""
    return np.where(y <= 0, 0, grad)


def leaky_relu(x: np.ndarray, slope: float) -> np.ndarray:
    """x where x > 0, else slope x."""
    return np.where(x > 0, x, slope * x)


def leaky_relu_backward(grad: np.ndarray, x: np.ndarray, slope: float) -> np.ndarray:
    """The derivative is 1 where x > 0, else the slope."""
    return np.where(x > 0, grad, slope * grad)


def sigmoid(x: np.ndarray, parameter: float = 0.0) -> np.ndarray:
    """1 / (1 + exp(-x)), written so that nothing overflows."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def sigmoid_backward(grad: np.ndarray, y: np.ndarray, parameter: float) -> np.ndarray:
    """y' = y (1 - y)."""
    return grad * y * (1 - y)


def tanh(x: np.ndarray, parameter: float) -> np.ndarray:
    """The hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(grad: np.ndarray, y: np.ndarray, parameter: float) -> np.ndarray:
    """y' = 1 - y^2."""
    return grad * (1 - y * y)


def gelu(x: np.ndarray, parameter: float) -> np.ndarray:
    """x Phi(x), Phi the standard normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415)."""
    return x * _normal_cdf(x).astype(x.dtype)


def gelu_backward(grad: np.ndarray, x: np.ndarray, parameter: float) -> np.ndarray:
    """y' = Phi(x) + x phi(x), phi the standard normal density."""
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return grad * (_normal_cdf(x).astype(x.dtype) + x * density)


def _gelu_inner(x: np.ndarray) -> np.ndarray:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def gelu_tanh(x: np.ndarray, parameter: float) -> np.ndarray:
    """x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3) (the same paper, section 2).

    (1 + tanh(u)) / 2 is sigmoid(2 u), in which nothing cancels.
    """
    return x * sigmoid(2 * _gelu_inner(x))


def gelu_tanh_backward(grad: np.ndarray, x: np.ndarray, parameter: float) -> np.ndarray:
    """y' = s + x s (1 - s) 2 u' with s = sigmoid(2 u)."""
    s = sigmoid(2 * _gelu_inner(x))
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return grad * (s + x * s * (1 - s) * 2 * slope)


def silu(x: np.ndarray, parameter: float) -> np.ndarray:
    """x sigmoid(x)."""
    return x * sigmoid(x)


def silu_backward(grad: np.ndarray, x: np.ndarray, parameter: float) -> np.ndarray:
    """y' = s (1 + x (1 - s)) with s = sigmoid(x)."""
    s = sigmoid(x)
    return grad * s * (1 + x * (1 - s))


FORWARD: dict[str, Any] = {
    "relu": relu, "leaky_relu": leaky_relu, "sigmoid": sigmoid, "tanh": tanh, "gelu": gelu, "gelu_tanh": gelu_tanh,
    "silu": silu,
}  # fmt: skip
BACKWARD: dict[str, Any] = {
    "relu": relu_backward, "leaky_relu": leaky_relu_backward, "sigmoid": sigmoid_backward, "tanh": tanh_backward,
    "gelu": gelu_backward, "gelu_tanh": gelu_tanh_backward, "silu": silu_backward,
}  # fmt: skip


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outputs[0][...] = FORWARD[problem.function](inputs[0], problem.parameter)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outputs[0][...] = BACKWARD[problem.function](*inputs, problem.parameter)


CANDIDATES: CandidateLists = {
    ("activation", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("activation", "backward_input"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
