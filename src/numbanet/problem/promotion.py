"""Which dtype an operation on mixed operands computes in: PyTorch's rules, as far as real numbers go."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.device_array import DeviceArray
from numbanet.problem.base import FLOATS, array, float_name, integer

Operand = np.ndarray | DeviceArray | bool | int | float
_BOOL, _INT64, _FLOAT32 = np.dtype(bool), np.dtype(np.int64), np.dtype(np.float32)


def operand(name: str, value: Any) -> Operand:
    """Return an array, or a Python number for a number; refuse what has no arithmetic here.

    Raises
    ------
    TypeError
        If it holds neither booleans, nor integers, nor float32 or float64.
    """
    if type(value) is np.ndarray and float_name(value.dtype):
        return value
    if type(value) is DeviceArray:
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int):
        return value if isinstance(value, bool) else integer(name, value)
    if isinstance(value, float):
        return value
    found = array(name, value)
    if found.dtype.name not in FLOATS and found.dtype.kind not in "biu":
        raise TypeError(f"{name} must be a number or an array of real numbers (float32 or float64), got {found.dtype}")
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def holds(dtype: np.dtype, value: int) -> bool:
    """Return whether an integer dtype takes an integer; negative ones wrap in uint8, uint16 and uint32, as in torch."""
    limits = np.iinfo(dtype)
    return (-limits.max if dtype.kind == "u" and dtype.itemsize < 8 else limits.min) <= value <= limits.max


def promote(a: np.dtype, b: np.dtype) -> np.dtype:
    """Return the dtype that holds both; a float with an integer gives the float's dtype."""
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    return np.promote_types(a, b)


def _combine(strong: np.dtype | None, weak: np.dtype | None) -> np.dtype | None:
    """Weak operands change a strong dtype only where they are of a higher kind: bool < integer < float."""
    if strong is None or weak is None:
        return strong or weak
    rises = (weak.kind == "f" and strong.kind != "f") or strong.kind == "b"
    return promote(strong, weak) if rises else strong


def alike(a: Any, b: Any) -> bool:
    """Return whether two operands are arrays of the CPU of one shape and one float dtype: nothing is to be promoted."""
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return False
    return a.shape == b.shape and a.dtype == b.dtype and float_name(a.dtype) is not None


def result_dtype(*operands: Operand) -> np.dtype:
    """Return the dtype of an operation on arrays and Python numbers.

    Arrays with dimensions count most, then arrays of no dimension, then numbers; a weaker group matters only where its
    kind is higher. So ``float32 array * 2.5`` stays float32, and ``int64 array * 2.5`` is float32 (the default dtype).
    """
    groups: list[np.dtype | None] = [None, None, None]
    for value in operands:
        if isinstance(value, (np.ndarray, DeviceArray)):
            level, dtype = (0 if value.ndim else 1), value.dtype
        else:
            level, dtype = 2, _BOOL if isinstance(value, bool) else _INT64 if isinstance(value, int) else _FLOAT32
        known = groups[level]
        groups[level] = dtype if known is None else promote(known, dtype)
    found = _combine(groups[0], _combine(groups[1], groups[2]))
    assert found is not None, "an operation has at least one operand"
    return found
