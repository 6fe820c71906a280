"""What the compiler of kernels leaves out changes nothing but the time that it takes."""

from __future__ import annotations

import gc
from typing import Any

import numba
import numpy as np
import pytest
from numba import types
from numba.core.errors import TypingError

from numbanet import fingerprint
from numbanet.cpu.compile import I64, Index, Kernel, T, device, kernel
from numbanet.cpu.compiler import _Remembering
from numbanet.cpu.parallel import launch


@device
def _scaled(value, scale):
    def twice(x):
        return 2 * x

    return twice(value) * scale


@kernel
def nested(task: Index, ints: I64, y: T):
    first = ints[0]

    def shifted(value):
        return value + first

    y[task] = _scaled(y[task], 10) + shifted(task) + (lambda x: x * 100)(ints[1])


@pytest.mark.parametrize("own", [True, False])
def test_functions_inside_of_functions(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this package's functions too."""
    monkeypatch.setattr(fingerprint, "is_known", lambda function: own)
    monkeypatch.setenv("NUMBANET_CACHE", "0")
    y = np.arange(3, dtype=np.float32)
    launch(Kernel(nested.function), 3, (y,), (5, 7), "float32")
    assert y.tolist() == [705.0, 726.0, 747.0]


def _thrice(x: float) -> float:
    raise NotImplementedError


@numba.extending.overload(_thrice, inline="always")
def _of_numbers(x):
    return lambda x: 3 * x


@device
def _sixfold(x):
    return 2 * _thrice(x)


@kernel
def inlined(task: Index, ints: I64, y: T):
    numbers = numba.carray(y, 3)
    numbers[:] = numbers * 2 + _thrice(numbers[1]) + _sixfold(numbers[2])


def test_kernels_of_others_may_use_all_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBANET_CACHE", "0")
    y = np.arange(3, dtype=np.float32)
    launch(Kernel(inlined.function), 1, (y,), (), "float32")
    assert y.tolist() == [15.0, 17.0, 19.0]


class Context:
    """A typing context that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def resolve_function_type(self, function: Any, args: tuple, kws: dict) -> Any:
        self.asked.append((function, args))
        if types.none in args:
            raise TypingError("no such operation")
        return None if function == "unknown" else (function, args)

    def unify_types(self, *several: Any) -> Any:
        return several[0]


def test_a_question_is_asked_once() -> None:
    context = Context()
    remembering = _Remembering(context)
    one, zero, truth = types.literal(1), types.literal(0), types.literal(True)
    questions: list[tuple[Any, tuple]] = [
        ("+", (types.int64, types.int64)), ("-", (types.int64, types.int64)), ("+", (types.int64, types.float32)),
        ("+", (types.int64,)), ("+", (one,)), ("+", (zero,)), ("+", (truth,)), ("unknown", ()),
    ]  # fmt: skip
    for _ in range(3):
        for function, args in questions:
            answer = remembering.resolve_function_type(function, args, {})
            assert answer == (None if function == "unknown" else (function, args))
    assert context.asked == questions
    assert remembering.unify_types(types.int64, types.int32) == types.int64, "all else is the context's"


def test_compilations_arguments_by_name_and_errors_are_not_kept() -> None:
    context = Context()
    remembering = _Remembering(context)
    dispatcher = types.Dispatcher(numba.njit(lambda x: x))
    for _ in range(2):
        remembering.resolve_function_type(dispatcher, (types.int64,), {})
        remembering.resolve_function_type("+", (types.int64,), {"y": types.int64})
        with pytest.raises(TypingError, match="no such operation"):
            remembering.resolve_function_type("+", (types.none,), {})
    assert len(context.asked) == 6


@kernel
def wrong(task: Index, ints: I64, y: T):
    y[task] = ints + y


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen() -> int:
        raise NotImplementedError

    @numba.extending.overload(seen)
    def _() -> Any:
        found.append(gc.isenabled())
        return lambda: 3

    def collects(task: Index, ints: I64, y: T) -> None:
        y[task] = seen()

    monkeypatch.setenv("NUMBANET_CACHE", "0")  # a file would save the compiler its work
    found: list[bool] = []
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        Kernel(collects).build("float32")
        assert found and not any(found) and gc.isenabled() == enabled
        with pytest.raises(TypingError):
            wrong.build("float32")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
