"""Differentiable pooling, as in torch.nn.functional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.functional.reduce import mean
from numbanet.ops.pool import max_pool2d_indices, max_pool2d_offsets
from numbanet.tape import needs_grad, record
from numbanet.tensor import Tensor, values

Size = int | Sequence[int]


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element of each window; see `numbanet.ops.max_pool2d` for shapes and errors.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    kernel_size, stride, dilation : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
    ceil_mode, return_indices : bool

    Returns
    -------
    Tensor, or (Tensor, Tensor) with `return_indices`
        The maxima, of shape (N, C, P, Q) or (C, P, Q), and their positions ``row * W + column`` (int64).
    """
    x = values("input", input)
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    if not (return_indices or needs_grad(input)):
        return Tensor(ops.max_pool2d(x, *window))
    data, offsets = max_pool2d_offsets(x, *window)
    shape = x.shape
    y = record(data, (input,), lambda grad: (ops.max_pool2d_backward(grad, offsets, shape, *window),))
    return (y, Tensor(max_pool2d_indices(offsets, shape, *window))) if return_indices else y


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool | None = None,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of each window; see `numbanet.ops.avg_pool2d` for shapes and errors.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    kernel_size, stride : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
    ceil_mode : bool
    count_include_pad : bool, optional
    divisor_override : int, optional

    Returns
    -------
    Tensor
        Shape (N, C, P, Q) or (C, P, Q).
    """
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    shape = values("input", input).shape

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        return (ops.avg_pool2d_backward(grad, shape, *options),)

    return record(ops.avg_pool2d(input.data, *options), (input,), backward)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Return the means of P x Q rectangles that cover the image; see `numbanet.ops.adaptive_avg_pool2d`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W); with ``output_size=1``, which is a mean, any (..., H, W).
    output_size : int or (int or None, int or None)
        (P, Q); None for the size of the input.

    Returns
    -------
    Tensor
        Shape (N, C, P, Q) or (C, P, Q).
    """
    shape = values("input", input).shape
    if output_size in (1, (1, 1), [1, 1]) and (len(shape) not in (3, 4) or 0 in shape[-2:]):
        return mean(input, (-1, -2), True)
    y = ops.adaptive_avg_pool2d(input.data, output_size)
    return record(y, (input,), lambda grad: (ops.adaptive_avg_pool2d_backward(grad, shape),))
