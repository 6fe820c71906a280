"""What a call of an operation did, to be done again on other arrays: memory that it took, and its launches.

Between the arguments of such a call and its launches Python decides everything from shapes, strides, dtypes and
options. Where those are the same as before, so are the decisions: what is left are arrays, of which kernels get the
addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.cpu.parallel import Launch, Launches, place, recorder, recording, start
from numbanet.prepared import PreparedWeight
from numbanet.watch import Live, Watch, watching


class _Trace(Launches):
    """The launches of one call, in their order, with the arrays that they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.strange = False

    def add(self, call: tuple[int, ...], expected: Any, arrays: tuple[np.ndarray, ...], numbers: np.ndarray) -> None:
        """Take a launch."""
        self.calls.append(Launch(call, (arrays, numbers)))

    def add_between(self, function: Callable[..., object], operands: tuple[Any, ...]) -> None:
        """Note that NumPy computed something."""
        self.strange = True

    def keep(self, arrays: Any) -> Any:
        """Note that a kernel reads addresses from a table."""
        self.strange = True
        return arrays


class _Step(NamedTuple):
    """A launch: its kernel, and which of the call's arrays it gets."""

    choose: Callable[[Any], tuple[np.ndarray, ...]]
    address: int
    count: int
    numbers: int
    tasks: int


class _Result(NamedTuple):
    """An array that the call returns: a block of the memory that it took, or a view of one."""

    block: int
    axes: tuple[int, ...] | None  # of a transpose
    view: tuple[tuple[int, ...], np.dtype, int, tuple[int, ...]] | None  # of any other: shape, dtype, distance, strides


class _Unknown(Exception):
    """A launch reads, or the call returns, what cannot be found again in another call."""


class Program:
    """The launches of a call.

    Parameters
    ----------
    args : tuple
        Of the call; arrays among them do not overlap.
    made : list of numpy.ndarray
        The memory that it took.
    launches : list of Launch
    result : numpy.ndarray or tuple
        What it returned.

    Raises
    ------
    _Unknown
        If it can't be repeated.
    """

    def __init__(self, args: tuple[Any, ...], made: list[np.ndarray], launches: list[Any], result: Any):
        self._args, self._made = args, made
        self.blocks = [(block.shape, block.dtype) for block in made]
        self._parts: list[tuple[int, int]] = []  # of blocks: which, and at which distance a part begins
        self._forms: list[tuple[int, Any, int | None]] = []  # of prepared weights
        self._constants: list[np.ndarray] = []
        self._known = {place(found): entry for found, entry in _forms(args)}
        indices = [[self._find(array) for array in launch.operands[0]] for launch in launches]
        single = not isinstance(result, tuple)
        self._results = [None if y is None else self._result(y) for y in ((result,) if single else result)]
        self._single = single
        del self._args, self._made, self._known
        self._steps, self._kept = [], [launch.operands[1] for launch in launches]
        parts = {("block", i): len(args) + i for i in range(len(self.blocks))}
        for kind, found in (("part", self._parts), ("form", self._forms), ("constant", self._constants)):
            for i in range(len(found)):
                parts[kind, i] = len(args) + len(parts)
        for launch, chosen in zip(launches, indices):
            address, _, count, _, numbers, tasks, then = launch.call
            if then or not chosen:
                raise _Unknown
            spots = [entry if type(entry) is int else parts[entry] for entry in chosen]
            self._steps.append(_Step(itemgetter(*spots, spots[0]), address, count, numbers, tasks))
        # What another call of the kind must have in common with this one, or its decisions were not the same.
        numbers_ = [(kept.tobytes(), step[1:3], step.tasks) for kept, step in zip(self._kept, self._steps)]
        self.decisions = (
            self.blocks, indices, self._parts, self._forms, [place(x) for x in self._constants], numbers_, self._results
        )  # fmt: skip

    def _find(self, array: np.ndarray) -> Any:
        """Return the position of an operand among the arguments, or what else it is and its number."""
        address = place(array)
        if not array.size or type(array) is not np.ndarray:
            raise _Unknown
        for position, x in enumerate(self._args):
            if type(x) is np.ndarray and np.may_share_memory(x, array):
                if place(x) != address:
                    raise _Unknown
                return position
        for number, block in enumerate(self._made):
            distance = address - place(block)
            if 0 <= distance < block.nbytes:
                return _entry("part", self._parts, (number, distance)) if distance else ("block", number)
        if address in self._known:
            return _entry("form", self._forms, self._known[address])
        for number, constant in enumerate(self._constants):
            if place(constant) == address:
                return "constant", number
        self._constants.append(array)
        return "constant", len(self._constants) - 1

    def _result(self, y: Any) -> _Result:
        if type(y) is not np.ndarray or not y.size:
            raise _Unknown
        for number, block in enumerate(self._made):
            distance = place(y) - place(block)
            if 0 <= distance < block.nbytes and y.dtype == block.dtype:
                if not distance and y.ndim == block.ndim <= 4:
                    for axes in permutations(range(y.ndim)):
                        turned = block.transpose(axes)
                        if turned.shape == y.shape and turned.strides == y.strides:
                            return _Result(number, None if axes == tuple(range(y.ndim)) else axes, None)
                return _Result(number, None, (y.shape, y.dtype, distance, y.strides))
        raise _Unknown

    def run(self, args: tuple[Any, ...]) -> Any:
        """Do the same for other arguments of the kind; None, and nothing is done, where that can't be."""
        if recorder() is not None:
            return None
        forms: list[Any] = []
        for position, key, item in self._forms:
            form = args[position].array if key is None else args[position].known(key)
            if form is None:
                return None
            forms.append(form if item is None else form[item])
        empty = memory.empty
        made = [empty(shape, dtype) for shape, dtype in self.blocks]
        parts = [made[block].reshape(-1).view(np.uint8)[distance:] for block, distance in self._parts]
        arrays = (*args, *made, *parts, *forms, *self._constants)
        for choose, address, count, numbers, tasks in self._steps:
            chosen = choose(arrays)
            start((address, 0, count, id(chosen), numbers, tasks, 0))
        results = []
        for result in self._results:
            if result is None:
                results.append(None)
                continue
            block, axes, view = result
            y = made[block]
            if axes is not None:
                y = y.transpose(axes)
            elif view is not None:
                shape, dtype, distance, strides = view
                y = np.ndarray(shape, dtype, y, distance, strides)
            results.append(y)
        return results[0] if self._single else tuple(results)


def _entry(kind: str, found: list[Any], value: Any) -> tuple[str, int]:
    if value not in found:
        found.append(value)
    return kind, found.index(value)


def _forms(args: tuple[Any, ...]) -> Iterator[tuple[np.ndarray, tuple[int, Any, int | None]]]:
    """Yield the arrays of prepared weights among arguments, each with the argument's number, the form and the part."""
    for position, weight in enumerate(args):
        if type(weight) is PreparedWeight:
            yield weight.array, (position, None, None)
            for key, form in weight.forms():
                if type(form) is np.ndarray:
                    yield form, (position, key, None)
                elif type(form) is tuple:
                    yield from ((x, (position, key, item)) for item, x in enumerate(form) if type(x) is np.ndarray)


def traced(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Program | None]:
    """Return the result of a call, and its program if it can be repeated."""
    trace, noted, watch = _Trace(), memory.Noted(), Watch()
    with memory.arena(noted), watching(watch), recording(trace):
        result = function(*args)
    if trace.strange or watch.doubts or watch.again or any(type(x) is Live for x in watch.constants):
        return result, None
    try:
        return result, Program(args, noted.made, trace.calls, result)
    except _Unknown:
        return result, None
