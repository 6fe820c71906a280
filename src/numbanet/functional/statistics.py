"""Differentiable extremes, variances and standard deviations, as in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory, ops
from numbanet.device_array import DeviceArray
from numbanet.functional.elementwise import maximum, minimum
from numbanet.names import OMITTED, numpy_names
from numbanet.ops.elementwise import elementwise_backward
from numbanet.ops.extremum import extremum
from numbanet.problem.base import flag
from numbanet.problem.pointwise import number
from numbanet.problem.reduce import kept_shape, reduced_dims
from numbanet.problem.shape import dimension
from numbanet.tape import record
from numbanet.tensor import Tensor, values
from numbanet.watch import constant, doubt

_NEGLIGIBLE = 8  # deviations' last digits that the rounding of the mean may change
_LEAST, _SCALE = 1e-30, 2.0**60  # mean squares whose parts are no numbers of float32; what makes them such


class Extremes(NamedTuple):
    """What `max` and `min` along a dimension return."""

    values: Tensor
    indices: Tensor


def _along(input: Tensor, dim: int, keepdim: bool, largest: bool) -> Extremes:
    x = values("input", input)
    found, places = extremum(x, dim, keepdim, largest)
    axis = dimension("dim", dim, x.ndim)

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        if not x.ndim:
            return (grad,)
        dx = np.zeros_like(x)
        wide = (places, grad) if keepdim else (np.expand_dims(places, axis), np.expand_dims(grad, axis))
        if type(dx) is DeviceArray:
            from numbanet.cuda.whole import put_along

            put_along(dx, *wide, axis)
        else:
            np.put_along_axis(dx, wide[0], wide[1], axis)
        return (dx,)

    y = record(found, (input,), backward) if found.dtype.kind == "f" else Tensor(found)
    return Extremes(y, Tensor(places))


def _over(input: Tensor, dim: Any, keepdim: bool, largest: bool, to_nan: bool = False) -> Tensor:
    """Return the extremes over several dimensions; equal elements share the gradient.

    That of a NaN goes to the NaN elements with `to_nan`, else it is NaN everywhere: so do `max` and `amax` of torch.
    """
    x = values("input", input)
    dims = reduced_dims(dim, x.ndim)[: x.ndim]  # a scalar has a dimension to name, but none to reduce
    if any(not x.shape[axis] for axis in dims):
        raise ValueError(f"input must have elements to choose from, got shape {x.shape}")
    found = x
    for axis in dims:
        found = extremum(found, axis, True, largest)[0]
    wide = found
    y = wide.reshape(kept_shape(x.shape, dims, flag("keepdim", keepdim)))
    if y.dtype.kind != "f":
        return Tensor(y.copy())

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        spread = grad.reshape(wide.shape)
        doubt("extremes were looked at")
        chosen = ops.ne(x, x) if to_nan and np.isnan(memory.on_host(wide)).any() else ops.eq(x, wide)
        share = ops.where(chosen, constant(np.ones((), x.dtype)), constant(np.zeros((), x.dtype)))
        return (ops.div(ops.mul(share, spread), ops.sum(share, dims, True) if dims else share),)

    return record(y, (input,), backward)


def _extreme(input: Tensor, dim: Any, keepdim: bool, largest: bool, other: Any) -> Any:
    values("input", input)
    if other is not None:
        if dim is not OMITTED:
            raise TypeError(f"dim and other must not both be given, got dim={dim!r}")
        dim = other
    if isinstance(dim, Tensor):
        return (maximum if largest else minimum)(input, dim)
    if dim is OMITTED:
        return _over(input, None, False, largest, to_nan=True)
    return _along(input, dim, keepdim, largest)


@numpy_names("keepdim")
def max(input: Tensor, dim: Any = OMITTED, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """Return the largest element, the largest along a dimension with their places, or the larger of each pair.

    Parameters
    ----------
    input : Tensor
    dim : int or Tensor
        Along this dimension, or the tensor to compare with, as `maximum`. If it is not given, over all elements, which
        share the gradient where they are equal.
    keepdim : bool
        Keep the dimension, with size 1; not without `dim`.
    other : Tensor, optional
        The tensor to compare with, by its name in PyTorch.

    Returns
    -------
    Tensor, or a pair (values, indices) with a dimension
        NaN is the largest; of equal elements the first has the index, and the gradient.

    Raises
    ------
    TypeError, ValueError
        If there is no such dimension, or no element.
    """
    return _extreme(input, dim, keepdim, True, other)


@numpy_names("keepdim")
def min(input: Tensor, dim: Any = OMITTED, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """Return the smallest elements; arguments, result and errors as for `max` (NaN is the smallest too)."""
    return _extreme(input, dim, keepdim, False, other)


@numpy_names()
def amax(input: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """Return the largest elements over some dimensions (all of them if none is named); equals share the gradient."""
    return _over(input, dim, keepdim, True)


@numpy_names()
def amin(input: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """Return the smallest elements over some dimensions (all of them if none is named); equals share the gradient."""
    return _over(input, dim, keepdim, False)


@numpy_names()
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the index of the smallest element (NaN is the smallest; the first of equals), as int64.

    Arguments and errors as for `numbanet.functional.argmax`.
    """
    x = values("input", input)
    if x.dtype == bool:
        raise TypeError("input must hold numbers, got booleans")
    if dim is not None:
        return Tensor(extremum(x, dim, keepdim, largest=False)[1])
    if not x.size:
        raise ValueError(f"input must have elements to choose from, got shape {x.shape}")
    place = extremum(ops.reshape(x, (-1,)), 0, largest=False)[1]
    return Tensor(place.reshape((1,) * x.ndim) if flag("keepdim", keepdim) else place)


