"""Largest and smallest elements of arrays."""

from __future__ import annotations

import math

import numpy as np

from numbanet import dispatch, memory
from numbanet.device_array import DeviceArray
from numbanet.problem.base import as_array, float_name
from numbanet.problem.extremum import ExtremumProblem
from numbanet.problem.promotion import operand
from numbanet.problem.shape import dimension


def extremum(x: np.ndarray, dim: int, keepdim: bool = False, largest: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest (or smallest) elements along a dimension, and their places.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape, strides and dtype of real numbers.
    dim : int
    keepdim : bool
        Keep the dimension, with size 1.
    largest : bool

    Returns
    -------
    values : numpy.ndarray
        Dtype of x; NaN beats numbers.
    positions : numpy.ndarray
        int64; of equal elements the first counts.

    Raises
    ------
    TypeError, ValueError
        If there is no such dimension, or it is empty.
    """
    x = as_array(operand("input", x))
    axis = dimension("dim", dim, x.ndim)
    if not x.ndim:
        return x.copy(), memory.zeros((), np.int64, x)
    if not x.shape[axis]:
        raise ValueError(f"dim must be a dimension with elements, got {dim} of shape {x.shape}")
    if float_name(x.dtype) is None and type(x) is DeviceArray:
        from numbanet.cuda.whole import extremum as whole_extremum

        values, positions = whole_extremum(x, axis, bool(largest))
        return (values, positions) if keepdim else (values.squeeze(axis), positions.squeeze(axis))
    if float_name(x.dtype) is None:
        at = np.expand_dims((np.argmax if largest else np.argmin)(x, axis=axis).astype(np.int64), axis)
        values, positions = np.take_along_axis(x, at, axis), at
        return (values, positions) if keepdim else (values.squeeze(axis), positions.squeeze(axis))
    x = memory.dense(x)
    order = memory.memory_order(x)
    place = order.index(axis)
    sizes = [x.shape[a] for a in order]
    outer, inner = math.prod(sizes[:place]), math.prod(sizes[place + 1 :])
    values, positions = memory.empty((outer * inner,), x.dtype, x), memory.empty((outer * inner,), np.int64, x)
    if values.size:
        problem = ExtremumProblem("forward", x.dtype.name, bool(largest), outer, sizes[place], inner)
        dispatch.run(problem, (memory.flat(x),), (values, positions))
    kept = [a for a in order if a != axis]
    back = tuple(kept.index(a) for a in sorted(kept))
    shape = tuple(x.shape[a] for a in kept)
    values, positions = values.reshape(shape).transpose(back), positions.reshape(shape).transpose(back)
    return (np.expand_dims(values, axis), np.expand_dims(positions, axis)) if keepdim else (values, positions)
