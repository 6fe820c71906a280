"""Definitions of the elementwise functions; those named ``..._backward`` give the gradient of an operand."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def maximum_backward(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The gradient of maximum with respect to `a`: equal operands share it."""
    return np.where(a == b, grad / 2, np.where(a < b, 0, grad))


def minimum_backward(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The gradient of minimum with respect to `a`: equal operands share it."""
    return np.where(a == b, grad / 2, np.where(a > b, 0, grad))


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a^b; integers to negative powers are 1 / a^-b without its fraction: 0, but for a = 1 and -1 (and 0 for a = 0)."""
    if b.dtype.kind != "i" or not np.any(b < 0):
        return np.asarray(np.power(a, b))
    sign = np.where(b & 1, a, 1)
    return np.where(b >= 0, np.power(a, np.maximum(b, 0)), np.where(abs(a) == 1, sign, 0)).astype(a.dtype)


def pow_backward_base(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """d(a^b)/da = b a^(b-1); 0 where b is 0, even at a = 0."""
    less = b - b.dtype.type(1)  # in b's dtype: with NumPy 1, a single float32 less 1 is a float64
    slope, step = b * np.power(a, less), b - less
    # Large exponents are even, and so is what b - 1 is rounded to: the sign of a negative base (or -0) would be lost.
    slope = np.where(np.signbit(a) & ((step < 0.5) | (step > 1.5)), -slope, slope)
    return np.where(b == 0, 0, grad * slope)


def pow_backward_exponent(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """d(a^b)/db = a^b log(a); 0 where a is 0 and b is not negative."""
    return np.where((a == 0) & (b >= 0), 0, grad * np.log(a) * np.power(a, b))


def clamp(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """min(max(x, low), high); NaN stays NaN, and `high` wins where the bounds cross."""
    return np.minimum(np.maximum(x, low), high)


FUNCTIONS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "pow": power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.absolute,
    "clamp": clamp,
    "where": lambda a, b, condition: np.where(condition, a, b),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "div_backward_divisor": lambda grad, a, b: -grad * (a / b / b),
    "pow_backward_base": pow_backward_base,
    "pow_backward_exponent": pow_backward_exponent,
    "maximum_backward": maximum_backward,
    "minimum_backward": minimum_backward,
    "sqrt_backward": lambda grad, y: grad / (2 * y),
    "abs_backward": lambda grad, x: np.where(x > 0, grad, np.where(x < 0, -grad, 0)),
    "at_least_backward": lambda grad, x, low: np.where(x >= low, grad, 0),
    "at_most_backward": lambda grad, x, high: np.where(x <= high, grad, 0),
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "prelu_backward": lambda grad, x, slope: np.where(x > 0, grad, slope * grad),
    "prelu_backward_weight": lambda grad, x: np.where(x > 0, 0, grad * x),
}


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    with np.errstate(all="ignore"):
        outputs[0][...] = FUNCTIONS[problem.function](*inputs)


CANDIDATES: CandidateLists = {
    ("elementwise", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
}
