"""The benchmark for a GPU: what needs none of it, and its checks with interpreted kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from benchmarks import gpu, gpu_ahead, gpu_calls, gpu_check, gpu_launch, gpu_report, gpu_time
from benchmarks.gpu_time import Note, Timing
from numbanet import dispatch, ops
from numbanet.capturing.plan import Plan
from numbanet.cuda import launch, probe
from numbanet.cuda.compile import Kernel
from numbanet.cuda.gpu import Gpu
from numbanet.cuda.launch import executor
from tests.cuda.fake import FakeDriver
from tests.cuda.ptx.executor import HostDevice, Interpreter

SMALL = r"^(relu|sum \(1,\)|SGD)$"


def files(folder: Path) -> list[str]:
    return ["--json", str(folder / "found.json"), "--markdown", str(folder / "found.md")]


def test_no_gpu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(probe, "reason", lambda: "the driver finds no GPU")
    assert gpu.main(files(tmp_path)) == 2
    assert "no GPU can be used: the driver finds no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--sections", "check,speed"], ["--seconds", "0"], ["--seconds", "nan"]])
def test_bad_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_the_checks_run_and_are_reported(tmp_path: Path) -> None:
    with executor(HostDevice()):
        status = gpu.main(["--sections", "check", "--seconds", "900", "--only", SMALL, "--seed", "3", *files(tmp_path)])
    assert status == 0
    found = json.loads((tmp_path / "found.json").read_text())
    kernels = {(v["operation"], v["which"], v["kernel"]) for v in found["verdicts"]}
    assert {
        ("activation", "backward_input", "cuda.flat"), ("optimizer_step", "step", "cuda.many"),
        ("vector_norm", "forward", "cuda.many"), ("reduce", "forward", "cuda.sums"),
    } <= kernels  # fmt: skip
    assert found["faults"] == [] and all(v["error"] <= 1 for v in found["verdicts"])
    assert any(v["error"] > 0 for v in found["verdicts"])  # float32 is not float64
    assert "conv2d forward cuda.gemm" in found["missing"] and found["seed"] == 3
    text = (tmp_path / "found.md").read_text()
    assert f"{len(found['verdicts'])} problems" in text and "| relu" not in text
    assert "| optimizer_step | step | cuda.many | float32 |" in text


NEEDED = ("numpy*", "numba", "numba-*", "numba_cuda*", "_numba_cuda*", "llvmlite*", "cuda*", "nvidia*", "packaging*")
BARE = """
import site, sys
site.addsitedir(sys.argv[1])
site.getsitepackages = lambda prefixes=None: [sys.argv[1]]  # where libraries of the toolkit are looked for
from benchmarks import gpu
from numbanet.cuda import launch
from tests.cuda.ptx.executor import HostDevice
with launch.executor(HostDevice()):
    sys.exit(gpu.main(["--sections", "check,layers", "--only", "^relu$", *sys.argv[2:]]))