@numpy_names("unbiased", "keepdim")
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = OMITTED,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Return the variance over some dimensions.

    Parameters
    ----------
    input : Tensor
        float32 or float64.
    dim : int or sequence of int, optional
        All dimensions if None or empty.
    unbiased : bool
        Divide by n - 1, as if it is not given, else by n. It may be given in place of `dim`.
    keepdim : bool
        Keep the dimensions, with size 1.
    correction : float, optional
        Divide by n - correction; not beside `unbiased`.

    Raises
    ------
    TypeError, ValueError
        If the input holds integers, a dimension does not exist or is given twice, or arguments do not go together.
    """
    found, backward = _variance(input, dim, unbiased, keepdim, correction)
    return record(ops.to_dtype(found, input.dtype), (input,), backward)


def _variance(
    input: Tensor, dim: Any, unbiased: bool, keepdim: bool, correction: float | None
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    """Return the variance, in float64 where it, or a sum on the way, is beyond float32; and its backward pass."""
    if isinstance(dim, bool):
        if unbiased is not OMITTED or keepdim:
            raise TypeError(f"unbiased must stand alone where it is given without dim, got {dim} and more")
        unbiased, dim = dim, None
    if unbiased is not OMITTED and correction is not None:
        raise TypeError(f"unbiased and correction must not both be given, got {unbiased!r} and {correction!r}")
    x, away = values("input", input), _correction(unbiased, correction)
    centred, total = _deviations(x, dim, keepdim)
    count = x.size // total.size if total.size else 0
    free = count - away if count else math.nan

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        wide = grad.reshape(kept_shape(x.shape, reduced_dims(dim, x.ndim), True))
        if free <= 0 and (dim is None or not x.ndim):  # infinite, as PyTorch has it; also beside an infinite mean
            return (ops.mul(wide, ops.where(ops.eq(x, ops.mean(x, None, True)), np.nan, np.inf)),)
        return (ops.mul(ops.mul(ops.div(wide, free), 2.0), centred),)

    return ops.div(total, free if free > 0 else 0.0), backward


def _correction(unbiased: bool, correction: float | None) -> float:
    """Return by how much less than the number of elements a variance is divided."""
    if correction is not None:
        return number("correction", int(correction) if isinstance(correction, bool) else correction)
    return 1.0 if unbiased is OMITTED or flag("unbiased", unbiased) else 0.0


def _deviations(x: np.ndarray, dim: Any, keepdim: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the deviations from the mean, and the sums of their squares: in float64 where float32 can't hold them."""
    if type(x) is DeviceArray:  # nobody waits to see how large they are
        return _widely(x, dim, keepdim)
    mean = ops.mean(x, dim, True)
    centred = ops.sub(x, mean)
    total = ops.sum(ops.mul(centred, centred), dim, keepdim)
    doubt("deviations were looked at")
    if not total.size:
        return centred, total
    least, most, count = float(total.min()), float(total.max()), x.size // total.size
    if x.dtype == np.float32 and not most < math.inf:
        return _widely(x, dim, keepdim)
    if not count * float(np.abs(mean).max()) ** 2 <= _NEGLIGIBLE**2 * least:
        centred, total = _centred_again(centred, dim, keepdim)
    if x.dtype == np.float32 and least < count * _LEAST:
        larger = ops.mul(centred, _SCALE)
        squares = ops.sum(ops.mul(larger, larger), dim, keepdim)
        total = np.where(total < count * _LEAST, squares.astype(np.float64) / _SCALE**2, total)
    return centred, total


def _widely(x: np.ndarray, dim: Any, keepdim: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the deviations in the dtype of x, and the sums of their squares in float64, computed in float64."""
    wide = ops.to_dtype(x, np.float64)
    wide, total = _centred_again(ops.sub(wide, ops.mean(wide, dim, True)), dim, keepdim)
    return ops.to_dtype(wide, x.dtype), total


def _centred_again(centred: np.ndarray, dim: Any, keepdim: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return deviations without what the mean was rounded by, and the sums of their squares."""
    rest = ops.mean(centred, dim, True)
    centred = ops.sub(centred, ops.where(ops.eq(rest, rest), rest, 0.0))  # beside infinity it is NaN
    return centred, ops.sum(ops.mul(centred, centred), dim, keepdim)


@numpy_names("unbiased", "keepdim")
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = OMITTED,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Return the square root of `var`; its gradient at 0 is 0."""
    variance, to_input = _variance(input, dim, unbiased, keepdim, correction)
    y = ops.to_dtype(ops.sqrt(variance), input.dtype)

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        zero = np.zeros((), y.dtype)
        return to_input(ops.where(ops.eq(y, zero), zero, elementwise_backward("sqrt_backward", grad, y)))

    return record(y, (input,), backward)
