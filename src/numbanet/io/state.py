"""Nested states (of optimizers, loaders, whole training runs) as one safetensors file.

Arrays become tensors of the file; the dictionaries, lists and numbers around them become JSON in its metadata. Floats
and integers of any size come back exactly.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet.device_array import DeviceArray
from numbanet.io.checkpoint import load_with_metadata, on_host, save
from numbanet.io.text import parse_json
from numbanet.tensor import Tensor

_KEY = "numbanet.state"


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a nested state, atomically.

    Parameters
    ----------
    path : path
    state : dict
        Holds dictionaries, lists, tuples, strings, numbers, bool, None, arrays and Tensors, nested in any way. An
        array is named by the keys on the way to it, joined by dots.

    Raises
    ------
    TypeError
        If it holds anything else.
    """
    if not isinstance(state, dict):
        raise TypeError(f"state must be a dict, got {type(state).__name__}")
    tensors: dict[str, NDArray] = {}
    text = json.dumps(_pack(state, "", tensors))
    save(path, tensors, {_KEY: text})


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_state` wrote; Tensors come back as arrays.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or `save_state` did not write it; the message names it.
    """
    tensors, metadata = load_with_metadata(path)
    if not is_state(metadata):
        raise ValueError(f"{os.fspath(path)}: holds tensors only, and no state: numbanet.io.load reads it")
    return unpack_state(path, tensors, metadata)


def unpack_state(
    path: str | os.PathLike[str], tensors: dict[str, NDArray], metadata: dict[str, str]
) -> dict[str, Any]:
    """Return the state in a file that was read; errors as those of `load_state`."""
    packed = parse_json(path, metadata[_KEY], "its state")
    try:
        state = _unpack(packed, tensors)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: damaged: its state can't be read: {error!r}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{os.fspath(path)}: damaged: its state is of type {type(state).__name__}, expected dict")
    return state


def is_state(metadata: dict[str, str]) -> bool:
    """Return whether a file with this metadata was written by `save_state`."""
    return _KEY in metadata


def _pack(value: Any, name: str, tensors: dict[str, NDArray]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _pack(item, _join(name, key), tensors) for key, item in value.items()}
        return {"$items": [[_key(name, key), _pack(item, _join(name, key), tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, _join(name, index), tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if not isinstance(value, (np.ndarray, DeviceArray, Tensor)):
        raise TypeError(f"state: {name} is of type {type(value).__name__}, which can't be saved")
    while name in tensors:  # {"a.b": x, "a": {"b": y}}
        name += "_"
    tensors[name] = on_host(name, value)
    return {"$tensor": name}


def _unpack(value: Any, tensors: dict[str, NDArray]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_unpack(item, tensors) for item in _listed(value["$tuple"]))
    if "$items" in value:
        return {_unpack(key, {}): _unpack(item, tensors) for key, item in map(_listed, _listed(value["$items"]))}
    return {key: _unpack(item, tensors) for key, item in value.items()}


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} where a list is expected")
    return value


def _key(name: str, key: Any) -> Any:
    """Return a key that is no word as JSON has it: a number, None, or a tuple of such."""
    if isinstance(key, tuple):
        return {"$tuple": [_key(name, item) for item in key]}
    if not isinstance(key, (bool, int, float, str, type(None))):
        raise TypeError(f"state: {name or 'it'} has a key of type {type(key).__name__}, which can't be saved")
    return key


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