"""


def test_a_checkout_needs_nothing_but_numba_and_cuda(tmp_path: Path) -> None:
    """Where there is no network, nobody can install this package, or what else it asks for."""
    packages, installed = tmp_path / "packages", Path(sysconfig.get_path("purelib"))
    packages.mkdir()
    for path in (path for pattern in NEEDED for path in installed.glob(pattern)):
        (packages / path.name).symlink_to(path)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", BARE, str(packages), *files(tmp_path)], cwd=Path(gpu.__file__).parents[1],
        env=variables, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["verdicts"] and found["faults"] == []
    assert "left out: PyTorch is not installed" in (tmp_path / "found.md").read_text()


def test_shares_of_what_is_compiled_ahead_are_all_that_the_checks_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: compiled.append(f"{self.name} {dtype}"))
    counts = [gpu_ahead.compile_share(SMALL, (8, 0), number, 3, time.time() + 900) for number in range(3)]
    assert sum(counts) == len(compiled) == len(set(compiled)) and max(counts) < sum(counts)
    device = Idle()
    with executor(device):
        gpu.main(["--sections", "check", "--only", SMALL, "--json", os.devnull, "--markdown", os.devnull])
    assert set(device.launched) <= {name.rpartition(" ")[0] for name in compiled}


def test_processes_compile_ahead() -> None:
    assert gpu_ahead.compile_all("^no call$", (8, 0), 9).startswith("0 kernels compiled, or found, by ")


def test_no_time_is_said(tmp_path: Path) -> None:
    with executor(HostDevice()):
        assert gpu.main(["--seconds", "1e-9", "--sections", "check", *files(tmp_path)]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    (note,) = found["notes"]["check"]
    count = len(gpu_calls.calls())
    assert note["text"].startswith(f"no time for {count} of {count} calls") and not found["verdicts"]


def _wrong(kind: str, real: Any) -> Any:
    """Return a kernel of a kind that must be caught."""
    state = [0]

    def run(problem: Any, inputs: Any, outputs: Any, workspace: Any) -> None:
        real.run(problem, inputs, outputs, workspace)
        values = outputs[0].memory.owner.view(np.float32)
        state[0] += 1
        if kind == "one element":
            values[5] += 1e-3
        elif kind == "not written":
            values[5] = np.nan
        elif kind == "differs":
            values[5] += 1e-7 * state[0]
        elif kind == "operand":
            inputs[0].memory.owner.view(np.float32)[3] += 1

    return replace(real, run=run)


@pytest.mark.parametrize(("kind", "fault"), [
    ("one element", "wrong result"), ("not written", "wrong result"), ("differs", "two runs differ"),
    ("operand", "wrong result"),
])  # fmt: skip
def test_wrong_kernels_are_caught(kind: str, fault: str) -> None:
    checker = gpu_check.Checker()
    (call,) = [call for call in gpu_calls.calls() if call.name == "sigmoid"]

    def wrap(problem: Any, fit: list[Any], chosen: Any) -> Any:
        wrong = [_wrong(kind, c) if problem.which == "forward" else c for c in fit]
        return checker(problem, wrong, chosen)

    with executor(HostDevice()), dispatch.wrapped(wrap):
        call.run(np.random.default_rng(0), "cuda")
    assert [v.fault for v in checker.verdicts if v.which == "forward"] == [fault]
    assert [v.fault for v in checker.verdicts if v.which != "forward"] == [""]
    assert fault in gpu_report.Result("", 0, checker.verdicts).faults[0]


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """The executor of a real GPU, on a driver that interprets."""
    driver = FakeDriver()
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    with executor(Gpu(0, driver.core, driver)):
        yield driver


def test_the_checks_run_in_the_memory_of_a_pool(real: FakeDriver) -> None:
    checker = gpu_check.Checker()
    (call,) = [call for call in gpu_calls.calls() if call.name == "sigmoid"]
    with dispatch.wrapped(checker):
        call.run(np.random.default_rng(0), "cuda")
    assert [(v.which, v.fault) for v in checker.verdicts] == [("forward", ""), ("backward_input", "")]


def test_calls_become_one_graph(real: FakeDriver) -> None:
    arrays = [launch.upload(np.full((2, 3), value, np.float32)) for value in (0.0, 1.0, 2.0)]
    found: dict[int, Any] = {}

    def call(number: int) -> None:
        found[number] = ops.sigmoid(arrays[number])

    run = gpu_time.graph_of([partial(call, number) for number in range(3)])
    results = [found[number] for number in range(3)]
    for array in results:
        array.fill(7)
    real.calls.clear()
    run()
    run()
    assert real.calls.count("graph") == 2
    for value, array in enumerate(results):
        assert np.allclose(array.to_host(), 1 / (1 + np.exp(-value)))


class Idle(HostDevice):
    """A device that computes nothing: what Python does around the kernels is what it is on a GPU."""

    def run(self, kernel: Any, grid: Any, arguments: Any, dtype: str) -> None:
        self.launched.append(kernel.name)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        found = super().empty(shape, dtype)
        found.memory.owner.fill(0xFB)  # the same in every array, whatever it was made for
        return found


@pytest.mark.parametrize("name", ["wide256", "resnet20"])
def test_the_steps_that_are_timed_are_replayed(name: str) -> None:
    device = Idle((9, 0, "a"))
    with executor(device), nnet.precision("tf32"):
        eager, captured = gpu_time.our_steps(name, 2)
        counts = []
        for step in (eager, captured):
            device.launched.clear()
            assert step().shape == ()
            counts.append([name for name in device.launched if "step[" in name or "cross_entropy" in name])
    assert counts[0] == counts[1] and len(counts[0]) == 3, "loss, its gradient, one update of all parameters"


def test_a_step_that_is_not_replayed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "record", lambda self, run, inputs: run(inputs))
    with executor(Idle()), pytest.raises(RuntimeError, match="run, not replayed"):
        gpu_time.our_steps("lenet5", 1)


def test_a_job_that_fails_costs_its_own_rows() -> None:
    row = Timing("memory", "a", "forward", "float32", "", 1.0, 1.0)

    def broken() -> Iterator[Timing]:
        yield row
        raise ValueError("no kernel")

    jobs = [("first", broken), ("second", lambda: iter([row]))]
    assert list(gpu_time.each(jobs, time.monotonic() + 99)) == [row, Note("first: ValueError: no kernel", True), row]
    assert list(gpu_time.each(jobs, 0)) == [Note("no time for 2 of 2: first and what follows")]


def test_a_write_beside_a_result_is_caught() -> None:
    device = HostDevice()
    with executor(device):
        whole = device.upload(np.zeros((4, 6), np.float32))
        part = gpu_check._poisoned(whole[1:3, ::2])
        assert gpu_check._kept_around(part)
        part.memory.owner[4] = 0  # an element between two of its
        assert not gpu_check._kept_around(part)


def test_the_calls_reach_every_kernel() -> None:
    """The definitions run, on the CPU; which of the GPU's kernels take the same problems, the kernels say."""
    problems: set[Any] = set()

    def wrap(problem: Any, fit: list[Any], chosen: Any) -> Any:
        problems.add(problem)
        return chosen

    rng = np.random.default_rng(0)
    with nnet.use("reference"), dispatch.wrapped(wrap):
        for call in gpu_calls.calls():
            call.run(rng, "cpu")
    met = set()
    for precision in gpu_calls.PRODUCTS:
        with executor(Interpreter((9, 0, "a"))), nnet.precision(precision):
            for problem in problems:
                fit = [c.name for c, refusal in dispatch.verdicts(problem, "cuda") if refusal is None]
                met |= {(problem.operation, problem.which, name) for name in fit}
    assert met == {(*key, name) for key, names in gpu_check.kernels().items() for name in names}


