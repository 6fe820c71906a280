"""What objects and their classes hold: a change of it is seen, or the function is run each time."""

from __future__ import annotations

import array
import collections
import contextvars
import ctypes
import enum
import fractions
import functools
import io
import logging
import pathlib
import threading
import time
import types
import typing
import weakref
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn
from numbanet.tensor import Tensor
from tests.capturing.common import check, images


class _Config:
    factor = 2.0


class _Heir(_Config):
    pass


class _Holding(nn.Module):
    """A network whose result depends on what it holds."""

    def __init__(self, held: Any, factor: Callable[[Any], Any]) -> None:
        super().__init__()
        self.held, self.factor = held, factor

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.factor(self.held))


class _Submodule(nn.Module):
    factor = 2.0


@dataclass(unsafe_hash=True, slots=True)
class _Slotted:
    factor: float = 2.0


@dataclass(frozen=True, slots=True)
class _Frozen:
    factors: list[float] = field(default_factory=lambda: [2.0], hash=False)


class _Beside(_Slotted):
    """An object with a ``__dict__`` beside its slots."""


class _Kind(enum.Enum):
    SOME = 1.0

    def __init__(self, value: float) -> None:
        self.factor = 2.0


class _Array(array.array):  # type: ignore[type-arg]
    pass


class _Descriptor:
    def __init__(self) -> None:
        self.value = 2.0

    def __get__(self, instance: Any, owner: Any = None) -> float:
        return self.value


class _Described:
    factor: Any = _Descriptor()


def _function() -> None:
    pass


def _record() -> Any:
    record = np.zeros(1, [("factor", "f8")])[0]
    record["factor"] = 2.0
    return record


def _function_with_factor() -> Any:
    function = types.FunctionType(_function.__code__, globals())
    function.factor = 2.0  # type: ignore[attr-defined]
    return function


def _class(base: type = object) -> Any:
    return type("_Made", (base,), {"factor": 2.0})


def _set(owner: Any, factor: float = 7.0) -> None:
    owner.factor = factor


def _two_rows() -> Tensor:
    return nnet.tensor(np.ones((2, 4), np.float32))


def _set_rows(tensor: Tensor) -> None:
    tensor.data = np.ones((7, 4, 1), np.float32)


_VARIABLE: contextvars.ContextVar[float] = contextvars.ContextVar("_VARIABLE", default=2.0)
_KEPT = _Config()


def _factor(held: Any) -> float:
    return float(held.factor)


@pytest.mark.parametrize(
    "made, factor, change, replayed",
    [
        (_class, _factor, _set, True),
        (lambda: _class()(), _factor, lambda held: _set(type(held)), True),
        (lambda: type("_Heir", (_class(),), {})(), _factor, lambda held: _set(type(held).__base__), True),
        (lambda: _class(nn.Module)(), _factor, lambda held: _set(type(held)), True),
        (lambda: _class(list)(), _factor, lambda held: _set(type(held)), True),
        (lambda: functools.partial(_factor, _class()()), lambda held: held(), lambda held: _set(held.args[0]), True),
        (_Slotted, _factor, _set, True),
        (_Frozen, lambda held: held.factors[0], lambda held: held.factors.__setitem__(0, 7.0), True),
        (_Beside, _factor, _set, True),
        (_Beside, lambda held: getattr(held, "other", 2.0), lambda held: setattr(held, "other", 7.0), True),
        (_function_with_factor, _factor, _set, True),
        (lambda: _Kind.SOME, _factor, _set, True),
        (_Described, _factor, lambda held: setattr(vars(_Described)["factor"], "value", 7.0), True),
        (lambda: ["x"].count, lambda held: 2.0 + held("x"), lambda held: held.__self__.append("x"), True),
        (lambda: (_two_rows(),), lambda held: held[0].shape[0], lambda held: _set_rows(held[0]), True),
        (lambda: frozenset([_two_rows()]), lambda held: [*held][0].dim(), lambda held: _set_rows([*held][0]), True),
        (lambda: (1, (2.0, [2.0])), lambda held: held[1][1][0], lambda held: held[1][1].__setitem__(0, 7.0), True),
        (lambda: ctypes.c_float(2.0), lambda held: held.value, lambda held: setattr(held, "value", 7.0), False),
        (lambda: _Array("d", [2.0]), lambda held: held[0], lambda held: held.__setitem__(0, 7.0), False),
        (lambda: weakref.ref(_KEPT), lambda held: held().factor, lambda held: setattr(_KEPT, "factor", 7.0), False),
        (lambda: _VARIABLE, lambda held: held.get(), lambda held: held.set(7.0), False),
        (lambda: memoryview(bytearray(b"2")), lambda held: held[0], lambda held: held.__setitem__(0, 7), False),
        (_record, lambda held: held["factor"], lambda held: held.__setitem__("factor", 7.0), False),
    ],
    ids=[
        "class", "class of an object", "base", "class of a module", "class of a list", "partial", "slot", "frozen",
        "slot beside others", "beside slots", "function", "member", "descriptor", "bound", "tensor in a tuple",
        "tensor in a frozen set", "list in tuples", "ctypes", "array", "reference", "variable", "view", "record",
    ],
)  # fmt: skip
def test_changes_of_what_is_held_are_seen(
    made: Callable[[], Any], factor: Callable[[Any], Any], change: Callable[[Any], None], replayed: bool
) -> None:
    model = _Holding(made(), factor).eval()
    captured = nnet.capture(model)
    for _ in range(4):
        check(captured, model, images())
    assert (captured.replays > 0) is replayed
    change(model.held)
    for _ in range(4):
        check(captured, model, images())


