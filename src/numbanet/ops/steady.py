"""Calls that come again: what an operation does is worked out once for each kind of operands.

A call of a layer takes Python several times as long as its kernel, on small images, and decides each time what it has
decided before. All of it follows from the types, shapes, strides and dtypes of the operands, from the options, from
what `numbanet.dispatch.conditions` says, and (how many work buffers there are) from the number of threads. The second
and the third call of a kind are watched; where both did the same, and doing it again on copies gives the same bits, the
next ones do just that (`numbanet.cpu.program`): they take memory and launch kernels.

This is for functions whose Python never looks at the values of arrays, nor at whether they share memory: then what is
done with one array as both operands is what is done with two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import update_wrapper
from inspect import signature
from itertools import chain
from operator import attrgetter, is_
from typing import Any, TypeVar

import numpy as np

from numbanet.cpu.limits import threads
from numbanet.dispatch import OVERRIDE, conditions, measuring
from numbanet.memory import ARENA, laid_out, planner, span
from numbanet.prepared import PreparedWeight
from numbanet.settings import CHANGES, PRECISION_HERE
from numbanet.watch import RECORD, WATCH, recorder, watcher

_KINDS = 2048  # of one operation; then all are forgotten
_LARGE = 1 << 24  # bytes of operands, and of memory taken: of more, kernels take so long that Python is no matter
_TRIES = 6  # watched calls of a kind; then it is no longer tried

_VARIABLES = (WATCH, RECORD, ARENA, PRECISION_HERE, OVERRIDE)  # what is usual in all of them decides nothing
_NO_OVERRIDE = Context().run(OVERRIDE.get)

F = TypeVar("F", bound=Callable[..., Any])


class _Kind:
    """What is known about calls of a kind.

    Attributes
    ----------
    options : tuple
        Of the first call.
    program : numbanet.cpu.program.Program or None
        What the last call did that was watched.
    run : callable or None
        That of the program, once two calls did the same.
    tries : int
        Calls that may still be watched.
    changes : int
        How many there were when machine code was told of it; -1 if it was not.
    """

    __slots__ = ("changes", "options", "program", "run", "tries")

    def __init__(self, options: tuple[Any, ...]):
        self.options, self.tries, self.changes = options, _TRIES, -1
        self.program: Any = None
        self.run: Callable[[tuple[Any, ...]], Any] | None = None


def _describe(x: Any) -> Any:
    """Return what decides about a call of an operand that is no array; KeyError if nothing is known of its type."""
    return _DESCRIBE[type(x)](x)


_DESCRIBE: dict[type, Callable[[Any], Any]] = {PreparedWeight: attrgetter("shape", "dtype")}
_ARRAY = (  # all but its values
    "(x{0}.shape, x{0}.strides, x{0}.dtype) if type(x{0}) is ndarray else None if x{0} is None else describe(x{0})"
)


def _key_of(arrays: int) -> Callable[..., Any]:
    """Return the function from the arguments of a call, that many of them arrays, to its kind.

    Written out operand by operand: a loop over them takes longer than a small kernel runs.
    """
    names = {"ndarray": np.ndarray, "describe": _describe, "conditions": conditions, "threads": threads}
    operands = [f"x{number}" for number in range(arrays)]
    parts = ", ".join(_ARRAY.format(number) for number in range(arrays))
    text = f"lambda {', '.join(operands)}, *options: ({parts}, options, conditions(), threads.count)"
    return eval(text, names)  # type: ignore[no-any-return]


def _alike(a: Any, b: Any) -> bool:
    """Return whether options that are equal have one meaning: 1.0 and True are no 1, and -0.0 is no 0.0."""
    if a is b:
        return True
    if type(a) is tuple is type(b):
        return len(a) == len(b) and (all(map(is_, a, b)) or all(map(_alike, a, b)))
    return type(a) is type(b) and a == b and (not isinstance(a, (float, np.floating)) or a != 0)


def _nothing(*_: Any) -> None:
    """Find nothing: before there is machine code that does."""


# In names that begin with an underscore: the others are those of parameters.
_CALL = """
def call({parameters}):
    _operands = ({operands})
    _run = _find(_table, _operands, ({options}))
    if _run is not None:
        _result = _run(_operands)
        if _result is not None:
            return _result
    return _meet(_operands, ({options}))
