"""Functions that are compiled to different code have different hashes."""

from __future__ import annotations

import enum
from collections import namedtuple
from typing import Any

import pytest

from numbanet.fingerprint import hash_of


def hash_with(value: Any) -> str:
    """The hash of a function whose global name stands for a value."""
    space = {"__name__": "somewhere", "VALUE": value}
    exec("def function():\n    return VALUE", space)
    return hash_of(space["function"])


@pytest.mark.parametrize(
    ("one", "other"),
    [(enum.IntEnum("E", {"A": 1}), enum.IntEnum("E", {"A": 2})), (enum.Enum("E", "A B"), enum.Enum("E", "B A")),
     (enum.Enum("E", {"A": 1}).A, enum.Enum("E", {"A": 2}).A), (namedtuple("N", "a b"), namedtuple("N", "b a")),
     (namedtuple("N", "a b")(1, 2), namedtuple("N", "b a")(1, 2)), (1, 1.0), (0.0, -0.0), ((1, 2), (2, 1))],
    ids=str,
)  # fmt: skip
def test_values_that_differ(one: Any, other: Any) -> None:
    assert hash_with(one) != hash_with(other)
    assert hash_with(one) == hash_with(one)
