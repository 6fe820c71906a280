"""Arguments of normalisations."""

from __future__ import annotations

import math

from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call


def batch(d: Draw, least: int = 2) -> tuple[int, ...]:
    """Return a shape (N, C, ...) with at least so many values a channel."""
    c = d.size()
    return d.pick((d.integer(least, 5), c), (2, c, d.size()), (d.integer(1, 3), c, 4, 5), (2, c, 2, 2, 3))


def batch_norm(d: Draw) -> Call:
    """Everything that batch norm takes."""
    shape = batch(d)
    c, training = shape[1], d.chance(0.6)
    running = not training or d.chance(0.5)
    mean, var = (d.floats((c,), -1, 1), d.floats((c,), 0.5, 2)) if running else (None, None)
    weight, bias = d.optional(lambda: d.floats((c,), 0.5, 2)), d.optional(lambda: d.floats((c,), -1, 1))
    return (d.floats(shape), mean, var, weight, bias, training, d.pick(0.1, 0.0, 1.0), d.pick(1e-5, 1e-3)), {}


def batch_norm_tensors(d: Draw) -> Call:
    """Everything that batch norm takes, but what it changes."""
    (x, mean, var, weight, bias, training, momentum, eps), _ = batch_norm(d)
    return (x, *((None, None) if training else (mean, var)), weight, bias, training, momentum, eps), {}


def batch_norm_apply(d: Draw) -> Call:
    """x, coefficients, activation, residual."""
    shape = batch(d)
    residual = d.floats(shape) if d.chance(0.4) else None
    return (d.floats(shape), d.floats((3, shape[1])), d.pick(None, "relu"), residual), {}


def batch_norm_backward(d: Draw) -> Call:
    """grad, x, weight, mean, inverse, training."""
    shape = batch(d)
    c = (shape[1],)
    weight = d.optional(lambda: d.floats(c, 0.5, 2))
    return (
        d.floats(shape), d.floats(shape), weight, d.floats(c, -1, 1), d.floats(c, 0.5, 2), d.chance(0.5)
    ), {}  # fmt: skip


def group_norm(d: Draw) -> Call:
    """x, number of groups, weight, bias."""
    groups = d.integer(1, 4)
    c = groups * d.pick(1, 2, 3, 8, 11)
    shape = d.pick((2, c, 3), (d.integer(0, 3), c, 3, 4), (3, c, 2, 2, 2), (1, c, 17))
    weight, bias = d.optional(lambda: d.floats((c,), 0.5, 2)), d.optional(lambda: d.floats((c,), -1, 1))
    return (d.floats(shape), groups, weight, bias, d.pick(1e-5, 1e-3)), {}


def group_norm_backward(d: Draw) -> Call:
    """grad, x, number of groups, weight, mean, inverse."""
    (x, groups, weight, *_), _ = group_norm(d)
    statistics = (len(x), groups)
    return (
        d.floats(x.shape), x, groups, weight, d.floats(statistics, -1, 1), d.floats(statistics, 0.5, 2)
    ), {}  # fmt: skip


def layer_norm(d: Draw) -> Call:
    """x, the shape that is normalised, weight, bias."""
    shape = d.shape(1, 4)
    over = shape[d.integer(0, len(shape) - 1) :]
    weight, bias = d.optional(lambda: d.floats(over, 0.5, 2)), d.optional(lambda: d.floats(over, -1, 1))
    wanted = over[0] if len(over) == 1 and d.chance(0.5) else d.pick(tuple, list)(over)
    return (d.floats(shape), wanted, weight, bias, d.pick(1e-5, 1e-3)), {}


def layer_norm_backward(d: Draw) -> Call:
    """grad, x, the shape that is normalised, weight, mean, inverse."""
    (x, over, weight, *_), _ = layer_norm(d)
    rows = math.prod(x.shape[: x.ndim - (1 if isinstance(over, int) else len(over))])
    return (
        d.floats(x.shape), x, over, weight, d.floats((rows, 1), -1, 1), d.floats((rows, 1), 0.5, 2)
    ), {}  # fmt: skip


def response(d: Draw) -> Call:
    """x, size, alpha, beta, k."""
    shape = d.pick((d.integer(0, 2), d.size(), 4), d.images())
    return (d.floats(shape), d.integer(1, 7), d.pick(1e-4, 0.5), d.pick(0.75, 0.5), d.pick(1.0, 2.0)), {}
