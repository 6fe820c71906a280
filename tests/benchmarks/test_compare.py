"""The statistics of the comparison, and that it notices noise and wrong results."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from benchmarks import backends, cases, compare, engines, layers, memory, plot, report, steps, timing, winograd_error
from benchmarks.report import Row


def _row(**changes: object) -> Row:
    fields: dict[str, object] = {
        "section": "resnet50", "name": "1x1 64-64 @56", "which": "forward", "threads": 1, "kernel": "cpu.direct",
        "seconds": 1e-3, "torch_seconds": 2e-3, "torch_format": "nhwc", "control": 1.0, "error": 1e-6, "gflops": 50.0,
        "gbytes": 5.0, "peak_gflops": 100.0, "peak_gbytes": 20.0, "wide3x3": False,
    }  # fmt: skip
    return Row(**(fields | changes))


def test_geometric_mean():
    assert timing.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert timing.geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(timing.geometric_mean([]))
    with pytest.raises(ValueError):
        timing.geometric_mean([1.0, -1.0])


def test_sample_times_one_call():
    assert 1e-3 <= timing.sample(lambda: time.sleep(1e-3)) < 0.1
    assert timing.sample(lambda: None) < 1e-4


def test_interleave_is_fair():
    calls: list[str] = []
    names = ("a", "b", "c")
    samples = timing.interleave({name: lambda name=name: calls.append(name) for name in names}, seconds=0, rounds=4)
    assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4, "c": 4}
    order = [name for name, before in zip(calls, [None, *calls]) if name != before]
    assert len({tuple(order[j : j + 3]) for j in range(0, 12, 3)}) > 1  # the order changes from round to round


def test_interleave_goes_on_while_unsteady():
    asked = []

    def steady(samples):
        asked.append(len(samples["a"]))
        return len(samples["a"]) >= 4

    assert len(timing.interleave({"a": lambda: None}, seconds=0.05, rounds=1, steady=steady)["a"]) >= 4
    assert asked == sorted(asked)
    # ... but not for ever.
    start = time.perf_counter()
    timing.interleave({"a": lambda: None}, seconds=0.05, rounds=1, steady=lambda samples: False)
    assert time.perf_counter() - start < 5


def test_row_ratio_and_noise():
    assert _row().ratio == 2.0
    assert not _row(control=1.02).noisy
    assert _row(control=0.9).noisy
    assert "2.00" in report.row_line(_row())
    assert "50%" in report.row_line(_row())
    assert "~" in report.row_line(_row(control=1.2))


def test_rows_without_torch_have_blanks():
    row = _row(torch_seconds=math.nan, control=math.nan, error=math.nan, torch_format="")
    assert "nan" not in report.row_line(row)
    assert report.means([row]) == []
    assert "not installed" in report.verdict([row])


def test_memory_bound_rows_show_bandwidth():
    assert "5.0 GB/s" in report.row_line(_row(gflops=math.nan))
    assert "25%" in report.row_line(_row(gflops=math.nan))


def test_means_group_and_split():
    rows = [
        _row(torch_seconds=2e-3, wide3x3=True),
        _row(torch_seconds=8e-3, wide3x3=True),
        _row(torch_seconds=5e-4),
        _row(torch_seconds=3e-3, threads=2),
    ]
    one, two = report.means(rows)
    assert (one.threads, two.threads) == (1, 2)
    assert one.wide3x3 == pytest.approx(4.0)
    assert one.others == one.lowest == pytest.approx(0.5)
    assert one.ratio == pytest.approx(2.0)
    assert two.ratio == pytest.approx(3.0) and math.isnan(two.wide3x3)
    assert "nan" not in report.mean_line(two)


def test_verdict_marks_noise():
    assert not report.verdict([_row()] * 3).startswith("NOISE")
    assert report.verdict([_row(control=1.2)] * 3).startswith("NOISE")
    # One quiet section does not hide a noisy one.
    assert report.verdict([_row()] * 20 + [_row(section="cifar", control=1.1)]).startswith("NOISE")


def test_tables_line_up():
    lines = [*report.header(report.ROW_TITLES).split("\n"), report.row_line(_row())]
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1


def test_difference():
    a = np.array([1.0, -4.0])
    assert compare.difference(a, a) == 0
    assert compare.difference(a + [0, 0.4], a) == pytest.approx(0.1)
    assert compare.difference(a, a[:1]) == math.inf
    assert compare.difference(np.array([1.0, np.nan]), a) == math.inf


def test_wrong_result_is_not_timed(monkeypatch):
    monkeypatch.setattr(backends, "available", lambda name: True)
    values = {"numbanet": 1.0, "torch": 1.1, "torch:channels_last": 1.1}
    case = cases.Case("s", "n", "forward", build=lambda backend: lambda: np.array(values[backend]))
    with pytest.raises(compare.WrongResult, match="differ by 9.1e-02"):
        compare.measure(case, seconds=0, rounds=1)


def test_measure_takes_torch_in_its_better_format(monkeypatch):
    calls = {name: lambda: np.zeros(1) for name in backends.BACKENDS}
    seconds = dict(zip(calls.values(), (1.0, 4.0, 2.0)))
    monkeypatch.setattr(backends, "available", lambda name: True)
    monkeypatch.setattr(timing, "sample", seconds.__getitem__)
    timed = compare.measure(cases.Case("s", "n", "forward", calls.__getitem__), seconds=0, rounds=3)
    assert timed.fields() == {
        "seconds": 1.0, "torch_seconds": 2.0, "torch_format": "nhwc", "control": 1.0, "error": 0.0
    }  # fmt: skip


@pytest.mark.parametrize(
    "ours, theirs, control, steady",
    [
        ([1.0, 1.01], [3.0, 3.01], [3.02, 4.0], True),
        ([1.0, 1.5, 1.02], [9.0, 3.0, 3.01], [3.0, 9.0, 9.0], True),
        ([1.0, 1.5], [3.0, 3.01], [3.0, 3.0], False),  # which of them is ours?
        ([1.0, 1.0], [3.0, 4.0], [3.0, 3.0], False),
        ([1.0, 1.0], [3.0, 3.0], [3.2, 3.2], False),
        ([1.0], [3.0], [3.0], False),
    ],
)
def test_best_times_come_again(ours, theirs, control, steady):
    assert compare._steady("torch", ["torch"], {"numbanet": ours, "torch": theirs, "control": control}) is steady


def test_control_is_a_second_measurement(monkeypatch):
    samples = {
        "numbanet": [2.0, 1.0], "again": [1.5, 1.2], "control": [4.0, 3.3],
        "torch": [3.0, 3.0], "torch:channels_last": [9.0, 9.0],
    }  # fmt: skip
    monkeypatch.setattr(backends, "available", lambda name: True)
    monkeypatch.setattr(timing, "sample", lambda call: 1.0)
    monkeypatch.setattr(timing, "interleave", lambda calls, seconds, rounds, steady: samples)
    case = cases.Case("s", "n", "forward", lambda name: lambda: np.zeros(1))
    timed = compare.measure(case, seconds=0, rounds=2).fields()
    assert timed["control"] == pytest.approx(1.1)
    assert (timed["seconds"], timed["torch_seconds"], timed["torch_format"]) == (1.0, 3.0, "nchw")


def test_best_times_of_two_measurements_count(monkeypatch):
    case = cases.Case("s", "n", "forward", lambda name: lambda: np.zeros(1))
    found = [
        {"numbanet": [2.0], "again": [2.2], "torch": [3.0], "torch:channels_last": [9.0], "control": [4.0]},
        {"numbanet": [2.5], "again": [2.4], "torch": [3.5], "torch:channels_last": [2.9], "control": [3.0]},
    ]
    monkeypatch.setattr(backends, "available", lambda name: True)
    monkeypatch.setattr(timing, "sample", lambda call: 1.0)
    monkeypatch.setattr(timing, "interleave", lambda calls, seconds, rounds, steady: found.pop(0))
    before = compare.measure(case, seconds=0, rounds=1)
    assert before.fields()["control"] == pytest.approx(4 / 3)
    timed = compare.measure(case, 0, 1, before).fields()
    assert (timed["seconds"], timed["torch_seconds"], timed["torch_format"], timed["control"]) == (2.0, 2.9, "nhwc", 1)


def test_the_better_of_two_measurements_counts_on_both_sides():
    times = {"numbanet": 2.0, "again": 1.5, "torch": 3.0, "torch:channels_last": 2.8, "control": 2.4}
    found = compare.Best(times, "torch", 0.0).fields()
    assert (found["seconds"], found["torch_seconds"], found["torch_format"]) == (1.5, 2.4, "nchw")
    assert found["control"] == pytest.approx(0.8)


def test_rows_are_timed_again_and_disturbed_ones_once_more(monkeypatch, capsys):
    chosen = [cases.Case("s", name, "forward", build=lambda backend: lambda: np.zeros(1)) for name in "abc"]
    controls = {"a": [1.0, 1.0], "b": [1.0, 1.1, 1.1], "c": [0.9, 1.01]}

    def measure(case, seconds, rounds, before=None):
        assert (before is None) == (case.name not in timed)
        timed.append(case.name)
        times = {"numbanet": 1.0, "again": 1.1, "torch": 2.0, "control": 2 * controls[case.name].pop(0)}
        return compare.Best(times, "torch", 0.0)

    timed: list[str] = []
    monkeypatch.setattr(compare, "measure", measure)
    monkeypatch.setattr(compare, "choose_cases", lambda options: chosen)
    monkeypatch.setattr(compare.peak, "flops_per_second", lambda: 1e9)
    monkeypatch.setattr(compare.peak, "bytes_per_second", lambda: 1e9)
    rows, failures = compare.run(compare.parse(["--threads", "1", "--again", "2"]), time.perf_counter())
    assert timed == ["a", "b", "c", "a", "b", "c", "b"] and failures == 0
    assert [(row.name, row.control) for row in rows] == [("a", 1.0), ("b", 1.1), ("c", 1.01)]
    assert capsys.readouterr().out.count("again") == 2


def test_measure_without_torch(monkeypatch):
    monkeypatch.setattr(backends, "available", lambda name: name == "numbanet")
    case = cases.Case("s", "n", "forward", build=lambda backend: lambda: np.zeros(1))
    timed = compare.measure(case, seconds=0, rounds=1).fields()
    assert timed["seconds"] > 0
    assert math.isnan(timed["torch_seconds"])


@pytest.mark.parametrize("which", layers.PASSES)
def test_convolution_case_runs_the_pass(which, monkeypatch):
    layer = layers.conv(3, 5, 6, 3, stride=2)
    result = backends.to_numpy(cases.conv_call(layer, which, "numbanet")())
    assert result.shape == {
        "forward": layer.y_shape, "backward_input": layer.x_shape, "backward_weight": layer.weight_shape
    }[which]  # fmt: skip
    assert cases.conv_kernel(layer, which).startswith("cpu.")


def test_wide3x3_is_winograds_home():
    assert cases.is_wide3x3(layers.conv(32, 64, 14, 3))
    for other in (
        layers.conv(16, 64, 14, 3), layers.conv(32, 64, 14, 3, stride=2), layers.conv(64, 64, 14, 3, groups=64),
        layers.conv(64, 64, 14, 3, dilation=2), layers.conv(64, 64, 14, 5),
    ):  # fmt: skip
        assert not cases.is_wide3x3(other)


def test_command_line_refuses_unknown_words(capsys):
    with pytest.raises(SystemExit):
        compare.parse(["--table", "resnet51"])
    assert "unknown table 'resnet51'; known: resnet50" in capsys.readouterr().err


def test_plot_without_torch_is_refused_before_the_run(monkeypatch, capsys):
    monkeypatch.setattr(backends, "available", lambda name: name != "torch")
    with pytest.raises(SystemExit):
        compare.parse(["--plot", "table.png"])
    assert "needs PyTorch" in capsys.readouterr().err


def test_run_without_torch(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(backends, "available", lambda name: name == "numbanet")
    monkeypatch.setattr(layers, "TABLES", {"cifar": (layers.conv(3, 16, 8, 3, n=8),)})
    target = tmp_path / "table.json"
    command = ["--sections", "layers", "--table", "cifar", "--threads", "1", "--seconds", "0", "--rounds", "1"]
    assert compare.main([*command, "--json", str(target)]) == 0
    assert "not installed" in capsys.readouterr().out
    rows = json.loads(target.read_text(), parse_constant=pytest.fail)["rows"]  # NaN is not JSON
    assert {row["ratio"] for row in rows} == {None}
    assert [row["which"] for row in rows] == list(layers.PASSES)
    assert all(row["seconds"] > 0 and row["peak_gflops"] > 0 for row in rows)


def test_case_without_a_kernel_fails_the_run(monkeypatch, capsys):
    case = cases.Case("s", "n", "forward", str, kernel=lambda: "reference")
    monkeypatch.setattr(compare, "choose_cases", lambda options: [case])
    assert compare.main(["--threads", "1"]) == 1
    assert "only the reference" in capsys.readouterr().out


def test_time_limit_leaves_rows_out(monkeypatch, capsys):
    monkeypatch.setattr(compare, "choose_cases", lambda options: [cases.Case("s", "n", "forward", str)] * 7)
    assert compare.main(["--threads", "1", "--limit", "0"]) == 0
    assert "7 rows left out" in capsys.readouterr().out


def test_quick_run_is_small():
    full, quick = compare.parse([]), compare.parse(["--quick"])
    assert quick.limit < 60 and math.isinf(full.limit)
    assert len(quick.threads) == 1
    assert {case.section for case in compare.choose_cases(quick)} >= {"resnet50", "cifar", "training", "inference"}
    assert compare.parse(["--quick", "--table", "vgg16"]).table == ("vgg16",)


def test_memory_of_a_process():
    found = memory.measure("numbanet", "digits", 2, 1)
    assert 20 < found.before <= found.peak < 2000
    with pytest.raises(RuntimeError, match="numbanet digit 2 1 failed: (?s:.*)KeyError"):
        memory.measure("numbanet", "digit", 2, 1)


def test_memory_is_printed_beside_that_of_torch():
    peaks = {
        "numbanet": memory.Peak(100, 200), "numbanet:captured": memory.Peak(100, 240, 400),
        "torch:channels_last": memory.Peak(150, 300),
    }  # fmt: skip
    assert memory.line("vgg16", 4, 2, peaks) == (
        "| vgg16 batch 4 | 2 | 200 | 100 | 240 | 400 | 300 | 150 | 1.50 | 0.75 |"
    )
    entries = [
        {"net": "vgg16", "batch": 4, "threads": 2, "backend": name, "before": found.before, "peak": found.peak,
         "recording": None if math.isnan(found.recording) else found.recording}
        for name, found in peaks.items()
    ]  # fmt: skip
    assert [found.ratio for found in memory.ratios(entries)] == [1.5, 0.75], "a step that is recorded is one, too"
    assert memory.line("vgg16", 4, 2, {"numbanet": memory.Peak(1, 2)}) == "| vgg16 batch 4 | 2 | 2 | 1 |  |  |"
    assert len({text.count("|") for text in [*memory.HEADER.split("\n"), memory.line("v", 4, 2, peaks)]}) == 1


def test_inference_is_compared_with_every_engine_that_is_there(monkeypatch):
    monkeypatch.setattr(backends, "available", lambda name: name not in ("onnx", "torch"))
    assert engines.missing("torch:compiled") == engines.missing("onnxruntime") == "PyTorch"
    monkeypatch.setattr(backends, "available", lambda name: name != "onnx")
    assert engines.missing("onnxruntime") == "onnx"
    (case,) = steps.inference_cases(("lenet5",), (1,), engines.ENGINES)
    assert case.formats == (*backends.TORCH_FORMATS, *engines.ENGINES)
    assert compare.parse(["--engines", "onnxruntime"]).engines == ("onnxruntime",)


def test_roofline_from_a_table_that_was_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(backends, "available", lambda name: name in ("numbanet", "matplotlib"))
    monkeypatch.setattr(layers, "TABLES", {"cifar": (layers.conv(32, 32, 8, 3, n=2), layers.conv(8, 16, 8, 1, n=2))})
    table, first, second = (tmp_path / name for name in ("table.json", "first.png", "second.png"))
    command = ["--sections", "layers", "--table", "cifar", "--threads", "1", "--seconds", "0", "--rounds", "1"]
    assert compare.main([*command, "--json", str(table), "--roofline", str(first)]) == 0
    assert plot.main([str(table), "--roofline", str(second)]) == 0
    assert first.read_bytes()[:4] == second.read_bytes()[:4] == b"\x89PNG"
    rows, machine = plot.read(table)
    assert len(rows) == 6 and math.isnan(rows[0].torch_seconds) and "CPUs" in machine
    table.write_text("{}")
    with pytest.raises(ValueError, match="is no table of benchmarks.compare"):
        plot.read(table)
    with pytest.raises(ValueError, match="no row has both flops and bytes"):
        plot.draw_roofline([_row(gflops=math.nan)], first, "")


@pytest.mark.parametrize("which", layers.PASSES)
def test_errors_of_kernels_on_likely_activations(which):
    found = winograd_error.errors(layers.conv(32, 48, 12, 3, n=2), which)
    assert any(map(winograd_error.is_winograd, found)) and "cpu.direct" in found
    assert all(0 < error < (winograd_error.BOUND if "winograd" in name else 3e-6) for name, error in found.items())
    images = winograd_error.activations(layers.conv(32, 48, 12, 3, n=2))
    assert 0.3 < (images == 0).mean() < 0.7 and images.min() == 0


def test_winograd_errors_are_printed(monkeypatch):
    monkeypatch.setattr(winograd_error, "LAYERS", (layers.conv(8, 8, 6, 3),))
    monkeypatch.setattr(winograd_error, "errors", lambda layer, which: {"cpu.winograd": 1e-6, "cpu.direct": 1e-5})
    found = list(winograd_error.lines())
    assert len(found) == 2 + 6 + 1 and found[-1].endswith("largest error: 1.0e-06 (bound: 3e-05)")