def test_tensors_in_a_tuple_are_those_of_their_module() -> None:
    """As the mean and the deviation that a network takes from its images."""
    model = _Holding((_two_rows(), _two_rows()), lambda held: 1.0)
    model.forward = lambda x: (x - model.held[0][0, 0]) / model.held[1][0, 0]  # type: ignore[method-assign]
    captured = nnet.capture(model.eval())
    with nnet.no_grad():
        for _ in range(5):
            check(captured, model, images())
        assert captured.replays > 0
        model.held[0].data[...] = 3.0
        check(captured, model, images())


@pytest.mark.parametrize("owner", ["class", "base"])
def test_class_attributes_of_a_trainer_are_watched(owner: str) -> None:
    base = _class()

    class Trainer(base):  # type: ignore[misc, valid-type]
        def step(self, x: Tensor) -> Tensor:
            return x * self.factor

    trainer = Trainer()
    captured = nnet.capture(trainer.step)
    for _ in range(4):
        check(captured, trainer.step, images())
    assert captured.replays
    _set(Trainer if owner == "class" else base)
    for _ in range(4):
        check(captured, trainer.step, images())


def test_an_object_may_hold_its_own_captured_method() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model, self.factor = nn.Linear(10, 3).eval(), 2.0
            self.run = nnet.capture(self.step)

        def step(self, x: Tensor) -> Tensor:
            return self.model(x) * self.factor

    trainer = Trainer()
    for number in (1, 2):  # a recording for each shape
        for _ in range(4):
            check(trainer.run, trainer.step, images(number))
        assert trainer.run.replays == 2 * number
    trainer.factor = 7.0
    check(trainer.run, trainer.step, images(1))


def _with(**attributes: Any) -> Any:
    return type("_Owner", (), attributes)()


def _attribute(path: str, factor: float = 7.0) -> Callable[[Any], None]:
    """Return what sets the factor of an object found by a path of attributes."""
    return lambda held: _set(functools.reduce(getattr, path.split(".") if path else [], held), factor)


def _called_by_property(held: Any) -> float:
    return float(held.property)


class _Callable:
    def __init__(self) -> None:
        self.factor = 2.0

    def __call__(self, *_: Any) -> float:
        return self.factor


class _File(io.StringIO):
    pass


def _made(kind: Any) -> Any:
    found = kind()
    found.factor = 2.0
    return found


def _factory(held: Any) -> float:
    return float(held.default_factory().factor)


def _exchange_factory(held: Any) -> None:
    other = _Callable()
    other.factor = 7.0
    held.default_factory = lambda: other


