"""Differentiable adaptive maximum pooling, as in torch.nn.functional."""

from __future__ import annotations

from typing import Any

from numbanet import ops
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of P x Q rectangles that cover the image; see `numbanet.ops.adaptive_max_pool2d`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W) or (C, H, W).
    output_size : int or (int or None, int or None)
        (P, Q); None for the size of the input.
    return_indices : bool
        Return also the positions ``row * W + column`` (int64).

    Returns
    -------
    Tensor, or (Tensor, Tensor) with `return_indices`
        Shape (N, C, P, Q) or (C, P, Q).
    """
    shape = values("input", input).shape
    data, positions = ops.adaptive_max_pool2d(input.data, output_size)
    y = record(data, (input,), lambda grad: (ops.adaptive_max_pool2d_backward(grad, positions, shape),))
    return (y, Tensor(positions)) if return_indices else y
