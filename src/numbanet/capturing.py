"""Captured functions: an inference is recorded once for its shapes and then replayed without the Python around it.

What is recorded are the launches of kernels, with the memory they worked on. That memory is planned by the recording
itself: its arrays come from an arena of their own, where a block that is free again serves the next array, and a replay
meets the blocks in the same order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import update_wrapper
from typing import Any

import numpy as np

from numbanet import dispatch, memory, ops, settings
from numbanet.cpu import parallel
from numbanet.deferred import settle
from numbanet.nn.fuse import stand_in
from numbanet.nn.module import STAND_IN, Module
from numbanet.ops.shape import copy_into
from numbanet.tape import is_grad_enabled
from numbanet.tensor import Tensor, array_of

_PLANS = 16  # signatures that are remembered; the first goes


class Captured:
    """A function whose layers run fused, and whose inferences are replayed; made by `capture`."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._plans: dict[Any, _Plan | None] = {}
        self._lock = threading.RLock()
        if not isinstance(function, Module):
            update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or replay what it did for operands of these shapes."""
        inputs: list[Tensor] = []
        form = _form((args, kwargs), inputs)
        if is_grad_enabled() or not inputs:
            return self._run(args, kwargs, [])
        key = form, dispatch.conditions()
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None and plan.recorded and plan.holds():
                return plan.replay(inputs)
            return self._prepare(key, plan, args, kwargs, inputs)

    def _run(self, args: Any, kwargs: Any, modules: list[Module]) -> Any:
        """Call the function with its layers fused, and collect the modules that it calls."""

        def noting(module: Any) -> Any:
            modules.append(module)
            return stand_in(module)

        token = STAND_IN.set(noting)
        try:
            result = self.function(*args, **kwargs)
            settle(result)
        finally:
            STAND_IN.reset(token)
        return result

    def _prepare(self, key: Any, plan: _Plan | None, args: Any, kwargs: Any, inputs: list[Tensor]) -> Any:
        """Run a function that is not, or no longer, recorded: first to get to know it, then to record it."""
        modules: list[Module] = []
        if plan is not None and plan.refused:
            return self._run(args, kwargs, modules)
        if plan is None or not plan.holds():
            result = self._run(args, kwargs, modules)
            while len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = _Plan(modules)
            return result

        def run(given: list[Tensor]) -> Any:
            positional, named = _filled((args, kwargs), iter(given))
            return self._run(positional, named, modules)

        return plan.record(run, inputs)


class _Plan:
    """The launches of one call, and under which conditions they may be repeated."""

    def __init__(self, modules: list[Module]):
        self.recorded = False
        self.modules = [(module, module.training) for module in dict.fromkeys(modules)]
        # A module that trains draws random numbers, or changes its state, in Python.
        self.refused = any(training for _, training in self.modules)
        self.tables = [table for module, _ in self.modules for table in (module._parameters, module._buffers)]
        self.children = [module._modules for module, _ in self.modules if module._modules]
        self.state = self._state()
        # They are kept, so that nothing else has their identities.
        self._kept = [*map(list, (table.values() for table in (*self.tables, *self.children)))]
        self._launches: list[parallel.Launch] = []
        self._inputs: list[np.ndarray] = []
        self._result: Any = None

    def _state(self) -> list[Any]:
        tensors = [t for table in self.tables for t in table.values() if t is not None]
        return [(id(t), t.stamp()) for t in tensors] + [id(m) for table in self.children for m in table.values()]

    def holds(self) -> bool:
        """Return whether no weight and no mode has changed since."""
        return self.state == self._state() and all(module.training is mode for module, mode in self.modules)

    def record(self, run: Callable[[list[Tensor]], Any], inputs: list[Tensor]) -> Any:
        """Run once, keeping the launches; keep the plan if a replay with other values does what the function does."""
        given = [Tensor(_static(array_of(t))) for t in inputs]
        launches: list[parallel.Launch] = []
        with ExitStack() as stack:
            stack.enter_context(memory.arena())
            stack.enter_context(parallel.recording(launches))
            result = run(given)
            self._result = _pinned(result)
            self._launches = launches
        self._inputs = [array_of(t) for t in given]
        answer = _copied(self._result)
        others = [Tensor(_other(array_of(t))) for t in inputs]
        self.recorded = _equal(self.replay(others), run(others))
        self.refused = not self.recorded
        self.state = self._state()
        if self.refused:
            settings.log("capture: the function does more than to launch kernels; it is not replayed")
            self._launches, self._inputs, self._result = [], [], None
        return answer

    def replay(self, inputs: list[Tensor]) -> Any:
        """Repeat the launches on other values."""
        for static, tensor in zip(self._inputs, inputs):
            copy_into(static, array_of(tensor))
        for launch in self._launches:
            parallel.start(launch.call)
        return _copied(self._result)


def capture(function: Callable[..., Any]) -> Captured:
    """Return the function with its layers fused, and its inferences replayed with hardly any Python.

    Layers run fused as in `numbanet.nn.fuse`, with the parameters and in the mode of the modules that the function
    calls: batch norm, addition and ReLU become part of convolutions and linear layers where no gradient is recorded; in
    training, addition and ReLU become part of batch norms. A training step is captured whole: the function may call
    ``backward`` and an optimizer.

    Under `no_grad`, the launches of kernels are recorded at the second call with operands of the same shapes, dtypes
    and settings; from then on they are repeated, on memory that they share. Anything else is run as it is.

    Parameters
    ----------
    function : callable
        Takes Tensors, tuples, lists and dictionaries of them, and hashable values. A model will do.

    Returns
    -------
    Captured
        To be called like the function. Results are tensors of their own.

    Notes
    -----
    A replay repeats launches, not Python: printing, counting and decisions by values happen at the first two calls
    only, and within the second the function runs once more, on other values, to see whether a replay does the same. One
    that computes in NumPy or draws random numbers does not, and is then run each time; so is one with a module in
    training mode. A changed parameter, buffer or mode of a module that was called makes it be recorded anew; tensors
    beside those of modules are read anew at each replay, but must keep their memory. Who keeps an array that he got
    from ``parameter.data``, and writes to it later, must call `Tensor.bump_version`.

    Within the function, results of layers are computed when they are first read, and those that a following layer has
    taken part of have no gradient of their own (`Tensor.retain_grad`).

    Raises
    ------
    TypeError
        If `function` is not callable; in a call, if an operand is neither a Tensor nor hashable.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}")
    return Captured(function)


