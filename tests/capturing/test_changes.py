"""A replay sees every change that it must see."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import numba
import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.tensor import Tensor
from tests.capturing.common import RNG, check, images, multiply, network, plan_of, replays


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.load_state_dict({k: np.array(v) * 0.5 for k, v in model.state_dict().items()}),
        lambda model: model[0].weight.data.__setitem__(..., 0.25),
        lambda model: setattr(model[9].weight, "data", (model[9].weight * 2).data),
        lambda model: setattr(model[9], "weight", nn.Parameter(nnet.tensor(np.ones((5, 12), np.float32)))),
        lambda model: model.__setitem__(4, nn.AvgPool2d(2)),
        lambda model: model[1].reset_running_stats(),
        lambda model: model[3].bn1.train(),
    ],
    ids=["load", "write", "data", "parameter", "module", "statistics", "mode"],
)
def test_changes_are_seen(device: str, change: Callable[[Any], Any]) -> None:
    model = network()
    captured = nnet.capture(model)
    for _ in range(3):
        check(captured, model, images())
    change(model)
    model[3].bn1.momentum = 0.0  # in training mode it shall not move under the comparison
    for _ in range(4):
        check(captured, model, images())


def test_changes_elsewhere_leave_a_recording(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other, x = network(), nn.Linear(3, 3), images()
    captured = nnet.capture(model)
    for _ in range(3):
        check(captured, model, x)
    for _ in range(2):
        other.weight.data[...] = 1.0
        with nnet.no_grad():
            assert replays(monkeypatch, lambda: captured(x))


def test_parameters_that_no_called_module_has_are_watched(device: str) -> None:
    p = nn.Parameter(nnet.tensor(RNG.standard_normal((4, 8, 3, 3), dtype=np.float32)))
    a, b = nn.Conv2d(8, 8, 3).eval(), nn.Conv2d(8, 4, 3)
    pair = nn.ModuleList([a, b])

    def beside(x: Tensor) -> Tensor:
        return F.conv2d(a(x), b.weight)

    def bare(x: Tensor) -> Tensor:
        return F.conv2d(x, p)

    for function, weight in ((bare, p), (beside, pair[1].weight)):
        captured = nnet.capture(function)
        for _ in range(3):
            check(captured, function, images())
        assert plan_of(captured).recorded
        multiply(weight, 2)
        check(captured, function, images())
        weight.grad = nnet.tensor(np.ones(weight.shape, np.float32))
        for _ in range(3):
            check(captured, function, images())
        optim.SGD([weight], lr=0.5).step()
        for _ in range(3):
            check(captured, function, images())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model[0], "stride", (2, 2)),
        lambda model: setattr(model[0], "padding", (0, 0)),
        lambda model: setattr(model[1], "eps", 3.0),
        lambda model: setattr(model[2], "forward", lambda x: x * 3.0),
        lambda model: model[2].register_forward_hook(lambda module, args, y: y * 3.0),
        lambda model: setattr(model, "factors", [5.0]),
        lambda model: model.factors.append(5.0),
        lambda model: model.options.update(scale=7.0),
        lambda model: vars(model).update(factors=[5.0]),
        lambda model: model._modules.update({"2": nn.Identity()}),
        lambda model: setattr(model[1].running_mean, "data", (model[1].running_mean + 1.0).data),
    ],
    ids=[
        "stride", "padding", "eps", "forward", "hook", "list", "append", "dictionary", "straight", "table", "buffer",
    ],
)
def test_changed_attributes_are_seen(device: str, change: Callable[[Any], Any]) -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.factors, self.options = [2.0, 3.0], {"scale": 1.0}

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * sum(self.factors) * self.options["scale"]

    model = Scaled().eval()
    captured = nnet.capture(model)
    for _ in range(3):
        check(captured, model, images())
    assert plan_of(captured).recorded
    change(model)
    for _ in range(4):
        check(captured, model, images())


class _Holder:
    """An object with slots: what they hold can't be seen to change."""

    __slots__ = ("factor",)

    def __init__(self) -> None:
        self.factor = 1.0


