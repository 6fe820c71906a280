"""Captured functions: which of their calls are run, recorded, and replayed."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from numbanet import dispatch, settings
from numbanet.capturing.nested import explored_in, filled, form, unwatched
from numbanet.capturing.plan import Plan
from numbanet.capturing.reading import data_watched
from numbanet.capturing.state import Accounting
from numbanet.cpu import parallel
from numbanet.deferred import settle
from numbanet.locks import new_lock
from numbanet.nn.fuse import stand_in
from numbanet.nn.module import STAND_IN, Module
from numbanet.tape import is_grad_enabled
from numbanet.tensor import Tensor
from numbanet.watch import Watch, doubt, watching

_PLANS = 16  # signatures that are remembered; the first goes


class Captured(Accounting):
    """A function whose layers run fused, and whose calls are replayed; made by `capture`.

    Attributes
    ----------
    function : callable
        As it was given.
    replays : int
        How many calls were replayed so far. If the third of a kind is not, ``NUMBANET_VERBOSE=1`` says why.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function, self.replays = function, 0
        self._plans: dict[Any, Plan] = {}
        self._lock, self._busy = new_lock(), False
        _captured.add(self)
        if not isinstance(function, Module):
            update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or replay what it did for operands of these shapes."""
        inputs: list[Tensor] = []
        shapes = form((args, kwargs), inputs)
        if STAND_IN.get() is not None:  # within another captured function, which records
            return self.function(*args, **kwargs)
        if not inputs:
            return self._run(args, kwargs, [])
        # A recording has as many work buffers as there were threads.
        devices, training = tuple(t.device for t in inputs), is_grad_enabled()
        key = shapes, devices, training, dispatch.conditions(), parallel.get_num_threads()
        with self._lock:
            if not self._busy and not self._refused(key):
                self._busy = True
                try:
                    return self._planned(key, args, kwargs, inputs)
                finally:
                    self._busy = False
        return self._run(args, kwargs, [])  # a signal handler may call it in the middle of a call

    def _refused(self, key: Any) -> bool:
        plan = self._plans.get(key)
        return plan is not None and plan.refused

    def _planned(self, key: Any, args: Any, kwargs: Any, inputs: list[Tensor]) -> Any:
        """Replay a call; or run it, to get to know it or to record it."""
        plan = self._plans.get(key)  # nobody else refers to it: where it goes, its memory is free for the call
        if plan is not None and not plan.holds():
            settings.log("capture: what the function takes has changed: it is recorded anew")
            plan = None
            del self._plans[key]
        if plan is not None and plan.recorded:
            obstacle = plan.obstacle(inputs)
            if obstacle is not None:
                settings.log(f"capture: the function is run, not replayed: {obstacle}")
                return self._run(args, kwargs, [])
            if not plan.tried:
                plan.attempt(self._again(args, kwargs, []), inputs)
                if plan.refused:
                    return self._run(args, kwargs, [])
            done = plan.replay(inputs)
            if done is not None:
                self.replays += 1
                return done[0]
            settings.log("capture: an optimizer has changed: the function is recorded anew")
            plan = None
            del self._plans[key]
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

    def _prepare(self, key: Any, plan: Plan | None, args: Any, kwargs: Any, inputs: list[Tensor]) -> Any:
        """Run a function that is not, or no longer, recorded: first to get to know it, then to record it."""
        modules: list[Module] = []
        if plan is None:
            watch, training = Watch(), is_grad_enabled()
            with watching(watch), data_watched():
                result = self._run(args, kwargs, modules)
                kind = unwatched((args, kwargs))
                if kind is not None:
                    doubt(f"an operand of type {kind} may change unnoticed")
            while len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            roots = [self.function, *explored_in((args, kwargs)), *modules]
            plan = self._plans[key] = Plan(roots, training)
            plan.judge_first(watch, inputs, result)
            return result

        return plan.record(self._again(args, kwargs, modules), inputs)

    def _again(self, args: Any, kwargs: Any, modules: list[Module]) -> Callable[[list[Tensor]], Any]:
        """Return a function of tensors that runs a call with them in place of its own."""

        def run(given: list[Tensor]) -> Any:
            positional, named = filled((args, kwargs), iter(given))
            return self._run(positional, named, modules)

        return run


_captured: weakref.WeakSet[Captured] = weakref.WeakSet()


def _after_fork() -> None:
    for captured in _captured:
        # A thread that the child does not have may hold work buffers of the recordings.
        captured._plans.clear()
        captured._busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def capture(function: Callable[..., Any]) -> Captured:
    """Return the function with its layers fused, and its calls replayed with hardly any Python.

    Layers run fused as in `numbanet.nn.fuse`, with the parameters and in the mode of the modules that the function
    calls: batch norm, addition and ReLU become part of convolutions and linear layers where no gradient is recorded; in
    training, addition and ReLU become part of batch norms, and convolutions take the statistics of those behind them
    while they compute. A training step is captured whole: the function may call
    ``backward`` and an optimizer.

    The launches of kernels are recorded at the second call with operands of the same shapes, dtypes and settings; from
    the third on they are repeated, on memory that they share. What they would not do is run as it is.

    Parameters
    ----------
    function : callable
        Takes Tensors, tuples, lists and dictionaries of them, and hashable values. A model will do. With operands that
        are other objects (a configuration, a generator, a set, containers of somebody's own) it is run each time.

    Returns
    -------
    Captured
        To be called like the function. Results are tensors of their own.

    Notes
    -----
    A replay repeats launches, not Python, so a function is run each time unless nothing but launches can matter: each
    operation takes what comes from the operands (on the CPU, from those of floating-point numbers; whole numbers may be
    compared, added, multiplied, converted, be the condition of `where`, and in int64 be the class indices of a loss),
    from parameters, or from buffers of the modules that are called; no value is read, and nothing kept but the result,
    which is made of new tensors; no module has hooks.

    Watched are the modules that are called, the function itself and the object it is a method of, modules, classes,
    functions and enumeration members among the operands, and whatever these hold in attributes, slots and containers,
    each with its class and the bases of that; but not the classes and functions of this library, the standard library,
    NumPy and Numba. A change makes the function be recorded anew. If anything that is held is an array, or of a type
    written in C whose state Python doesn't show, the function is run each time. Not watched are variables beside those
    (globals, closures, defaults of arguments, attributes of Python modules), what class attributes with names like
    ``__this__`` hold, the ``__dict__`` or ``__class__`` of an object when it gets another one, the states of loggers,
    files, locks and caches of results, and what the function reads of an optimizer (its options and counts).

    Printing and counting happen at the first three calls only: within the third the function runs on other values, to
    see whether a replay does the same; what it changed is put back, and then comes the first replay. Where that shows
    that it can't be replayed, it has run twice in that call. Binary cross entropy of what is no probability is NaN in a
    replay, and raises nothing. Who keeps an array that he got from ``parameter.data``, and writes to it later, must
    call `Tensor.bump_version`; so must who writes to a buffer's.

    To record, and to try, gives idle memory of the library back to the system. On the CPU that takes hardly more than
    the function itself: a trial makes no updates of optimizers, but compares what they would be made of (see
    `numbanet.capturing.trial`); of what else is changed it needs a copy. Meanwhile parameters, buffers and the states
    of optimizers hold other values, or are read-only: other threads must neither read nor write them during the first
    three calls.

    Under `no_grad` no random number may be drawn, nothing changed in place, and no module be in training mode. A
    training step may do all that with parameters, with buffers and by dropout: what an optimizer does in Python (step
    counts, options of the moment) is done at each replay, and so are the draws. Its result must have no tape: what
    needs a gradient is differentiated within the function. The gradients that it leaves in ``grad`` lie in memory of
    the recording: while somebody holds one, a view of it, or another library's array on it, the step is run instead;
    who has read no more than the address (``__cuda_array_interface__``) finds the next replay's gradients there.

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
