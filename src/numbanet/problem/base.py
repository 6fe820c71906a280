"""The base of every problem, and the argument checks that several families share."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from functools import lru_cache
from struct import pack
from typing import Any, ClassVar

import numpy as np

from numbanet.device_array import DeviceArray

FLOATS = ("float32", "float64")
_LIMIT = 1 << 63  # kernels count in 64 bits


@dataclass(frozen=True)
class Problem:
    """What shall be computed; equal problems have equal answers to "which kernel?".

    Attributes
    ----------
    operation : str
        Class variable: the key of the dispatcher's lists, such as ``"conv2d"``.
    which : str
        The pass: ``"forward"``, ``"backward_input"``, ...
    dtype : str
        ``"float32"`` or ``"float64"``.
    host : tuple of int
        Class variable: which inputs are numbers that Python reads (negative: counted from the last one). They are NumPy
        arrays on every device.
    """

    _hash: ClassVar[int]  # of an instance, in fact: it is no field
    operation: ClassVar[str]
    host: ClassVar[tuple[int, ...]] = ()
    which: str
    dtype: str

    def __init_subclass__(cls) -> None:
        cls.__hash__ = Problem.remembered_hash  # type: ignore[assignment] # or dataclass would write one

    def remembered_hash(self) -> int:
        """Return the hash of all fields, computed once: plans and choices are looked up by problem at every call."""
        try:
            return self._hash
        except AttributeError:
            found = self.__dict__["_hash"] = hash(tuple(getattr(self, field.name) for field in fields(self)))
            return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hash behind: that of a string differs from process to process."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def doubles(*values: float) -> np.ndarray:
    """Return numbers as kernels read them: for the same ones the same array, and 0.0 and -0.0 are not the same."""
    return _doubles(pack(f"{len(values)}d", *values))


@lru_cache(maxsize=4096)
def _doubles(content: bytes) -> np.ndarray:
    return np.frombuffer(content)


def integer(name: str, value: Any, minimum: int | None = None, limit: int = _LIMIT) -> int:
    """Return `value` as an int below `limit`; bool and float are refused, as in PyTorch.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is below `minimum`, or more than 64 bits hold: kernels count in those.
    """
    if type(value) is int and minimum is None and -_LIMIT <= value < limit:  # in less time
        return value
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if not -_LIMIT <= number < limit:
        raise ValueError(f"{name} must fit in 64 bits, got {number}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def pair(name: str, value: Any, minimum: int | None = None) -> tuple[int, int]:
    """Return one integer, or a sequence of one or two, as (height, width).

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or one is below `minimum`.
    """
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise ValueError(f"{name} must be an integer or a pair of integers, got {value!r}")
        first, last = value[0], value[-1]
    else:
        first = last = value
    return integer(name, first, minimum), integer(name, last, minimum)


def plain(name: str, value: Any) -> Any:
    """Return an argument in the one form that stands for its meaning: tuples for lists, int for any integer.

    Problems are remembered by their arguments, and 1.0 or True in a tuple would be taken for 1. Words and None stay.

    Raises
    ------
    TypeError
        If it holds anything else.
    """
    if value is None or type(value) in (int, str):
        return value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:  # in less time
        return value
    if isinstance(value, (tuple, list)):
        return tuple(plain(name, item) for item in value)
    return integer(name, value)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of int.

    Raises
    ------
    TypeError, ValueError
        If it is no sequence of integers, or one is negative.
    """
    if type(value) is not tuple:
        try:
            value = tuple(value)
        except TypeError:
            raise TypeError(f"{name} must be a sequence of sizes, got {value!r}") from None
    for size in value:
        if type(size) is not int or not 0 <= size < _LIMIT:
            return tuple(integer(name, size, 0) for size in value)
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of the allowed words, else raise ValueError."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def optional_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str | None:
    """Return `value` if it is None or one of the allowed words, else raise ValueError."""
    return None if value is None else choice(name, value, allowed)


_NAMES = {np.dtype(name): name for name in FLOATS}


def float_name(dtype: np.dtype) -> str | None:
    """Return the name of a float dtype in the machine's byte order, else None; ``dtype.name`` takes 4 us for it."""
    return _NAMES.get(dtype)


def dtype_name(dtype: np.dtype) -> str:
    """Return ``dtype.name``, in 0.1 us for floats."""
    return _NAMES.get(dtype) or dtype.name


def as_dtype(dtype: Any) -> np.dtype:
    """Return a dtype in the machine's byte order; TypeError if there is no such one (None is none)."""
    try:
        if dtype is None:  # which NumPy takes for float64
            raise TypeError
        return np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"dtype must be bool, an integer, float32 or float64, got {dtype!r}") from None


def as_array(value: Any) -> Any:
    """Return an array, of whatever device, as it is, and anything else as a NumPy array."""
    return value if type(value) is np.ndarray or type(value) is DeviceArray else np.asarray(value)


def array(name: str, value: Any) -> Any:
    """Return `value` as an array: itself, of whatever device, or what NumPy makes of numbers in sequences.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(value, (np.ndarray, DeviceArray)):
        return value
    try:
        found = np.asarray(value)
    except ValueError:  # sequences of different lengths
        found = np.empty((), object)
    if found.dtype == object:
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    return found


def float_array(name: str, value: Any) -> np.ndarray:
    """Return `value` as an array of float32 or float64 in the machine's byte order, on its device.

    Raises
    ------
    TypeError
        If it has another dtype.
    """
    found = value if type(value) is np.ndarray else array(name, value)
    if found.dtype in _NAMES:
        return found
    if found.dtype.name not in FLOATS:
        raise TypeError(f"{name} must have dtype float32 or float64, got {found.dtype}{_remedy(name, found.dtype)}")
    return found.astype(found.dtype.newbyteorder("="))


def _remedy(name: str, dtype: np.dtype, wanted: str = "float32") -> str:
    """Return the end of a message: how to get an operand of the dtype that is wanted."""
    pixels = f", or {name} / np.{wanted}(255) of pixels" if dtype == np.uint8 else ""
    return f": convert it, with {name}.astype(np.{wanted}) of an array, {name}.to(np.{wanted}) of a tensor{pixels}"


def real_array(name: str, value: Any, kinds: str = "iu") -> np.ndarray:
    """Return `value` as an array of float32 or float64, or on the CPU of a dtype of the other kinds: "i", "u" or "b".

    Raises
    ------
    TypeError
        If it has another dtype.
    """
    if type(value) is np.ndarray:
        dtype = value.dtype
        if dtype in _NAMES or (dtype.kind in kinds and dtype.isnative):
            return value
    return float_array(name, value)


def same_dtype(**arrays: Any) -> str:
    """Return the one dtype name that the arrays share, else raise TypeError naming them."""
    common = None
    for array in arrays.values():
        if array is None:
            continue
        dtype = array.dtype
        if common is None:
            common = dtype
        elif dtype is not common and dtype != common:
            raise _different(arrays)
    return dtype_name(common)  # type: ignore[arg-type] # of one array at least


def _different(arrays: dict[str, Any]) -> TypeError:
    present = {name: array.dtype for name, array in arrays.items() if array is not None}
    wanted = present.get("weight")  # a layer's own dtype is meant
    other = next((n for n, d in present.items() if wanted is not None and d != wanted), None)
    remedy = _remedy(other, present[other], str(wanted)) if other is not None and wanted in _NAMES else ""
    return TypeError("dtypes must be equal, got " + ", ".join(f"{n}: {d}" for n, d in present.items()) + remedy)
