"""Arguments of losses, and of the steps of optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Drawing


def _scores(d: Draw) -> tuple[int, ...]:
    c = d.size()
    return d.pick((d.integer(0, 9), c), (c,), (2, c, 3), (2, c, 2, 3))


def _labels(d: Draw, shape: tuple[int, ...], ignore: int) -> np.ndarray:
    rest = () if len(shape) == 1 else (shape[0], *shape[2:])
    labels = d.integers(rest, 0, (shape[0] if len(shape) == 1 else shape[1]) - 1)
    return np.where(d.numbers.random(rest) < 0.1, ignore, labels)


def cross_entropy(d: Draw) -> Call:
    """Scores, labels, weight of classes, the label that is ignored, reduction, smoothing."""
    shape, ignore = _scores(d), d.pick(-100, 0, -1)
    classes = shape[0] if len(shape) == 1 else shape[1]
    weight = d.optional(lambda: d.floats((classes,), 0.5, 2))
    return (
        d.floats(shape), _labels(d, shape, ignore), weight, ignore, d.pick("mean", "sum", "none"), d.pick(0.0, 0.1)
    ), {}  # fmt: skip


def cross_entropy_probabilities(d: Draw) -> Call:
    """Scores and probabilities."""
    shape = _scores(d)
    return (d.floats(shape), d.floats(shape, 0, 1), None, -100, d.pick("mean", "sum", "none"), d.pick(0.0, 0.1)), {}


def nll_loss(d: Draw) -> Call:
    """The same without smoothing."""
    args, _ = cross_entropy(d)
    return args[:5], {}


def mse_loss(d: Draw) -> Call:
    """Two arrays of a shape and a reduction."""
    shape = d.shape()
    return (d.floats(shape), d.floats(shape), d.pick("mean", "sum", "none")), {}


def first_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that gives its first result only."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)[0]

    run.about = function  # type: ignore[attr-defined]
    return run


def _sgd(d: Draw) -> dict[str, Any]:
    return {
        "lr": d.pick(0.1, 0.0, 1.0), "momentum": d.pick(0.9, 0.0), "weight_decay": d.pick(0.0, 0.1),
        "nesterov": d.chance(0.3), "maximize": d.chance(0.3), "first": d.chance(0.3), "dampening": d.pick(0.0, 0.5),
    }  # fmt: skip


def _adam(d: Draw) -> dict[str, Any]:
    return {
        "step": d.integer(1, 100), "lr": 0.01, "betas": d.pick((0.9, 0.999), (0.5, 0.5)),
        "weight_decay": d.pick(0.0, 0.1), "decoupled_weight_decay": d.chance(0.5), "maximize": d.chance(0.3),
    }  # fmt: skip


def _rmsprop(d: Draw) -> dict[str, Any]:
    return {"lr": 0.01, "alpha": 0.9, "weight_decay": d.pick(0.0, 0.1), "momentum": d.pick(0.9, 0.0)}


def _adagrad(d: Draw) -> dict[str, Any]:
    return {"lr": 0.01, "weight_decay": d.pick(0.0, 0.1), "maximize": d.chance(0.3)}


def _adadelta(d: Draw) -> dict[str, Any]:
    return {"lr": 0.5, "rho": 0.9, "weight_decay": d.pick(0.0, 0.1)}


STEPS: dict[str, tuple[int, Callable[[Draw], dict[str, Any]]]] = {
    "sgd_step": (1, _sgd), "adam_step": (3, _adam), "rmsprop_step": (3, _rmsprop), "adagrad_step": (1, _adagrad),
    "adadelta_step": (2, _adadelta),
}  # fmt: skip


def step(states: int, options: Callable[[Draw], dict[str, Any]]) -> Drawing:
    """Return a draw of a parameter, its gradient, and state; lists of them now and then."""

    def arrays(d: Draw) -> list[np.ndarray]:
        shape = d.shape()
        first, *others = (d.floats(shape, 0, 0.3) for _ in range(states))  # a mean square, and means below its root
        return [d.floats(shape, -1, 1), d.floats(shape), np.asarray(first + d.dtype.type(0.2)), *others]

    def drawn(d: Draw) -> Call:
        columns: Any = arrays(d)
        if d.chance(0.3):
            columns = list(map(list, zip(*(arrays(d) for _ in range(d.integer(1, 3))))))
        return tuple(columns), options(d)

    return drawn


def scaled(d: Draw) -> Call:
    """An array, or several, and a number."""
    x: Any = d.floats(d.shape(), -1, 1)
    return ([x, d.floats((3,), -1, 1)] if d.chance(0.3) else x, d.pick(0.5, 2.0, 0, -1.0)), {}


def clamped_in_place(d: Draw) -> Call:
    """An array and two bounds."""
    return (d.floats(d.shape(), -1, 1), d.pick(-0.5, 0), d.pick(0.5, 0.1)), {}


def clipped(d: Draw) -> Call:
    """Several arrays, a bound and the order of their norm."""
    arrays = [d.floats(d.shape(empty=0), -1, 1) for _ in range(d.integer(1, 3))]
    return (arrays, d.pick(0.5, 1.0, 3, 0.0), d.pick(2, 1, 3, math.inf)), {}