"""
_PLAIN = "lambda {operands} {options}: _function({given})"


class _Operation:
    """A function whose calls come again.

    Parameters
    ----------
    function : callable
    arrays : int
        Of its parameters, the first that are arrays.
    further : tuple of str
        Those that stand behind them and are arrays as well.

    Attributes
    ----------
    call : callable
        In its place: its parameters are written out, for Python to bind the arguments, and so is what is done first.
    plain : callable
        The function, of its arrays and then its options.
    """

    def __init__(self, function: Callable[..., Any], arrays: int, further: tuple[str, ...]):
        parameters = signature(function).parameters
        names = ["*" * (x.kind is x.VAR_POSITIONAL) + name for name, x in parameters.items()]
        alone = [name for name, x in parameters.items() if x.kind is x.KEYWORD_ONLY]
        before = [name for name in names if name not in alone]
        operands = (*names[:arrays], *further)
        parts = {
            "parameters": ", ".join([*before, *["*"] * bool(alone), *alone]),
            "operands": "".join(f"{name}, " for name in operands),
            "options": "".join(f"{name}, " for name in names if name not in operands),
            "given": ", ".join([*before, *(f"{name}={name}" for name in alone)]),
        }
        self._key_of = _key_of(len(operands))
        self.known: dict[Any, _Kind] = {}
        self._names: dict[str, Any] = {"_find": _nothing, "_table": None, "_meet": self._meet}
        exec(_CALL.format(**parts), self._names)  # of names that were written here, and of those of parameters
        self.call = self._names["call"]
        update_wrapper(self.call, function)
        self.call.__defaults__, self.call.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
        self.plain = eval(_PLAIN.format(**parts), {"_function": function})

    def _meet(self, operands: tuple[Any, ...], options: tuple[Any, ...]) -> Any:
        """Call; take note of kinds of operands and options that come again."""
        # Who takes note of what is done shall see all of it.
        if watcher() is not None or recorder() is not None or planner() is not None:
            return self.plain(*operands, *options)
        changes = int(CHANGES[0])  # looked at before what a choice depends on
        try:
            key = self._key_of(*operands, *options)
            kind = self.known.get(key)
        except (KeyError, TypeError):  # an array of a GPU, say, or a list among the options
            return self.plain(*operands, *options)
        if not (
            kind is None
            or kind.options is options  # none
            or all(map(is_, kind.options, options))
            or all(map(_alike, kind.options, options))
        ):
            key = (key, tuple(map(type, options)), repr(options))  # equal options of another meaning
            kind = self.known.get(key)
        if kind is None:
            result = self.plain(*operands, *options)  # which may refuse them
            if len(self.known) >= _KINDS:
                self.known.clear()
                self._names["_find"] = _nothing
            self.known[key] = _Kind(options)
            return result
        if kind.run is None:
            return self._watched(kind, operands, options) if kind.tries > 0 else self.plain(*operands, *options)
        if kind.changes != changes and PRECISION_HERE.get() is None and OVERRIDE.get() is _NO_OVERRIDE:
            self._remember(kind, operands, options, changes)
        result = kind.run(operands)
        return self.plain(*operands, *options) if result is None else result

    def _remember(self, kind: _Kind, operands: tuple[Any, ...], options: tuple[Any, ...], changes: int) -> None:
        """Have machine code find what a kind does, as long as there are so many changes."""
        from numbanet.cpu import recall  # with Numba: for those who compute

        table = self._names["_table"]
        if self._names["_find"] is _nothing or table.guards[1] != changes:
            table = recall.new_table(CHANGES, changes, _VARIABLES)
        self._names["_table"] = recall.added(table, operands, options, kind.run)
        self._names["_find"] = recall.finder()
        kind.changes = changes

    def _watched(self, kind: _Kind, operands: tuple[Any, ...], options: tuple[Any, ...]) -> Any:
        """Call, and take note of what is done."""
        if sum(max(x.nbytes, span(x)) for x in chain.from_iterable(map(_memory, operands))) > _LARGE:
            kind.tries = 0
        if kind.tries <= 0 or measuring():
            return self.plain(*operands, *options)
        kind.tries -= 1
        seen = operands
        if not _apart(operands):  # as of x + x: what it does is seen on copies, and is the same on any operands
            seen = tuple(map(_twin, operands))
            if not _apart(seen):
                return self.plain(*operands, *options)
        from numbanet.cpu.program import traced  # with Numba: for those who compute

        before = kind.program  # looked at once: another thread may meet the same kind meanwhile
        twins = seen if before is None else tuple(map(_twin, seen))
        result, program = traced(lambda *operands: self.plain(*operands, *options), seen)
        if program is not None and program.taken > _LARGE:
            program, kind.tries = None, 0
        if program is not None and before is not None and program.decisions == before.decisions:
            kind.tries = 0
            kind.run = program.run if program.agrees(twins, seen, result) else None
        kind.program = program if kind.tries > 0 else None
        return result if seen is operands else self.plain(*operands, *options)


def steady(arrays: int, *further: str) -> Callable[[F], F]:
    """Return a decorator of an operation whose first `arrays` arguments are arrays or None, and the others options.

    Some that stand behind them may be `further` arrays, by their names.
    """
    return lambda function: _Operation(function, arrays, further).call  # type: ignore[return-value]


def _twin(x: Any) -> Any:
    """Return an array with the elements and the strides of x; what is no array, as it is."""
    if type(x) is not np.ndarray:
        return x
    y = laid_out(x.shape, x.strides, x.dtype)
    y[...] = x
    return y


def _apart(operands: tuple[Any, ...]) -> bool:
    """Return whether arrays have elements, and lie apart: a launch's buffers can be told from their addresses."""
    found = list(chain.from_iterable(map(_memory, operands)))
    return all(
        x.size and not any(np.may_share_memory(x, y) for y in found[i + 1 :])
        for i, x in enumerate(found)
    )


def _memory(operand: Any) -> list[np.ndarray]:
    """Return the arrays of an operand: of a prepared weight, those of its forms, unless they are its own."""
    if type(operand) is not PreparedWeight:
        return [operand] if type(operand) is np.ndarray else []
    forms = chain.from_iterable(form if type(form) is tuple else (form,) for _, form in operand.forms())
    own = operand.array
    return [own, *(x for x in forms if type(x) is np.ndarray and x.size and not np.may_share_memory(x, own))]
