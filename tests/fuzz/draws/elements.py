"""Arguments of functions of single elements, and of sums and other reductions; their definitions in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Drawing


def some(d: Draw, shape: tuple[int, ...], ints: float = 0.1) -> np.ndarray:
    """Return floats, or now and then integers or booleans."""
    if d.chance(ints):
        dtype = d.pick("bool", "uint8", "int8", "int32", "int64")
        return d.integers(shape, 0, 1, dtype) if dtype == "bool" else d.integers(shape, 0, 9, dtype)
    return d.floats(shape)


def one(d: Draw) -> Call:
    """An array of floats."""
    return (d.floats(d.shape()),), {}


def any_one(d: Draw) -> Call:
    """An array of floats, integers or booleans."""
    return (some(d, d.shape(0, 5), 0.3),), {}


def numbers(d: Draw) -> Call:
    """An array of floats or integers, not booleans: NumPy negates none."""
    shape = d.shape()
    return (d.integers(shape, 0, 9, d.pick("int8", "int64")) if d.chance(0.1) else d.floats(shape),), {}


def by_numpy(name: str, floating: bool) -> Callable[[Any], Any]:
    """Return a function of NumPy; `floating`: in float64 also for integers."""
    function = getattr(np, name)

    def answer(input: Any) -> Any:
        input = input.item() if isinstance(input, np.generic) else input  # a scalar is a number like any other
        return function(np.asarray(input, np.float64) if floating else np.asarray(input))

    return answer


def broadcast(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts to another."""
    kept = tuple(1 if d.chance(0.25) else n for n in shape)
    return kept[d.integer(0, len(kept)) if d.chance(0.3) else 0 :]


def two(d: Draw) -> Call:
    """Two floats that broadcast, one of them a number now and then."""
    shape = d.shape()
    a, b = d.floats(shape), d.floats(broadcast(d, shape))
    if d.chance(0.15):
        b = d.pick(0.0, -1.5, 3.0, 2)
    return (b, a) if d.chance(0.5) else (a, b), {}


def tensor_numbers(d: Draw) -> Call:
    """An array of floats or signed integers."""
    shape = d.shape()
    return (d.integers(shape, 1, 9, d.pick("int32", "int64")) if d.chance(0.1) else d.floats(shape),), {}


def two_tensors(d: Draw) -> Call:
    """Two arrays that broadcast, the second a number now and then."""
    shape = d.shape()
    a, b = d.floats(shape), d.floats(broadcast(d, shape))
    if d.chance(0.15):
        return (a, d.pick(0.0, -1.5, 3.0, 2)), {}
    return (b, a) if d.chance(0.5) else (a, b), {}


def two_reversed(d: Draw) -> Call:
    """A number and an array."""
    return (d.pick(-1.5, 3.0, 2, 0.5), d.floats(d.shape(), 0.1, 3)), {}


def powers(d: Draw) -> Call:
    """Bases and exponents."""
    shape = d.shape()
    base = d.floats(shape, 0.1, 4) if d.chance(0.7) else d.floats(shape)
    exponent = d.pick(2, 3, 0.5, -1, 0, 1) if d.chance(0.5) else d.floats(broadcast(d, shape), -3, 3)
    return (base, exponent), {}


def clamp(d: Draw) -> Call:
    """An array and bounds."""
    low, high = d.pick(None, -1.0, 0, 2.5), d.pick(0.5, 1, None, -2.0)
    return (d.floats(d.shape()), 0.0 if low is None and high is None else low, high), {}


def clamped(x: Any, low: Any = None, high: Any = None) -> Any:
    """min(max(x, low), high)."""
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def where(d: Draw) -> Call:
    """A condition and two operands."""
    shape = d.shape()
    condition = d.integers(broadcast(d, shape), 0, 1, bool)
    return (condition, d.floats(shape), d.floats(broadcast(d, shape))), {}


def slope(d: Draw) -> Call:
    """An array and a slope."""
    return (d.floats(d.shape()), d.pick(0.01, 0.0, 0.3, -0.5, 1, 2.0)), {}


def gelu(d: Draw) -> Call:
    """An array and the name of an approximation."""
    return (d.floats(d.shape()), d.pick("none", "tanh")), {}


def with_shape_of(draw: Drawing) -> Drawing:
    """Return a draw of a gradient of the first array's shape, and what the other one draws."""

    def drawn(d: Draw) -> Call:
        (x, *rest), kwargs = draw(d)
        return (d.floats(x.shape), x, *rest), kwargs

    return drawn


