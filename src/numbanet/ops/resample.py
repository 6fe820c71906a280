"""Interpolation of images on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.pool import adaptive_avg_pool2d, adaptive_avg_pool2d_backward
from numbanet.ops.shape import channels_last, reshape
from numbanet.problem.base import array, float_array, same_dtype, sizes
from numbanet.problem.resample import ResampleProblem, Resizing, resizing


@dataclass(frozen=True)
class Stage:
    """One pass over images: from (h, w) to (p, q) pixels, with their scales."""

    source: tuple[int, int]
    target: tuple[int, int]
    scales: tuple[float | None, float | None]


def _stages(shape: Sequence[int], how: Resizing) -> tuple[Stage, ...]:
    """Return the passes: a sequence is an image of one row; a volume is resized plane by plane, and then in depth."""
    sizes, scales = how.sizes, how.scales
    if len(shape) == 3:
        return (Stage((1, shape[2]), (1, sizes[0]), (1.0, scales[0])),)
    planes = Stage((shape[-2], shape[-1]), (sizes[-2], sizes[-1]), (scales[-2], scales[-1]))
    if len(shape) == 4:
        return (planes,)
    pixels = sizes[1] * sizes[2]
    return planes, Stage((shape[2], pixels), (sizes[0], pixels), (scales[0], 1.0))


def _images(x: np.ndarray, depth: bool) -> np.ndarray:
    """Return sequences and volumes as images: a volume's planes, or with `depth` its columns of voxels."""
    if x.ndim == 3:
        return x[:, :, None]
    if x.ndim == 4:
        return x
    n, c, d, h, w = x.shape
    return reshape(x, (n, c, d, h * w)) if depth else reshape(x.transpose(0, 2, 1, 3, 4), (n * d, c, h, w))


def _back(images: np.ndarray, shape: tuple[int, ...], depth: bool) -> np.ndarray:
    """Return what `_images` made, as an array of the shape that it came from, but for the sizes of the axes."""
    if len(shape) == 4:
        return images
    if len(shape) == 3:
        return images[:, :, 0]
    n, c, d, h, w = shape
    if depth:
        return reshape(images, shape)
    return reshape(images, (n, d, c, h, w)).transpose(0, 2, 1, 3, 4)


def _resized(
    which: str, images: np.ndarray, stage: Stage, mode: str, how: Resizing, fixed_point: bool = False
) -> np.ndarray:
    n, c = images.shape[:2]
    forward = which == "forward"
    if mode == "area":
        if forward:
            return adaptive_avg_pool2d(images, stage.target)
        return adaptive_avg_pool2d_backward(images, (n, c, *stage.source))
    mode = "bilinear" if mode in ("linear", "trilinear") else mode
    dtype = same_dtype(input=images)
    problem = ResampleProblem(
        which, dtype, n, *stage.source, c, *stage.target, mode, how.align_corners, stage.scales, how.antialias,
        fixed_point,
    )  # fmt: skip
    out = memory.empty((n, *(stage.target if forward else stage.source), c), dtype, images)
    if out.size:
        dispatch.run(problem, (channels_last(images),), (out,))
    return out.transpose(0, 3, 1, 2)


def _resized_bytes(x: np.ndarray, how: Resizing, mode: str) -> np.ndarray:
    """Return images of uint8: first across, then down, in fixed point and each result rounded to uint8, as torch.

    Bytes times such weights, and their sums, are exact in float64.
    """
    (height, width), (p, q), (down, across), y = x.shape[2:], how.sizes, how.scales, x
    for stage in (Stage((height, width), (height, q), (None, across)), Stage((height, q), (p, q), (down, None))):
        if stage.source != stage.target:
            moved = _resized("forward", y.astype(np.float64), stage, mode, how, fixed_point=True)
            y = np.clip(np.floor(moved + 0.5), 0, 255).astype(np.uint8)
    return x.copy() if y is x else y


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
        Shape (N, C, W), (N, C, H, W) or (N, C, D, H, W), any strides; float32 or float64. Or, on the CPU, uint8, with
        the modes that begin with "nearest", and for images "bilinear" and "bicubic".
    size : int or tuple of int, optional
        Of the result, one number for each axis or for all.
    scale_factor : float or tuple of float, optional
        Instead of `size`: the result has floor(size * factor) pixels.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"}
        ``"linear"`` is for sequences, ``"bilinear"`` and ``"bicubic"`` for images, ``"trilinear"`` for volumes, the
        others for all. ``"nearest"`` takes the pixel at floor(index * scale), ``"nearest-exact"`` the one under the
        centre; the cubic kernel is that of Keys with a = -0.75; ``"area"`` is an adaptive average pooling.

        With ``"nearest"``, an axis of an image that keeps its size or doubles it is copied or doubled whatever
        `scale_factor` is, if the result's height and width sum to at most 128: the pixels that PyTorch gives for
        contiguous tensors. PyTorch's gradient does so for sequences, volumes and larger images too, though its results
        there follow the scale; here the gradient is always that of the result.
    align_corners : bool, optional
        Whether the centres of the corner pixels stay where they are; else (None, False) the borders of the image do.
    recompute_scale_factor : bool, optional
        Compute with the quotient of the rounded sizes instead of `scale_factor`.
    antialias : bool
        With ``"bilinear"`` and ``"bicubic"``: widen the kernel to the size of a pixel of the result where the result is
        the smaller, so that each pixel of the input counts; the cubic kernel then has a = -0.5.

    Returns
    -------
    numpy.ndarray
        Shape (N, C, Q), (N, C, P, Q) or (N, C, O, P, Q). Of uint8 for uint8, with weights of 16 bits, rounded after
        the step across and after the step down: the bytes that PyTorch gives.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. ASSP 29, 1981.
    """
    x = array("input", x)
    how = resizing(x.shape, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    if x.dtype == np.uint8 and isinstance(x, np.ndarray):
        if mode.startswith("nearest"):  # float32 holds every byte
            chosen = interpolate(x.astype(np.float32), size, scale_factor, mode, None, recompute_scale_factor)
            return chosen.astype(np.uint8)
        if mode in ("bilinear", "bicubic"):
            return _resized_bytes(x, how, mode)
    x = float_array("input", x)
    shape = x.shape
    for depth, stage in enumerate(_stages(shape, how)):
        moved = _resized("forward", _images(x, bool(depth)), stage, mode, how)
        shape = (*shape[:3], *how.sizes[1:]) if len(shape) == 5 and not depth else (*shape[:2], *how.sizes)
        x = _back(moved, shape, bool(depth))
    return x


def interpolate_backward(
    grad: np.ndarray,
    input_shape: Sequence[int],
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> np.ndarray:
    """Return the gradient of `interpolate` with respect to its input, of shape `input_shape`.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad, shape = float_array("grad", grad), sizes("input_shape", input_shape)
    how = resizing(shape, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    if grad.shape != (*shape[:2], *how.sizes):
        raise ValueError(f"grad must have the result's shape {(*shape[:2], *how.sizes)}, got {grad.shape}")
    stages = _stages(shape, how)
    for depth, stage in reversed(list(enumerate(stages))):
        moved = _resized("backward_input", _images(grad, bool(depth)), stage, mode, how)
        grad = _back(moved, (*shape[:3], *how.sizes[1:]) if depth else shape, bool(depth))
    return grad
