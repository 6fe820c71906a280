"""Adaptive maximum pooling and its gradient on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import channels_last, contiguous
from numbanet.problem.base import array, float_array, same_dtype, sizes
from numbanet.problem.pool_adaptive import adaptive_max_pool2d_problem


def _batched(name: str, x: np.ndarray) -> np.ndarray:
    if x.ndim not in (3, 4):
        raise ValueError(f"{name} must have shape (N, C, H, W) or (C, H, W), got {x.shape}")
    return x if x.ndim == 4 else x[None]


def _shaped(y: np.ndarray, ndim: int) -> np.ndarray:
    y = y.transpose(0, 3, 1, 2)
    return y if ndim == 4 else y[0]


def adaptive_max_pool2d(x: np.ndarray, output_size: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the maxima of P x Q rectangles that cover the image evenly, and their positions.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W) or (C, H, W), any strides; float32 or float64.
    output_size : int or (int or None, int or None)
        (P, Q); one number for both; None for the size of the input.

    Returns
    -------
    y : numpy.ndarray
        Shape (N, C, P, Q) or (C, P, Q): the maxima over the rows floor(p*H/P) to ceil((p+1)*H/P) - 1 and the columns
        likewise; NaN beats numbers. Channels-last in memory.
    positions : numpy.ndarray
        int64, same shape, ``row * W + column``; of equal maxima the first counts.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    x = float_array("input", x)
    images = _batched("input", x)
    if x.ndim == 4 and not x.shape[1]:  # a single image may have none, as in torch
        raise ValueError(f"input must have at least one channel, got {x.shape}")
    problem = adaptive_max_pool2d_problem("forward", images.shape, same_dtype(input=x), output_size)
    shape = (problem.n, problem.p, problem.q, problem.c)
    y, positions = memory.empty(shape, problem.dtype, x), memory.empty(shape, np.int64, x)
    if y.size:
        dispatch.run(problem, (channels_last(images),), (y, positions))
    return _shaped(y, x.ndim), _shaped(positions, x.ndim)


def adaptive_max_pool2d_backward(grad: np.ndarray, positions: np.ndarray, input_shape: Sequence[int]) -> np.ndarray:
    """Return the gradient of `adaptive_max_pool2d` with respect to its input.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the maxima: shape (N, C, P, Q) or (C, P, Q).
    positions : numpy.ndarray
        The second result of `adaptive_max_pool2d`.
    input_shape : sequence of int
        Shape of the input.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad, shape = float_array("grad", grad), sizes("input_shape", input_shape)
    positions = array("positions", positions)
    if positions.dtype != np.int64:
        raise TypeError(f"positions must have dtype int64, got {positions.dtype}")
    if grad.shape != positions.shape:
        raise ValueError(f"grad must have the shape {positions.shape} of positions, got {grad.shape}")
    if grad.ndim not in (3, 4) or grad.shape[:-2] != shape[:-2]:
        raise ValueError(f"grad must have the samples and channels of input_shape {shape}, got shape {grad.shape}")
    if 0 in grad.shape[1:]:
        raise ValueError(f"output_size must have pixels, and input channels, for a gradient: grad is {grad.shape}")
    grads, images = _batched("grad", grad), shape if len(shape) == 4 else (1, *shape)
    problem = adaptive_max_pool2d_problem("backward_input", images, same_dtype(grad=grad), grads.shape[2:])
    # As unsigned numbers, negative positions are huge.
    known = isinstance(positions, np.ndarray) and positions.size
    if known and contiguous(positions).view(np.uint64).max() >= problem.h * problem.w:
        raise ValueError(f"positions must lie in the {problem.h} x {problem.w} pixels of input_shape {shape}")
    dx = memory.empty((problem.n, problem.h, problem.w, problem.c), problem.dtype, grad)
    if dx.size:
        dispatch.run(problem, (channels_last(grads), channels_last(_batched("positions", positions))), (dx,))
    return _shaped(dx, len(shape))
