"""The table of numbanet.random: generators, and the default one, whose state is put back after each case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import numbanet as nnet
from numbanet import random
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line


def _check(seed: Any, draws: Any) -> None:
    """Refuse what has no answer: a seed of the system's, and more draws than a case can wait for."""
    if seed is None or type(draws) is not int or not 0 <= draws < 100:
        raise ValueError(f"seed must be given, and draws be few, got {seed!r} and {draws!r}")


def _stream(method: str) -> Callable[..., Any]:
    """Return a function that calls a method of a Generator, behind so many draws."""

    def call(seed: Any, draws: Any, *args: Any) -> Any:
        _check(seed, draws)
        generator = nnet.random.Generator(seed)
        for _ in range(draws):
            generator.draw()
        found = getattr(generator, method)(*args)
        if isinstance(found, np.random.Generator):
            found = found.random(3)
        return [None if found is generator else found, *generator.get_state().tolist()]

    call.about = getattr(nnet.random.Generator, method)  # type: ignore[attr-defined]
    return call


def _default(method: str) -> Callable[..., Any]:
    """Return a function that does the same with the default generator, and puts its state back."""
    def call(seed: Any, draws: Any, *args: Any) -> Any:
        _check(seed, draws)
        before = random.get_state()
        try:
            random.manual_seed(seed)
            for _ in range(draws):
                random.default_generator.draw()
            found = getattr(random, method)(*args)
            if isinstance(found, np.random.Generator):
                found = found.random(3)
            return [None if found is random.default_generator else found, *random.get_state().tolist()]
        finally:
            random.set_state(before)

    call.about = getattr(random, method)  # type: ignore[attr-defined]
    return call


def _two(seed: int, draws: int) -> np.ndarray:
    return np.array([seed % 2**64, draws], np.uint64)


_STREAMS: dict[str, Callable[..., Any]] = {
    "get_state": lambda s, n: [_two(s, n), s % 2**64, n], "initial_seed": lambda s, n: [s % 2**64, s % 2**64, n],
    "manual_seed": lambda s, n, new: [None, new % 2**64, 0], "set_state": lambda s, n, new: [None, *new.tolist()],
    "numpy_generator": lambda s, n: [np.random.Generator(np.random.Philox(key=_two(s, n))).random(3), s % 2**64, n + 1],
    "draw": lambda s, n: [(s % 2**64, n), s % 2**64, n + 1], "key": lambda s, n: [_two(s, n), s % 2**64, n + 1],
}  # fmt: skip


def _stream_draw(method: str) -> Callable[[Draw], Call]:
    def draw(d: Draw) -> Call:
        def seed() -> int:
            return d.pick(0, 1, -1, -(2**63), 2**64 - 1, d.random.getrandbits(40))

        more = {"manual_seed": lambda: (seed(),), "set_state": lambda: (_two(seed(), d.integer(0, 9)),)}
        return (seed(), d.integer(0, 4), *more.get(method, lambda: ())()), {}

    return draw


def _made(seed: Any) -> Any:
    generator = nnet.random.Generator(seed)
    return [generator.initial_seed() if seed is not None else 0, *generator.draw()[seed is None :]]


_made.about = nnet.random.Generator  # type: ignore[attr-defined]


def lines() -> Iterator[Line]:
    """Yield the lines of numbanet.random."""
    words = ("seed", "state", "draws")
    for method, answer in _STREAMS.items():
        draw = _stream_draw(method)
        yield Line(f"random.Generator.{method}", _stream(method), draw, answer, words=words)
        if method not in ("draw", "key"):
            yield Line(f"random.{method}", _default(method), draw, answer, words=words)
    yield Line(
        "numbanet.manual_seed", _default("manual_seed"), _stream_draw("manual_seed"), _STREAMS["manual_seed"],
        words=words,
    )  # fmt: skip
    yield Line(
        "random.Generator", _made, lambda d: ((d.pick(None, d.integer(-(2**63), 2**64 - 1)),), {}),
        lambda seed: [0, 0] if seed is None else [seed % 2**64, seed % 2**64, 0],
    )  # fmt: skip


