"""What stands between brackets behind a tensor: PyTorch's rules, in terms of NumPy's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from numbanet.caller import stacklevel
from numbanet.device_array import DeviceArray
from numbanet.problem.base import integer
from numbanet.tensor import Tensor
from numbanet.watch import doubt

_ARRAYS = (np.ndarray, DeviceArray)
_SEQUENCES = (list, tuple, range)
_FEW = 32  # shorter lists with sequences in them count as tuples: so NumPy did once, and PyTorch does
_DTYPES = {("b", 1): "bool", ("u", 1): "uint8", ("i", 4): "int32", ("i", 8): "int64"}
_PLAIN = (int, type(None))


def index_steps(index: Any) -> tuple[tuple[Any, ...], ...]:
    """Return an index as NumPy takes it: one, or two to apply in turn, of which the first gives a view.

    PyTorch takes integers beside arrays first, as views; to NumPy they would be arrays, and move the others to the
    front.
    """
    plain = tuple([_plain(part) for part in _parts(index)])
    if not (any(type(part) is int for part in plain) and any(isinstance(part, _ARRAYS) for part in plain)):
        return (plain,)
    views = [part for p in plain if type(p) is not bool for part in _whole(p)]
    rest = [
        p if p is Ellipsis or isinstance(p, (*_ARRAYS, bool)) else slice(None) for p in plain if type(p) is not int
    ]
    return tuple(views), tuple(rest)


def _parts(index: Any) -> tuple[Any, ...]:
    if isinstance(index, tuple):
        return index
    several = isinstance(index, list) and len(index) < _FEW and any(map(_is_part, index))
    return tuple(index) if several else (index,)


def _is_part(item: Any) -> bool:
    """Return whether something in a list makes it a tuple: all that is no number."""
    return item is None or item is Ellipsis or isinstance(item, (Tensor, *_ARRAYS, *_SEQUENCES, slice))


def _whole(part: Any) -> tuple[Any, ...]:
    """Return one part of an index; for an array, the slices that leave alone the dimensions it is about."""
    if not isinstance(part, _ARRAYS):
        return (part,)
    return (slice(None),) * (part.ndim if part.dtype == bool else 1)


def _plain(part: Any) -> Any:
    """Return one part of an index with tensors and lists as arrays, and their integers as numbers."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return part
    if isinstance(part, slice):
        return _slice(part)
    if isinstance(part, (Tensor, *_ARRAYS)):
        if not isinstance(part, Tensor) or part.device == "cpu":
            doubt("an array was an index")
        if isinstance(part, Tensor):
            part = part.data
            if part.ndim and (part.dtype.kind, part.dtype.itemsize) not in _DTYPES:
                raise IndexError(f"index must have dtype {', '.join(_DTYPES.values())}, got {part.dtype}")
    elif isinstance(part, _SEQUENCES):
        part = _array(part)
    if isinstance(part, DeviceArray) and not part.ndim:
        part = part.to_host()
    if isinstance(part, _ARRAYS) and part.dtype == np.uint8:
        warnings.warn("an index of dtype uint8 is a mask, as in PyTorch: use bool", UserWarning, stacklevel())
        part = part.astype(np.bool_)
    if isinstance(part, _ARRAYS) and (part.ndim or part.dtype == bool):
        return part
    return bool(part) if isinstance(part, np.bool_) else integer("index", part)


def _slice(part: slice) -> slice:
    """Return a slice with tensors, and other integers, as numbers."""
    if part.step is None and type(part.start) in _PLAIN and type(part.stop) in _PLAIN:
        return part
    bounds = []
    for name, value in (("start", part.start), ("stop", part.stop), ("step", part.step)):
        plain = value is None or type(value) is int
        bounds.append(value if plain else integer(name, int(value) if isinstance(value, bool) else value))
    if bounds[2] is not None and bounds[2] < 1:
        raise ValueError(f"index must not have a step below 1, got {part}")
    return slice(*bounds)


def _array(values: Any) -> np.ndarray:
    """Return a sequence, in which tensors stand for single numbers, as an array.

    Raises
    ------
    TypeError, ValueError
        If a tensor in it holds more than a number, or sequences differ in length.
    """
    try:
        found = np.asarray(_numbers(values))
    except ValueError:
        raise ValueError(f"index must hold sequences of one length, got {values}") from None
    return found if found.size else found.astype(np.int64)


def _numbers(values: Any) -> Any:
    if isinstance(values, Tensor):
        if values.data.size != 1:
            raise TypeError(f"index must hold numbers in a sequence, got a tensor of shape {values.shape}")
        return values.item()
    return [_numbers(value) for value in values] if isinstance(values, _SEQUENCES) else values
