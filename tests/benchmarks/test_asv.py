"""The asv suites: what they follow is what the page of speed shows, with one thread and with two."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks
from benchmarks import bench_networks, bench_page, common, overhead, parts, targets
from benchmarks.parts import Measured
from benchmarks.report import Row
from numbanet.cpu import parallel


def suites() -> Iterator[type]:
    """Yield every class of which asv makes benchmarks."""
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name.startswith("bench_"):
            found = importlib.import_module(f"benchmarks.{module.name}")
            for name, suite in inspect.getmembers(found, inspect.isclass):
                if suite.__module__ == found.__name__ and not name.startswith("_"):
                    yield suite


def row(section: str, name: str, ratio: float, which: str = "forward", threads: int = 1, **more: object) -> Row:
    fields = {"kernel": "", "seconds": 1.0, "torch_seconds": ratio, "torch_format": "", "control": 1.0, "error": 0.0}
    fields |= {"gflops": 50.0, "gbytes": 5.0, "peak_gflops": 100.0, "peak_gbytes": 20.0, "wide3x3": False}
    return Row(section, name, which, threads, **(fields | more))


def part(*rows: Row, calls: tuple[overhead.Overhead, ...] = (), threads: int = 1) -> Measured:
    return Measured("", threads, "", "", "", "", math.nan, list(rows), list(calls), [])


def test_every_suite_is_timed_with_each_number_of_threads():
    """But what runs in processes of its own, or is no time."""
    exempt = {"Import", "FirstCall", "Memory", "Soak", "Denormals", "WinogradError"}
    found = {suite.__name__: suite for suite in suites()}
    assert set(found) >= exempt
    for name in set(found) - exempt:
        assert found[name].params[-1] == common.THREADS == (1, 2)
        assert found[name].param_names[-1] == "threads"


def test_every_target_is_followed_once():
    followed = [name for suite in suites() if issubclass(suite, bench_page._Targets) for name in suite.params[0]]
    assert sorted(followed) == sorted(target.name for target in targets.TARGETS)


def test_a_part_is_run_by_one_suite_only():
    """asv tells what is measured ahead by the place of the function: each has its own, and shares it with its twins."""
    chosen: dict[int, set[object]] = {}
    for suite in suites():
        if issubclass(suite, bench_page._Series):
            chosen.setdefault(inspect.getsourcelines(suite.setup_cache)[1], set()).add(suite.setup_cache)
    assert all(len(functions) == 1 for functions in chosen.values()) and len(chosen) == 7


def test_parts_are_those_of_the_page(monkeypatch):
    run: list[tuple[str, int]] = []

    def measure(name: str, threads: int, folder: Path) -> None:
        run.append((name, threads))

    monkeypatch.setattr(parts, "measure", measure)
    monkeypatch.setattr(parallel, "default_threads", lambda: 2)
    functions = {suite.setup_cache for suite in suites() if issubclass(suite, bench_page._Series)}
    assert [function(None) for function in functions] == [[]] * 7
    assert sorted(run) == sorted((name, threads) for name in parts.PARTS for threads in (1, 2))
    monkeypatch.setattr(parallel, "default_threads", lambda: 1)
    run.clear()
    bench_page.Training().setup_cache()
    assert run == [("training", 1)]


def test_layers():
    wide = [row("resnet50", name, ratio, wide3x3=True) for name, ratio in (("3x3 64-64 @56", 2), ("b", 8))]
    narrow = [row("resnet50", name, ratio) for name, ratio in (("1x1 64-64 @56", 0.5), ("d", 2))]
    noise = row("cifar", "e", 9), row("resnet50", "f", 9, "backward_input"), row("resnet50", "g", 9, threads=2)
    measured, suite = [part(*wide, *narrow, *noise)], bench_page.Layers()
    assert suite.track_mean(measured, "resnet50", "forward", "3x3 wide", 1) == pytest.approx(4)
    assert suite.track_mean(measured, "resnet50", "forward", "others", 1) == pytest.approx(1)
    assert suite.track_lowest(measured, "resnet50", "forward", "others", 1) == 0.5
    assert math.isnan(suite.track_mean(measured, "resnet50", "forward", "3x3 wide", 2))
    reached = bench_page.LayerTargets()
    assert reached.track_reached(measured, "other layers: the lowest", 1) == 0.5
    assert math.isnan(reached.track_reached(measured, "inference: VGG-16", 1))


def test_rates_of_a_network_count_its_layers():
    first, second = bench_page.layers.TABLES["resnet50"][1:3]
    assert first.count != second.count
    rows = [row("resnet50", first.name, 1, seconds=2.0, gflops=50.0), row("resnet50", second.name, 1, gflops=20.0)]
    measured, suite = [part(*rows)], bench_page.LayerRates()
    want = (first.count * 100 + second.count * 20) / (first.count * 2 + second.count * 1)
    assert suite.track_gflops(measured, "resnet50", "forward", 1) == pytest.approx(want)
    assert suite.track_fraction_of_peak(measured, "resnet50", "forward", 1) == pytest.approx(want / 100)


def test_networks():
    rows = [row("training", "resnet20 batch 128", 1.5, "training"), row("inference", "vgg16 batch 16", 2.5)]
    rows.append(row("training", "resnet20 batch 128, captured", 1.75, "training"))
    measured = [part(*rows)]
    assert bench_page.Training().track_ratio(measured, "resnet20", False, 1) == 1.5
    assert bench_page.Training().track_ratio(measured, "resnet20", True, 1) == 1.75
    assert bench_page.TrainingTargets().track_reached(measured, "training step: ResNet-20, captured", 1) == 1.75
    assert bench_page.Inference().track_ratio(measured, "vgg16", 16, 1) == 2.5
    assert math.isnan(bench_page.Inference().track_ratio(measured, "vgg16", 1, 1))
    assert bench_page.InferenceTargets().track_reached(measured, "inference: VGG-16", 1) == 2.5


def test_names_are_those_of_the_cases():
    from benchmarks import operations, products, steps

    trained = {case.name for case in steps.training_cases(parts.TRAINED)}
    nets, captured, _ = bench_page.Training.params
    assert {steps.training_name(net, steps.NETS[net].batch, c) for net in nets for c in captured} == trained
    assert {products.section(beside) for beside in products.BESIDE} == {c.section for c in products.product_cases()}
    cases = {(case.section, case.which) for case in operations.operation_cases()}
    assert cases <= {(s, w) for s in bench_page.Operations.params[0] for w in bench_page.Operations.params[1]}


def test_products_operations_and_calls():
    rows = row("matmul NumPy", "8x8 by 8x8", 0.5, "NT"), row("activation", "relu 64 @112", 3, "backward")
    call = overhead.Overhead("ReLU", "tape", 9.0, 1.5, 0.5, 2, 12.0, 6.0)
    measured = [part(*rows, calls=(call,))]
    assert bench_page.Products().track_lowest(measured, "numpy", "NT", 1) == 0.5
    assert bench_page.Operations().track_mean(measured, "activation", "backward", 1) == pytest.approx(3)
    assert bench_page.Bandwidth().track_fraction_of_copy(measured, "activation relu 64 @112 backward", 1) == 0.25
    suite, which = bench_page.Calls(), ("ReLU", "tape", 1)
    assert (suite.track_call(measured, *which), suite.track_entry(measured, *which)) == (12, 10.5)
    assert (suite.track_after(measured, *which), suite.track_ratio(measured, *which)) == (0.5, 0.5)


def test_what_the_machine_lacks_is_skipped(monkeypatch):
    for suite in (bench_page.Layers(), bench_page.Calls()):
        suite.setup([part()], *(choice[0] for choice in suite.params[:-1]), 1)
        with pytest.raises(NotImplementedError, match="fewer than 2 CPUs"):
            suite.setup([part()], *(choice[0] for choice in suite.params[:-1]), 2)
    monkeypatch.setattr(parallel, "default_threads", lambda: 1)
    with pytest.raises(NotImplementedError, match="fewer than 2 CPUs"):
        bench_networks.TrainingStep().setup("digits", False, 2)


@pytest.mark.parametrize("captured", [False, True])
def test_a_step_is_timed_with_as_many_threads(captured):
    suite = bench_networks.TrainingStep()
    suite.setup("digits", captured, 1)
    assert parallel.get_num_threads() == 1
    suite.time_step("digits", captured, 1)
