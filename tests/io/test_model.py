"""Models to files and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numbanet import io, nn


class Fake:
    """What load_model and save_model need of a Module."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"0.weight": np.arange(4.0), "1.running_mean": np.zeros(2)}
        self.strict: bool | None = None

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        self.state, self.strict = state, strict


@pytest.mark.parametrize("strict", [True, False])
def test_model_round_trip(tmp_path: Path, strict: bool) -> None:
    saved, loaded = Fake(), Fake()
    saved.state["0.weight"] += 1
    io.save_model(saved, tmp_path / "m")
    io.load_model(loaded, tmp_path / "m", strict=strict)
    assert loaded.strict is strict
    assert loaded.state.keys() == saved.state.keys()
    np.testing.assert_array_equal(loaded.state["0.weight"], np.arange(1.0, 5.0))


def test_model_of_a_training_checkpoint(tmp_path: Path) -> None:
    model = Fake()
    io.save_state(tmp_path / "c", {"model": {"0.weight": np.full(3, 7.0)}, "epoch": 3})
    io.load_model(model, tmp_path / "c")
    assert list(model.state) == ["0.weight"]
    np.testing.assert_array_equal(model.state["0.weight"], np.full(3, 7.0))


def test_what_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be a Module, got int"):
        io.save_model(5, tmp_path / "a")
    io.save(tmp_path / "a", {})
    with pytest.raises(TypeError, match="model must be a Module, got int"):
        io.load_model(5, tmp_path / "a")


def test_a_remedy_says_where_the_state_comes_from(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    longer = {f"module.{name}": value for name, value in model.state_dict().items()}
    io.save(tmp_path / "tensors", longer)
    io.save_state(tmp_path / "state", {"model": longer})
    for name, reader in (("tensors", "numbanet.io.load('{}')"), ("state", "numbanet.io.load_state('{}')['model']")):
        path = str(tmp_path / name)
        with pytest.raises(RuntimeError, match="the names begin with 'module.'") as caught:
            io.load_model(model, path)
        assert f"\n  with state_dict = {reader.format(path)}" in str(caught.value)
    with pytest.raises(ValueError, match="holds tensors only, and no state: numbanet.io.load reads it"):
        io.load_state(tmp_path / "tensors")
    io.save_state(tmp_path / "other", {"epoch": 3})
    with pytest.raises(ValueError, match="holds no state_dict under 'model': numbanet.io.load_state reads it"):
        io.load_model(model, tmp_path / "other")