def test_targets_and_tables() -> None:
    """The mean of a target is over its own rows, and a failure makes the run one that failed."""

    def row(section: str, which: str, precision: str, seconds: float, rate: float = 0.0) -> Timing:
        return Timing(section, "a", which, precision, "cuda.mma", seconds, 1.0, rate, 4e12 if rate else 0.0)

    rows = [
        row("cifar", "forward", "tf32 mma", 0.5, 1e12), row("vgg16", "backward_input", "tf32 mma", 8.0, 1e12),
        row("memory", "forward", "float32", 1.0, 3e12), row("memory", "forward", "float32", 1.0, 3.6e12),
        row("training", "captured", "tf32", 0.8), row("training", "eager", "tf32", 2.0),
    ]  # fmt: skip
    found = gpu_report.reached(rows)
    names = "layers, TF32 with mma.sync", "memory, lowest part of the copy", "captured training step, TF32"
    assert found.keys() == set(names)
    assert found["layers, TF32 with mma.sync"] == (pytest.approx(0.5), 0.6, 2)
    assert found["memory, lowest part of the copy"][0] == pytest.approx(0.75)
    assert found["captured training step, TF32"][0] == pytest.approx(1.25)
    result = gpu_report.Result("x", 0, rows=rows, notes={"memory": [Note("pad 1: broken", failed=True), Note("late")]})
    result.seconds["memory"] = 3.0
    assert result.faults == ["memory: pad 1: broken"]
    text = "\n".join(gpu_report.to_markdown(result))
    assert "- memory: 3 s; failed: pad 1: broken; late" in text and "| 3.60 TB/s | 90% |" in text
    assert json.loads(gpu_report.to_json(result))["targets"]["layers, TF32 with mma.sync"]["wanted"] == 0.6


def test_a_launch_is_measured_without_a_gpu() -> None:
    assert 0 < gpu_launch.microseconds(3, 4, repeats=2, launches=10) < 1e5