def _other(x: np.ndarray) -> np.ndarray:
    """Return other values that a function of x may well take, too."""
    turned = np.ascontiguousarray(np.flip(x))
    return turned * x.dtype.type(0.75) if x.dtype.kind == "f" else turned


def _static(x: np.ndarray) -> np.ndarray:
    """Return a copy of an operand in the memory order that layers want, to which later operands are copied."""
    copy = memory.empty_channels_last(x.shape, x.dtype) if x.ndim == 4 else memory.empty_like(x)
    copy_into(copy, x)
    return copy


def _form(value: Any, tensors: list[Tensor]) -> Any:
    """Return what stands for operands of the same shapes, and append their tensors to a list."""
    if isinstance(value, Tensor):
        settle(value)
        tensors.append(value)
        return Tensor, value.shape, value.dtype, value.requires_grad
    if isinstance(value, (tuple, list)):
        return type(value), *[_form(item, tensors) for item in value]
    if isinstance(value, dict):
        return dict, *[(key, _form(item, tensors)) for key, item in value.items()]
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"captured functions take Tensors and hashable values, got {type(value).__name__}") from None
    return type(value), value


def _filled(value: Any, tensors: Any) -> Any:
    """Return operands with other tensors in place of theirs, or results with copies."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (tuple, list)):
        items = [_filled(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _filled(item, tensors) for key, item in value.items()}
    return value


def _results(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        found += [t for item in value for t in _results(item)]
    elif isinstance(value, dict):
        found += [t for item in value.values() for t in _results(item)]
    return found


def _pinned(result: Any) -> Any:
    """Return a result on the memory of the recording, which it keeps."""
    return _filled(result, iter([Tensor(memory.pinned(t.data)) for t in _results(result)]))


def _copied(result: Any) -> Any:
    return _filled(result, iter([Tensor(ops.clone(array_of(t))) for t in _results(result)]))


def _equal(a: Any, b: Any) -> bool:
    first, second = _results(a), _results(b)
    return len(first) == len(second) and all(
        np.array_equal(x.data, y.data, equal_nan=x.data.dtype.kind == "f") for x, y in zip(first, second)
    )

