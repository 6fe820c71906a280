"""What a training shows, on a terminal and elsewhere."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from numbanet.train.evaluate import Meter
from numbanet.train.history import EpochRecord
from numbanet.train.progress import clock, make_progress

RECORD = EpochRecord(3, 30, 0.1, 0.5, 0.75, 0.25, 0.9876, 65.0, 12345.6)


def test_one_line_an_epoch_off_a_terminal(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.fit(None, progress="auto")
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        pattern = r"epoch {}/3  loss [\d.]+  accuracy +[\d.]+%  test loss [\d.]+  accuracy +[\d.]+%  [\d,]+ images/s  "
        assert re.match(pattern.format(number), line)
    assert "left" in lines[0] and "left" not in lines[2]


def test_line_of_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    make_progress("lines", 12, 100, 0).epoch(RECORD)
    assert capsys.readouterr().out == (
        "epoch  3/12  loss 0.5000  accuracy  75.00%  test loss 0.2500  accuracy  98.76%  "
        "12,346 images/s  1:05, 9:45 left\n"
    )


def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = make_progress("auto", 4, 100, 200)
    meter = Meter()
    for _ in range(4):
        meter.add(25, 0.5, 20, 0.1)
        shown.batch(3, meter, 25)
    shown.testing(3, meter)
    shown.epoch(RECORD)
    shown._bar.refresh()
    shown.close()
    captured = capsys.readouterr()
    assert "75%" in captured.err and "images" in captured.err
    assert "epoch 3/4: testing" in captured.err
    assert "loss 0.5000, accuracy 80.00%" in captured.err
    assert "epoch 3/4  loss 0.5000" in captured.out


def test_bar_leaves_no_thread_behind() -> None:
    import threading

    before = set(threading.enumerate())
    shown = make_progress("bar", 1, 10, 0)
    shown.batch(1, Meter(), 10)
    shown.close()
    assert set(threading.enumerate()) == before


def test_off_is_silent(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.fit(None, epochs=1, progress="off")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.23, "4.2 s"), (60, "1:00"), (65.4, "1:05"), (3600, "1:00:00"), (7384, "2:03:04")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
