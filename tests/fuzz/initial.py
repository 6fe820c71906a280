"""The table of numbanet.nn.init: what a generator draws, in the row-major order of the shape, between these bounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

import numbanet as nnet
from numbanet import nn
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line

_GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),
    "selu": 0.75,
}  # fmt: skip


def _tensor(x: Any) -> Any:
    return nnet.tensor(x) if isinstance(x, np.ndarray) else x


def generator(seed: Any, draws: int = 0) -> Any:
    """Return NumPy's generator of a seed; None: the next one of the package's own, of which so many were taken."""
    if seed is None:  # a case begins with manual_seed(1)
        return np.random.Generator(np.random.Philox(key=np.array([1, draws], np.uint64)))
    return np.random.default_rng(seed) if type(seed) is int and seed >= 0 else seed


def _filled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of an array that is filled; `seed`, where there is one, makes the generator."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if "seed" in kwargs:
            seed = kwargs.pop("seed")
            kwargs["generator"] = None if seed is None else generator(seed)
        tensor = _tensor(x)
        result = function(tensor, *args, **kwargs)
        return [result, result is tensor]

    call.about = function  # type: ignore[attr-defined]
    return call


def _answer(values: Callable[..., Any]) -> Callable[..., Any]:
    """Return the answer for an array: the values, and that the tensor itself came back."""

    def answer(x: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return [np.broadcast_to(values(x, *args, **kwargs), x.shape).astype(x.dtype), True]

    return answer


# ------------------------------------------------------------------------------------------------ draws


def _seed(d: Draw) -> dict[str, Any]:
    return {"seed": d.pick(None, d.integer(0, 2**31))}


def _weight(d: Draw, low: int = 2) -> np.ndarray:
    shape = (d.size(), d.size(), *(d.integer(1, 5) for _ in range(d.integer(max(0, low - 2), 3))))
    return d.floats((0, *shape[1:]) if d.chance(0.05) else shape)


def _any(d: Draw) -> np.ndarray:
    return d.floats(d.shape(0, 4))


def _uniform(d: Draw) -> Call:
    a = d.number(-3, 1)
    return (_any(d), a, a + d.pick(0.0, 1, d.number(0, 9))), _seed(d)


def _normal(d: Draw) -> Call:
    return (_any(d), d.pick(0, 1.5, d.number(-9, 9)), d.pick(0, 1, 0.01, d.number(0, 9))), _seed(d)


def _xavier(d: Draw) -> Call:
    return (_weight(d), d.pick(1.0, 2, d.number(0, 5))), _seed(d)


def _kaiming(d: Draw) -> Call:
    word = d.pick("leaky_relu", *_GAINS)
    return (_weight(d), d.pick(0, 1, d.number(0, 5)), d.pick("fan_in", "fan_out"), word), _seed(d)


def _truncated(d: Draw) -> Call:
    mean, std, a = d.number(-2, 2), d.pick(1.0, 0.5, 3), d.number(-3, 1)
    return (d.floats((d.size(), d.size())), mean, std, a, a + d.number(0.2, 4)), _seed(d)


def _dirac(d: Draw) -> Call:
    groups = d.pick(1, 1, 2, 3)
    shape = (groups * d.integer(1, 5), d.integer(1, 9), *(d.integer(1, 4) for _ in range(d.integer(1, 3))))
    return (d.floats(shape), groups), {}


def _eye(d: Draw) -> Call:
    return (d.floats((d.size(), d.size())),), {}


def _sparse(d: Draw) -> Call:
    return (d.floats((d.size(), d.size())), d.pick(0.0, 0.25, 1, d.number(0, 1)), d.pick(0.01, 2)), _seed(d)


def _default(d: Draw) -> Call:
    weight = _weight(d)
    return (weight, d.optional(lambda: d.floats((len(weight),)))), _seed(d)


# ------------------------------------------------------------------------------------------------ answers


def _fans(x: Any) -> list[int]:
    positions = x[0, 0].size if x.size else math.prod(x.shape[2:])
    return [x.shape[1] * positions, x.shape[0] * positions]


def _uniformly(bound: Callable[..., float]) -> Callable[..., Any]:
    def values(x: Any, *args: Any, seed: Any) -> Any:
        return generator(seed).uniform(-bound(x, *args), bound(x, *args), x.shape)

    return values


def _normally(deviation: Callable[..., float]) -> Callable[..., Any]:
    return lambda x, *args, seed: generator(seed).normal(0.0, deviation(x, *args), x.shape)


def _gain(word: str, slope: Any = None) -> float:
    slope = 0.01 if slope is None else slope
    return math.sqrt(2 / (1 + slope * slope)) if word == "leaky_relu" else _GAINS[word]


def _he(x: Any, a: Any = 0, mode: str = "fan_in", word: str = "leaky_relu") -> float:
    return _gain(word, a) / math.sqrt(max(1, _fans(x)[mode == "fan_out"]))


def _glorot(x: Any, gain: Any = 1.0) -> float:
    return gain * math.sqrt(2 / max(1, sum(_fans(x))))


def _identity(x: Any, groups: int = 1) -> np.ndarray:
    values = np.zeros(x.shape)
    for number in range(len(x) if x.size else 0):
        channel = number % (len(x) // groups)
        if channel < x.shape[1]:
            values[(number, channel, *(size // 2 for size in x.shape[2:]))] = 1
    return values


def _scattered(x: Any, sparsity: Any, std: Any, seed: Any) -> np.ndarray:
    source = generator(seed)
    values = source.normal(0.0, std, x.shape)
    for j in range(x.shape[1]):
        values[source.permutation(x.shape[0])[: math.ceil(sparsity * x.shape[0])], j] = 0
    return values


def _turned(x: Any, gain: Any, seed: Any) -> Any:
    """Return the products of the rows, or of the columns if there are more rows."""
    tensor = _tensor(x)
    result = nn.init.orthogonal_(tensor, gain, None if seed is None else generator(seed))
    flat = result.numpy().astype(np.float64).reshape(len(x), -1) if x.size else np.zeros((0, 0))
    return flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat


_turned.about = nn.init.orthogonal_  # type: ignore[attr-defined]


def _unit(x: Any, gain: Any, seed: Any) -> np.ndarray:
    return np.eye(min(len(x), x[0].size) if x.size else 0) * float(gain) ** 2


def _defaults(weight: Any, bias: Any, seed: Any) -> list[Any]:
    bound, source = 1 / math.sqrt(max(1, _fans(weight)[0])), generator(seed)
    values = source.uniform(-bound, bound, weight.shape)
    source = generator(None, 1) if seed is None else source
    return [values, None if bias is None else source.uniform(-bound, bound, bias.shape)]


# ------------------------------------------------------------------------------------------------ what has no answer


def _truncation(x: Any, mean: Any, std: Any, a: Any, b: Any, seed: Any) -> list[bool]:
    """Return whether the values lie between the bounds, are distributed as they should be, and come again."""
    first, second = (
        nn.init.trunc_normal_(_tensor(x), mean, std, a, b, None if seed is None else generator(seed)) for _ in range(2)
    )
    values = np.sort(first.numpy().astype(np.float64).ravel())
    slack = 1e-6 * max(1, abs(a), abs(b))
    inside = bool(((values >= a - slack) & (values <= b + slack)).all())
    normal = NormalDist(mean, std)
    low, high = normal.cdf(a), normal.cdf(b)
    expected = np.array([0.5 if high == low else (normal.cdf(value) - low) / (high - low) for value in values])
    distance = np.abs(expected - (np.arange(values.size) + 0.5) / max(1, values.size)).max(initial=0)
    limit = 3 / math.sqrt(max(1, values.size)) + 1e-3
    again = bool((first.numpy() == second.numpy()).all())
    return [inside, bool(distance < limit), again == (seed is not None or values.size == 0)]


_truncation.about = nn.init.trunc_normal_  # type: ignore[attr-defined]


def _defaulted(weight: Any, bias: Any, seed: Any) -> Any:
    pair = _tensor(weight), _tensor(bias)
    nn.init.default_(*pair, None if seed is None else generator(seed))
    return list(pair)


_defaulted.about = nn.init.default_  # type: ignore[attr-defined]


def _drawn(x: Any, seed: Any) -> Any:
    """Fill from a generator that is set around the call; behind the block it is no longer drawn from."""
    given, tensor, behind = generator(seed) if seed is not None else None, _tensor(x), _tensor(x)
    with nn.init.drawn_from(copy.deepcopy(given)):
        nn.init.uniform_(tensor)
    nnet.manual_seed(1)
    return [tensor, nn.init.uniform_(behind)]


_drawn.about = nn.init.drawn_from  # type: ignore[attr-defined]


def _skipping(x: Any) -> Any:
    """Fill within a block that skips it, and behind the block."""
    left = _tensor(x)
    with nn.init.skipped():
        for fill in (nn.init.ones_, nn.init.uniform_, nn.init.trunc_normal_):
            fill(left)
    return [left, nn.init.ones_(_tensor(x))]


def lines() -> Iterator[Line]:
    """Yield the lines of numbanet.nn.init."""
    words = ("tensor", "generator", "array", "weight", "bias")
    options: dict[str, Any] = {"words": words, "tolerance": 1e-6}

    def line(name: str, draw: Callable[[Draw], Call], values: Callable[..., Any]) -> Line:
        return Line(f"nn.init.{name}", _filled(getattr(nn.init, name)), draw, _answer(values), **options)

    yield line("zeros_", lambda d: ((_any(d),), {}), lambda x: 0.0)
    yield line("ones_", lambda d: ((_any(d),), {}), lambda x: 1.0)
    yield line("constant_", lambda d: ((_any(d), d.pick(0, 3, d.number(-9, 9))), {}), lambda x, val: float(val))
    yield line("uniform_", _uniform, lambda x, a=0.0, b=1.0, *, seed: generator(seed).uniform(a, b, x.shape))
    yield line("normal_", _normal, lambda x, mean=0.0, std=1.0, *, seed: generator(seed).normal(mean, std, x.shape))
    yield line("xavier_uniform_", _xavier, _uniformly(lambda x, *args: math.sqrt(3) * _glorot(x, *args)))
    yield line("xavier_normal_", _xavier, _normally(_glorot))
    yield line("kaiming_uniform_", _kaiming, _uniformly(lambda x, *args: math.sqrt(3) * _he(x, *args)))
    yield line("kaiming_normal_", _kaiming, _normally(_he))
    yield line("dirac_", _dirac, _identity)
    yield line("eye_", _eye, lambda x: np.eye(*x.shape))
    yield line("sparse_", _sparse, _scattered)
    yield Line("nn.init.orthogonal_", _turned, _xavier, _unit, loose=True, words=words, tolerance=1e-5)
    yield Line("nn.init.trunc_normal_", _truncation, _truncated, lambda *a, **k: [True] * 3, loose=True, words=words)
    yield Line("nn.init.default_", _defaulted, _default, _defaults, **options)
    yield Line(
        "nn.init.drawn_from", _drawn, lambda d: ((_any(d),), _seed(d)),
        lambda x, seed: [generator(s).uniform(0, 1, x.shape) for s in (seed, None)], **options,
    )  # fmt: skip
    yield Line(
        "nn.init.skipped", _skipping, lambda d: ((_any(d),), {}), lambda x: [x, np.ones(x.shape)], **options
    )  # fmt: skip
    yield Line(
        "nn.init.fans", lambda x: [*nn.init.fans(_tensor(x))], lambda d: ((_weight(d),), {}), _fans, words=words
    )  # fmt: skip
    yield Line(
        "nn.init.calculate_gain", nn.init.calculate_gain,
        lambda d: ((d.pick("leaky_relu", *_GAINS), d.pick(None, 0, 1, d.number(-3, 3))), {}), _gain,
    )  # fmt: skip
