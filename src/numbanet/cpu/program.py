"""What a call of an operation did, to be done again on other arrays: memory that it took, and its launches.

Between the arguments of such a call and its launches Python decides everything from shapes, strides, dtypes and
options. Where those are the same as before, so are the decisions: what is left are arrays, of which kernels get the
addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from itertools import permutations
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.cpu.limits import threads
from numbanet.cpu.parallel import Launch, Launches, place, start
from numbanet.cpu.parallel import _state as state
from numbanet.prepared import PreparedWeight
from numbanet.watch import RECORD, WATCH, Live, Watch

_KEPT = 1 << 14  # bytes of an array that kernels find elsewhere, such as a table, at most


def _poisoned(shape: tuple[int, ...], dtype: np.dtype, size: int = 0) -> np.ndarray:
    y = np.empty(shape, dtype)
    y.reshape(-1).view(np.uint8)[:] = 0xFF
    return y


class _Poisoned:
    """In place of `numbanet.memory`."""

    empty = recycled = staticmethod(_poisoned)


def _equal(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same bits and layout; what is no array is no matter."""
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return type(a) is type(b)
    alike = (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
    bits = f"u{a.itemsize}"  # compared where they are, in the order of memory: copies of channels-last ones take long
    return alike and np.array_equal(a.view(bits), b.view(bits))


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


class _Unknown(Exception):
    """A launch reads, or the call returns, what cannot be found again in another call."""


class Program:
    """The launches of a call, as a function of other arguments of its kind.

    Parameters
    ----------
    args : tuple
        Of the call; arrays among them do not overlap.
    made : list of numpy.ndarray
        The memory that it took.
    anew : list of numpy.ndarray
        What it made for kernels, the same in every call of its kind (see `numbanet.watch.constant`).
    launches : list of Launch
    result : numpy.ndarray or tuple
        What it returned.

    Attributes
    ----------
    text : str
        The function in Python.
    taken : int
        Bytes of memory that it takes.
    decisions : tuple
        What another call of the kind has in common with this one, or Python did not decide by the kind alone. Arrays
        that it made for kernels are told by what they hold: each call gets copies, since tasks may write to them. Those
        that it found elsewhere are told by their addresses: it keeps them, so that no other array has these.
    run : callable
        ``run(args)`` does the same for other arguments, outside recordings; it returns None, and nothing is done, where
        a prepared weight lacks a form, or another number of threads decides how much memory there is to work in.

    Raises
    ------
    _Unknown
        If it can't be repeated.
    """

    def __init__(
        self, args: tuple[Any, ...], made: list[np.ndarray], anew: list[np.ndarray], launches: list[Any], result: Any
    ):
        self._args, self._made, self._prepared = args, made, {place(x): where for x, where in _forms(args)}
        self._anew = {place(x): number for number, x in enumerate(anew) if x.flags.c_contiguous}
        self._templates: dict[int, np.ndarray] = {}
        self._names: dict[str, Any] = {"empty": np.empty, "memory": memory, "threads": threads}
        self._names |= {"state": state, "start": start}
        self._lines: list[str] = []
        self._forms: list[tuple[int, Any]] = []
        self._constants: list[np.ndarray] = []
        self._calls: list[tuple[int, int]] = []
        self._written: set[int] = set()  # blocks that a kernel gets: what NumPy writes is no launch
        self.taken = sum(block.nbytes for block in made)
        for number, block in enumerate(made):
            size = f", {block.nbytes}" * (block.nbytes >= memory.SMALL)  # in bytes, of what the pool recycles
            take = "memory.recycled" if size else "empty" if block.nbytes else "memory.empty"
            self._line(f"m{number} = {take}({block.shape}, {self._dtype(block)}{size})")
        for number, launch in enumerate(launches):
            self._launch(number, launch)
        codes = [self._result(y) for y in (result if isinstance(result, tuple) else (result,))]
        self._line(f"return {', '.join(codes)}{',' * isinstance(result, tuple)}")
        lines = ["def run(args):", f"{''.join(f'x{number}, ' for number in range(len(args)))}= args"]
        if anew:  # as many work buffers as threads, maybe: see numbanet.cpu.slots, where alone their number decides
            lines += [f"if threads.count != {threads.count}:", "    return None"]
        for number, (position, key) in enumerate(self._forms):
            self._names[f"k{number}"] = key
            lines += [f"f{number} = x{position}.known(k{number})", f"if f{number} is None:", "    return None"]
        self.text = "\n    ".join(lines + self._lines)
        held = [(number, x.dtype.str, x.shape, x.tobytes()) for number, x in self._templates.items()]
        self.decisions = self.text, self._forms, self._calls, [place(x) for x in self._constants], held
        self._names["kept"] = [launch.operands[1] for launch in launches]  # the text has their identities
        self.run = self._function()
        del self._args, self._made, self._prepared, self._anew

    def _function(self, **instead: Any) -> Callable[[tuple[Any, ...]], Any]:
        """Return the function of the text, with other meanings of some names."""
        names = {**self._names, **instead}
        exec(self.text, names)  # of names and numbers that were written here
        return names["run"]

    def agrees(self, twins: tuple[Any, ...], args: tuple[Any, ...], result: Any) -> bool:
        """Return whether it makes of copies of operands, bit for bit, what the function made of the operands.

        The memory that it takes is full of NaN: what the function's Python wrote to it, and no kernel, is missing.
        """
        found = self._function(empty=_poisoned, memory=_Poisoned)(twins)
        pairs = zip(*(y if isinstance(y, tuple) else (y,) for y in (found, result)))
        return all(map(_equal, *zip(*pairs))) and all(map(_equal, twins, args))

    def _line(self, text: str) -> None:
        self._lines.append(text)

    def _dtype(self, array: np.ndarray) -> str:
        self._names[array.dtype.name] = array.dtype
        return array.dtype.name

    def _launch(self, number: int, launch: Launch) -> None:
        address, _, count, _, _, tasks, then = launch.call
        if then:
            raise _Unknown
        arrays, numbers = launch.operands
        buffers = f"({', '.join(map(self._code, arrays))},)"
        if tasks <= 1:
            self._names[f"l{number}"] = np.array([address, count, place(numbers), tasks], np.int64)
            self._calls.append((address, id(numbers)))
            self._line(f"state.known(l{number}, {buffers})")
        else:
            self._line(f"t{number} = {buffers}")
            self._line(f"start(({address}, 0, {count}, id(t{number}), {id(numbers)}, {tasks}, 0))")

    def _code(self, array: np.ndarray) -> str:
        """Return what an operand of a launch is in the function: an argument, memory that was taken, or a constant."""
        if not array.size or type(array) is not np.ndarray:
            raise _Unknown
        address = place(array)
        for position, x in enumerate(self._args):
            if type(x) is np.ndarray and np.may_share_memory(x, array):
                if place(x) != address:
                    raise _Unknown
                return f"x{position}"
        for number, block in enumerate(self._made):
            distance = address - place(block)
            if 0 <= distance < block.nbytes:
                self._written.add(number)
                return self._part(number, distance) if distance else f"m{number}"
        if address in self._prepared:
            return self._form(*self._prepared[address])
        for number, constant in enumerate(self._constants):
            if place(constant) == address:
                return f"c{number}"
        if array.nbytes > _KEPT:
            raise _Unknown
        if address in self._anew:
            return self._copied(self._anew[address], array)
        self._constants.append(array)
        self._names[f"c{len(self._constants) - 1}"] = array
        return f"c{len(self._constants) - 1}"

    def _part(self, number: int, distance: int) -> str:
        """Return a name for what lies behind the beginning of a block."""
        elements, rest = divmod(distance, self._made[number].itemsize)
        flat = f"m{number}" + ".reshape(-1)" * (self._made[number].ndim != 1)
        line = f"m{number}_{distance} = {flat}" + (f".view('u1')[{distance}:]" if rest else f"[{elements}:]")
        if line not in self._lines:
            self._line(line)
        return f"m{number}_{distance}"

    def _copied(self, number: int, array: np.ndarray) -> str:
        """Return a name for a copy of what was made for kernels."""
        if number not in self._templates:
            self._templates[number] = self._names[f"a{number}"] = array.copy()
            self._line(f"n{number} = a{number}.copy()")
        if self._templates[number].nbytes != array.nbytes:
            raise _Unknown  # a part of it, elsewhere
        return f"n{number}"

    def _form(self, position: int, key: Any, item: int | None) -> str:
        """Return a name for what a prepared weight holds."""
        if key is None:
            return f"x{position}.array"
        if (position, key) not in self._forms:
            self._forms.append((position, key))
        name = f"f{self._forms.index((position, key))}"
        return name if item is None else f"{name}[{item}]"

    def _result(self, y: Any) -> str:
        """Return what makes a result of the memory that was taken."""
        if y is None:
            return "None"
        if type(y) is not np.ndarray or not y.size:
            raise _Unknown
        for number, block in enumerate(self._made):
            distance = place(y) - place(block)
            if 0 <= distance < block.nbytes and y.dtype == block.dtype and number in self._written:
                if not distance and y.ndim == block.ndim <= 4:
                    for axes in permutations(range(y.ndim)):
                        turned = block.transpose(axes)
                        if turned.shape == y.shape and turned.strides == y.strides:
                            return f"m{number}" + f".transpose{axes}" * (axes != tuple(range(y.ndim)))
                self._names["ndarray"] = np.ndarray
                return f"ndarray({y.shape}, {self._dtype(y)}, m{number}, {distance}, {y.strides})"
        raise _Unknown


def _forms(args: tuple[Any, ...]) -> Iterator[tuple[np.ndarray, tuple[int, Any, int | None]]]:
    """Yield the arrays of prepared weights among arguments, each with the argument's number, the form and its item."""
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

    def watched() -> Any:
        memory.ARENA.set(noted)
        WATCH.set(watch)
        RECORD.set(trace)
        return function(*args)

    # In a context of its own: whoever takes note is gone with it, at whatever instruction Ctrl-C comes.
    result = copy_context().run(watched)
    if trace.strange or watch.doubts or watch.again or any(type(x) is Live for x in watch.constants):
        return result, None
    try:
        return result, Program(args, noted.made, watch.constants, trace.calls, result)
    except _Unknown:
        return result, None
