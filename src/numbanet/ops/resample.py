"""Interpolation of images on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.pool import adaptive_avg_pool2d, adaptive_avg_pool2d_backward
from numbanet.ops.shape import channels_last
from numbanet.problem.base import float_array, same_dtype, sizes
from numbanet.problem.resample import ResampleProblem, Resizing, resizing


def _images(x: np.ndarray) -> np.ndarray:
    """Return (N, C, W) as images of one row."""
    return x[:, :, None] if x.ndim == 3 else x


def _problem(which: str, dtype: str, shape: Sequence[int], mode: str, how: Resizing) -> ResampleProblem:
    n, c, h, w = shape if len(shape) == 4 else (*shape[:2], 1, shape[2])
    (p, q), scales = ((1,) * (4 - len(shape)) + how.sizes), (1.0,) * (4 - len(shape)) + how.scales
    mode = "bilinear" if mode == "linear" else mode
    return ResampleProblem(which, dtype, n, h, w, c, p, q, mode, how.align_corners, (scales[0], scales[1]))


def interpolate(
    x: np.ndarray,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> np.ndarray:
    """Return images in another size.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W), or (N, C, W) with ``"nearest"``, ``"nearest-exact"``, ``"linear"`` or ``"area"``; any
        strides; float32 or float64.
    size : int or tuple of int, optional
        Of the result, one number for each axis or for all.
    scale_factor : float or tuple of float, optional
        Instead of `size`: the result has floor(size * factor) pixels.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "bicubic", "area"}
        ``"nearest"`` takes the pixel at floor(index * scale), ``"nearest-exact"`` the one under the centre; the cubic
        kernel is that of Keys with a = -0.75; ``"area"`` is `adaptive_avg_pool2d`.
    align_corners : bool, optional
        Whether the centres of the corner pixels stay where they are; else (None, False) the borders of the image do.
    recompute_scale_factor : bool, optional
        Compute with the quotient of the rounded sizes instead of `scale_factor`.
    antialias : bool
        Must be False.

    Returns
    -------
    numpy.ndarray
        Shape (N, C, P, Q) or (N, C, Q), channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. ASSP 29, 1981.
    """
    x = float_array("input", x)
    how = resizing(x.shape, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    problem, images = _problem("forward", same_dtype(input=x), x.shape, mode, how), _images(x)
    if mode == "area":
        y = adaptive_avg_pool2d(images, (problem.p, problem.q))
        return y[:, :, 0] if x.ndim == 3 else y
    out = memory.empty((problem.n, problem.p, problem.q, problem.c), problem.dtype, x)
    if out.size:
        dispatch.run(problem, (channels_last(images),), (out,))
    y = out.transpose(0, 3, 1, 2)
    return y[:, :, 0] if x.ndim == 3 else y


def interpolate_backward(
    grad: np.ndarray,
    input_shape: Sequence[int],
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> np.ndarray:
    """Return the gradient of `interpolate` with respect to its input, of shape `input_shape`.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad, shape = float_array("grad", grad), sizes("input_shape", input_shape)
    how = resizing(shape, size, scale_factor, mode, align_corners, recompute_scale_factor)
    if grad.shape != (*shape[:2], *how.sizes):
        raise ValueError(f"grad must have the result's shape {(*shape[:2], *how.sizes)}, got {grad.shape}")
    problem = _problem("backward_input", same_dtype(grad=grad), shape, mode, how)
    if mode == "area":
        full = adaptive_avg_pool2d_backward(_images(grad), (problem.n, problem.c, problem.h, problem.w))
        return full.reshape(shape)
    dx = memory.empty((problem.n, problem.h, problem.w, problem.c), problem.dtype, grad)
    if dx.size:
        dispatch.run(problem, (channels_last(_images(grad)),), (dx,))
    return dx.transpose(0, 3, 1, 2).reshape(shape)
