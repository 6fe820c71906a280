"""The table of numbanet.io: what was saved is read again, bit for bit, from a folder of the case's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from numbanet import Tensor, io, nn
from tests.fuzz.arrays import DTYPES, Draw
from tests.fuzz.check import Call, Line

_NAMES = ("a", "weight", "layer1.0.weight", "", "with space", "grüße", "0", "a/b", "x" * 300, "$tensor")
_PATHS = ("a.safetensors", "deep/er/b", "with space", "ünï", "noending", "a.b.c")


def _in_folder(use: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose first argument, where it is a word, becomes a path in a folder of its own.

    Nothing but that file may be left there.
    """

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            target = os.path.join(folder, path) if isinstance(path, str) else path
            found = use(target, *args, **kwargs)
            left = [file for file in Path(folder).rglob("*") if file.is_file()]
            return [*found, left == [Path(target)]]

    return call


def _path(d: Draw) -> Any:
    return d.pick(*_PATHS)


def same(a: Any, b: Any) -> bool:
    """Return whether two nested states are equal, in kinds and bits; a Tensor is an array, NumPy's numbers Python's."""
    a = a.data if isinstance(a, Tensor) else a.item() if isinstance(a, np.generic) else a
    if isinstance(a, np.ndarray):
        native = a.dtype.newbyteorder("=")
        return isinstance(b, np.ndarray) and b.dtype == native and a.astype(native).tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(pair, other) for pair, other in zip(a.items(), b.items()))
    return a == b or (a != a and b != b)


def _named(names: Any, values: Any) -> Any:
    """Return a dictionary of two lists, or what stands in their place."""
    if not isinstance(names, (list, tuple)) or not isinstance(values, (list, tuple)):
        return names
    try:
        return dict(zip(names, values))
    except TypeError:
        raise TypeError(f"names must be hashable, got {names}") from None


# ------------------------------------------------------------------------------------------------ arrays


def _saved(path: Any, names: Any, arrays: Any, metadata: Any) -> Any:
    tensors = _named(names, arrays)
    io.save(path, tensors, metadata)
    read, texts = io.load_with_metadata(path)
    again = io.load(path)
    writable = all(x.flags.writeable and x.flags.c_contiguous for x in read.values())
    kept = [tensors.keys() == read.keys(), all(same(np.asarray(_array(tensors[name])), read[name]) for name in read)]
    return [*kept, texts == dict(metadata or {}), writable, same(read, again)]


def _array(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def _arrays(d: Draw) -> Call:
    names = d.random.sample(_NAMES, d.integer(0, 4))
    known = [name for name in DTYPES if np.dtype(name).kind in "biuf" and name != "longdouble"]
    arrays = [d.floats(d.shape()) if d.chance(0.5) else _of(d, d.pick(*known)) for _ in names]
    metadata = d.pick(None, {}, {"a": "b"}, {"grüße": "", "": "\n\0"})
    return (_path(d), names, arrays, metadata), {}


def _of(d: Draw, dtype: str) -> np.ndarray:
    return d.integers(d.shape(), 0, 255, np.uint8).astype(dtype)


def _written(path: Any, content: Any) -> Any:
    io.write_atomically(path, b"before")
    before = Path(path).read_bytes() == b"before"
    io.write_atomically(path, content)
    return [before, Path(path).read_bytes() == bytes(content)]


# ------------------------------------------------------------------------------------------------ states


def _kept(path: Any, keys: Any, values: Any) -> Any:
    state = _named(keys, values)
    io.save_state(path, state)
    return [same(state, io.load_state(path))]


def _nested(d: Draw, depth: int = 3) -> Any:
    if depth and d.chance(0.5):
        items = [_nested(d, depth - 1) for _ in range(d.integer(0, 3))]
        return d.pick(list, tuple)(items) if d.chance(0.5) else dict(zip(d.random.sample(_KEYS, len(items)), items))
    return d.pick(
        None, True, False, 0, -1, 2**70, 0.1, -0.0, float("inf"), float("nan"), 5e-324, "", "ü", "$tuple",
        d.floats(d.shape()), d.integers(d.shape(), -9, 9), np.float32(0.1), np.int8(3),
    )  # fmt: skip


_KEYS = ("a", "a.b", "b", "", "$items", "$tensor", 1, 1.5, None, "1", (1, "a"), -(2**70))


def _state(d: Draw) -> Call:
    values = [_nested(d) for _ in range(d.integer(0, 4))]
    return (_path(d), d.random.sample(_KEYS, len(values)), values), {}


# ------------------------------------------------------------------------------------------------ models


def _network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.Sequential(nn.Linear(outputs, 1)))


def _restored(path: Any, model: Any, weight: Any, strict: Any, metadata: Any) -> Any:
    """Save a model with a weight of these values, and load it into another one; or what stands in its place."""
    if model == "network":
        if not isinstance(weight, np.ndarray):
            raise TypeError(f"weight must be an array, got {weight!r}")
        model, other = (_network(weight.shape[-1], len(weight)) for _ in range(2))
        model.load_state_dict({"0.weight": weight, "1.num_batches_tracked": np.array(3)}, strict=False)
    else:
        other = model
    io.save_model(model, path, metadata)
    io.load_model(other, path, strict)
    states = [{name: np.array(x.data) for name, x in each.state_dict().items()} for each in (model, other)]
    return [same(*states), io.load_with_metadata(path)[1] == dict(metadata or {})]


def _model(d: Draw) -> Call:
    weight = d.floats((d.integer(1, 5), d.integer(1, 5)))
    return (_path(d), "network", weight, d.chance(0.5), d.pick(None, {"a": "b"})), {}


def lines() -> Iterator[Line]:
    """Yield the lines of numbanet.io."""
    options: dict[str, Any] = {
        "words": (
            "path", "names", "tensors", "metadata", "saved", "state", "content", "model", "strict", "weight", "file",
            "tensor",
        ),
        "also": (OSError,),
    }  # fmt: skip
    for name in ("save", "load", "load_with_metadata"):
        yield Line(f"io.{name}", _in_folder(_saved), _arrays, lambda *args: [True] * 6, **options)
    yield Line(
        "io.write_atomically", _in_folder(_written), lambda d: ((_path(d), d.numbers.bytes(d.integer(0, 9))), {}),
        lambda *args: [True] * 3, **options,
    )  # fmt: skip
    for name in ("save_state", "load_state"):
        yield Line(f"io.{name}", _in_folder(_kept), _state, lambda *args: [True] * 2, **options)
    options["also"] = (OSError, RuntimeError)
    for name in ("save_model", "load_model"):
        yield Line(f"io.{name}", _in_folder(_restored), _model, lambda *args: [True] * 3, **options)
