"""Differentiable softmax, as in torch.nn.functional."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.problem.softmax import implicit_dim
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def _prepare(name: str, input: Tensor, dim: int | None, dtype: Any) -> tuple[Tensor, int]:
    if dim is None:
        warnings.warn(f"{name}: dim should be given; without it the choice depends on the shape", stacklevel=3)
        dim = implicit_dim(values("input", input).ndim)
    return (input if dtype is None else input.to(dtype=dtype)), dim


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """Return exp(input) divided by its sum along a dimension.

    Parameters
    ----------
    input : Tensor
        Any shape; float32 or float64.
    dim : int, optional
        Negative numbers count from the end. None (deprecated, as in torch): the first dimension of tensors with 0, 1 or
        3 dimensions, else the second; with a warning.
    _stacklevel : int
        Ignored.
    dtype : dtype, optional
        Convert the input first.

    Returns
    -------
    Tensor
        Same shape and memory order.

    Raises
    ------
    TypeError
        If the input is neither float32 nor float64, or `dim` is not an integer.
    ValueError
        If there is no such dimension.
    """
    input, axis = _prepare("softmax", input, dim, dtype)
    y = ops.softmax(values("input", input), axis)

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        return (ops.softmax_backward(grad, y, axis),)

    return record(y, (input,), backward)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """Return the logarithm of `softmax`, accurate where that is small; arguments and errors as there."""
    input, axis = _prepare("log_softmax", input, dim, dtype)
    y = ops.log_softmax(values("input", input), axis)

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        return (ops.log_softmax_backward(grad, y, axis),)

    return record(y, (input,), backward)
