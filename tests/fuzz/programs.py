"""The table of numbanet itself: tensors from outside, settings, modes.

A case that sets something for the whole process puts it back, so that no other case sees it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import Context
from typing import Any
from unittest import mock

import numpy as np

import numbanet as nnet
from numbanet import settings
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line
from tests.fuzz.choices import listed
from tests.fuzz.draws import elements

# ------------------------------------------------------------------------------------------------ tensors


def _tensor(array: Any, requires_grad: Any, dtype: Any) -> Any:
    made = nnet.tensor(array, requires_grad, "cpu", dtype)
    kept = made.dtype == (np.asarray(array).dtype.newbyteorder("=") if dtype is None else np.dtype(dtype))
    known = isinstance(array, (np.ndarray, np.generic)) or dtype is not None
    ours = not isinstance(array, np.ndarray) or not np.shares_memory(made.data, array)
    return [made, made.requires_grad, bool(kept) or not known, ours]


_tensor.about = nnet.tensor  # type: ignore[attr-defined]


def _tensor_draw(d: Draw) -> Call:
    array: Any = elements.some(d, d.shape(0, 5), 0.4)
    if d.chance(0.3):
        array = d.pick(array.tolist(), 3, 2.5, True, [[1, 2], [3, 4]], [], [np.float32(1), 2])
    dtype = d.pick("float32", "float64") if isinstance(array, list) else d.pick(None, np.float64)
    return (array, isinstance(array, np.ndarray) and array.dtype.kind == "f" and d.chance(0.3), dtype), {}


def _values(array: Any, requires_grad: Any, dtype: Any) -> Any:
    found = np.array(array, dtype)
    if dtype is None and not isinstance(array, (np.ndarray, np.generic)) and found.dtype == np.float64:
        found = found.astype(np.float32)
    return [found, bool(requires_grad), True, True]


def _taken(x: Any, copy: Any) -> Any:
    """Take an array of NumPy over DLPack; a field of packed records, which NumPy keeps, is copied."""
    if isinstance(x, np.ndarray) and any(stride % max(1, x.itemsize) for stride in x.strides):
        x = x.copy()
    taken = nnet.from_dlpack(x, copy=copy)
    shared = np.shares_memory(taken.data, x) if x.size else not copy
    return [taken, bool(shared), taken.data.flags.writeable == (bool(copy) or x.flags.writeable)]


_taken.about = nnet.from_dlpack  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ settings


def _apart(function: Callable[..., Any], about: Any) -> Callable[..., Any]:
    """Return the function as it is outside of all ``with`` blocks, with the process's settings put back afterwards."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with mock.patch.multiple(settings, _device=None, _precision="float32"), mock.patch.dict(os.environ):
            os.environ.pop("NUMBANET_DEVICE", None)
            return Context().run(function, *args, **kwargs)

    call.about = about  # type: ignore[attr-defined]
    return call


def _set_device(devices: Any) -> Any:
    found = [nnet.get_device()]
    for device in listed("devices", devices):
        nnet.set_device(device)
        found += [nnet.get_device(), nnet.tensor(1.0).device]
    return found


def _set_precision(words: Any) -> Any:
    found = [nnet.get_precision()]
    for word in listed("words", words):
        nnet.set_precision(word)
        with nnet.precision("strict"):
            found.append(nnet.get_precision())
        found.append(nnet.get_precision())
    return found


def _precision(words: Any) -> Any:
    """Return what holds at each depth of nested blocks, on the way in and out."""
    found = [nnet.get_precision()]
    with ExitStack() as stack:
        for word in listed("words", words):
            stack.enter_context(nnet.precision(word))
            found.append(nnet.get_precision())
    return [*found, nnet.get_precision()]


def _modes(words: Any) -> Any:
    """Return whether gradients are recorded at each depth of nested blocks and in a decorated function."""
    kinds = {"no_grad": nnet.no_grad, "enable_grad": nnet.enable_grad}
    found, x = [nnet.is_grad_enabled()], nnet.tensor(1.0, requires_grad=True)
    with ExitStack() as stack:
        for word in listed("words", words):
            if not isinstance(word, str) or word not in kinds:
                raise ValueError(f"words must hold 'no_grad' and 'enable_grad', got {word!r}")
            stack.enter_context(kinds[word]())
            found += [nnet.is_grad_enabled(), (x * 2).requires_grad, nnet.no_grad(nnet.is_grad_enabled)()]
    return [*found, nnet.is_grad_enabled()]


def _num_threads(counts: Any) -> Any:
    before, found = nnet.get_num_threads(), []
    try:
        for count in listed("counts", counts):
            nnet.set_num_threads(count)
            found.append(nnet.get_num_threads())
    finally:
        nnet.set_num_threads(before)
    return found


def _some(*words: Any) -> Callable[[Draw], Call]:
    """Return a draw of up to three of these."""
    return lambda d: (([d.pick(*words) for _ in range(d.integer(0, 3))],), {})


def _info() -> Any:
    found = nnet.info()
    rows = str(found).splitlines()
    return [len(rows), all(rows), found.numpy == np.__version__, found.precision == nnet.get_precision()]


# ------------------------------------------------------------------------------------------------ lines


def _depths(words: Any) -> Any:
    found = [True]
    for word in words:
        found += [word == "enable_grad"] * 2 + [False]
    return [*found, True]


def lines() -> Iterator[Line]:
    """Yield the lines of what numbanet has itself, but of `choices` and `streams`."""
    yield Line("numbanet.tensor", _tensor, _tensor_draw, _values, words=("array",), also=(RuntimeError,))
    yield Line(
        "numbanet.from_dlpack", _taken, lambda d: ((d.floats(d.shape()), d.pick(None, True, False)), {}),
        lambda x, copy: [x, not copy, True], also=(BufferError,), words=("DLPack",),
    )  # fmt: skip
    devices, precisions = _some("cpu", "cpu:0"), _some(*settings.PRECISIONS)
    options: dict[str, Any] = {"words": ("device", "devices"), "also": (RuntimeError,)}
    for name in ("set_device", "get_device"):
        yield Line(
            f"numbanet.{name}", _apart(_set_device, getattr(nnet, name)), devices,
            lambda words: ["auto", *(found for word in words for found in (word or "auto", "cpu"))], **options,
        )  # fmt: skip
    for name in ("set_precision", "get_precision"):
        yield Line(
            f"numbanet.{name}", _apart(_set_precision, getattr(nnet, name)), precisions,
            lambda words: ["float32", *(found for word in words for found in ("strict", word))],
            words=("precision", "words"),
        )  # fmt: skip
    yield Line(
        "numbanet.precision", _apart(_precision, nnet.precision), precisions,
        lambda words: ["float32", *words, "float32"], words=("precision", "words"),
    )  # fmt: skip
    for name in ("no_grad", "enable_grad", "is_grad_enabled"):
        modes = _some("no_grad", "enable_grad")
        yield Line(f"numbanet.{name}", _apart(_modes, getattr(nnet, name)), modes, _depths, words=("words",))
    for name in ("set_num_threads", "get_num_threads"):
        yield Line(
            f"numbanet.{name}", _num_threads,
            lambda d: (([d.integer(1, nnet.get_num_threads()) for _ in range(3)],), {}), list,
            words=("count", "counts"),
        )  # fmt: skip
    yield Line("numbanet.info", _info, lambda d: ((), {}), lambda: [14, True, True, True])
