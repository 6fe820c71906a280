"""Differentiable windows of images as columns of a matrix, and back, as in torch.nn.functional."""

from __future__ import annotations

from collections.abc import Sequence

from numbanet import ops
from numbanet.tape import record
from numbanet.tensor import Tensor, values

Size = int | Sequence[int]


def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """Return the windows of images as columns of a matrix; see `numbanet.ops.unfold`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    kernel_size, dilation, padding, stride : int or (int, int)

    Returns
    -------
    Tensor
        Shape (N, C * R * S, P * Q) or (C * R * S, P * Q).
    """
    size, options = values("input", input).shape[-2:], (kernel_size, dilation, padding, stride)
    return record(ops.unfold(input.data, *options), (input,), lambda grad: (ops.fold(grad, size, *options),))


def fold(
    input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Return images whose pixels are sums of the elements of columns; see `numbanet.ops.fold`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C * R * S, P * Q) or (C * R * S, P * Q).
    output_size, kernel_size, dilation, padding, stride : int or (int, int)

    Returns
    -------
    Tensor
        Shape (N, C, H, W) or (C, H, W).
    """
    x, options = values("input", input), (kernel_size, dilation, padding, stride)
    return record(ops.fold(x, output_size, *options), (input,), lambda grad: (ops.unfold(grad, *options),))
