"""Tensors in tuples, lists and dictionaries: the operands and results of captured functions."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum
from hashlib import blake2b
from types import FunctionType, GenericAlias
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.capturing.state import CONSTANTS, lasting
from numbanet.deferred import Deferred, settle
from numbanet.nn.module import Module
from numbanet.optim.optimizer import Optimizer
from numbanet.tensor import Tensor

_EXPLORED = (Module, type, FunctionType, Enum)
_CHUNK = 1 << 20  # elements that are copied at once


def form(value: Any, tensors: list[Tensor]) -> Any:
    """Return what stands for operands of the same shapes, and append their tensors to a list."""
    if isinstance(value, Tensor):
        settle(value)
        tensors.append(value)
        return Tensor, value.shape, value.dtype, value.requires_grad
    if isinstance(value, (tuple, list)):
        return type(value), *[form(item, tensors) for item in value]
    if isinstance(value, dict):
        return type(value), *[(_constant(key), form(item, tensors)) for key, item in value.items()]
    return _constant(value)


def _constant(value: Any) -> Any:
    """Return what stands for a value that is no tensor."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"captured functions take Tensors and hashable values, got {type(value).__name__}") from None
    if isinstance(value, tuple):  # of a dictionary's key; (1,) is not (1.0,)
        return type(value), *map(_constant, value)
    if isinstance(value, (float, complex, np.generic, range, slice, GenericAlias)):
        return type(value), repr(value)  # 0.0 is not -0.0, and range(0) not range(1, 1)
    return type(value), value


def unwatched(value: Any) -> str | None:
    """Return the type of an operand that may change unnoticed, or equal one of another meaning; else None."""
    if isinstance(value, (tuple, list, dict)):
        copied = type(value) in (tuple, list, dict, OrderedDict) or hasattr(value, "_fields")
        items = (*value, *value.values()) if isinstance(value, dict) else value
        return next((found for item in items if (found := unwatched(item))), None) if copied else type(value).__name__
    known = isinstance(value, (*_EXPLORED, Optimizer, Tensor)) or lasting(value)
    return None if known else type(value).__name__


def explored_in(value: Any) -> list[Any]:
    """Return the operands whose attributes the state of a captured function includes."""
    if isinstance(value, (tuple, list, dict)):
        items = (*value, *value.values()) if isinstance(value, dict) else value
        return [found for item in items for found in explored_in(item)]
    return [value] if isinstance(value, _EXPLORED) else []


def filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return operands or results with other tensors in place of theirs."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (tuple, list)):
        items = [filled(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        pairs = [(key, filled(item, tensors)) for key, item in value.items()]
        return OrderedDict(pairs) if isinstance(value, OrderedDict) else dict(pairs)
    return value


def results_in(value: Any) -> list[Tensor]:
    """Return the tensors of a result, in their order."""
    found: list[Tensor] = []
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        found += [t for item in value for t in results_in(item)]
    elif isinstance(value, dict):
        found += [t for item in value.values() for t in results_in(item)]
    return found


def plain(value: Any) -> bool:
    """Return whether a result holds nothing that a copy of its containers, with other tensors, would lack."""
    if isinstance(value, Tensor):
        return type(value) in (Tensor, Deferred)
    if isinstance(value, tuple) and (type(value) is tuple or hasattr(value, "_fields")):
        return all(map(plain, value))
    if type(value) in (dict, OrderedDict):
        return all(map(plain, value.values()))
    return all(map(plain, value)) if type(value) is list else isinstance(value, CONSTANTS)


def differentiable(value: Any) -> bool:
    """Return whether someone may call ``backward`` for a result: it has a tape, which was not used up."""
    return any(t.requires_grad and (t._node is None or t._node.backward is not None) for t in results_in(value))


def with_arrays(value: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Return a result with tensors of changed arrays; where a backward used up their tape, they say so too."""

    def changed(t: Tensor) -> Tensor:
        other = Tensor(change(t.data), t.requires_grad)
        other._node = t._node
        return other

    return filled(value, map(changed, results_in(value)))


def equal(a: Any, b: Any) -> bool:
    """Return whether two results hold the same bits (any NaN is like another)."""
    first, second = results_in(a), results_in(b)
    return len(first) == len(second) and all(same_values(x.data, y.data) for x, y in zip(first, second))


def same_values(a: Any, b: Any) -> bool:
    """Return whether two arrays, of whatever devices, hold the same."""
    x, y = memory.on_host(a), memory.on_host(b)
    return np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def digest(a: Any) -> bytes:
    """Return what arrays with the same values share (any NaN is like another), without a copy of them.

    It is the same for whatever memory order and device.
    """
    x = np.atleast_1d(memory.on_host(a))
    found = blake2b(repr((x.shape, x.dtype.str)).encode())
    rows = max(1, _CHUNK // max(1, math.prod(x.shape[1:])))
    for first in range(0, len(x), rows):
        part = np.ascontiguousarray(x[first : first + rows])
        if part.dtype.kind == "f":
            with np.errstate(invalid="ignore"):  # signalling NaN
                part = part + 0  # -0 is equal to 0
            part[np.isnan(part)] = np.nan
        found.update(part.tobytes())
    return found.digest()


def other_values(x: np.ndarray) -> np.ndarray:
    """Return other values that a function of x may well take, too: of floating-point ones not one is the same.

    Those of the other samples, in the first place: what is largest, or above a bound, lies elsewhere.
    """
    turned = x.reshape(-1)[::-1].reshape(x.shape)
    if x.dtype.kind != "f":
        return turned
    random = np.random.default_rng(x.size).uniform(0.5, 0.9, x.shape)
    with np.errstate(invalid="ignore"):
        scaled = (turned * random).astype(x.dtype)
    return np.where((scaled != x) & np.isfinite(scaled), scaled, random.astype(x.dtype))
