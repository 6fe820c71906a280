"""Differentiable interpolation, as torch.nn.functional.interpolate."""

from __future__ import annotations

from typing import Any

from numbanet import ops
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Return images in another size; see `numbanet.ops.interpolate` for the modes and errors.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, W), (N, C, H, W) or (N, C, D, H, W).
    size : int or tuple of int, optional
    scale_factor : float or tuple of float, optional
        Instead of `size`.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"}
    align_corners, recompute_scale_factor : bool, optional
    antialias : bool

    Returns
    -------
    Tensor
        Shape (N, C, Q), (N, C, P, Q) or (N, C, O, P, Q).
    """
    shape = values("input", input).shape
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    y = ops.interpolate(input.data, *options)
    return record(y, (input,), lambda grad: (ops.interpolate_backward(grad, shape, *options),))
