"""The pages of measurements: what they show is what the parts' files say, and no part is measured twice."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import backends, compare, layers, overhead, parts, publish, readme, report
from benchmarks.parts import PARTS, Part
from benchmarks.report import Row
from benchmarks.targets import reached, table

pytest.importorskip("matplotlib")


def _row(section, which="forward", ratio=2.0, threads=1, name="1x1 64-64 @56"):
    return Row(
        section, name, which, threads, "cpu.direct", 1e-3, ratio * 1e-3, "nhwc", 1.0, 1e-6, 50.0, 5.0, 100.0, 20.0,
        False,
    )  # fmt: skip


def _write(path, rows, machine="a machine, avx2", **more):
    run = {"commit": "c0ffee", "date": "2026-01-02 03:04", "seconds": 61.5}
    lines = [machine, "its versions", "load"]
    path.write_text(
        json.dumps({"machine": lines, "run": run, "rows": [asdict(row) for row in rows], "means": [], **more})
    )


@pytest.fixture
def runs(monkeypatch):
    """The parts that were run; each writes a table with one row."""
    done = []

    def run(command, check, cwd, env):
        words = command[command.index("benchmarks.compare") + 1 :]
        name = next(name for name, part in PARTS.items() if part.arguments.split() == words[:-4])
        threads, path = int(words[-3]), Path(words[-1])
        assert path.is_absolute() and (cwd / "benchmarks").is_dir() and env["OPENBLAS_NUM_THREADS"] == words[-3]
        done.append((name, threads))
        if name == "memory":
            entry = {"net": "resnet50", "batch": 4, "threads": threads, "before": 100.0, "peak": 150.0}
            _write(path, [], memory=[entry | {"backend": "numbanet"}, entry | {"backend": "torch:channels_last"}])
        elif name == "overhead":
            call = overhead.Overhead("ReLU", "tape", 9.0, 1.5, 0.5, 2, 12.0, 6.0)
            _write(path, [], overhead=[asdict(call) | {"threads": threads}])
        else:
            _write(path, [_row(name, threads=threads)])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(parts.subprocess, "run", run)
    return done


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take seconds, and are looked at elsewhere."""
    for name in ("draw", "draw_roofline"):
        monkeypatch.setattr(publish.plot, name, lambda *given: None)


def test_every_part_is_run_once_and_shown(tmp_path, runs, capsys):
    for _ in range(2):
        assert publish.main([str(tmp_path), "--parts", str(tmp_path / "parts"), "--threads", "1", "2"]) == 0
        assert sorted(set(runs)) == sorted(runs) == sorted((name, t) for name in PARTS for t in (1, 2))
    text = (tmp_path / "performance.md").read_text()
    for name, part in PARTS.items():
        assert f"## {part.title}, 1 thread\n" in text and f"## {part.title}, 2 threads\n" in text
        assert f"| {name} | 2 | c0ffee | 2026-01-02 03:04 | 62 s |" in text
    assert "a machine, avx2: its versions" in text and "|   2.00 |" in text and "|  11.0! |" in text
    assert {path.name for path in tmp_path.iterdir()} >= {"performance.png", "roofline.png"}
    printed = capsys.readouterr().out
    assert "| odd | 1 | c0ffee |" in printed and f"\n{61.5 * 2 * len(PARTS) / 60:.0f} minutes in all\n" in printed
    assert "again" not in printed and "missing" not in printed


def test_named_parts_are_run_anew(tmp_path, runs, undrawn):
    arguments = [str(tmp_path), "--parts", str(tmp_path / "parts"), "--threads", "1", "2"]
    publish.main(arguments)
    before = len(runs)
    publish.main([*arguments, "--only", "odd"])
    publish.main([*arguments[:3], "--only", "cifar", "single", "--threads", "2"])
    assert runs[before:] == [("odd", 1), ("odd", 2), ("cifar", 2), ("single", 2)]
    publish.main([*arguments, "--only"])
    assert len(runs) == before + 4


def test_what_was_disturbed_or_is_missing_is_printed_as_a_command(tmp_path, undrawn, capsys):
    folder = tmp_path / "parts"
    folder.mkdir()
    _write(folder / "odd-2.json", [replace(_row("odd", threads=2), control=1.2)])
    publish.main([str(tmp_path), "--parts", str(folder), "--only"])
    printed = capsys.readouterr().out
    command = f"python -m benchmarks.publish {tmp_path} --parts {folder} --only"
    assert f"disturbed; again: {command} odd --threads 2\n" in printed
    assert f"missing: {command} cifar\n" in printed and f"missing: {command} odd\n" not in printed
    assert "| odd | 2 | c0ffee | 2026-01-02 03:04 | 62 s | 1 of 1 |" in (tmp_path / "performance.md").read_text()


def test_a_failed_part_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(parts.subprocess, "run", lambda command, **options: SimpleNamespace(returncode=1))
    with pytest.raises(RuntimeError, match=r"resnet50 with 1 threads failed: .*benchmarks\.compare"):
        publish.main([str(tmp_path), "--parts", str(tmp_path / "parts")])
    assert not (tmp_path / "performance.md").exists()


