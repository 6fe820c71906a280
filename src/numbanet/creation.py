"""Tensors from values: arrays, numbers and nested sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import ops, settings
from numbanet.device_array import DeviceArray
from numbanet.problem.base import as_dtype, flag
from numbanet.problem.promotion import holds
from numbanet.tensor import Tensor
from numbanet.watch import doubt

_OF_THE_HOST = (np.ndarray, list, tuple, int, float)


def tensor(array: Any, requires_grad: bool = False, device: str | None = None, dtype: Any = None) -> Tensor:
    """Make a Tensor from an array, a number or nested sequences; the values are copied.

    Parameters
    ----------
    array : array_like
        NumPy arrays keep their dtype, in the machine's byte order; Python floats become float32, integers int64, as in
        PyTorch. What has ``__cuda_array_interface__`` is copied on the GPU.
    requires_grad : bool
        Whether gradients shall flow to it.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
        Where it lives; the chosen device (`numbanet.set_device`) if None.
    dtype : dtype, optional
        Convert to this dtype.

    Raises
    ------
    TypeError, ValueError
        If the values are not real numbers (text is none, nor is None), sequences in it differ in length, or there is
        no such dtype.
    RuntimeError
        If the device can't be used, or the dtype has no gradients.
    """
    place, requires_grad = settings.resolve_device(device), flag("requires_grad", requires_grad)
    dtype = None if dtype is None else as_dtype(dtype)
    doubt("a tensor was made of other values")
    source = array.data if isinstance(array, Tensor) else array
    if type(source) not in _OF_THE_HOST and hasattr(source, "__cuda_array_interface__"):
        from numbanet import interchange

        source = source if type(source) is DeviceArray else interchange.on_gpu(source)
    if type(source) is DeviceArray:
        copied: Any = source.copy() if dtype is None else source.astype(dtype)
        found = Tensor(copied if device is None else ops.to_device(copied, place))
        return found.requires_grad_(requires_grad) if requires_grad else found
    values = _numbers(source, dtype)
    if place != "cpu":
        values = ops.to_device(values, place)
    return Tensor(values).requires_grad_(requires_grad) if requires_grad else Tensor(values)


def _numbers(source: Any, dtype: np.dtype | None) -> np.ndarray:
    """Return a new array of the host in the machine's byte order, or raise as `tensor`."""
    try:
        with np.errstate(over="ignore"):  # what is too large for a float is infinite, as in PyTorch
            values = _converted(source, dtype)
    except (ValueError, TypeError, OverflowError) as error:  # of no numbers, of another dtype's, or of uneven lengths
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"array must hold real numbers that fit its dtype: {error}") from None
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _converted(source: Any, dtype: np.dtype | None) -> np.ndarray:
    listed = isinstance(source, (list, tuple))
    types = _types(source) if listed else {type(source)}
    arrays = any(hasattr(kind, "__array__") for kind in types)
    if listed and arrays:
        source = _detached(source)
    given = np.asarray(source)
    if given.dtype == object:  # integers beyond 64 bits, or fractions
        for value in given.flat:
            if not _is_number(value):
                raise TypeError(f"got {value!r}")
    elif given.dtype.kind not in "biuf" or given.dtype.itemsize > 8:  # NumPy would read text, and count days
        raise TypeError(f"got dtype {given.dtype}")
    if dtype is None and types and types <= {int, bool} and given.dtype not in (np.int64, np.bool_):
        large = max(np.array(source, object).flat, key=abs)
        raise ValueError(f"got {large}, which int64 does not hold")
    # Arrays and NumPy's numbers keep their dtype, Python's are single precision; so are both beside one another.
    doubles = arrays and (not listed or _has_doubles(source))
    if dtype is None and not doubles and (given.dtype == np.float64 or float in types):
        dtype = np.dtype(np.float32)
    if dtype is None and given.dtype == object:
        raise TypeError("got objects and no dtype")
    if dtype is not None and dtype.kind in "iu" and (listed or isinstance(source, (int, float, np.generic))):
        if given.dtype.kind not in "biu" and types & {int, bool}:
            return _mixed(source, dtype)
        _check_range(given, dtype)
    if not listed:
        return np.array(given, dtype, order="K")
    return given if dtype is None else given.astype(dtype, copy=False)  # what was made of a list is new


def _check_range(given: np.ndarray, dtype: np.dtype) -> None:
    """Raise ValueError if an integer dtype has no place for a number."""
    if given.dtype.kind in "iuf" and given.size:
        for value in (given.min(), given.max()):  # both are nan where there is one
            _check_number(value.item(), dtype)


def _check_number(value: Any, dtype: np.dtype) -> None:
    """Raise ValueError if an integer dtype has no place for a number of Python's.

    Negative integers wrap in uint8, uint16 and uint32, as in PyTorch; floats lose their fraction, but not to fit.
    """
    limits = np.iinfo(dtype)
    if not (limits.min <= value <= limits.max if isinstance(value, float) else holds(dtype, int(value))):
        raise ValueError(f"got {value}, which {dtype} does not hold")


def _mixed(source: Any, dtype: np.dtype) -> np.ndarray:
    """Return floats and integers beside one another as integers.

    They are read one by one: no integer is rounded because a float is beside it, and each may be what its kind may be.
    """
    numbers = np.array(source, object)
    for value in numbers.flat:
        _check_number(value.item() if isinstance(value, np.generic) else value, dtype)
    wraps = dtype.kind == "u" and dtype.itemsize < 8
    whole = [int(value) % (np.iinfo(dtype).max + 1) if wraps else int(value) for value in numbers.flat]
    return np.array(whole, dtype).reshape(numbers.shape)


def _has_doubles(values: list | tuple) -> bool:
    return any(
        _has_doubles(value) if isinstance(value, (list, tuple)) else getattr(value, "dtype", None) == np.float64
        for value in values
    )


def _types(values: list | tuple) -> set[type]:
    """Return the types of what is in nested sequences."""
    found = set(map(type, values))
    nested = [kind for kind in found if issubclass(kind, (list, tuple))]
    if nested:
        found = found.difference(nested).union(*(_types(value) for value in values if isinstance(value, (list, tuple))))
    return found


def _detached(values: list | tuple) -> list:
    """Return nested lists in which no tensor has a gradient."""
    return [
        _detached(value) if isinstance(value, (list, tuple)) else value.detach() if isinstance(value, Tensor) else value
        for value in values
    ]


def _is_number(value: Any) -> bool:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.dtype.kind in "biuf"
    return hasattr(value, "__float__") or hasattr(value, "__index__")
