"""The pages of measurements: what they show is what the parts' files say, and no part is measured twice."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from benchmarks import publish
from benchmarks.report import Row
from benchmarks.targets import reached, table

pytest.importorskip("matplotlib")


def _row(section, which="forward", ratio=2.0):
    return Row(
        section, "1x1 64-64 @56", which, 1, "cpu.direct", 1e-3, ratio * 1e-3, "nhwc", 1.0, 1e-6, 50.0, 5.0, 100.0, 20.0,
        False,
    )  # fmt: skip


def _write(path, rows, **more):
    machine = ["a machine", "its versions", "load"]
    path.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows], "means": [], **more}))


@pytest.fixture
def runs(monkeypatch):
    """The parts that were run; each writes a table with one row."""
    done = []

    def run(command, check):
        words = command[command.index("benchmarks.compare") + 1 :]
        name = next(name for name, part in publish.PARTS.items() if part.arguments.split() == words[:-4])
        done.append((name, int(words[-3])))
        path = publish.Path(words[-1])
        if name == "memory":
            entry = {"net": "resnet50", "batch": 4, "threads": 1, "before": 100.0, "peak": 150.0}
            _write(path, [], memory=[entry | {"backend": "numbanet"}, entry | {"backend": "torch:channels_last"}])
        else:
            _write(path, [_row(name)])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(publish.subprocess, "run", run)
    return done


def test_every_part_is_run_once_and_shown(tmp_path, runs):
    for _ in range(2):
        assert publish.main([str(tmp_path), "--parts", str(tmp_path / "parts")]) == 0
        assert sorted(set(runs)) == sorted(runs) and {name for name, _ in runs} == set(publish.PARTS)
    text = (tmp_path / "performance.md").read_text()
    for part in publish.PARTS.values():
        assert f"## {part.title}, 1 thread" in text
    assert "a machine: its versions" in text and "|   2.00 |" in text
    assert {path.name for path in tmp_path.iterdir()} >= {"performance.png", "roofline.png"}


def test_named_parts_are_run_anew(tmp_path, runs):
    arguments = [str(tmp_path), "--parts", str(tmp_path / "parts")]
    publish.main(arguments)
    before = len(runs)
    publish.main([*arguments, "--only", "odd"])
    assert {name for name, _ in runs[before:]} == {"odd"}


def test_a_failed_part_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(publish.subprocess, "run", lambda command, check: SimpleNamespace(returncode=1))
    with pytest.raises(RuntimeError, match=r"resnet50 with 1 threads failed: .*benchmarks\.compare"):
        publish.main([str(tmp_path), "--parts", str(tmp_path / "parts")])
    assert not (tmp_path / "performance.md").exists()


def test_targets_say_how_far_a_run_is():
    rows = [_row("odd", ratio=2.0), _row("odd", ratio=0.5), _row("training", "training", 1.0)]
    rows.append(replace(_row("training", "training", 1.6), name="resnet20 batch 128, captured", control=1.1))
    found = {target.name: (threads, ratio, count, noisy) for target, threads, ratio, count, noisy in reached(rows)}
    assert found == {
        "other layers: forward": (1, pytest.approx(1.0), 2, 0), "other layers: the lowest": (1, 0.5, 2, 0),
        "training step: ResNet-20, captured": (1, pytest.approx(1.6), 1, 1),
    }  # fmt: skip
    lines = list(table(rows))
    assert any("other layers: the lowest | 1 | 0.90 | 0.50 (missed by 44%) | 2 | 0 |" in line for line in lines)
    assert any("ResNet-20, captured | 1 | 1.60 | 1.60 | 1 | 1 |" in line for line in lines)
