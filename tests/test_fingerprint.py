"""Functions that are compiled to different code have different hashes."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from numbanet import fingerprint
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


def test_what_is_known_is_known_by_its_place() -> None:
    space: dict[str, Any] = {"__name__": "queue"}
    exec(compile("def mine():\n    return 1", "queue.py", "exec"), space)
    assert not fingerprint.is_known(space["mine"])
    for function in (json.dumps, np.testing.assert_allclose, numba.njit, hash_of):
        assert fingerprint.is_known(function), function


def test_a_module_with_the_name_of_one_of_pythons_is_followed() -> None:
    hashes = []
    for number in (2, 3):
        space: dict[str, Any] = {"__name__": "cuda.mine", "K": number}
        exec(compile("def f(x):\n    return K * x", "cuda/mine.py", "exec"), space)
        hashes.append(hash_of(space["f"]))
    assert len(set(hashes)) == 2


# Overloads stay registered for as long as a process lives, so each case has a process of its own.
_OVERLOADS = """
import sys
import numba
from numba.core import types
from numba.extending import overload, overload_method
from numbanet.fingerprint import hash_of

def twice(x): return 2 * x
def thrice(x): return 3 * x
def helper(x): return x
exec(compile("def f(x):\\n    return x", "<prompt>", "exec"), mine := {"__name__": "__main__"})
for line in sys.argv[1:]:
    exec(compile(line, "<others>", "exec"), {**globals(), "__name__": "others"})
print(hash_of(mine["f"]))
"""
_TWICE = "overload(twice{})(lambda x: lambda x: {} * helper(x))"
_METHOD = "overload_method(types.Float, {!r})(lambda x: lambda x: {} * x)"


def overloaded(*lines: str) -> str:
    return subprocess.check_output([sys.executable, "-c", _OVERLOADS, *lines], text=True).strip()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], [_TWICE.format("", 2)]),
        ([_TWICE.format("", 2)], [_TWICE.format("", 3)]),
        ([_TWICE.format("", 2)], [_TWICE.format(", inline='always'", 2)]),
        ([_METHOD.format("a", 1), _METHOD.format("b", 2)], [_METHOD.format("a", 2), _METHOD.format("b", 1)]),
    ],
    ids=["added", "edited", "inlined", "names"],
)
def test_overloads_that_differ(one: list[str], other: list[str]) -> None:
    assert overloaded(*one) != overloaded(*other)


def test_the_order_of_overloads_means_nothing() -> None:
    lines = [_TWICE.format("", 2), _TWICE.format("", 2).replace("twice", "thrice")]
    assert overloaded(*lines) == overloaded(*reversed(lines))


def test_extensions_of_numba_are_loaded_before_they_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extension registers its overloads when Numba asks for it, not when it is imported."""
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[numba_extensions]\ninit = mine_extension:register\n")
    (tmp_path / "mine_names.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = []
    for factor in (2, 3):
        (tmp_path / "mine_extension.py").write_text(
            "import mine_names, numba\n\ndef register():\n"
            f"    numba.extending.overload(mine_names.twice)(lambda x: lambda x: {factor} * x)\n"
        )
        found.append(overloaded())
    assert len(set(found)) == 2
