"""Differentiable sums and means, as in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.functional.elementwise import add, mul
from numbanet.functional.shape import cat, clone, getitem, reshape, squeeze, to_dtype
from numbanet.names import OMITTED, numpy_names
from numbanet.problem.base import as_dtype, flag
from numbanet.problem.reduce import kept_shape, reduced_dims
from numbanet.problem.shape import dimension
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def _spread(grad: np.ndarray, shape: tuple[int, ...], dim: int | Sequence[int] | None) -> np.ndarray:
    """Return the gradient of a sum: the same number for every element that was added (a read-only view)."""
    return np.broadcast_to(grad.reshape(kept_shape(shape, reduced_dims(dim, len(shape)), True)), shape)


@numpy_names("keepdim")
def sum(
    input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Return the sum over some dimensions.

    Parameters
    ----------
    input : Tensor
        Any shape; integers and booleans give int64.
    dim : int or sequence of int, optional
        What to sum over; negative numbers count from the end. None, or an empty sequence: all dimensions.
    keepdim : bool
        Keep the summed dimensions, with size 1; not by its name without `dim`, as in PyTorch.
    dtype : dtype, optional
        Convert the input first, and the result has this dtype.

    Raises
    ------
    TypeError
        If `dim` holds no integers, or there is no such dtype.
    ValueError
        If a dimension does not exist or is given twice.
    """
    if dtype is not None:
        return to_dtype(sum(to_dtype(input, dtype), dim, keepdim), dtype)
    x = values("input", input, whole=True)
    shape = x.shape
    return record(ops.sum(x, dim, keepdim), (input,), lambda grad: (_spread(grad, shape, dim),))


@numpy_names("keepdim")
def mean(
    input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Return the mean over some dimensions; NaN where there is nothing to average.

    Arguments, result and errors as for `sum`, but integers are refused with a TypeError.
    """
    if dtype is not None:
        if as_dtype(dtype).kind != "f":
            raise TypeError(f"dtype must be float32 or float64, got {as_dtype(dtype)}")
        input = to_dtype(input, dtype)
    shape = values("input", input).shape
    y = ops.mean(values("input", input), dim, keepdim)
    count = input.data.size // max(y.size, 1)

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        return (_spread(ops.div(grad, max(count, 1)), shape, dim),)

    return record(y, (input,), backward)


@numpy_names("keepdim")
def prod(input: Tensor, dim: int = OMITTED, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the product of all elements, or along a dimension.

    Parameters
    ----------
    input : Tensor
        Any shape; integers and booleans give int64.
    dim : int
        All elements if it is not given.
    keepdim : bool
        Keep the dimension, with size 1; not by its name without `dim`, as in PyTorch.
    dtype : dtype, optional
        Convert the input first, and the result has this dtype.

    Returns
    -------
    Tensor
        1 where there is nothing to multiply. The gradient is right beside zeros too. float32 is multiplied in float64,
        so that less overflows or vanishes on the way than in PyTorch.

    Raises
    ------
    TypeError, ValueError
        If there is no such dimension or dtype.
    """
    keepdim = flag("keepdim", keepdim)
    if dtype is None and values("input", input).dtype.kind in "biu":
        dtype = np.int64
    x = input if dtype is None else to_dtype(input, dtype)
    if dim is OMITTED:
        return reshape(_product(reshape(x, (x.data.size,)), 0), ())
    axis = dimension("dim", dim, x.ndim)
    if not x.ndim:
        return clone(x)
    y = _product(x, axis)
    return y if keepdim else squeeze(y, axis)


def _product(x: Tensor, axis: int) -> Tensor:
    """Return the product along an axis, which stays: neighbours in pairs, so that the gradient divides by nothing.

    Of float32 in float64, whose range no products of few numbers leave.
    """
    if x.dtype == np.float32:
        return to_dtype(_product(to_dtype(x, np.float64), axis), np.float32)
    size = x.shape[axis]
    if not size:
        return to_dtype(add(sum(x, axis, True), 1), x.dtype)

    def part(start: int, stop: int, step: int = 1) -> Tensor:
        return getitem(x, (slice(None),) * axis + (slice(start, stop, step),))

    while size > 1:
        half, odd = divmod(size, 2)
        y = mul(part(0, size - odd, 2), part(1, size, 2))
        x = cat([y, part(size - 1, size)], axis) if odd else y
        size = half + odd
    return x
