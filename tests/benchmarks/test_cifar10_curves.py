"""Accuracy against seconds, from logs."""

from __future__ import annotations

import pytest

from benchmarks.cifar10_curves import draw, seconds, summary

LOGS = [
    [{"step": 48, "seconds": 90.0, "accuracy": 0.6, "tta_accuracy": 0.62},
     {"step": 96, "seconds": 180.0, "accuracy": a, "tta_accuracy": a + 0.01}]
    for a in (0.7, 0.72)
]  # fmt: skip


def test_summary_tells_the_last_epoch():
    text = summary(LOGS, None)
    assert "test accuracy: 71.00 +- 1.41 % (70.00, 72.00)" in text
    assert "with test-time augmentation: 72.00" in text
    assert "seconds of training: 180" in text


def test_measured_steps_stand_in_for_the_clock():
    assert seconds(LOGS[0], 2.0) == [96, 192]
    assert "seconds of training: 192" in summary(LOGS, 2.0)


def test_figure(tmp_path):
    pytest.importorskip("matplotlib")
    draw([LOGS[0], LOGS[1][:1]], tmp_path / "curves.png", None)
    assert (tmp_path / "curves.png").stat().st_size > 1000
