"""Softmax and its logarithm on arrays."""

from __future__ import annotations

import math

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.steady import steady
from numbanet.problem.base import dtype_name, float_array, same_dtype
from numbanet.problem.softmax import SoftmaxProblem, softmax_dim


def _problem(which: str, log: bool, dense: np.ndarray, dim: int) -> SoftmaxProblem:
    """Describe the work on a dense array: its dimensions in the order of memory, before, at and after `dim`."""
    axis = softmax_dim(dim, dense.ndim)
    order = memory.memory_order(dense)
    sizes = [dense.shape[a] for a in order] or [1]
    place = order.index(axis) if order else 0
    outer, inner = math.prod(sizes[:place]), math.prod(sizes[place + 1 :])
    return SoftmaxProblem(which, dtype_name(dense.dtype), log, outer, sizes[place], inner)


def _along(x: np.ndarray, problem: SoftmaxProblem) -> np.ndarray:
    return memory.flat(x).reshape(problem.outer, problem.length, problem.inner)


@steady(1)
def _forward(x: np.ndarray, log: bool, dim: int) -> np.ndarray:
    x = memory.dense(float_array("x", x))
    problem = _problem("forward", log, x, dim)
    y = memory.empty_like(x)
    dispatch.run(problem, (_along(x, problem),), (_along(y, problem),))
    return y


@steady(2)
def _backward(grad: np.ndarray, y: np.ndarray, log: bool, dim: int) -> np.ndarray:
    y, grad = memory.dense(float_array("y", y)), float_array("grad", grad)
    same_dtype(grad=grad, y=y)
    if grad.shape != y.shape:
        raise ValueError(f"grad must have the shape {y.shape} of the result, got {grad.shape}")
    problem = _problem("backward_input", log, y, dim)
    grad, dx = memory.like_layout(grad, y), memory.empty_like(y)
    dispatch.run(problem, (_along(grad, problem), _along(y, problem)), (_along(dx, problem),))
    return dx


def softmax(x: np.ndarray, dim: int) -> np.ndarray:
    """Return exp(x) divided by its sum along a dimension; no overflow.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape; float32 or float64.
    dim : int
        Negative numbers count from the end.

    Returns
    -------
    numpy.ndarray
        Same shape, dtype and memory order as `x`.

    Raises
    ------
    TypeError
        If `x` has another dtype, or `dim` is not an integer.
    ValueError
        If there is no such dimension.
    """
    return _forward(x, False, dim)


def softmax_backward(grad: np.ndarray, y: np.ndarray, dim: int) -> np.ndarray:
    """Return the gradient of `softmax` with respect to its input, from the gradient and the value y of its result."""
    return _backward(grad, y, False, dim)


def log_softmax(x: np.ndarray, dim: int) -> np.ndarray:
    """Return the logarithm of `softmax`, accurate where that is small; arguments and errors as there."""
    return _forward(x, True, dim)


def log_softmax_backward(grad: np.ndarray, y: np.ndarray, dim: int) -> np.ndarray:
    """Return the gradient of `log_softmax` with respect to its input, from the gradient and value y of its result."""
    return _backward(grad, y, True, dim)
