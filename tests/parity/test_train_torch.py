"""``benchmarks.train_torch`` trains PyTorch's twin on the batches, and to the losses, of ``numbanet train``."""

import json

import pytest

pytest.importorskip("torch")

from benchmarks import train_torch
from numbanet.__main__ import main


def _log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_losses_equal(tmp_path):
    settings = ["--data", "digits", "--model", "digits", "--epochs", "2"]
    main(["train", *settings, "--out", str(tmp_path / "ours"), "--progress", "off"])
    train_torch.main([*settings, "--out", str(tmp_path / "torch")])
    ours, theirs = _log(tmp_path / "ours"), _log(tmp_path / "torch")
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=2e-3)
        assert mine["test_accuracy"] == pytest.approx(other["test_accuracy"], abs=0.02)


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    settings = ["--data", "digits", "--model", "digits", "--epochs", "2"]
    train_torch.main([*settings, "--out", str(tmp_path / "whole")])

    class Stop(Exception):
        pass

    save = train_torch.Training.save

    def save_and_stop(self, path):
        save(self, path)
        raise Stop

    monkeypatch.setattr(train_torch.Training, "save", save_and_stop)
    with pytest.raises(Stop):
        train_torch.main([*settings, "--out", str(tmp_path / "parts")])
    monkeypatch.setattr(train_torch.Training, "save", save)
    train_torch.main([*settings, "--out", str(tmp_path / "parts")])
    whole, parts = _log(tmp_path / "whole"), _log(tmp_path / "parts")
    assert [r["train_loss"] for r in parts] == [r["train_loss"] for r in whole]
