"""Differentiable sums and means, as in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet import ops
from numbanet.problem.reduce import kept_shape, reduced_dims
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def _spread(grad: np.ndarray, shape: tuple[int, ...], dim: int | Sequence[int] | None) -> np.ndarray:
    """Return the gradient of a sum: the same number for every element that was added (a read-only view)."""
    return np.broadcast_to(grad.reshape(kept_shape(shape, reduced_dims(dim, len(shape)), True)), shape)


def sum(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the sum over some dimensions.

    Parameters
    ----------
    input : Tensor
        Any shape; integers and booleans give int64.
    dim : int or sequence of int, optional
        What to sum over; negative numbers count from the end. None, or an empty sequence: all dimensions.
    keepdim : bool
        Keep the summed dimensions, with size 1.

    Raises
    ------
    TypeError
        If `dim` holds no integers.
    ValueError
        If a dimension does not exist or is given twice.
    """
    shape = values("input", input).shape
    return record(ops.sum(values("input", input), dim, keepdim), (input,), lambda grad: (_spread(grad, shape, dim),))


def mean(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the mean over some dimensions; NaN where there is nothing to average.

    Arguments, result and errors as for `sum`, but integers are refused with a TypeError.
    """
    shape = values("input", input).shape
    y = ops.mean(values("input", input), dim, keepdim)
    count = input.data.size // max(y.size, 1)

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        return (_spread(ops.div(grad, max(count, 1)), shape, dim),)

    return record(y, (input,), backward)
