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
from functools import wraps
from inspect import signature
from itertools import chain
from operator import attrgetter, is_
from typing import Any, TypeVar

import numpy as np

from numbanet.cpu.limits import threads
from numbanet.dispatch import conditions, measuring
from numbanet.memory import planner
from numbanet.prepared import PreparedWeight
from numbanet.watch import recorder, watcher

_KINDS = 2048  # of one operation; then all are forgotten
_LARGE = 1 << 24  # bytes of operands, and of memory taken: of more, kernels take so long that Python is no matter
_TRIES = 6  # watched calls of a kind; then it is no longer tried

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
    """

    __slots__ = ("options", "program", "run", "tries")

    def __init__(self, options: tuple[Any, ...]):
        self.options, self.tries = options, _TRIES
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


class _Named:
    """An operation as a function of all its arguments by position: first those that are arrays.

    Parameters
    ----------
    function : callable
    arrays : int
        Of its arguments, the first that are arrays.
    further : tuple of str
        Those that are arrays and can be given by name alone.
    """

    def __init__(self, function: Callable[..., Any], arrays: int, further: tuple[str, ...]):
        parameters = signature(function).parameters
        self._function, self._names = function, tuple(parameters)
        self._order = sorted(parameters, key=lambda name: name not in (*self._names[:arrays], *further))
        self._defaults = {name: x.default for name, x in parameters.items() if x.default is not x.empty}
        self._by_position = len(parameters) - sum(x.kind is x.KEYWORD_ONLY for x in parameters.values())

    def arguments(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
        """Return all arguments of a call; None if it does not fit."""
        given = {**self._defaults, **dict(zip(self._names, args)), **named}
        fits = len(args) <= self._by_position and named.keys().isdisjoint(self._names[: len(args)])
        if not fits or len(given) != len(self._order):
            return None
        try:
            return tuple([given[name] for name in self._order])
        except KeyError:
            return None

    def __call__(self, *args: Any) -> Any:
        return self._function(**dict(zip(self._order, args)))


def steady(arrays: int, *further: str) -> Callable[[F], F]:
    """Return a decorator of an operation whose first `arrays` arguments are arrays or None, and the others options.

    Some that can be given by name alone may be `further` arrays.
    """

    def decorate(function: F) -> F:
        known: dict[Any, _Kind] = {}
        by_name = _Named(function, arrays, further)
        key_of, key_by_name = _key_of(arrays), _key_of(arrays + len(further))

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            # Who takes note of what is done shall see all of it.
            if watcher() is not None or recorder() is not None or planner() is not None:
                return function(*args, **named)
            run: Callable[..., Any] = function
            key_from, count = key_of, arrays
            if named or len(args) < arrays:
                ordered = by_name.arguments(args, named)
                if ordered is None:
                    return function(*args, **named)  # which says what is wrong
                run, key_from, count, args = by_name, key_by_name, arrays + len(further), ordered
            try:
                key = key_from(*args)
                kind = known.get(key)
            except (KeyError, TypeError):  # an array of a GPU, say, or a list among the options
                return run(*args)
            options = key[count]
            if not (
                kind is None
                or kind.options is options  # none
                or all(map(is_, kind.options, options))
                or all(map(_alike, kind.options, options))
            ):
                key = (key, tuple(map(type, options)), repr(options))  # equal options of another meaning
                kind = known.get(key)
            if kind is None:
                result = run(*args)  # which may refuse them
                if len(known) >= _KINDS:
                    known.clear()
                known[key] = _Kind(options)
                return result
            if kind.run is not None:
                result = kind.run(args)
                return run(*args) if result is None else result
            return _watched(run, kind, args, count) if kind.tries > 0 else run(*args)

        return call  # type: ignore[return-value]

    return decorate


def _watched(function: Callable[..., Any], kind: _Kind, args: tuple[Any, ...], arrays: int) -> Any:
    """Call, and take note of what is done."""
    operands = args[:arrays]
    if sum(max(x.nbytes, _span(x)) for x in chain.from_iterable(map(_memory, operands))) > _LARGE:
        kind.tries = 0
    if kind.tries <= 0 or measuring():
        return function(*args)
    kind.tries -= 1
    seen = args
    if not _apart(operands):  # as of x + x: what it does is seen on copies, and is the same on any operands
        seen = (*map(_twin, operands), *args[arrays:])
        if not _apart(seen[:arrays]):
            return function(*args)
    from numbanet.cpu.program import traced  # with Numba: for those who compute

    before = kind.program  # looked at once: another thread may meet the same kind meanwhile
    twins = seen if before is None else (*map(_twin, seen[:arrays]), *args[arrays:])
    result, program = traced(function, seen)
    if program is not None and program.taken > _LARGE:
        program, kind.tries = None, 0
    if program is not None and before is not None and program.decisions == before.decisions:
        kind.tries = 0
        kind.run = program.run if program.agrees(twins, seen, result) else None
    kind.program = program if kind.tries > 0 else None
    return result if seen is args else function(*args)


def _twin(x: Any) -> Any:
    """Return an array with the elements and the strides of x; what is no array, as it is."""
    if type(x) is not np.ndarray:
        return x
    before = sum(max(0, (1 - size) * step) for size, step in zip(x.shape, x.strides))  # the first element
    y = np.ndarray(x.shape, x.dtype, np.empty(_span(x), np.uint8), before, x.strides)
    y[...] = x
    return y


def _span(x: np.ndarray) -> int:
    """Return how many bytes lie between the ends of an array, of a column of a matrix for instance."""
    return sum(abs((size - 1) * step) for size, step in zip(x.shape, x.strides)) + x.itemsize


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
