"""Tensors from values: arrays, numbers and nested sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import ops, settings
from numbanet.device_array import DeviceArray
from numbanet.problem.base import as_dtype, flag
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
    known = isinstance(source, (np.ndarray, np.generic))
    try:
        given = np.asarray(source)
        objects = given.dtype == object and all(map(_is_number, given.flat))  # fractions, or integers beyond 64 bits
        if not objects and given.dtype.kind not in "biuf":  # NumPy would read text, and take None for NaN
            raise TypeError(f"got dtype {given.dtype}")
        values = np.array(source, dtype, order="K")
        if values.dtype == object:
            raise ValueError("got an integer beyond 64 bits, or another object, and no dtype")
    except (ValueError, TypeError, OverflowError) as error:  # of no numbers, of another dtype's, or of uneven lengths
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"array must hold real numbers that fit its dtype: {error}") from None
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return values.astype(np.float32) if not known and dtype is None and values.dtype == np.float64 else values


def _is_number(value: Any) -> bool:
    real = not isinstance(value, np.complexfloating)  # Python's complex has no __float__
    return real and (hasattr(value, "__float__") or hasattr(value, "__index__"))
