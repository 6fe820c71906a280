"""What a training shows, on a terminal and elsewhere."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
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
    assert ["left" in line for line in lines] == [False, True, False]  # the first epoch tells nothing of the others


def test_lines_of_epochs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1000.0, 1070.0])  # when the epochs end: the second took 70 s, its test included
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    shown = make_progress("lines", 12, 100, 0)
    shown.epoch(RECORD)
    shown.epoch(replace(RECORD, epoch=4))
    line = "epoch {:2}/12  loss 0.5000  accuracy  75.00%  test loss 0.2500  accuracy  98.76%  12,346 images/s  1:05{}\n"
    assert capsys.readouterr().out == line.format(3, "") + line.format(4, ", 9:20 left")


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


def test_the_estimate_of_a_bar_leaves_out_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [1000.0]
    monkeypatch.setattr(time, "time", lambda: moments[0])
    shown = make_progress("bar", 4, 100, 200)
    shown._bar._time, shown._bar.mininterval = time.time, 0
    shown._bar.start_t = shown._bar.last_print_t = moments[0]
    meter = Meter()
    for seconds in (60.0, 0.5, 0.5):  # compilation, and two batches of 50 images a second
        moments[0] += seconds
        shown.batch(3, meter, 25)
    found = shown._bar.format_dict
    assert (found["n"], found["elapsed"]) == (275, 61.0) and found["rate"] == pytest.approx(50)
    shown.close()


def test_a_note_stands_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for style in ("off", "lines", "bar"):
        shown = make_progress(style, 1, 10, 0)
        shown.batch(1, Meter(), 5)
        shown.note("listen")
        shown.close()
        captured = capsys.readouterr()
        assert "listen\n" in captured.err and re.search(r"(^|\r|\x1b\[A) *listen", captured.err), (style, captured.err)
        assert captured.out == ""


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
