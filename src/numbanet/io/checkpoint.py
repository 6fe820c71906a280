"""Arrays in safetensors files: a JSON header and raw bytes, nothing that could run when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet import memory
from numbanet.io.atomic import write_atomically
from numbanet.io.paths import as_path
from numbanet.io.text import parse_json
from numbanet.tensor import Tensor

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip
_CONVERT = (
    "convert it once, where PyTorch is, by safetensors.torch.save_file(torch.load(path, weights_only=True), "
    "'x.safetensors'), if it holds a state_dict (docs/networks.md)"
)
_NAMES = frozenset(np.dtype(dtype).name for dtype in _DTYPES.values())


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays as a safetensors file, atomically.

    Parameters
    ----------
    path : path
        Missing folders are made; an existing file is replaced in one step.
    tensors : mapping of str to ndarray or Tensor
        Any shapes and memory orders; floats, integers and bool of up to 8 bytes.
    metadata : mapping of str to str, optional
        Text that is stored beside them.

    Raises
    ------
    TypeError
        If a name or a metadata item is not a string, or an array has a dtype that the format lacks.
    ValueError
        If a parameter is not initialized; the message has its name.
    OSError
        If the file can't be written.
    """
    import safetensors.numpy

    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors must be a mapping of names to arrays, got {type(tensors).__name__}")
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata must be a mapping of strings, got {type(metadata).__name__}")
    texts = dict(metadata or {})
    for key, value in texts.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must hold strings only, got {key!r}: {value!r}")
    arrays = {name: _storable(name, value) for name, value in tensors.items()}
    # An empty metadata dictionary would be written as null by some versions and refused by others.
    write_atomically(path, safetensors.numpy.save(arrays, metadata=texts or None))


def load(path: str | os.PathLike[str]) -> dict[str, NDArray]:
    """Read the named arrays of a safetensors file.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to ndarray
        Writable, C-contiguous; in the order of the file's header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, is not safetensors, or holds a dtype that NumPy lacks; the message names the file.
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Read the named arrays of a safetensors file and its metadata; errors as those of `load`."""
    import safetensors

    path = as_path("path", path)
    content = read_file(path, "a safetensors file")
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: {_fault(content, str(error))}") from None
    header = parse_json(path, content[8 : 8 + int.from_bytes(content[:8], "little")], "its header")
    place = {name: number for number, name in enumerate(header)}  # entries come in any order, each time another one
    entries.sort(key=lambda pair: place.get(pair[0], -1))
    tensors = {name: _array(path, name, entry) for name, entry in entries}
    return tensors, header.get("__metadata__") or {}


def read_file(path: Path, expected: str) -> bytes:
    """Return the content of a file, which must be a regular one: a pipe or a device has no end to rely on.

    Raises
    ------
    OSError
        If it is none; the message names it and what was expected.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected {expected}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise OSError(f"{path}: is a device or a pipe, expected {expected}")
    return path.read_bytes()


def on_host(name: str, value: Any) -> Any:
    """Return a value, that of a Tensor as an array, in the host's memory.

    Raises
    ------
    ValueError
        If it is a parameter that is not initialized; the message has its name.
    """
    try:
        return memory.on_host(value.data if isinstance(value, Tensor) else value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _storable(name: str, value: Any) -> NDArray:
    if not isinstance(name, str):
        raise TypeError(f"tensors must be named by strings, got {name!r}")
    array = np.asarray(on_host(name, value), order="C")
    if array.dtype.name not in _NAMES:
        raise TypeError(f"tensor {name!r} has dtype {array.dtype}, which a safetensors file can't hold")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _array(path: Path, name: str, entry: Mapping[str, Any]) -> NDArray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{path}: tensor {name!r} has dtype {entry['dtype']}, which NumPy lacks")
    values: NDArray = np.frombuffer(bytearray(entry["data"]), _DTYPES[entry["dtype"]])
    try:
        return values.reshape(entry["shape"])
    except (ValueError, OverflowError) as error:  # more dimensions than NumPy has, or huge ones beside a zero
        raise ValueError(f"{path}: tensor {name!r} has shape {entry['shape']}, which NumPy lacks: {error}") from None


def _fault(content: bytes, message: str) -> str:
    """Say what is wrong with a file that the safetensors package refused."""
    size = int.from_bytes(content[:8], "little")
    starts_as_json = content[8:9] in (b"", b"{")
    if len(content) < 8 or (starts_as_json and 8 + size > len(content)):
        return f"truncated: it ends after {len(content)} bytes, inside its header"
    if not starts_as_json and (content[:4] == b"PK\3\4" or content[:1] == b"\x80"):  # an archive, or a bare pickle
        return f"not a safetensors file but a pickle, as torch.save writes them, which could run anything: {_CONVERT}"
    try:
        header = json.loads(content[8 : 8 + size])
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, AttributeError, LookupError, TypeError, OverflowError, RecursionError):
        return f"not a safetensors file ({message})"
    expected = 8 + size + max(ends, default=0)
    if len(content) < expected:
        return f"truncated: {len(content)} bytes, expected {expected}"
    if len(content) > expected:
        return f"damaged: {len(content)} bytes, expected {expected}"
    return f"a safetensors file that can't be read ({message})"
