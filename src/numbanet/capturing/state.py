"""The state that a captured function depends on: what modules, other objects and their classes hold."""

from __future__ import annotations

import random
import re
import sys
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from ctypes import string_at
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import _lru_cache_wrapper, cached_property, partial, partialmethod
from io import IOBase
from itertools import chain
from logging import Logger
from operator import attrgetter, is_, itemgetter, methodcaller
from pathlib import PurePath
from time import struct_time
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, Generic
from uuid import UUID

import numpy as np

from numbanet import changes
from numbanet.nn.fuse import settled_hook
from numbanet.nn.module import Module
from numbanet.nn.parameter import Parameter
from numbanet.optim.lr_scheduler.base import LRScheduler
from numbanet.optim.optimizer import Optimizer
from numbanet.tensor import Tensor, array_of

CONSTANTS = (type(None), bool, int, float, complex, str, bytes)

_NUMBERS = (*CONSTANTS, np.generic)
_LASTING = (
    np.dtype, np.ufunc, type(np.mean), MethodDescriptorType, WrapperDescriptorType, GenericAlias, UnionType,
    ModuleType, range, slice, type(Ellipsis), type(NotImplemented), attrgetter, itemgetter, methodcaller,
    type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip
# But for subclasses.
_FIXED = (PurePath, Fraction, Decimal, date, time, timedelta, timezone, UUID, re.Pattern, struct_time, Logger)
_SHELLS = (IOBase, _lru_cache_wrapper)  # of whose state only what is in their attributes matters
_COMPILED = ("numba", "llvmlite")  # whose objects hold all of the compiler
_MOST = 100_000  # objects
_CONTAINERS = (list, tuple, set, frozenset, deque, dict, MappingProxyType)
_BOUND = (MethodType, BuiltinFunctionType, MethodWrapperType)
_DICE = (random.Random, np.random.Generator, np.random.RandomState)
# Types written in C whose objects hold what is explored, or nothing that changes.
_OPEN = frozenset((
    *_CONTAINERS, *CONSTANTS, *_BOUND, *_DICE, *random.Random.__mro__, OrderedDict, defaultdict, partial, FunctionType,
    SimpleNamespace, Generic,
))  # fmt: skip
_PACKAGE = __name__.partition(".")[0]
# ``types`` is the module of classes that are made by a call (`dataclasses.make_dataclass`).
_LIBRARIES = frozenset((_PACKAGE, "numpy", *_COMPILED, *sys.stdlib_module_names)) - {"types", "__main__"}
_IN_C = (WrapperDescriptorType, MethodDescriptorType, GetSetDescriptorType, BuiltinFunctionType)
_HEAP_TYPE = 1 << 9  # a flag of types that are made when the program runs
_ITEM = tuple.__itemsize__


def _library(value: Any) -> str:
    """Return the first part of the name of the module in which a class or function was defined."""
    return str(getattr(value, "__module__", None)).partition(".")[0]


def lasting(value: Any) -> bool:
    """Return whether a value stays what it is, as far as a captured function is concerned."""
    kind = type(value)
    if isinstance(value, (type, FunctionType)):
        return _library(value) in _LIBRARIES  # those of others may have attributes
    if isinstance(value, _NUMBERS):
        return not isinstance(value, np.void) and _library(kind) in _LIBRARIES and not hasattr(value, "__dict__")
    return isinstance(value, _LASTING) or kind is object or _library(kind) in (*_COMPILED, "typing")


def _written_in_c(kind: type) -> bool:
    """Return whether a class, without its bases, may have state that Python doesn't see."""
    if kind in _OPEN or (issubclass(kind, np.generic) and not issubclass(kind, np.void)):
        return False
    if not kind.__flags__ & _HEAP_TYPE:
        return True
    own = [x for name, x in vars(kind).items() if name not in ("__dict__", "__weakref__") and isinstance(x, _IN_C)]
    return any(kind in (getattr(x, "__objclass__", None), getattr(x, "__self__", None)) for x in own)


def _has_fields(kind: type) -> bool:
    """Return whether what objects have in slots and the like, as members of this base, is their state."""
    if issubclass(kind, (Module, *_SHELLS)):  # of the library's modules these are forms of what they hold elsewhere
        return _library(kind) not in _LIBRARIES
    return kind not in _OPEN or kind in (partial, defaultdict)


def _adorned(value: Any) -> bool:
    """Return whether an attribute of a class that acts as a method or property has attributes of its own."""
    return bool(vars(value)) if isinstance(value, FunctionType) else _library(type(value)) not in _LIBRARIES


def _behind(value: Any) -> tuple[Any, ...]:
    """Return what an attribute of a class is made of: a function or another object that is called."""
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, cached_property):
        return (value.func,)
    return (value.func, value.args, value.keywords) if isinstance(value, partialmethod) else (value,)


