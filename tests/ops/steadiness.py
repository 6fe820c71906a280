"""Operands of calls that come again, and what two such calls must have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

RNG = np.random.default_rng(0)
CONV = ((1, 1), (1, 1), (1, 1), 1)


def matrix(rows: int = 8, columns: int = 8, dtype: Any = np.float32) -> np.ndarray:
    return RNG.standard_normal((rows, columns)).astype(dtype)


def images(channels: int = 8, size: int = 6) -> np.ndarray:
    return RNG.standard_normal((2, size, size, channels), dtype=np.float32).transpose(0, 3, 1, 2)


def weight(filters: int = 8, channels: int = 8) -> np.ndarray:
    return RNG.standard_normal((filters, 3, 3, channels), dtype=np.float32).transpose(0, 3, 1, 2)


def vector(size: int = 8) -> np.ndarray:
    return RNG.random(size, dtype=np.float32) + np.float32(0.5)


def labels(rows: int = 8, classes: int = 8) -> np.ndarray:
    return RNG.integers(0, classes, rows)


def copied(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.copy("K") if isinstance(x, np.ndarray) else x for x in args)


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert type(found) is tuple and len(found) == len(expected)
        for pair in zip(found, expected):
            same(*pair)
        return
    np.testing.assert_array_equal(found, expected)
    if not isinstance(expected, np.ndarray):
        return
    assert (type(found), found.dtype, found.strides) == (type(expected), expected.dtype, expected.strides)


def settle(function: Any, make: Callable[[], tuple[Any, ...]]) -> None:
    """Make calls until they are steady."""
    for _ in range(5):
        function(*make())
