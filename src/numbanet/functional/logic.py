"""Bitwise operators, truth, and indices of extremes: functions of integers and booleans, which have no gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from numbanet import memory, ops
from numbanet.device_array import DeviceArray
from numbanet.host import by_numpy
from numbanet.names import numpy_names
from numbanet.problem.base import flag
from numbanet.problem.elementwise import broadcast_shape
from numbanet.problem.promotion import operand, result_dtype
from numbanet.problem.shape import dimension
from numbanet.tensor import Tensor, values


def _bitwise(function: np.ufunc, input: Any, other: Any) -> Tensor:
    a, b = (
        operand(name, value.data if isinstance(value, Tensor) else value)
        for name, value in (("input", input), ("other", other))
    )
    dtype = result_dtype(a, b)
    if dtype.kind == "f":
        raise TypeError(f"input and other must be booleans or integers, got dtype {dtype}")
    for name, value in (("input", a), ("other", b)):
        if isinstance(value, int) and dtype.kind != "b" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            raise ValueError(f"{name} must fit in the dtype {dtype} of the other operand, got {value}")
    broadcast_shape(*(getattr(value, "shape", ()) for value in (a, b)), names="input and other")
    like = next((x for x in (a, b) if type(x) is DeviceArray), None)
    if like is not None:
        from numbanet.cuda.whole import elementwise

        # A number may come from the CPU.
        a, b = (x.astype(dtype, copy=False) if isinstance(x, DeviceArray) else np.asarray(x, dtype) for x in (a, b))
        name = function.__name__.removeprefix("bitwise_")
        return Tensor(elementwise(name, (memory.number(a, like), memory.number(b, like))))
    return Tensor(np.asarray(function(np.asarray(a, dtype), np.asarray(b, dtype))))


def bitwise_and(input: Any, other: Any) -> Tensor:
    """Return input & other, of booleans or integers.

    Parameters
    ----------
    input, other : Tensor, numpy.ndarray or number
        Shapes must broadcast (ValueError otherwise); mixed dtypes follow the rules of arithmetic.

    Raises
    ------
    TypeError
        If an operand has a floating dtype.
    """
    return _bitwise(np.bitwise_and, input, other)


def bitwise_or(input: Any, other: Any) -> Tensor:
    """Return input | other; operands and errors as for `bitwise_and`."""
    return _bitwise(np.bitwise_or, input, other)


def bitwise_xor(input: Any, other: Any) -> Tensor:
    """Return input ^ other; operands and errors as for `bitwise_and`."""
    return _bitwise(np.bitwise_xor, input, other)


def bitwise_not(input: Tensor) -> Tensor:
    """Return ~input; the logical not of booleans.

    Raises
    ------
    TypeError
        If the input has a floating dtype.
    """
    x = values("input", input)
    if x.dtype.kind == "f":
        raise TypeError(f"input must be booleans or integers, got dtype {x.dtype}")
    if type(x) is DeviceArray:
        from numbanet.cuda.whole import elementwise

        return Tensor(elementwise("not", (x,)))
    return Tensor(np.asarray(np.bitwise_not(x)))


Dims = int | Sequence[int] | None
Function = Callable[[Any, Any], np.ndarray]


def _truth(input: Tensor, dim: Dims, keepdim: bool, looked_for: Function, found: Function) -> Tensor:
    """Return a statement about the number of elements that are zero, or not zero, over some dimensions."""
    x = values("input", input, whole=True)
    if isinstance(dim, (tuple, list)) and not dim:  # unlike a sum, it is over no dimension then
        y = ops.ne(x, 0)
    else:
        y = found(ops.sum(looked_for(x, 0), dim, keepdim), 0)
    return Tensor(ops.to_dtype(y, np.uint8) if x.dtype == np.uint8 else y)


@numpy_names()
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Return whether any element is not zero (NaN is not), as booleans; of uint8 as uint8.

    Parameters
    ----------
    input : Tensor
    dim : int or sequence of int, optional
        Over these dimensions, or over all of them if None; the truth of each element if it is empty.
    keepdim : bool
        Keep the dimensions, with size 1.

    Raises
    ------
    TypeError, ValueError
        If a dimension does not exist or is given twice.
    """
    return _truth(input, dim, keepdim, ops.ne, ops.gt)


@numpy_names()
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Return whether no element is zero; arguments, result and errors as for `any`."""
    return _truth(input, dim, keepdim, ops.eq, ops.eq)


@numpy_names()
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the index of the largest element (NaN is the largest; the first of equals), as int64.

    Parameters
    ----------
    input : Tensor
    dim : int, optional
        Along this dimension; over all elements, in row-major order, if None.
    keepdim : bool
        Keep the dimension, with size 1.

    Raises
    ------
    TypeError, ValueError
        If there is no such dimension, or no element, or the input holds booleans.
    """
    x = values("input", input)
    operand("input", x)
    if x.dtype == bool:
        raise TypeError("input must hold numbers, got booleans")
    axis = None if dim is None else dimension("dim", dim, x.ndim)
    if not (x.size if axis is None or not x.ndim else x.shape[axis]):
        raise ValueError(f"input must have elements to choose from, got shape {x.shape}")
    keepdim = flag("keepdim", keepdim)
    if type(x) is DeviceArray:
        if axis is None or not x.ndim:
            places = ops.extremum(x.reshape(-1), 0)[1]
            return Tensor(places.reshape((1,) * x.ndim if keepdim else ()))
        return Tensor(ops.extremum(x, axis, keepdim)[1])
    return Tensor(by_numpy(partial(np.argmax, axis=axis if x.ndim else None, keepdims=keepdim), x))