class _Fields:
    """What an object holds where no dictionary or sequence shows it: in slots, or in fields of a type written in C."""

    def __init__(self, value: Any, fields: list[Any]):
        self._value, self._fields = value, fields

    def __iter__(self) -> Iterator[Any]:
        for field in self._fields:
            try:
                yield field.__get__(self._value)
            except AttributeError:
                yield None  # empty


class Accounting:
    """A function with an account of its calls that is no state of anything, wherever it is held."""

    function: Any


class ModuleState:
    """What modules and other objects hold, so that a change of it is noticed.

    Parameters
    ----------
    roots : list
        Modules, and other objects; what these and their classes hold belongs to it too, but for optimizers and
        schedules: those go on from step to step, and a step says what it takes of them.
    training : bool
        Whether modules may be in training mode, and values change from call to call.

    Attributes
    ----------
    tensors : list of Tensor
        Parameters, buffers and other attributes.
    formed : set of int
        In training, the identities of those tensors whose values must stay: another form of them is kept.
    doubts : list of str
        Why the state can't be watched.

    Notes
    -----
    Parameters, versions of tensors, and the tables of modules say when they change (see `numbanet.changes`), so they
    are looked at after a change only, whosever it was. All else is looked at each time.
    """

    def __init__(self, roots: list[Any], training: bool = False):
        self.doubts: list[str] = []
        self._training, self.formed = training, set[int]()
        self._dice: list[Any] = []
        # A module that trains draws random numbers, or changes its state, in Python.
        if not training and any(isinstance(root, Module) and root.training for root in roots):
            self.doubts.append("a module is in training mode")
        self._tables: list[dict[Any, Any]] = []
        self._items: list[Iterable[Any]] = []
        self._explore(roots)
        self.tensors = [t for t in self._attributes() if isinstance(t, Tensor)]
        self.remember()

    def _explore(self, roots: list[Any]) -> None:
        """Find what holds the state of modules: their attributes, classes, and the containers and objects in these."""
        todo, seen = list(roots), dict[int, Any]()
        while todo:
            value = todo.pop()
            if id(value) in seen or isinstance(value, (Tensor, Optimizer, LRScheduler)) or lasting(value):
                continue
            seen[id(value)] = value
            if len(seen) > _MOST:
                self.doubts.append(f"modules hold more than {_MOST} objects")
                break
            todo.append(type(value))
            if isinstance(value, type):
                todo += self._attributes_of(value)
            elif isinstance(value, Accounting):
                todo.append(value.function)
            elif isinstance(value, changes.Table):
                self._tables.append(value)
                todo += value.values()
            elif isinstance(value, np.ndarray):
                self.doubts.append("an attribute is an array")
            elif not isinstance(value, _FIXED) or _library(type(value)) not in _LIBRARIES:
                todo += self._parts(value)
        self._kept = list(seen.values())  # so that nothing else has their identities

    def _attributes_of(self, kind: type) -> list[Any]:
        """Watch the attributes of a class; return those to be explored, and its bases."""
        self._items += vars(kind).keys(), vars(kind).values()
        named = [x for name, x in vars(kind).items() if not name.startswith("__") and name != "_abc_impl"]
        parts = chain.from_iterable(map(_behind, named))
        # Methods, properties and the like hold nothing, unless somebody made such a type or gave a method attributes.
        return [*kind.__bases__, *(x for x in parts if not hasattr(type(x), "__get__") or _adorned(x))]

    def _parts(self, value: Any) -> list[Any]:
        """Watch what an object holds, or doubt that it can be watched; return what is to be explored."""
        kind, parts = type(value), list[Any]()
        if any(map(_written_in_c, kind.__mro__)) and not isinstance(value, _SHELLS):
            self.doubts.append(f"an attribute is of type {kind.__name__}, which may change unnoticed")
            return parts
        if kind.__dictoffset__:
            parts.append(vars(value))
        bases = [base for base in kind.__mro__ if _has_fields(base)]
        members = chain.from_iterable(vars(base).items() for base in bases)
        fields = [x for name, x in members if isinstance(x, MemberDescriptorType) and name != "__vectorcalloffset__"]
        if fields:
            self._items.append(_Fields(value, fields))
            parts += self._items[-1]
        if isinstance(value, _CONTAINERS):
            if kind not in (tuple, frozenset) or not all(map(lasting, value)):
                self._items += (value,), value
            parts += value
            if isinstance(value, (dict, MappingProxyType)):
                self._items.append(value.values())
                parts += value.values()
        elif isinstance(value, _DICE):
            self._dice.append(value)
        elif isinstance(value, _BOUND):
            parts.append(value.__self__)
            if isinstance(value, MethodType) and isinstance(value.__func__, FunctionType):
                parts.append(value.__func__)
        elif isinstance(value, Module):
            hooks = *value._forward_pre_hooks.values(), *value._forward_hooks.values()
            if any(hook is not settled_hook for hook, _ in hooks):
                self.doubts.append("a module has hooks")
        return parts

    def _attributes(self) -> list[Any]:
        return [*chain.from_iterable(map(dict.values, self._tables)), *chain.from_iterable(self._items)]

    def _silent(self) -> tuple[Any, ...]:
        """Return what changes without saying so."""
        return *chain.from_iterable(self._items), *map(array_of, self._buffers)

    def remember(self) -> None:
        """Take the state as it is for the one that shall hold."""
        self._mark = changes.mark()
        # A parameter says when it gets another array, and the array shall not be referred to: see `Parameter.prepared`.
        self._buffers = [t for t in self.tensors if not isinstance(t, Parameter)]
        self._state, self._quiet = self._attributes(), self._silent()
        self._identities = _identities(self._quiet)
        self._classes = [(kind, kind.forward) for kind in {type(m) for m in self._kept if isinstance(m, Module)}]
        self._stamps = self._stamped()

    def _stamped(self) -> list[Any]:
        """Return what differs after each change that matters."""
        if not self._training:
            return [t.stamp() for t in self.tensors]
        return [t.stamp() if id(t) in self.formed else id(array_of(t)) for t in self.tensors]

    def draws(self) -> Any:
        """Return the states of random numbers: those of modules, and those that Python and NumPy draw for everybody."""
        states: list[Any] = [random.getstate(), np.random.get_state()]  # noqa: NPY002
        for dice in self._dice:
            states.append(dice.bit_generator.state if isinstance(dice, np.random.Generator) else dice.__reduce__())
        return _comparable(states)

    def same_attributes(self) -> bool:
        """Return whether modules have the attributes, parameters and buffers that they had; the values may differ."""
        state = self._attributes()
        same = len(state) == len(self._state) and all(map(is_, state, self._state))
        return same and _identities(self._silent()) == self._identities

    def holds(self) -> bool:
        """Return whether nothing has changed since."""
        if _identities(self._silent()) != self._identities:
            return False
        if not all(kind.forward is forward for kind, forward in self._classes):
            return False
        mark = changes.mark()
        if mark is not self._mark:
            if not self.same_attributes() or self._stamped() != self._stamps:
                return False
            self._mark = mark
        return True


def _comparable(value: Any) -> Any:
    """Return nested values with tuples for dictionaries and sequences, and bytes for arrays."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return _comparable(list(value.items()))
    return tuple(map(_comparable, value)) if isinstance(value, (tuple, list)) else value


def _identities(values: tuple[Any, ...]) -> bytes:
    """Return the addresses of the objects in a tuple: as they lie in it, at a nanosecond each."""
    return string_at(id(values) + tuple.__basicsize__, len(values) * _ITEM)
