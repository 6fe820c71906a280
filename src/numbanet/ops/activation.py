"""Elementwise activation functions on arrays.

Every function takes any shape, float32 or float64, and returns the same shape, dtype and memory order. The backward
functions take the gradient of the result and what the docstring names: the result, or the input.
"""

from __future__ import annotations

from functools import lru_cache
from math import copysign

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.steady import steady
from numbanet.problem.activation import ActivationProblem, gelu_form
from numbanet.problem.base import dtype_name, float_array, same_dtype
from numbanet.problem.pointwise import number


@lru_cache(maxsize=4096)
def _problem(
    which: str, dtype: np.dtype, function: str, size: int, parameter: float, sign: float
) -> ActivationProblem:  # fmt: skip
    """Return the problem; the sign is that of the parameter, and tells 0.0 from -0.0."""
    return ActivationProblem(which, dtype_name(dtype), function, size, parameter)


@steady(1)
def _forward(x: np.ndarray, function: str, parameter: float = 0.0) -> np.ndarray:
    x = memory.dense(float_array("x", x))
    y = memory.empty_like(x)
    problem = _problem("forward", x.dtype, function, x.size, parameter, copysign(1.0, parameter))
    dispatch.run(problem, (memory.flat(x),), (memory.flat(y),))
    return y


_FROM_RESULT = ("relu", "sigmoid", "tanh")  # the others are differentiated from their input


@steady(2)
def _backward(grad: np.ndarray, saved: np.ndarray, function: str, parameter: float = 0.0) -> np.ndarray:
    name = "y" if function in _FROM_RESULT else "x"
    saved, grad = float_array(name, saved), float_array("grad", grad)
    if grad.shape != saved.shape:
        raise ValueError(f"grad must have the shape {saved.shape} of the result, got {grad.shape}")
    saved = memory.dense(saved)
    grad = memory.like_layout(grad, saved)
    if grad.dtype != saved.dtype:
        same_dtype(**{"grad": grad, name: saved})
    dx = memory.empty_like(saved)
    problem = _problem("backward_input", saved.dtype, function, dx.size, parameter, copysign(1.0, parameter))
    dispatch.run(problem, (memory.flat(grad), memory.flat(saved)), (memory.flat(dx),))
    return dx


def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0); NaN stays NaN."""
    return _forward(x, "relu")


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of `relu` with respect to its input, from the gradient and the value of its result."""
    return _backward(grad, y, "relu")


def leaky_relu(x: np.ndarray, negative_slope: float = 0.01) -> np.ndarray:
    """Return x where it is positive, else ``negative_slope * x``."""
    return _forward(x, "leaky_relu", number("negative_slope", negative_slope))


def leaky_relu_backward(grad: np.ndarray, x: np.ndarray, negative_slope: float = 0.01) -> np.ndarray:
    """Return the gradient of `leaky_relu` with respect to its input x.

    The result may stand for `x` where the slope is not negative: it is positive where the input is.
    """
    return _backward(grad, x, "leaky_relu", number("negative_slope", negative_slope))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return _forward(x, "sigmoid")


def sigmoid_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of `sigmoid` with respect to its input, from the value y of its result."""
    return _backward(grad, y, "sigmoid")


def tanh(x: np.ndarray) -> np.ndarray:
    """Return the hyperbolic tangent of x."""
    return _forward(x, "tanh")


def tanh_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of `tanh` with respect to its input, from the value y of its result."""
    return _backward(grad, y, "tanh")


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Return x times the standard normal distribution function at x.

    Parameters
    ----------
    x : numpy.ndarray
    approximate : {"none", "tanh"}
        ``"tanh"``: the approximation x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    return _forward(x, gelu_form(approximate))


def gelu_backward(grad: np.ndarray, x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Return the gradient of `gelu` with respect to its input x."""
    return _backward(grad, x, gelu_form(approximate))


def silu(x: np.ndarray) -> np.ndarray:
    """Return x / (1 + exp(-x))."""
    return _forward(x, "silu")


def silu_backward(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient of `silu` with respect to its input x."""
    return _backward(grad, x, "silu")
