"""Local response normalisation of arrays."""

from __future__ import annotations

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import contiguous
from numbanet.problem.base import float_array, same_dtype
from numbanet.problem.pointwise import number
from numbanet.problem.response import response_norm_problem


def pixels(x: np.ndarray) -> np.ndarray:
    """Return x of shape (N, C, ...) as a C-contiguous array of shape (N, ..., C), copied only if it must be."""
    return contiguous(x.transpose(0, *range(2, x.ndim), 1))


def from_pixels(rows: np.ndarray) -> np.ndarray:
    """Undo `pixels`."""
    return rows.transpose(0, rows.ndim - 1, *range(1, rows.ndim - 1))


def _numbers(alpha: float, beta: float, k: float) -> np.ndarray:
    return np.array([number("alpha", alpha), number("beta", beta), number("k", k)])


def local_response_norm(
    x: np.ndarray, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> np.ndarray:
    """Return x / (k + alpha / size * sum of squares)^beta, the sum over `size` neighbouring channels.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, ...), at least 3 dimensions; float32 or float64.
    size : int
        Channels of a window: from c - size // 2 to c + (size - 1) // 2; beyond the ends are zeros.
    alpha, beta, k : float

    Returns
    -------
    numpy.ndarray
        Same shape; channels lie side by side in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
    section 3.3 (where alpha is not divided by the size).
    """
    x = float_array("input", x)
    problem = response_norm_problem("forward", same_dtype(input=x), x.shape, size)
    rows, numbers = pixels(x), _numbers(alpha, beta, k)
    y = memory.empty(rows.shape, x.dtype, x)
    if y.size:
        matrix = (problem.rows, problem.channels)
        dispatch.run(problem, (rows.reshape(matrix), numbers), (y.reshape(matrix),))
    return from_pixels(y)


def local_response_norm_backward(
    grad: np.ndarray, x: np.ndarray, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> np.ndarray:
    """Return the gradient of `local_response_norm` with respect to x.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result, of the shape of x.
    x, size, alpha, beta, k
        As given to `local_response_norm`.
    """
    x, grad = float_array("input", x), float_array("grad", grad)
    if grad.shape != x.shape:
        raise ValueError(f"grad must have the shape {x.shape} of the input, got {grad.shape}")
    problem = response_norm_problem("backward_input", same_dtype(grad=grad, input=x), x.shape, size)
    rows = pixels(x)
    dx = memory.empty(rows.shape, x.dtype, x)
    if dx.size:
        matrix = (problem.rows, problem.channels)
        inputs = (pixels(grad).reshape(matrix), rows.reshape(matrix), _numbers(alpha, beta, k))
        dispatch.run(problem, inputs, (dx.reshape(matrix),))
    return from_pixels(dx)