class _Factor:
    """An object that is called."""

    factor = 1.0

    def __call__(self) -> float:
        return self.factor


class _Held(nn.Module):
    """A module whose result depends on attributes of many kinds."""

    scale = 1.0

    def __init__(self, watched: bool):
        super().__init__()
        self.layer = nn.Conv2d(8, 4, 3)
        self.chosen, self.queue, self.named, self.pair = {1}, deque([1.0]), {"x": 1.0}, ([1.0], [2.0])
        self.factor = _Factor()
        self.bound = partial(_Factor.__call__, self.factor)
        self.word, self.other = (b"1", _Factor()) if watched else (bytearray(b"1"), _Holder())

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) * (5 if 2 in self.chosen else 1) * sum(self.queue) * (3 if "y" in self.named else 1)
        y = y * (len(self.pair[0]) + 1) * len(self.word) * self.other.factor
        return y * self.factor() * self.bound() * self.scale


@pytest.mark.parametrize(
    "change, watched",
    [
        (lambda model: model.chosen.add(2), True),
        (lambda model: model.queue.append(2.0), True),
        (lambda model: model.named.__setitem__("y", model.named.pop("x")), True),
        (lambda model: model.pair[0].append(model.pair[1].pop()), True),
        (lambda model: setattr(model.factor, "factor", 2.0), True),
        (lambda model: setattr(type(model), "scale", 2.0), True),
        (lambda model: model.word.extend(b"2"), False),
        (lambda model: setattr(model.other, "factor", 2.0), False),
    ],
    ids=["set", "deque", "key", "from list to list", "callable", "class", "bytearray", "slot"],
)
def test_attributes_of_all_kinds_change_what_is_computed(
    device: str, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], watched: bool
) -> None:
    monkeypatch.setattr(_Held, "scale", 1.0)
    model = _Held(watched).eval()
    captured = nnet.capture(model)
    for _ in range(3):
        check(captured, model, images())
    assert plan_of(captured).recorded is watched
    change(model)
    for _ in range(4):
        check(captured, model, images())


class _Numbers(list[float]):
    """A list with attributes."""

    factor = 2.0


@pytest.mark.parametrize(
    "held, factor, change, replayed",
    [
        (np.ma.array([2.0, 3.0]), lambda held: float(held[0]), lambda held: held.__setitem__(0, 7.0), False),
        (np.array([2.0]), lambda held: float(held[0]), lambda held: held.__setitem__(0, 7.0), False),
        (_Factor(), lambda held: held.factor, lambda held: setattr(held, "factor", 7.0), True),
        (_Numbers(), lambda held: held.factor, lambda held: setattr(held, "factor", 7.0), True),
        (MappingProxyType({"x": [2.0]}), lambda held: held["x"][0], lambda held: held["x"].append(held["x"].pop() + 1),
         True),
        (numba.njit(lambda x: x), lambda held: 2.0, lambda held: None, True),
        ((threading.Lock(), object(), itemgetter(0), str.upper), lambda held: 2.0, lambda held: None, True),
    ],
    ids=["masked array", "array", "object", "list with attributes", "proxy", "compiled function", "no state"],
)  # fmt: skip
@pytest.mark.parametrize("by_class", [False, True])
def test_what_modules_and_their_classes_hold(
    device: str, held: Any, factor: Any, change: Callable[[Any], Any], replayed: bool, by_class: bool
) -> None:
    class Holding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * factor(self.held)

    held = copy.deepcopy(held) if replayed is False or isinstance(held, (_Factor, _Numbers)) else held
    model = Holding().eval()
    (Holding if by_class else model).held = held
    captured = nnet.capture(model)
    for _ in range(4):
        check(captured, model, images())
    assert (captured.replays > 0) is replayed
    change(held)
    for _ in range(4):
        check(captured, model, images())
