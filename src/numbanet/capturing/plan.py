"""The recording of one call: its launches, and under which conditions they may be repeated.

What is recorded are the launches of kernels, with the memory they worked on. That memory is planned by the recording
itself: its arrays come from an arena of their own, where a block that is free again serves the next array, and a replay
meets the blocks in the same order.

A replay must do what the function does, so it is refused wherever that is in doubt: everything an operation takes must
come from the operands, from parameters, or from buffers of modules that are called, which are watched; and nothing but
the result may remain of a call. A training step may change what it takes, and leave gradients: see `Effects`.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

import numpy as np

from numbanet import memory, ops, settings
from numbanet.capturing.effects import Effects
from numbanet.capturing.nested import differentiable, equal, other_values, plain, results_in, with_arrays
from numbanet.capturing.reading import data_watched
from numbanet.capturing.state import ModuleState
from numbanet.capturing.trial import Trial
from numbanet.cpu import parallel
from numbanet.cpu.replay import Recording
from numbanet.cuda import launch as cuda
from numbanet.device_array import DeviceArray
from numbanet.nn.parameter import Parameter
from numbanet.ops.shape import copy_into
from numbanet.problem.loss import are_classes
from numbanet.tape import Version
from numbanet.tensor import Tensor, array_of
from numbanet.watch import Watch, watching

Run = Callable[[list[Tensor]], Any]


class Plan:
    """What is known of a function's calls with operands of some shapes.

    Parameters
    ----------
    roots : list
        The function, and the modules that it calls; see `ModuleState`.
    training : bool
        Whether gradients are recorded.

    Attributes
    ----------
    recorded, tried, refused : bool
        Whether there are launches that might be repeated, whether they may be, and whether they never will be.
    """

    def __init__(self, roots: list[Any], training: bool):
        self.recorded = self.tried = self.refused = False
        self._training, self._state = training, ModuleState(roots, training)
        self._effects: Effects | None = None
        self._recording: Recording | cuda.Recording | None = None
        self._arena: Any = None
        self._inputs: list[np.ndarray] = []
        self._result: Any = None
        self._foreign: set[int] = set()
        self._labels: list[tuple[int, int, int]] = []  # operands, with the number of classes and the ignored one

    def holds(self) -> bool:
        """Return whether nothing has changed of what the function takes."""
        return self._state.holds() and (self._effects is None or self._effects.holds())

    def obstacle(self, inputs: list[Tensor]) -> str | None:
        """Return why the call must be run now, though it could be replayed otherwise; None if nothing is in the way."""
        if not all(are_classes(array_of(inputs[i]), classes, ignored) for i, classes, ignored in self._labels):
            return "a label is no class"  # which the loss will say
        return None if self._effects is None else self._effects.obstacle()

    def replay(self, inputs: list[Tensor], recording: Any = None) -> tuple[Any] | None:
        """Repeat the launches, or those of another recording, on other values.

        Returns the result, alone in a tuple; or None, and nothing is done, where what Python does before the launches
        no longer fits.
        """
        chosen, effects, launched = self._recording if recording is None else recording, self._effects, False
        try:
            if effects is not None and not effects.go_on():
                return None
            launched = True
            for static, tensor in zip(self._inputs, inputs):
                copy_into(static, array_of(tensor))
            if chosen is not None:
                chosen.run()
        except BaseException:
            if effects is not None:
                effects.give_up(launched)
            raise
        if effects is not None:
            effects.finish()
        return (with_arrays(self._result, ops.clone),)

    # ------------------------------------------------------------------------------------------------ to record

    def judge_first(self, watch: Watch, inputs: list[Tensor], result: Any) -> None:
        """Refuse what shows already when the function is run without being recorded."""
        if self._training:
            if any(t.requires_grad for t in inputs):
                watch.doubts.append("an operand requires a gradient")
            if differentiable(result):
                watch.doubts.append("a result has a tape, for a backward outside the function")
        else:
            _still(watch)
        self._judge(watch)

    def _judge(self, watch: Watch) -> None:
        """Refuse to replay if there are doubts."""
        doubts = self._state.doubts + watch.doubts
        if doubts and not self.refused:
            settings.log(f"capture: the function is not replayed: {doubts[0]}")
        self.refused = self.refused or bool(doubts)

    def record(self, run: Run, inputs: list[Tensor]) -> Any:
        """Run once, keeping the launches."""
        # What the first call left in the pool goes: a recording has memory of its own.
        memory.release(gpus=False)
        trace, static = _Trace(), [_static(array_of(t)) for t in inputs]
        result = self._traced(run, static, inputs, trace)
        trace.wait()  # what kernels find wrong with these operands is the caller's to know, and no doubt about others
        trace.look_at(result)
        self._judge(trace.watch)
        if self.refused:
            return result
        if self._training:
            self._state.formed = set(trace.watch.formed)
            self._effects = Effects(trace.watch, [*self._state.tensors])
        self._recording, self._arena = trace.recording(), trace.arena
        self._foreign = trace.foreign(static)
        self._result, self._inputs = with_arrays(result, memory.pinned), static
        answer = with_arrays(self._result, ops.clone)
        del result, trace
        if self._effects is not None:
            self._effects.remember()
        self._state.remember()
        self.recorded = True
        memory.release(gpus=False)
        return answer

    def attempt(self, run: Run, inputs: list[Tensor]) -> None:
        """See whether a replay, on other values, does what the function does; else refuse to replay.

        It comes before the first replay: gradients of the call before, in memory of the recording, may go then.
        """
        try:
            watch, fits = self._attempted(run, inputs)
            self._judge(watch)
            del watch  # with the trial, which refers to arrays
            self.tried = fits  # else an optimizer has changed: it is recorded anew
        finally:
            if self._effects is not None:
                self._effects.remember()  # the arena has let go of memory that only gradients refer to now
        if self.refused:
            self.recorded = False
            self._recording, self._inputs, self._result, self._arena, self._effects = None, [], None, None, None
        self._state.remember()
        memory.release(gpus=False)

    def _traced(self, run: Run, static: list[np.ndarray], inputs: list[Tensor], trace: _Trace) -> Any:
        """Run on operands of the recording, and see what the function takes, keeps and changes beside the result."""
        given, watch, draws = [Tensor(x) for x in static], trace.watch, self._state.draws()
        alive, versions = [weakref.ref(t) for t in given], [t._memory for t in given]
        stamps = [t.stamp() for t in given]
        # What a loss does with whole numbers on the CPU is known; anything else may have Python look at them.
        watch.whole = {id(t): t for t in given if t.device == "cpu" and t.dtype.kind != "f"}
        with trace.of_a_run():
            result = run(given)
        for ours, theirs, stamp in zip(given, inputs, stamps):
            if ours.stamp() != stamp:  # a change in place, which the first call did not make
                copy_into(array_of(theirs), array_of(ours))
                theirs.bump_version()
                watch.doubts.append("an operand was changed in place")
        positions = {id(t): position for position, t in enumerate(given)}
        self._labels = [(positions[id(t)], classes, ignored) for t, classes, ignored in watch.labels]
        watch.whole.clear()
        watch.labels.clear()
        known = {id(t) for t in self._state.tensors}
        if {id(t._memory) for t in inputs} & {id(t._memory) for t in self._state.tensors}:
            watch.doubts.append("an operand shares the memory of a parameter or buffer")
        met = [t for t in {**watch.taken, **watch.changed, **watch.updated}.values() if id(t) not in known]
        parameters = [t for t in met if isinstance(t, Parameter)]
        seen = {id(t._memory) for t in (*given, *self._state.tensors, *parameters)}
        if any(id(t._memory) not in seen for t in met):  # those that share it are views
            watch.doubts.append("a tensor was taken that is no operand, parameter or buffer")
        if not self._training:
            _still(watch)
        elif not watch.formed.keys().isdisjoint({**watch.changed, **watch.updated}):
            watch.doubts.append("a weight was changed of which a prepared form is kept")
        if not self._state.same_attributes():
            watch.doubts.append("an attribute was changed")
        if self._state.draws() != draws:
            watch.doubts.append("random numbers of Python or NumPy were drawn")
        self._state.tensors += parameters
        del given, ours, met
        watch.taken.clear()
        watch.changed = {key: t for key, t in watch.changed.items() if key in known or isinstance(t, Parameter)}
        alone = _references([Version() for _ in versions])
        if _kept(lambda: any(t() is not None for t in alive) or _references(versions) != alone):
            watch.doubts.append("an operand was kept")
        return result

    def _attempted(self, run: Run, inputs: list[Tensor]) -> tuple[Watch, bool]:
        """Return doubts that remain when a replay, on other values, was compared; and whether there was one.

        Kernels of the recording read memory at foreign addresses: where those of this run find other memory in its
        place, Python made it, of values or not, and a replay would find that of the recording.
        """
        watch = Watch()
        try:
            return watch, self._compared(watch, run, inputs)
        except Exception as error:
            watch.doubts.append(f"on other values the function raised {type(error).__name__}")
            return watch, False

    def _compared(self, watch: Watch, run: Run, inputs: list[Tensor]) -> bool:
        """Run the function and a replay on other values, and doubt where they differ; False if there was no replay."""
        # In the memory order of the recording: sums and random draws depend on it.
        arrays = [ops.to_device(other_values(memory.on_host(array_of(t))), t.device) for t in inputs]
        others, places = [Tensor(_static(array)) for array in arrays], parallel.Places()
        if self._effects is not None:
            self._effects.forget_gradients()
        self._arena.release()  # until the replay: the function takes as much of the pool
        trial = Trial(self._effects, self._recording)

        def called() -> Any:
            watch.hold = trial.hold
            trial.guard()
            with watching(watch), data_watched(), parallel.recording(places):
                return run(others)

        def outcome(call: Callable[[], Any]) -> tuple[Any, list[Any]]:
            """Return what a call returns, and what it changes, which is undone."""
            try:
                try:
                    result = call()
                except Exception:  # not Ctrl-C, which another error would hide
                    self._wait()
                    raise
                self._wait()  # what kernels find wrong with the other values shall not be raised later
                return result, trial.outcome()
            finally:
                trial.put_back()

        try:
            # In a context of its own: who watches, and holds updates back, is gone with it whatever error comes.
            expected, values = outcome(partial(copy_context().run, called))
            if not self._foreign <= places.seen | trial.places:
                watch.doubts.append("kernels read what Python made anew for them")
            if not self._training:
                _still(watch)
            memory.release(gpus=False)
            replayed, changes = outcome(partial(self.replay, others, trial.recording))
            if replayed and (not equal(replayed[0], expected) or changes != values):
                watch.doubts.append("a replay gives other values")
            return bool(replayed)
        except BaseException:
            trial.put_back()  # again: Ctrl-C may have come right before
            raise

    def _wait(self) -> None:
        if isinstance(self._recording, cuda.Recording):
            cuda.wait(self._recording.launches)


class _Trace:
    """What a run does while it is recorded."""

    def __init__(self) -> None:
        self.watch, self.arena = Watch(), memory.Arena()
        self._on_cpu, self._on_gpu = parallel.Launches(), list[cuda.Launch]()

    @contextmanager
    def of_a_run(self) -> Iterator[None]:
        """Record within a ``with`` block."""
        with (
            memory.arena(self.arena), watching(self.watch), data_watched(), parallel.recording(self._on_cpu),
            cuda.recording(self._on_gpu),
        ):  # fmt: skip
            yield

    def look_at(self, result: Any) -> None:
        """See whether only new tensors remain of a run: its result, and gradients."""
        doubts, gradients = self.watch.doubts, []
        if not plain(result) or differentiable(result):
            doubts.append("the result is not all tensors, without a tape, and constants")
        for leaf, _ in self.watch.graded.values():
            if leaf._grad is not None:
                gradients.append(leaf._grad)
        leases = [memory.leased(array_of(t)) for t in (*results_in(result), *gradients)]
        if any(lease is None or lease.heap is not self.arena for lease in leases):
            doubts.append("the result, or a gradient, is none that was computed")
        if len({id(lease) for lease in leases}) < len(leases) or _kept(lambda: self.arena.used != len(leases)):
            doubts.append("something remains of the call beside the result")
        if len(cuda.places(self._on_gpu)) + bool(self._on_cpu.calls) > 1:
            doubts.append("kernels ran on several devices")

    def wait(self) -> None:
        """Wait for a GPU, and raise what its kernels have reported."""
        cuda.wait(self._on_gpu)

    def foreign(self, static: list[np.ndarray]) -> set[int]:
        """Return the addresses of what kernels of the CPU read beside the arena, operands and constants."""
        spans = [(parallel.place(x), x.nbytes) for x in (*static, *self.watch.constants) if type(x) is not DeviceArray]
        return {
            address for address in self._on_cpu.foreign
            if not any(first <= address < first + max(1, size) for first, size in spans)
        }  # fmt: skip

    def recording(self) -> Recording | cuda.Recording:
        """Return the launches, to be repeated."""
        if self._on_gpu:
            return cuda.Recording(self._on_gpu)
        return Recording(self._on_cpu)


def _still(watch: Watch) -> None:
    """Doubt, where no gradient is recorded, whatever changes more than the result."""
    watch.doubts += [action.what for action in watch.again]
    if watch.writes:
        watch.doubts.append("memory was changed in place")


def _kept(something: Callable[[], bool]) -> bool:
    """Return whether something is kept, and not only by cycles of references that nobody reaches.

    An exception may leave such a cycle, with the frames of all its callers; compilers of kernels do.
    """
    if something():
        gc.collect()
    return something()


def _static(x: np.ndarray) -> np.ndarray:
    """Return a copy of an operand in the memory order that layers want, to which later operands are copied."""
    copy = memory.empty_channels_last(x.shape, x.dtype, x) if x.ndim == 4 else memory.empty_like(x)
    copy_into(copy, x)
    return copy


def _references(versions: list[Version]) -> list[int]:
    """Return how many references there are to each: a tensor that views memory shares its version."""
    return [sys.getrefcount(version) for version in versions]