# Names of functions, with the number of their operands and of their parameters.
POINTWISE = {
    "hardtanh": (1, (-1.0, 1.0)), "elu": (1, (1.0,)), "hardsigmoid": (1, ()), "hardswish": (1, ()),
    "softplus": (1, (1.0, 20.0)), "mish": (1, ()), "hardtanh_backward": (2, (-1.0, 1.0)), "elu_backward": (2, (0.5,)),
    "hardswish_backward": (2, ()), "softplus_backward": (2, (2.0, 20.0)), "mish_backward": (2, ()),
}  # fmt: skip


def pointwise(d: Draw) -> Call:
    """A function's name, its operands and its parameters."""
    name = d.pick(*POINTWISE)
    count, parameters = POINTWISE[name]
    shape = d.shape()
    return (name, tuple(d.floats(shape) for _ in range(count)), *parameters), {}


def pointwise_sum(d: Draw) -> Call:
    """The same for a sum; functions of one operand."""
    name = d.pick("hardtanh", "elu", "hardsigmoid", "softplus", "mish")
    return (name, (d.floats(d.shape()),), *POINTWISE[name][1]), {"mean": d.chance(0.5)}


def dropout(d: Draw) -> Call:
    """An array, a probability, and a draw; the order is given, or it would be that of the memory."""
    shape = d.shape()
    x, order = d.floats(shape), tuple(d.random.sample(range(len(shape)), len(shape)))
    return (x, d.pick(0.0, 0.3, 0.5, 1.0), (d.integer(0, 9), d.integer(0, 9)), order), {}


def reduction(d: Draw) -> Call:
    """An array, dimensions, and whether they are kept."""
    x = some(d, d.shape(0, 5))
    return (x, d.dims(x.ndim), d.chance(0.5)), {}


def float_reduction(d: Draw) -> Call:
    """The same for floats."""
    x = d.floats(d.shape(0, 5))
    return (x, d.dims(x.ndim), d.chance(0.5)), {}


def axes(x: Any, dim: Any) -> Any:
    """Return what NumPy takes for a dimension of ours."""
    if dim is None or np.ndim(x) == 0:
        return None
    if isinstance(dim, (tuple, list)):
        return tuple(dim) or None
    return dim


def summed(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The sum; of integers and booleans an int64."""
    x = np.asarray(x)
    return np.sum(x, axes(x, dim), keepdims=bool(keepdim), dtype=None if x.dtype.kind == "f" else np.int64)


def truth(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `any` or `all` from NumPy's: over no dimension where the sequence is empty, and of uint8 a uint8."""

    def answer(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        x = np.asarray(x)
        found = x != 0 if isinstance(dim, (tuple, list)) and not dim else function(x, axes(x, dim), keepdims=keepdim)
        return np.asarray(found, np.uint8 if x.dtype == np.uint8 else bool)

    return answer


def factors(d: Draw) -> Call:
    """An array of numbers near 1, a dimension, and whether it is kept."""
    x = d.floats(d.shape(1, 4), 0.5, 1.5)
    return (x, d.dim(x.ndim), d.chance(0.5)), {}


def product(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """The product along a dimension."""
    return np.prod(np.asarray(x), axes(x, dim), keepdims=keepdim)


def averaged(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The mean."""
    return np.mean(np.asarray(x), axes(x, dim), keepdims=bool(keepdim))


def extremum(d: Draw) -> Call:
    """An array and a dimension of at least one element."""
    x = d.floats(d.shape(1, 4, empty=0))
    return (x, d.dim(x.ndim), d.chance(0.5), d.chance(0.5)), {}


def along(d: Draw) -> Call:
    """An array and a dimension."""
    x = d.floats(d.shape(1, 4))
    return (x, d.dim(x.ndim)), {}


def vector_norm(d: Draw) -> Call:
    """An array and an order."""
    return (d.floats(d.shape()), d.pick(2, 1, 3, 0, math.inf, -math.inf, 2.5)), {}


def norm(x: Any, ord: Any = 2) -> float:
    """The norm of all elements."""
    x = np.abs(np.asarray(x, np.float64)).ravel()
    if ord == 0:
        return float((x != 0).sum())
    if math.isinf(ord):
        return float(x.max(initial=0) if ord > 0 else x.min(initial=math.inf))
    return float((x**ord).sum() ** (1 / ord)) if x.size else (0.0 if ord > 0 else math.inf)


def vector_norms(d: Draw) -> Call:
    """Several arrays and an order."""
    return ([d.floats(d.shape(empty=0)) for _ in range(d.integer(1, 3))], d.pick(2, 1, 3, 0, math.inf)), {}


def norms(arrays: Any, ord: Any = 2) -> np.ndarray:
    """The norms of several arrays."""
    return np.array([norm(x, ord) for x in arrays])
