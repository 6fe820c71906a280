"""Plots of a training's curves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from numbanet import viz
from numbanet.train.history import EpochRecord, History

matplotlib = pytest.importorskip("matplotlib")


def history(tested: bool = True) -> History:
    return History([
        EpochRecord(n, 10 * n, 0.1, 1 / n, 1 - 0.5 / n, *((1.1 / n, 1 - 0.6 / n) if tested else (None, None)), 1.0, 1.0)
        for n in range(1, 5)
    ])  # fmt: skip


def test_the_curves_are_those_of_the_history(tmp_path: Path) -> None:
    figure = viz.plot_history(history(), tmp_path / "curves.png", "a title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    losses, accuracies = figure.axes
    assert [line.get_label() for line in losses.lines] == ["train", "test"]
    assert list(losses.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(losses.lines[1].get_ydata()) == [1.1 / n for n in range(1, 5)]
    assert list(accuracies.lines[1].get_ydata()) == [100 * (1 - 0.6 / n) for n in range(1, 5)]
    assert accuracies.get_title() == "test accuracy after epoch 4: 85.00%"
    assert figure.get_suptitle() == "a title"


def test_a_folder_and_no_test_set(tmp_path: Path) -> None:
    history(tested=False).write(tmp_path)
    figure = viz.plot_history(tmp_path)
    assert [line.get_label() for line in figure.axes[0].lines] == ["train"]
    assert figure.axes[1].get_title() == ""


def test_faulty_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl"):
        viz.plot_history(tmp_path)
    with pytest.raises(ValueError, match="no epoch"):
        viz.plot_history(History())
    with pytest.raises(ValueError, match="xyz"):
        viz.plot_history(history(), tmp_path / "curves.xyz")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "numbanet\[viz\]"'):
        viz.plot_history(history())


def test_paths_are_named_in_errors() -> None:
    with pytest.raises(TypeError, match="path must be a path, got 5"):
        viz.plot_history(history(), 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="history must be a path, got 5"):
        viz.plot_history(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="title must be a string, got 5"):
        viz.plot_history(history(), title=5)  # type: ignore[arg-type]


def test_an_unknown_ending_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path '.*curves.mean' can't be drawn to: Format 'mean' is not supported"):
        viz.plot_history(history(), tmp_path / "curves.mean")
