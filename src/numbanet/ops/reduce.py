"""Sums and means of arrays over any dimensions.

A few numbers at a time are added in the input's dtype, and their sums in float64: ten million float32 numbers keep
their digits, all alike or not. The order of additions depends on the shape and the memory order of the input, never on
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.device_array import DeviceArray
from numbanet.host import by_numpy
from numbanet.ops.steady import steady
from numbanet.problem.base import as_array, flag, float_array, float_name
from numbanet.problem.promotion import operand
from numbanet.problem.reduce import reduce_plan, reduced_dims


def _reduce(x: np.ndarray, dim: Any, keepdim: bool, mean: bool) -> np.ndarray:
    dims, keepdim = reduced_dims(dim, x.ndim), flag("keepdim", keepdim)
    x = memory.dense(x)
    plan = reduce_plan(float_name(x.dtype) or x.dtype.name, x.shape, memory.memory_order(x), dims, keepdim, mean)
    values = memory.flat(x)
    for step in plan.steps:
        result = memory.empty((step.outer * step.inner,), x.dtype, x)
        dispatch.run(step, (values,), (result,))
        values = result
    return values.reshape(plan.memory_shape).transpose(plan.axes).reshape(plan.shape)


@steady(1)
def sum(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> np.ndarray:
    """Return the sum over some dimensions.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape and strides. Integers and booleans give int64.
    dim : int or sequence of int, optional
        What to sum over; negative numbers count from the end. None, or an empty sequence: all dimensions.
    keepdim : bool
        Keep the summed dimensions, with size 1.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    TypeError
        If `x` holds no real numbers, or `dim` no integers.
    ValueError
        If a dimension does not exist or is given twice.
    """
    values = as_array(operand("x", x))
    if type(values) is DeviceArray and values.dtype.kind != "f":
        from numbanet.cuda.whole import total

        return total(values, reduced_dims(dim, values.ndim), keepdim)
    if values.dtype.kind != "f":
        dims = reduced_dims(dim, values.ndim)
        axis, keepdims = dims if values.ndim else None, flag("keepdim", keepdim)
        return by_numpy(partial(np.sum, axis=axis, dtype=np.int64, keepdims=keepdims), values)
    return _reduce(values, dim, keepdim, mean=False)


@steady(1)
def mean(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> np.ndarray:
    """Return the mean over some dimensions; NaN where there is nothing to average.

    Arguments, result and errors as for `sum`, but integers are refused with a TypeError, as in PyTorch.
    """
    return _reduce(float_array("x", x), dim, keepdim, mean=True)
