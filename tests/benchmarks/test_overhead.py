"""That the time of a layer's call is cut where its kernels begin and end."""

from __future__ import annotations

import time

import pytest

from benchmarks import backends, compare, overhead, report
from numbanet.cpu import parallel


def test_time_is_cut_at_the_kernels(monkeypatch):
    """Of a call that waits before, between, in and behind two kernels."""
    parallel.prepare()
    marks: list[int] = []
    monkeypatch.setattr(parallel._state, "alone", lambda *call: time.sleep(0.02))

    def call() -> None:
        for pause in (0.004, 0.008):
            time.sleep(pause)
            parallel.start((0, 0, 0, 0, 0, 1, 0))
        time.sleep(0.001)

    before, between, after, launches = overhead._parts(lambda: None, call, 3)
    assert launches == 2
    assert 4e6 <= before < 8e6 <= between < 19e6 and 1e6 <= after < 19e6
    assert parallel._state.alone() is None and not marks  # what was there is back


@pytest.mark.parametrize("mode", overhead.MODES)
@pytest.mark.parametrize("layer", overhead.LAYERS)
def test_every_layer_is_measured(layer, mode):
    found = overhead.measure(layer, mode, rounds=1, calls=3, beside="")
    assert found.entry > 0 and found.after >= 0 and found.call > 0
    assert found.torch is None
    assert (found.launches > 0) is (layer != "Flatten" and (layer, mode) != ("Add", "backward"))


def test_lines_line_up_and_mark_what_takes_too_long():
    found = overhead.Overhead("ReLU", "tape", 9.0, 1.5, 0.5, 2, 12.0, 6.0)
    assert found.entry == 10.5
    text = overhead.line(found)
    assert "11.0!" in text and "0.50" in text
    assert {len(line) for line in report.header(overhead.TITLES).split("\n")} == {len(text)}
    assert "!" not in overhead.line(overhead.Overhead("ReLU", "backward", 9.0, 1.5, 0.5, 2, 12.0, None))


def test_comparison_has_the_section(monkeypatch, capsys):
    monkeypatch.setattr(backends, "available", lambda name: name == "numbanet")
    monkeypatch.setattr(overhead, "LAYERS", {"ReLU": overhead.LAYERS["ReLU"]})
    assert compare.main(["--sections", "overhead", "--threads", "1", "--rounds", "1"]) == 0
    assert "| ReLU              | backward |" in capsys.readouterr().out
