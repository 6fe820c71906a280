"""The bytes of an ONNX file: nothing is allocated for a tensor before its declared size was compared with its data."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet.io.checkpoint import read_file

# TensorProto.DataType: the dtype in raw data, and the field that holds values otherwise.
_FLOAT, _INT32, _INT64, _BOOL, _DOUBLE = 1, 6, 7, 9, 11
DTYPES = {_FLOAT: "<f4", _INT32: "<i4", _INT64: "<i8", _BOOL: "?", _DOUBLE: "<f8"}
_FIELDS = {
    _FLOAT: "float_data", _INT32: "int32_data", _INT64: "int64_data", _BOOL: "int32_data", _DOUBLE: "double_data",
}  # fmt: skip
_EXTERNAL = 1
_TIMES = 4  # a file of external data may be read so many times, by tensors that share it


def parse(path: Path) -> Any:
    """Return the ModelProto of a file.

    Raises
    ------
    ImportError
        Without the onnx package; the message tells how to install it.
    OSError, ValueError
        If the file can't be read, or is not one; the message names it.
    """
    content = read_file(path, "an ONNX file")
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError('reading ONNX files needs onnx: pip install "numbanet[onnx]"') from error
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ValueError(f"not an ONNX file: {error}") from None
    if not model.HasField("graph"):
        raise ValueError("not an ONNX file: it holds no graph")
    return model


class Tensors:
    """Reads the tensors of a model, of which some may lie in other files of its folder.

    Parameters
    ----------
    folder : Path
        That of the model: no file outside of it is opened.
    """

    def __init__(self, folder: Path):
        self._folder = folder.resolve()
        self._read: Counter[Path] = Counter()

    def array(self, tensor: Any, what: str) -> NDArray:
        """Return the values of a TensorProto, as float32, float64, int32, int64 or bool.

        Raises
        ------
        ValueError
            If it has another type, or its sizes and its data differ; the message begins with `what`.
        OSError
            If external data can't be read.
        """
        if tensor.data_type not in DTYPES:
            raise ValueError(f"{what}: data type {tensor.data_type} is not supported, only float, double, int and bool")
        if tensor.HasField("segment"):
            raise ValueError(f"{what}: is a segment of a tensor, which is not supported")
        dtype, shape = np.dtype(DTYPES[tensor.data_type]), tuple(tensor.dims)
        if any(size < 0 for size in shape) or len(shape) > 32:
            raise ValueError(f"{what}: has shape {shape}")
        count = math.prod(shape)
        if tensor.data_location == _EXTERNAL:
            values = np.frombuffer(self._external(tensor, count * dtype.itemsize, what), dtype)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != count * dtype.itemsize:
                raise ValueError(f"{what}: holds {len(tensor.raw_data)} bytes, shape {shape} of {dtype} needs others")
            values = np.frombuffer(bytearray(tensor.raw_data), dtype)
        else:
            field = getattr(tensor, _FIELDS[tensor.data_type])
            if len(field) != count:
                raise ValueError(f"{what}: holds {len(field)} numbers, shape {shape} needs {count}")
            values = np.array(field, dtype)
        try:
            return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
        except ValueError as error:
            raise ValueError(f"{what}: has shape {shape}, which NumPy lacks: {error}") from None

    def _external(self, tensor: Any, size: int, what: str) -> bytearray:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            path = (self._folder / location).resolve()
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except (ValueError, OSError, RuntimeError) as error:  # no number, or no path
            raise ValueError(f"{what}: its external data can't be found: {error}") from None
        if not path.is_relative_to(self._folder) or path == self._folder:
            raise ValueError(f"{what}: its external data {location!r} lie outside of the model's folder")
        if not path.is_file():
            raise ValueError(f"{what}: its external data {location!r} are no file")
        room = path.stat().st_size
        if offset < 0 or length != size or offset + length > room:
            raise ValueError(
                f"{what}: bytes {offset} to {offset + length} of {location!r} (of {room}) for a tensor of {size} bytes"
            )
        self._read[path] += length
        if self._read[path] > _TIMES * room:
            raise ValueError(f"{what}: the tensors in {location!r} hold several times its {room} bytes")
        with path.open("rb") as stream:
            stream.seek(offset, os.SEEK_SET)
            data = bytearray(stream.read(length))
        if len(data) != length:
            raise ValueError(f"{what}: {location!r} became shorter while it was read")
        return data
