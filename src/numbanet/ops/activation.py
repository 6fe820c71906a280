"""Elementwise activation functions on arrays."""

from __future__ import annotations

import numpy as np

from numbanet import dispatch, memory
from numbanet.problem.activation import ActivationProblem
from numbanet.problem.base import float_array, same_dtype


def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0); NaN stays NaN.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape; float32 or float64.

    Returns
    -------
    numpy.ndarray
        Same shape, dtype and memory order as `x`.
    """
    x = memory.dense(float_array("x", x))
    y = memory.empty_like(x)
    problem = ActivationProblem("forward", x.dtype.name, "relu", x.size)
    dispatch.run(problem, (memory.flat(x),), (memory.flat(y),))
    return y


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of `relu` with respect to its input, from the gradient and the value of its result."""
    y = memory.dense(float_array("y", y))
    grad = memory.like_layout(float_array("grad", grad), y)
    dx = memory.empty_like(y)
    problem = ActivationProblem("backward_input", same_dtype(grad=grad, y=y), "relu", y.size)
    dispatch.run(problem, (memory.flat(grad), memory.flat(y)), (memory.flat(dx),))
    return dx
