"""Differentiable convolution, as torch.nn.functional.conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.moments import Moments
from numbanet.tape import needs_grad, record
from numbanet.tensor import Tensor, values


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve (cross-correlate) images with filters; see `numbanet.ops.conv2d` for shapes and errors.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    weight : Tensor
        Shape (K, C/groups, R, S).
    bias : Tensor, optional
        Shape (K,).
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
    groups : int

    Returns
    -------
    Tensor
        Shape (N, K, P, Q) or (K, P, Q).
    """
    return fused_conv2d(input, weight, bias, stride, padding, dilation, groups)


def fused_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    moments: Moments | None = None,
) -> Tensor:
    """Return `conv2d` of the operands; `moments` takes the statistics of the result, for the batch norm behind it."""
    x, b = values("input", input), None if bias is None else values("bias", bias)
    options = (stride, padding, dilation, groups)
    if isinstance(weight, Tensor) and not needs_grad(input, weight, bias):
        return Tensor(ops.conv2d(x, weight.prepared() or values("weight", weight), b, *options))
    w = values("weight", weight)
    y = ops.conv2d(x, w, b, *options) if moments is None else ops.conv2d(x, w, b, *options, moments=moments)
    shape, weight_shape, dims = x.shape, w.shape, (0, 2, 3) if len(x.shape) == 4 else (1, 2)
    need_x, need_w, need_b = input.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad

    def backward(
        grad: np.ndarray, known: np.ndarray | None = None, into: bool = False
    ) -> tuple[np.ndarray | None, ...]:
        dx = None
        if known is not None:
            dx = ops.add_conv2d_backward_input(known, grad, w, shape, *options, into)
        elif need_x:
            dx = ops.conv2d_backward_input(grad, w, shape, *options)
        return (
            dx,
            ops.conv2d_backward_weight(x, grad, weight_shape, *options) if need_w else None,
            ops.sum(grad, dims) if need_b else None,
        )

    return record(y, (input, weight, bias), backward, adds=True)