def test_an_interrupted_part_leaves_the_former_one(tmp_path, runs, undrawn, monkeypatch):
    arguments = [str(tmp_path), "--parts", str(tmp_path), "--threads", "1"]
    publish.main(arguments)
    former = (tmp_path / "odd-1.json").read_text()

    def interrupted(command, **options):
        Path(command[-1]).write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish.main([*arguments, "--only", "odd"])
    assert (tmp_path / "odd-1.json").read_text() == former
    publish.main([*arguments, "--only"])


def test_parts_of_several_machines_make_no_page(tmp_path):
    _write(tmp_path / "odd-1.json", [_row("odd")])
    _write(tmp_path / "cifar-1.json", [_row("cifar")], machine="another machine")
    with pytest.raises(ValueError, match=r"several machines: another machine \(cifar\); a machine, avx2 \(odd\)"):
        publish.main([str(tmp_path), "--parts", str(tmp_path), "--only"])
    with pytest.raises(ValueError, match="no part was measured"):
        publish.main([str(tmp_path), "--parts", str(tmp_path / "empty"), "--only"])


def test_a_tiny_part_from_the_run_to_the_page(tmp_path, monkeypatch):
    """What the comparison writes, the page shows: with the commit, the date, the machine's vectors."""
    from numbanet.cpu.isa import host_isa

    monkeypatch.setattr(backends, "available", lambda name: name in ("numbanet", "matplotlib"))
    monkeypatch.setattr(layers, "TABLES", {"cifar": (layers.conv(32, 32, 8, 3, n=2), layers.conv(8, 16, 8, 1, n=2))})
    monkeypatch.setattr(overhead, "LAYERS", {"ReLU": overhead.LAYERS["ReLU"]})
    tiny = {"cifar": Part("Tiny layers", "--table cifar --seconds 0 --rounds 1"),
            "overhead": Part("Tiny calls", "--sections overhead --rounds 1")}  # fmt: skip
    for module in (parts, publish):
        monkeypatch.setattr(module, "PARTS", tiny)
    monkeypatch.setattr(
        parts.subprocess, "run", lambda command, **options: SimpleNamespace(returncode=compare.main(command[3:]))
    )
    monkeypatch.setattr(report, "commit", lambda: "c0ffee+")
    monkeypatch.setattr(publish.plot, "draw", lambda *given: None)  # there is no ratio to draw
    publish.main([str(tmp_path), "--parts", str(tmp_path), "--threads", "1"])
    text = (tmp_path / "performance.md").read_text()
    assert f", {host_isa().name}, " in text and "| cifar | 1 | c0ffee+ | 20" in text
    assert "| 3x3 32-32 @8 " in text and "| ReLU              | backward |" in text
    (found, calls) = parts.found(tmp_path)
    assert found.seconds > 0 and len(found.rows) == 6 and math.isnan(found.rows[0].ratio)
    assert [call.mode for call in calls.overhead] == list(overhead.MODES)


def test_the_commit_is_named():
    name = report.commit()
    assert name == "unknown" or len(name.rstrip("+")) >= 4 and int(name.rstrip("+"), 16) >= 0


def test_files_of_before_are_read(tmp_path, undrawn):
    _write(tmp_path / "odd-1.json", [_row("odd")])
    content = json.loads((tmp_path / "odd-1.json").read_text())
    del content["run"]
    (tmp_path / "odd-1.json").write_text(json.dumps(content))
    publish.main([str(tmp_path), "--parts", str(tmp_path), "--only"])
    assert "| odd | 1 |  |  |  | 0 of 1 |" in (tmp_path / "performance.md").read_text()


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


def test_tables_of_the_readme(tmp_path, capsys):
    for threads, ratio in ((1, 1.5), (2, 1.25)):
        rows = [_row("cifar", "backward_weight", ratio, threads), _row("cifar", "forward", ratio + 1, threads)]
        _write(tmp_path / f"cifar-{threads}.json", rows)
        rows = [
            _row("training", "training", ratio, threads, f"vgg16 batch 4{end}") for end in ("", ", captured")
        ]
        _write(tmp_path / f"training-{threads}.json", rows)
    _write(tmp_path / "inference-1.json", [_row("inference", ratio=3.0, name="vgg16 batch 16")])
    readme.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "| layers | pass | 1 thread | 2 threads |",
        "|---|---|---|---|",
        "| CIFAR networks | forward | 2.50 (1.00) | 2.25 (1.00) |",
        "| | backward_weight | 1.50 (1.00) | 1.25 (1.00) |",
        "",
        "| network | | 1 thread | 2 threads |",
        "|---|---|---|---|",
        "| VGG-16 | training step, captured | 1.50 (1.00) | 1.25 (1.00) |",
        "| | inference, batch 16 | 3.00 (1.00) | |",
    ]