@pytest.mark.parametrize(
    "made, factor, change",
    [
        (lambda: _made(lambda: functools.lru_cache(_function)), _factor, _set),
        (lambda: _made(_File), _factor, _set),
        (lambda: _made(io.StringIO), _factor, _set),
        (lambda: _with(f=staticmethod(_Callable())), lambda held: held.f.factor, _attribute("f")),
        (lambda: _with(f=staticmethod(_function_with_factor())), lambda held: held.f.factor, _attribute("f")),
        (
            lambda: _with(f=staticmethod(functools.partial(_factor, _Callable()))),
            lambda held: held.f(), lambda held: _set(held.f.args[0]),
        ),
        (
            lambda: _with(property=property(_Callable())),
            _called_by_property, lambda held: _set(type(held).property.fget),
        ),
        (
            lambda: _with(f=functools.partialmethod(lambda self, o: o.factor, o=_Callable())),
            lambda held: held.f(), lambda held: _set(vars(type(held))["f"].keywords["o"]),
        ),
        (lambda: collections.defaultdict(_Callable), _factory, _exchange_factory),
        (
            lambda: functools.partial(_factor, _Callable()), lambda held: held(),
            lambda held: held.__setstate__((lambda: 7.0, (), {}, {})),
        ),
    ],
)  # fmt: skip
def test_what_stands_behind_wrappers_is_watched(made: Any, factor: Any, change: Any) -> None:
    model = _Holding(made(), factor).eval()
    captured = nnet.capture(model)
    for _ in range(4):
        check(captured, model, images())
    assert captured.replays == 2
    change(model.held)
    assert factor(model.held) == 7.0
    for _ in range(4):
        check(captured, model, images())


def test_operands_that_are_classes_functions_and_members_are_watched() -> None:
    def scaled(x: Tensor, held: Any) -> Tensor:
        return x * float(held.factor)

    _Kind.SOME.factor = 2.0
    for held in (_class(), _function_with_factor(), _Kind.SOME, _class(nn.Module)().eval()):
        captured = nnet.capture(scaled)
        for _ in range(4):
            check(captured, scaled, images(), held)
        assert captured.replays
        _set(held)
        for _ in range(4):
            check(captured, scaled, images(), held)


def test_equal_keys_of_another_meaning_are_told_apart() -> None:
    def told(operands: dict[Any, Tensor]) -> Tensor:
        ((key, x),) = operands.items()
        found = next(iter(key))
        return x * (1.0 if type(found) is int else 10.0) * (3.0 if str(found) == "-0.0" else 1.0)

    captured = nnet.capture(told)
    for key in ((1,), (1.0,), (0.0,), (-0.0,), ((1,),), ((True,),), frozenset({1}), frozenset({1.0})):
        for _ in range(3):
            check(captured, told, {key: images()})
    assert captured.replays == 6  # sets are in doubt: those that are equal may have another order


class _Mixed(ABC, nn.Module):
    """A module that holds what modules commonly do."""

    expansion: int = 1
    kinds: typing.ClassVar[tuple[type, ...]] = (nn.Conv2d, _Config)
    hint = typing.Union[int, None]  # noqa: UP007

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.layer, self.kind = nn.Conv2d(8, 4, 1), _Kind.SOME
        self.config, self.frozen, self.space = _Slotted(), _Frozen(), types.SimpleNamespace(factor=2.0)
        self.norm, self.activation, self.root = functools.partial(nn.BatchNorm2d, eps=1e-3), np.tanh, np.sqrt
        self.log, self.lock, self.file = logging.getLogger("numbanet"), threading.RLock(), io.StringIO()
        self.path, self.part, self.event = pathlib.Path("x"), fractions.Fraction(1, 2), threading.Event()
        self.mean, self.time, self.cached = np.mean, time.localtime(0), functools.lru_cache(_function)
        self.flag, self.dtype = enum.Flag("Flag", "A B")(3), np.dtype("f4")  # type: ignore[operator]

    @functools.cached_property
    def factor(self) -> float:
        return self.config.factor

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.factor * self.expansion


def test_what_modules_commonly_hold_is_no_doubt() -> None:
    model = _Mixed().eval()
    captured = nnet.capture(model)
    for _ in range(4):
        check(captured, model, images())
    assert captured.replays == 2
