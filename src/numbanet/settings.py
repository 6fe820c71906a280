"""What a user can set: device and precision, logging, and the cache folder."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "strict", "tf32", "bf16", "fp16")

# What the program chose, for all its threads; a ``with`` block goes before it, in its own thread and context only.
_device: str | None = None
_precision = "float32"
PRECISION_HERE: ContextVar[str | None] = ContextVar("numbanet_precision", default=None)

CHANGES = np.zeros(1, np.int64)
"""The number of the last change, for all threads, that a choice of kernels depends on; machine code looks at it."""
_numbers = itertools.count(1)


def changed() -> None:
    """Note that something has changed: after it has."""
    CHANGES[0] = next(_numbers)  # at no time one that there was before, whoever else is at it


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def set_device(device: str | None) -> None:
    """Choose where new tensors and parameters live, in all threads.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:1", ...}
        ``"auto"`` takes a GPU when one works, else the CPU. ``"cuda"`` is the first GPU, ``"cuda:1"`` the next. None
        takes a choice back, as in PyTorch.

    Raises
    ------
    ValueError
        If `device` is none of these.
    RuntimeError
        If `device` is ``"cuda"`` and no GPU can be used; the message says why.
    """
    global _device
    resolve_device(device)
    _device = device


def get_device() -> str:
    """Return the device that was chosen: by `set_device`, else by ``NUMBANET_DEVICE``, else ``"auto"``."""
    if _device is not None:
        return _device
    word = os.environ.get("NUMBANET_DEVICE", "auto")
    parse_device("NUMBANET_DEVICE", word)
    return word


def parse_device(name: str, word: Any) -> tuple[str, int]:
    """Return the kind of a device and its number; ValueError if there is no such word."""
    kind, colon, number = word.partition(":") if isinstance(word, str) else (word, "", "")
    if kind not in DEVICES or (colon and (kind == "auto" or not number.isdecimal() or (kind == "cpu" and int(number)))):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, DEVICES))} or 'cuda:1' and so on, got {word!r}")
    return kind, int(number or 0)


def is_device(value: Any) -> bool:
    """Return whether an argument that may be a device or a dtype is meant for a device."""
    return type(value) is int or (isinstance(value, str) and value.partition(":")[0] in DEVICES)


def destination(args: tuple[Any, ...], device: Any, dtype: Any) -> tuple[Any, Any, bool]:
    """Return the device, the dtype (None where there is none) and the ``copy`` among the arguments of ``to``.

    Parameters
    ----------
    args : tuple
        Devices, dtypes, and tensors, which have both; None counts for nothing. After the first, up to two booleans may
        end them, as in PyTorch: ``non_blocking``, and ``copy``.
    device, dtype
        Those that were given by name, or None.

    Raises
    ------
    TypeError
        If there are two devices or two dtypes, or an array.
    """
    found: dict[str, Any] = {"device": device, "dtype": dtype}
    targets = list(args)
    while len(targets) > max(1, len(args) - 2) and type(targets[-1]) is bool:
        targets.pop()
    for arg in targets:
        if hasattr(arg, "requires_grad"):
            given = {"device": arg.device, "dtype": arg.dtype}
        elif arg is None:
            continue
        elif hasattr(arg, "__array__") and not isinstance(arg, type):
            raise TypeError(f"to() takes a device, a dtype or a Tensor, got {arg!r}")
        else:
            given = {"device" if is_device(arg) else "dtype": arg}
        for name, value in given.items():
            if found[name] is not None:
                raise TypeError(f"to() takes one {name}, got {found[name]!r} and {value!r}")
            found[name] = value
    return found["device"], found["dtype"], len(args) - len(targets) == 2 and args[-1]


def gpu_word(device: int | str | None) -> int | str:
    """Return the device word of a GPU (None: the chosen one, else the first).

    Raises
    ------
    ValueError
        If the word is not that of a GPU.
    """
    if device is None:
        return f"cuda:{chosen_gpu()}"
    if type(device) is not int and not str(device).startswith("cuda"):
        raise ValueError(f"device must be the number of a GPU, or 'cuda:1' and so on, got {device!r}")
    return device


def chosen_gpu() -> int:
    """Return the number of the GPU that is used where nothing names one."""
    return parse_device("device", get_device())[1]


def resolve_device(device: str | int | None = None) -> str:
    """Return ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` (and so on) for a device word (None: the chosen one).

    A number is that of a GPU, as in PyTorch.

    Raises
    ------
    ValueError
        If there is no such word.
    RuntimeError
        If the word names a GPU that can't be used; the message says why.
    """
    word = get_device() if device is None else device
    kind, number = parse_device("device", f"cuda:{word}" if type(word) is int else word)
    if kind == "cpu":
        return "cpu"
    from numbanet.cuda import unavailable_reason

    reason = unavailable_reason(number)
    if reason is None:
        return f"cuda:{number}" if number else "cuda"
    if kind != "auto":
        raise RuntimeError(f"device {word!r} can't be used: {reason}")
    return "cpu"


def set_precision(precision: str) -> None:
    """Choose the arithmetic of float32 problems, in all threads (outside ``with precision(...)`` blocks).

    Parameters
    ----------
    precision : {"float32", "strict", "tf32", "bf16", "fp16"}
        ``"float32"`` allows Winograd's algorithms, ``"strict"`` does not; ``"tf32"``, ``"bf16"`` and ``"fp16"`` are
        tensor-core arithmetic and change nothing on the CPU. Operands of ``"fp16"`` above 65504 become infinite, and
        numbers below 3e-8 zero: scale the loss.

    Raises
    ------
    ValueError
        If `precision` is none of these.
    """
    global _precision
    _precision = _choice("precision", precision, PRECISIONS)
    changed()


def get_precision() -> str:
    """Return the arithmetic of float32 problems."""
    return PRECISION_HERE.get() or _precision


@contextmanager
def precision(value: str) -> Iterator[None]:
    """Set the precision within a ``with`` block, for its thread; arguments and errors as for `set_precision`."""
    token = PRECISION_HERE.set(_choice("precision", value, PRECISIONS))
    try:
        yield
    finally:
        PRECISION_HERE.reset(token)


def verbose() -> bool:
    """Return whether ``NUMBANET_VERBOSE`` asks for a line at each choice and compilation."""
    return os.environ.get("NUMBANET_VERBOSE", "0") not in ("", "0")


def log(message: str) -> None:
    """Print a line to standard error when ``NUMBANET_VERBOSE`` is set."""
    if verbose():
        print(f"numbanet: {message}", file=sys.stderr)


def notice(message: str) -> None:
    """Print a line to standard error, unless ``NUMBANET_VERBOSE`` is set: 0 wants silence, 1 has its own lines."""
    if "NUMBANET_VERBOSE" not in os.environ:
        print(f"numbanet: {message}", file=sys.stderr)


def ahead() -> bool:
    """Return whether a second process may compile kernels ahead; ``NUMBANET_AHEAD=0`` turns it off."""
    return os.environ.get("NUMBANET_AHEAD", "1") != "0" and cache_enabled()


def cache_root() -> Path:
    """Return the folder for compiled kernels: ``NUMBANET_CACHE_DIR``, else the user's cache folder.

    Raises
    ------
    RuntimeError
        If the user has no home.
    """
    chosen = os.environ.get("NUMBANET_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "numbanet"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "numbanet" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numbanet"


def cache_enabled() -> bool:
    """Return whether compiled kernels are kept on disk; ``NUMBANET_CACHE=0``, or having no home, turns it off."""
    if os.environ.get("NUMBANET_CACHE", "1") == "0":
        return False
    try:
        cache_root()
    except RuntimeError:
        return False
    return True
