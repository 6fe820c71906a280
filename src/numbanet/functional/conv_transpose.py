"""Differentiable one-dimensional and transposed convolution, as in torch.nn.functional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.functional.conv import conv2d
from numbanet.functional.shape import squeeze, unsqueeze
from numbanet.ops.conv_transpose import conv_transpose2d_backward
from numbanet.tape import record
from numbanet.tensor import Tensor, values

Size = int | Sequence[int]


def single(name: str, value: Any) -> Any:
    """Return one number of a one-dimensional layer: itself, or the only one of a sequence.

    Raises
    ------
    ValueError
        If the sequence has another length.
    """
    if not isinstance(value, (tuple, list)):
        return value
    if len(value) != 1:
        raise ValueError(f"{name} must be an integer or a sequence of one, got {value!r}")
    return value[0]


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Any = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve (cross-correlate) sequences with filters: `conv2d` of images of one row.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, L) or (C, L).
    weight : Tensor
        Shape (K, C/groups, S).
    bias : Tensor, optional
        Shape (K,).
    stride, dilation : int or (int,)
    padding : int, (int,) or {"valid", "same", "same_upper"}
    groups : int

    Returns
    -------
    Tensor
        Shape (N, K, Q) or (K, Q).

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    if values("input", input).ndim not in (2, 3):
        raise ValueError(f"input must have shape (N, C, L) or (C, L), got {input.shape}")
    if values("weight", weight).ndim != 3:
        raise ValueError(f"weight must have shape (K, C/groups, S), got {weight.shape}")
    pads = padding if isinstance(padding, str) else (0, single("padding", padding))
    options = ((1, single("stride", stride)), pads, (1, single("dilation", dilation)), groups)
    return squeeze(conv2d(unsqueeze(input, -2), unsqueeze(weight, -2), bias, *options), -2)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Any = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Return the transposed convolution; see `numbanet.ops.conv_transpose2d` for shapes and errors.

    Parameters
    ----------
    input : Tensor
        Shape (N, K, P, Q) or (K, P, Q).
    weight : Tensor
        Shape (K, C/groups, R, S).
    bias : Tensor, optional
        Shape (C,).
    stride, output_padding, dilation : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
    groups : int

    Returns
    -------
    Tensor
        Shape (N, C, H, W) or (C, H, W).
    """
    x, w = values("input", input), values("weight", weight)
    options = (stride, padding, output_padding, groups, dilation)
    y = ops.conv_transpose2d(x, w, None if bias is None else values("bias", bias), *options)
    need_x, need_w, need_b = (t is not None and t.requires_grad for t in (input, weight, bias))

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        dx, dw = conv_transpose2d_backward(grad, x, w, *options, of_input=need_x, of_weight=need_w)
        db = ops.sum(grad, tuple(d for d in range(grad.ndim) if d != grad.ndim - 3)) if need_b else None
        return dx, dw, db

    return record(y, (input, weight, bias), backward)
