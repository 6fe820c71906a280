"""Records of epochs, in memory and in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from numbanet.train.history import EpochRecord, History


def record(epoch: int, test: float | None, train: float = 0.5) -> EpochRecord:
    return EpochRecord(epoch, epoch * 10, 0.1, 1 / 3, train, None if test is None else 0.1, test, 1.5, 100.0)


def test_round_trip_through_files(tmp_path: Path) -> None:
    history = History([record(1, 0.7), record(2, 0.9), record(3, 0.8)])
    history.write(tmp_path / "run")
    assert History.read(tmp_path / "run").to_list() == history.to_list()
    assert (tmp_path / "run" / "log.csv").read_text().splitlines()[0].startswith("epoch,step,lr,train_loss")


def test_best_is_the_earliest_of_equals() -> None:
    assert History().best is None
    best = History([record(1, 0.7), record(2, 0.9), record(3, 0.9)]).best
    assert best is not None and best.epoch == 2
    best = History([record(1, None, 0.6), record(2, None, 0.5)]).best
    assert best is not None and best.epoch == 1


def test_faulty_logs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl: no such file: .* is not the folder of a training"):
        History.read(tmp_path)
    History([record(1, 0.5)]).write(tmp_path)
    path = tmp_path / "log.jsonl"
    whole = path.read_text()
    for fault in ("{", '{"epoch": 2}\n', "[1]\n"):
        path.write_text(whole + fault)
        with pytest.raises(ValueError, match=r"log\.jsonl: line 2 is not a record of an epoch"):
            History.read(tmp_path)


def test_errors_name_the_argument() -> None:
    with pytest.raises(TypeError, match="rows must be dictionaries, got 7"):
        History.from_list(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a row must be a dictionary, got 7"):
        History.from_list([7])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="folder must be a path, got 7"):
        History().write(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="folder must be a path, got None"):
        History.read(None)  # type: ignore[arg-type]
