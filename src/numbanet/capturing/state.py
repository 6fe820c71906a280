"""The state of modules that a captured function depends on: attributes, modes, parameters and buffers."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterable
from ctypes import string_at
from enum import Enum
from functools import partial
from itertools import chain
from logging import Logger
from operator import attrgetter, is_, itemgetter, methodcaller
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    MappingProxyType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

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
    np.dtype, Enum, type, FunctionType, BuiltinFunctionType, MethodDescriptorType, MethodWrapperType,
    WrapperDescriptorType, GenericAlias, ModuleType, Logger, range, slice, type(Ellipsis), attrgetter, itemgetter,
    methodcaller, type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip
_COMPILED = ("numba", "llvmlite")  # whose objects hold all of the compiler
_MOST = 100_000  # objects
_CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_PACKAGE = __name__.partition(".")[0]
_ITEM = tuple.__itemsize__


def lasting(value: Any) -> bool:
    """Return whether a value stays what it is, as far as a captured function is concerned."""
    if isinstance(value, _NUMBERS):
        return not hasattr(value, "__dict__")
    kind = type(value)
    return isinstance(value, _LASTING) or kind is object or kind.__module__.partition(".")[0] in _COMPILED


class ModuleState:
    """What modules hold, so that a change of it is noticed.

    Parameters
    ----------
    roots : list
        Modules, and other objects with attributes; what these hold belongs to it too, but for optimizers and schedules:
        those go on from step to step, and a step says what it takes of them.
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
        """Find what holds the state of modules: their attributes, and the containers and objects in these."""
        todo = [root for root in roots if hasattr(root, "__dict__")]
        for kind in {kind for root in todo if isinstance(root, Module) for kind in type(root).__mro__}:
            if kind.__module__.partition(".")[0] not in (_PACKAGE, "builtins"):
                self._items += vars(kind).keys(), vars(kind).values()
                named = (x for name, x in vars(kind).items() if not name.startswith("__"))
                todo += (x for x in named if not hasattr(type(x), "__get__"))  # methods, properties and the like
        seen: dict[int, Any] = {}
        while todo:
            value = todo.pop()
            if id(value) in seen or isinstance(value, (Tensor, Optimizer, LRScheduler)) or lasting(value):
                continue
            seen[id(value)] = value
            if len(seen) > _MOST:
                self.doubts.append(f"modules hold more than {_MOST} objects")
                break
            if isinstance(value, (*_CONTAINERS, *_NUMBERS)) and hasattr(value, "__dict__"):
                todo.append(vars(value))  # of a class of somebody's own
            if isinstance(value, changes.Table):
                self._tables.append(value)
                todo += value.values()
            elif isinstance(value, (dict, MappingProxyType)):
                self._items += (value,), value.keys(), value.values()
                todo += value.values()
            elif isinstance(value, _CONTAINERS):
                self._items += (value,), value
                todo += value
            elif isinstance(value, np.ndarray):
                self.doubts.append("an attribute is an array")
            elif isinstance(value, _NUMBERS):
                pass
            elif isinstance(value, (random.Random, np.random.Generator, np.random.RandomState)):
                self._dice.append(value)
            elif isinstance(value, Module):
                todo.append(vars(value))
                hooks = *value._forward_pre_hooks.values(), *value._forward_hooks.values()
                if any(hook is not settled_hook for hook, _ in hooks):
                    self.doubts.append("a module has hooks")
            elif isinstance(value, MethodType):
                todo.append(value.__self__)
            elif isinstance(value, partial):
                todo += value.func, value.args, value.keywords
            elif hasattr(value, "__dict__") and not any(vars(kind).get("__slots__") for kind in type(value).__mro__):
                todo.append(vars(value))
            elif type(value).__hash__ in (None, object.__hash__):  # others compare values
                self.doubts.append(f"an attribute is of type {type(value).__name__}, which may change unnoticed")
        self._kept = list(seen.values())  # so that nothing else has their identities

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
