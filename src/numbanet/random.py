"""Random numbers: a generator whose whole state is a seed and a counter, and the generator that layers use by default.

Nothing here touches NumPy's global state. Every draw takes the next number of the counter; what is drawn is a function
of the seed, that number and the element's index (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011), so it does not depend on the number of threads, and a saved state continues bit for bit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.locks import new_lock
from numbanet.problem.base import integer
from numbanet.watch import again, doubt, live

__all__ = ["Generator", "default_generator", "get_state", "initial_seed", "manual_seed", "numpy_generator", "set_state"]

_BITS = 64


class Generator:
    """A stream of random draws.

    Parameters
    ----------
    seed : int, optional
        Between -2**63 and 2**64 - 1; taken from the system's entropy if None.

    Raises
    ------
    TypeError, ValueError
        If `seed` is not an integer of that range.
    """

    def __init__(self, seed: int | None = None):
        self._lock = new_lock()
        self.manual_seed(secrets.randbits(_BITS) if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` at its beginning, and return the generator."""
        value = integer("seed", seed, limit=1 << _BITS)
        doubt("a random state was set")
        with self._lock:
            self._seed, self._count = value % (1 << _BITS), 0
        return self

    def initial_seed(self) -> int:
        """Return the seed of the stream."""
        return self._seed

    def draw(self) -> tuple[int, int]:
        """Return (seed, number) of the next draw, and count it; both below 2**64."""
        doubt("random numbers were drawn")
        return self._next()

    def _next(self) -> tuple[int, int]:
        with self._lock:
            number, self._count = self._count, self._count + 1
            return self._seed, number

    def key(self) -> np.ndarray:
        """Return the next draw (see `draw`) as two uint64 for kernels to read; a replay draws anew."""
        found = live(self._next(), np.uint64)
        again(_Draw(self, found))
        return found

    def numpy_generator(self) -> np.random.Generator:
        """Return a NumPy generator that is a function of the seed and of the next draw's number (see `draw`)."""
        return np.random.Generator(np.random.Philox(key=np.array(self.draw(), np.uint64)))

    def get_state(self) -> np.ndarray:
        """Return the state: the seed and the number of the next draw, two uint64."""
        with self._lock:
            return np.array([self._seed, self._count], np.uint64)

    def set_state(self, state: Any) -> None:
        """Continue from a state that `get_state` returned.

        Raises
        ------
        ValueError
            If `state` is not an array of two uint64.
        """
        array = np.asarray(state)
        if array.shape != (2,) or array.dtype != np.uint64:
            raise ValueError(f"state must be two uint64 numbers, got dtype {array.dtype} of shape {array.shape}")
        doubt("a random state was set")
        with self._lock:
            self._seed, self._count = (int(value) for value in array)

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, next draw={self._count})"


class _Draw:
    """A draw that a replay makes again, with the next number."""

    what = "random numbers were drawn"

    def __init__(self, generator: Generator, key: np.ndarray):
        self._generator, self._key = generator, key

    def go_on(self) -> bool:
        self._key[...] = self._generator._next()
        return True

    def save(self) -> Callable[[], None]:
        before = self._generator.get_state()
        return lambda: self._generator.set_state(before)

    def arrays(self) -> list[Any]:
        return []


default_generator = Generator()
"""What dropout and the initial values of layers draw from; seeded from the system's entropy at import."""


def manual_seed(seed: int) -> Generator:
    """Start the default generator's stream of `seed` at its beginning, and return that generator.

    Raises
    ------
    TypeError, ValueError
        If `seed` is not an integer between -2**63 and 2**64 - 1.
    """
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """Return the seed of the default generator."""
    return default_generator.initial_seed()


def numpy_generator() -> np.random.Generator:
    """Return a NumPy generator seeded by the default generator's next draw (for initial values and the like)."""
    return default_generator.numpy_generator()


def get_state() -> np.ndarray:
    """Return the default generator's state, two uint64: enough to continue a training run bit for bit."""
    return default_generator.get_state()


def set_state(state: Any) -> None:
    """Continue the default generator from a state that `get_state` returned; ValueError if it is none."""
    default_generator.set_state(state)
