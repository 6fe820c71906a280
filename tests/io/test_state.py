"""Nested states come back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import io


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_nested_state_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    generator = np.random.default_rng(3)
    state: dict[str, Any] = {
        "state": {0: {"step": 3, "exp_avg": rng.standard_normal((2, 3))}, 7: {"step": 4, "exp_avg": np.zeros(())}},
        "param_groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "params": [0, 7], "nesterov": False, "max": None}],
        "generator": generator.bit_generator.state,
        "tiny": 5e-324,
        "infinite": float("inf"),
        "a.b": np.arange(3),
        "a": {"b": np.arange(4)},
        "$tensor": "a key that looks like a mark",
        "empty": {},
    }
    io.save_state(tmp_path / "s", state)
    assert same(io.load_state(tmp_path / "s"), state)


def test_tensors_and_numpy_numbers_become_plain(tmp_path: Path) -> None:
    io.save_state(tmp_path / "s", {"t": nnet.tensor([1.0]), "n": np.float64(0.1), "i": np.int64(3)})
    loaded = io.load_state(tmp_path / "s")
    assert same(loaded, {"t": np.array([1], np.float32), "n": 0.1, "i": 3})


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state: optimizer\.groups\.0 is of type object"):
        io.save_state(tmp_path / "s", {"optimizer": {"groups": [object()]}})


def test_a_plain_file_is_not_a_state(tmp_path: Path) -> None:
    io.save(tmp_path / "s", {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="s: holds tensors only"):
        io.load_state(tmp_path / "s")


def test_keys_may_be_tuples_of_numbers_and_words(tmp_path: Path) -> None:
    state = {(1, "a"): {(None, (2.5,)): 3}, "b": {True: (1, 2)}}
    io.save_state(tmp_path / "state", state)
    assert same(io.load_state(tmp_path / "state"), state)


@pytest.mark.parametrize("key", [b"x", frozenset(), object, (1, b"x")])
def test_other_keys_are_refused_when_they_are_saved(tmp_path: Path, key: Any) -> None:
    with pytest.raises(TypeError, match="state: inner has a key of type .*, which can't be saved"):
        io.save_state(tmp_path / "state", {"inner": {key: 1}})
    assert not list(tmp_path.iterdir())


def test_a_state_is_a_dictionary(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="state must be a dict, got list"):
        io.save_state(tmp_path / "state", [1])  # type: ignore[arg-type]
