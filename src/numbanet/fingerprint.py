"""What tells one compiled function from others: its code, and all that a compiler takes for constant in it.

Numba freezes the values of the names that a function closes over, and of global ones: numbers, arrays, other functions.
They are followed here as they are in memory, since that is what is compiled, whatever their files say by now. The
package's own globals are not: its files have a hash (see `numbanet.sources`).
"""

from __future__ import annotations

import enum
import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
from numba.core import entrypoints

# Their versions are part of every key.
_known = ["numbanet", "numba", "llvmlite", "numpy", "cuda"]
_overload_lists = ["numba.core.typing.templates"]  # modules that hold what is registered


def compile_with(package: str, overloads: str) -> None:
    """Say that a package compiles kernels too, and which of its modules holds the overloads."""
    if package not in _known:
        _known.append(package)
        _overload_lists.append(overloads)


def hash_of(function: Callable, text: str = "") -> str:
    """Return the hash of a function: of its code, of what it refers to, and of `text_hash` where it has one.

    Numba's overloads decide what a name means in a kernel, and nothing refers to them: those of other packages are part
    of the hash, unless the function is one of this package.
    """
    overloads = [] if is_known(function) else sorted(_overloads())
    return hashlib.sha256(repr((_Walk().of(function), overloads, text)).encode()).hexdigest()


def text_hash(function: Callable) -> str:
    """Return the hash of a function's file; "" for those of this package, and for what was typed at a prompt.

    There may be what nothing refers to, such as Numba's rules of lowering. It is read as soon as the function is there,
    since the file may be edited before the function is compiled.
    """
    if is_known(function):
        return ""
    try:
        return hashlib.sha256(Path(function.__code__.co_filename).read_bytes()).hexdigest()
    except OSError:
        return ""


def _overloads() -> Iterator[str]:
    """Yield what other packages registered as overloads of functions, methods and attributes, and how."""
    entrypoints.init_all()  # of extensions that are installed, which Numba loads before it compiles
    for name in _overload_lists:
        if name in sys.modules:
            registry = sys.modules[name].builtin_registry
            named = [template for _, kind in registry.globals for template in getattr(kind, "templates", ())]
            for template in (*registry.functions, *registry.attributes, *named):
                function = getattr(template, "_overload_func", None)
                if function is not None and not is_known(function):
                    options = [getattr(template, option, None) for option in _OPTIONS]
                    inline = getattr(getattr(template, "_inline", None), "value", None)
                    # Each has a walk of its own: the order in which they were registered means nothing.
                    yield repr(_Walk().of([template.key, function, inline, *options]))


_OPTIONS = ("_attr", "_strict", "_jit_options", "prefer_literal")


def is_known(function: Callable) -> bool:
    """Return whether a function's file is one whose version is part of every key."""
    return _is_known_file(function.__code__.co_filename)


@cache
def _is_known_file(path: str) -> bool:
    """Return whether a file is of Python itself, or of this package and what it compiles with; names prove nothing."""
    if path.startswith("<frozen "):
        return True
    path = os.path.abspath(path)
    for name in ("stdlib", "platstdlib"):
        folder = sysconfig.get_path(name) + os.sep
        installed = {"site-packages", "dist-packages"} & set(path[len(folder) :].split(os.sep))
        if path.startswith(folder) and not installed:
            return True
    return path.startswith(tuple(folder + os.sep for folder in _packages()))


def _packages() -> Iterator[str]:
    """Yield the folders of the packages whose versions are known, as far as they are imported."""
    for name in _known:
        yield from map(os.path.abspath, getattr(sys.modules.get(name), "__path__", ()))


def is_known_module(module: ModuleType) -> bool:
    """Return whether a module is of Python itself, or of those packages."""
    path = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names if path is None else _is_known_file(path)


class _Walk:
    """A walk over what a function refers to; each function is entered once, as functions may call each other."""

    def __init__(self) -> None:
        self._met: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """Return the same for equal values, and nothing that differs from process to process."""
        # What a dispatcher compiles, and what an intrinsic of Numba is.
        value = getattr(value, "py_func", getattr(value, "_defn", value))
        if isinstance(value, (tuple, list)):
            fields = getattr(type(value), "_fields", ())  # a namedtuple's, whose order decides what a name means
            return type(value).__qualname__, fields, [self.of(item) for item in value]
        if isinstance(value, enum.Enum):
            return type(value).__qualname__, value.name, self.of(value.value)
        if isinstance(value, type):
            members = list(value) if issubclass(value, enum.Enum) else []
            return value.__module__, value.__qualname__, getattr(value, "_fields", ()), [self.of(m) for m in members]
        if isinstance(value, (set, frozenset)):
            return type(value).__qualname__, sorted(map(repr, value))
        if isinstance(value, dict):
            return [(self.of(name), self.of(item)) for name, item in value.items()]
        if isinstance(value, (np.ndarray, np.generic)):  # repr leaves out digits, elements and the order in memory
            digest = hashlib.sha256(value.tobytes()).hexdigest()
            return type(value).__qualname__, repr(value.dtype), value.shape, value.strides, digest
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, CodeType):
            # The bytecode alone is the same for two functions that differ in what they call.
            constants = [self.of(constant) for constant in value.co_consts]
            arguments = value.co_argcount, value.co_kwonlyargcount, value.co_varnames
            return value.co_code.hex(), value.co_names, arguments, value.co_flags, constants
        code = getattr(value, "__code__", None)
        if not isinstance(code, CodeType):
            return repr(value)
        if id(value) in self._met:
            return list(self._met).index(id(value))
        self._met[id(value)] = value  # kept, so that no other gets its number
        cells = [self._content(cell) for cell in getattr(value, "__closure__", None) or ()]
        defaults = self.of(getattr(value, "__defaults__", None)), self.of(getattr(value, "__kwdefaults__", None))
        names = [] if is_known(value) else [(n, self.of(v)) for n, v in _globals(value)]
        return self.of(code), getattr(value, "__qualname__", ""), cells, defaults, names

    def _content(self, cell: Any) -> Any:
        try:
            return self.of(cell.cell_contents)
        except ValueError:  # assigned later, if ever
            return "empty"


def _globals(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the global names that a function uses and their values, and those of modules among these."""
    names = list(dict.fromkeys(_names(function.__code__)))
    spaces = [function.__globals__]
    for space in spaces:
        for name in names:
            if name in space:
                yield name, space[name]
                if isinstance(space[name], ModuleType) and not is_known_module(space[name]):
                    if all(vars(space[name]) is not known for known in spaces):
                        spaces.append(vars(space[name]))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
