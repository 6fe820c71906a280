"""Captured functions: an inference is recorded once for its shapes and then replayed without the Python around it.

What is recorded are the launches of kernels, with the memory they worked on. That memory is planned by the recording
itself: its arrays come from an arena of their own, where a block that is free again serves the next array, and a replay
meets the blocks in the same order.

A replay must do what the function does, so it is refused wherever that is in doubt: everything an operation takes must
come from the operands, from parameters, or from buffers of modules that are called, which are watched; and nothing but
the result may remain of a call.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import update_wrapper
from typing import Any

import numpy as np

from numbanet import dispatch, memory, ops, settings
from numbanet.cpu import parallel
from numbanet.cpu.replay import Recording
from numbanet.cuda import launch as cuda
from numbanet.deferred import Deferred, settle
from numbanet.locks import new_lock
from numbanet.module_state import CONSTANTS, ModuleState
from numbanet.nn.fuse import stand_in
from numbanet.nn.module import STAND_IN, Module
from numbanet.nn.parameter import Parameter
from numbanet.ops.shape import copy_into
from numbanet.tape import Version, is_grad_enabled
from numbanet.tensor import Tensor, array_of
from numbanet.watch import Watch, doubt, take, watching

_PLANS = 16  # signatures that are remembered; the first goes


class Captured:
    """A function whose layers run fused, and whose inferences are replayed; made by `capture`."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._plans: dict[Any, _Plan] = {}
        self._lock, self._busy = new_lock(), False
        _captured.add(self)
        if not isinstance(function, Module):
            update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or replay what it did for operands of these shapes."""
        inputs: list[Tensor] = []
        form = _form((args, kwargs), inputs)
        if STAND_IN.get() is not None:  # within another captured function, which records
            return self.function(*args, **kwargs)
        if is_grad_enabled() or not inputs:
            return self._run(args, kwargs, [])
        # A recording has as many work buffers as there were threads.
        key = form, tuple(t.device for t in inputs), dispatch.conditions(), parallel.get_num_threads()
        with self._lock:
            if not self._busy:
                self._busy = True
                try:
                    plan = self._plans.get(key)
                    if plan is not None and plan.recorded and plan.state.holds():
                        return plan.replay(inputs)
                    return self._prepare(key, plan, args, kwargs, inputs)
                finally:
                    self._busy = False
        return self._run(args, kwargs, [])  # a signal handler calls it in the middle of a call

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
        if plan is None or not plan.state.holds():
            watch = Watch()
            with watching(watch), _data_watched():
                result = self._run(args, kwargs, modules)
            while len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[key] = _Plan([self.function, getattr(self.function, "__self__", None), *modules])
            if any(array_of(t).dtype.kind != "f" for t in inputs):
                watch.doubts.append("an operand has no floating-point numbers")  # labels and indices steer Python
            plan.judge(watch)
            return result

        def run(given: list[Tensor]) -> Any:
            positional, named = _filled((args, kwargs), iter(given))
            return self._run(positional, named, modules)

        return plan.record(run, inputs)


_captured: weakref.WeakSet[Captured] = weakref.WeakSet()


def _after_fork() -> None:
    for captured in _captured:
        # A thread that the child does not have may hold work buffers of the recordings.
        captured._plans.clear()
        captured._busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Plan:
    """The launches of one call, and under which conditions they may be repeated."""

    def __init__(self, roots: list[Any]):
        self.recorded = self.refused = False
        self.state = ModuleState(roots)
        self._recording: Recording | cuda.Recording | None = None
        self._arena: Any = None
        self._inputs: list[np.ndarray] = []
        self._result: Any = None

    def judge(self, watch: Watch) -> None:
        """Refuse to replay if there are doubts."""
        doubts = self.state.doubts + watch.doubts
        if doubts and not self.refused:
            settings.log(f"capture: the function is not replayed: {doubts[0]}")
        self.refused = self.refused or bool(doubts)

    def record(self, run: Callable[[list[Tensor]], Any], inputs: list[Tensor]) -> Any:
        """Run once, keeping the launches; keep the plan if a replay with other values does what the function does."""
        static = [_static(array_of(t)) for t in inputs]
        given = [Tensor(x) for x in static]
        alive, versions = [weakref.ref(t) for t in given], [t._memory for t in given]
        stamps = [t.stamp() for t in given]
        watch, launches, on_gpu = Watch(), list[parallel.Launch | None](), list[Any]()
        with ExitStack() as stack:
            arena = stack.enter_context(memory.arena())
            stack.enter_context(watching(watch))
            stack.enter_context(_data_watched())
            stack.enter_context(parallel.recording(launches))
            stack.enter_context(cuda.recording(on_gpu))
            result = run(given)
        for ours, theirs, stamp in zip(given, inputs, stamps):
            if ours.stamp() != stamp:  # a change in place, which the first call did not make
                copy_into(array_of(theirs), array_of(ours))
                theirs.bump_version()
        own = {id(t) for t in given}
        taken = [t for identity, t in watch.taken.items() if identity not in own]
        known = {id(t) for t in self.state.tensors}
        if any(id(t) not in known and not isinstance(t, Parameter) for t in taken):
            watch.doubts.append("a tensor was taken that is no operand, parameter or buffer")
        leases = [memory.leased(array_of(t)) for t in _results(result)]
        if not _plain(result) or any(lease is None or lease.arena is not arena for lease in leases):
            watch.doubts.append("the result is not all new tensors")
        if arena.used != len({id(lease) for lease in leases}) or arena.used != len(leases):
            watch.doubts.append("something remains of the call beside the result")
        del leases, given, ours
        watch.taken.clear()
        if any(t() is not None for t in alive) or _references(versions) != _references([Version() for _ in versions]):
            watch.doubts.append("an operand was kept")
        if None in launches:
            watch.doubts.append("a launch names arrays that a recording would not keep")
        if launches and on_gpu:
            watch.doubts.append("kernels ran on the CPU and on the GPU")
        self.judge(watch)
        if self.refused:
            return result
        self.state.tensors += [t for t in taken if id(t) not in known]
        if on_gpu:
            self._recording = cuda.Recording(on_gpu)
            self._arena = arena  # what its tables name by address
        else:
            self._recording = Recording([launch for launch in launches if launch is not None])
        self._result, self._inputs = _pinned(result), static
        answer = _copied(self._result)
        del result
        others = [Tensor(ops.to_device(_other(memory.on_host(array_of(t))), t.device)) for t in inputs]
        watch = Watch()
        with watching(watch), _data_watched():
            expected = run(others)
        if not _equal(self.replay(others), expected):
            watch.doubts.append("a replay gives other values")
        self.judge(watch)
        self.recorded = not self.refused
        if self.refused:
            self._recording, self._inputs, self._result, self._arena = None, [], None, None
        self.state.remember()
        return answer

    def replay(self, inputs: list[Tensor]) -> Any:
        """Repeat the launches on other values."""
        for static, tensor in zip(self._inputs, inputs):
            copy_into(static, array_of(tensor))
        if self._recording is not None:
            self._recording.run()
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
    A replay repeats launches, not Python, so a function is run each time unless nothing but launches can matter: each
    operation takes what comes from the operands (all floating-point), from parameters, or from buffers of the modules
    that are called; no value is read, no random number drawn, nothing changed in place, and nothing kept but the
    result, which is made of new tensors; no module has hooks or is in training mode. A changed parameter, buffer or
    attribute of a module makes it be recorded anew. Variables beside those (globals, closures) are not watched, and
    printing and counting happen at the first two calls only: within the second the function runs once more, on other
    values, to see whether a replay does the same. Who keeps an array that he got from ``parameter.data``, and writes
    to it later, must call `Tensor.bump_version`; so must who writes to a buffer's.

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


_slot, _later = Tensor.__dict__["data"], Deferred.__dict__["data"]
_package = __name__.partition(".")[0] + "."
_watchers = 0
_watchers_lock = new_lock()


def _reported(tensor: Tensor) -> np.ndarray:
    if not sys._getframe(1).f_globals.get("__name__", "").startswith(_package):
        doubt("an array was read")  # and maybe written to, by NumPy
    take(tensor)
    return _slot.__get__(tensor)


@contextmanager
def _data_watched() -> Iterator[None]:
    """Within a ``with`` block, report who reads ``tensor.data``."""
    global _watchers
    with _watchers_lock:
        _watchers += 1
        type.__setattr__(Tensor, "data", property(_reported, _slot.__set__))
        type.__setattr__(Deferred, "data", property(_reported, _later.fset))
    try:
        yield
    finally:
        with _watchers_lock:
            _watchers -= 1
            if not _watchers:
                type.__setattr__(Tensor, "data", _slot)
                type.__setattr__(Deferred, "data", _later)


def _other(x: np.ndarray) -> np.ndarray:
    """Return other values that a function of x may well take, too: not one is the same."""
    random = np.random.default_rng(x.size).uniform(0.5, 0.9, x.shape)
    with np.errstate(invalid="ignore"):
        scaled = (x * random).astype(x.dtype)
    return np.where((scaled != x) & np.isfinite(scaled), scaled, random.astype(x.dtype))


def _static(x: np.ndarray) -> np.ndarray:
    """Return a copy of an operand in the memory order that layers want, to which later operands are copied."""
    copy = memory.empty_channels_last(x.shape, x.dtype, x) if x.ndim == 4 else memory.empty_like(x)
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
        items = [(key, _filled(item, tensors)) for key, item in value.items()]
        return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
    return value


def _references(versions: list[Version]) -> list[int]:
    """Return how many references there are to each: a tensor that views memory shares its version."""
    return [sys.getrefcount(version) for version in versions]


def _plain(value: Any) -> bool:
    """Return whether a result holds nothing that a copy of its containers, with other tensors, would lack."""
    if isinstance(value, Tensor):
        return type(value) in (Tensor, Deferred) and not value.requires_grad
    if isinstance(value, tuple) and (type(value) is tuple or hasattr(value, "_fields")):
        return all(map(_plain, value))
    if type(value) in (dict, OrderedDict):
        return all(map(_plain, value.values()))
    return all(map(_plain, value)) if type(value) is list else isinstance(value, CONSTANTS)


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
        np.array_equal(memory.on_host(x.data), memory.on_host(y.data), equal_nan=x.data.dtype.kind == "f")
        for x, y in zip(first, second)
    )
