"""Measured choices: found, used, remembered; files that can't be used; the model stays as it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, measured, nn, settings, tuning
from numbanet.cpu.cache import source_hash
from numbanet.problem.conv import conv2d_problem

PROBLEM = conv2d_problem("forward", (2, 32, 16, 16), (32, 32, 3, 3), "float32", 1, 1)
KEY = measured.key(PROBLEM, "cpu", "float32")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of this test's own, in a folder that holds no other."""
    target = tmp_path / "cache" / "tuned-test.json"
    monkeypatch.setattr(settings, "cache_root", lambda: target.parent)
    monkeypatch.setattr(measured, "path", lambda: target)
    forget()
    yield target
    monkeypatch.undo()
    forget()


def forget() -> None:
    measured.know(None)
    dispatch.renew()


def model() -> nn.Sequential:
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)
    return nn.Sequential(*layers, nn.Conv2d(32, 32, 3, padding=1))


def slower() -> str:
    """The name of a kernel that fits the problem, and that the cost model does not take."""
    chosen = dispatch.choose(PROBLEM).name
    return next(c.name for c, reason in dispatch.verdicts(PROBLEM, "cpu") if reason is None and c.name != chosen)


def test_tune_measures_every_kernel_of_every_convolution(file: Path) -> None:
    found = nnet.tune(model(), (3, 16, 16), seconds=1e-4)
    # The last two layers are one problem each pass, and the image needs no gradient.
    assert sorted((choice.problem.c, choice.problem.which) for choice in found.choices) == [
        (3, "backward_weight"), (3, "forward"), (32, "backward_input"), (32, "backward_weight"), (32, "forward"),
    ]  # fmt: skip
    for choice in found.choices:
        fit = {c.name for c, reason in dispatch.verdicts(choice.problem, "cpu") if reason is None}
        assert set(choice.seconds) == fit - {"reference"} and choice.estimated in fit
        assert dispatch.choose(choice.problem).name == choice.kernel
        assert choice.gain >= 1 and all(0 < seconds < 60 for seconds in choice.seconds.values())
    text = str(found)
    assert "1x32x16x16 -> 32, 3x3" in text and "backward_weight" in text and str(file) in text
    assert "5 problems" in text


def test_measurements_are_read_by_the_next_process(file: Path) -> None:
    found = nnet.tune(model(), (2, 3, 16, 16), seconds=1e-4)
    forget()
    assert measured.known() == {
        measured.key(c.problem, "cpu", "float32"): pytest.approx(c.seconds) for c in found.choices
    }


def test_the_fastest_kernel_runs_and_explain_says_so(file: Path) -> None:
    usual, other = dispatch.choose(PROBLEM).name, slower()
    measured.know({KEY: {usual: 2e-3, other: 1e-3}})
    dispatch.renew()
    assert dispatch.choose(PROBLEM).name == other
    lines = nnet.explain("conv2d", (2, 32, 16, 16), (32, 32, 3, 3), padding=1).split("\n")
    assert any(line.startswith(f"-> {other}") and "measured 1 ms" in line for line in lines)
    assert any(line.strip().startswith(usual) and "measured 2 ms" in line for line in lines)
    with nnet.precision("strict"):
        assert "measured" not in nnet.explain("conv2d", (2, 32, 16, 16), (32, 32, 3, 3), padding=1)
    with nnet.use(usual):
        assert dispatch.choose(PROBLEM).name == usual


def test_a_kernel_that_no_longer_exists_is_not_missed(file: Path) -> None:
    usual = dispatch.choose(PROBLEM).name
    measured.know({KEY: {"cpu.gone": 1e-3}})
    dispatch.renew()
    assert dispatch.choose(PROBLEM).name == usual


def write(file: Path, kernels: str, table: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"cpu": "", "kernels": kernels, "seconds": table}))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"kernels": "x", "seconds": 3}', "\x00" * 9,
                                     '{"kernels": "x", "seconds": {"a": {"b": "c"}}}'])  # fmt: skip
def test_damaged_files_are_ignored_with_a_warning(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.warns(RuntimeWarning, match="tuned-test.json is damaged .* ignored: run numbanet.tune again"):
        assert dispatch.choose(PROBLEM).name
    assert dispatch.choose(PROBLEM).name != "reference"  # and nothing is said again


def test_stale_files_are_ignored_with_a_warning_and_replaced(file: Path) -> None:
    write(file, "other", {KEY: {"cpu.direct": 1.0}})
    with pytest.warns(RuntimeWarning, match="was measured with other kernels"):
        assert measured.known() == {}
    with pytest.warns(RuntimeWarning, match="was measured with other kernels"):
        nnet.tune(nn.Conv2d(2, 2, 1), (2, 4, 4), seconds=1e-4)
    assert KEY not in json.loads(file.read_text())["seconds"]
    assert json.loads(file.read_text())["kernels"] == source_hash()


def test_files_can_be_left_unread(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, source_hash(), {KEY: {slower(): 1.0}})
    forget()
    assert measured.known()
    monkeypatch.setenv("NUMBANET_TUNED", "0")
    forget()
    assert measured.known() == {}


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    def write_some(writer: int) -> None:
        for number in range(5):
            tuning._remember({f"{writer}-{number}": {"cpu.direct": 1.0}})

    threads = [threading.Thread(target=write_some, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(measured.read()) == 20


def test_a_folder_that_cant_be_written_keeps_the_choice_in_the_process(file: Path) -> None:
    file.parent.parent.joinpath("cache").write_text("a file where the folder would be")
    found = nnet.tune(nn.Conv2d(2, 2, 1), (2, 4, 4), seconds=1e-4)
    assert found.file.startswith("not kept: ") and measured.known()


def test_the_model_stays_as_it_was(file: Path) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    net[1].train()
    net[0].weight.grad = nnet.tensor(np.ones((3, 2, 3, 3), np.float32))
    before = {key: array.copy() for key, array in net.state_dict().items()}
    state = nnet.random.get_state()
    nnet.tune(net, (2, 2, 8, 8), seconds=1e-4)
    assert all(np.array_equal(before[key], array) for key, array in net.state_dict().items())
    assert net[0].weight.grad.data.min() == 1 and net[0].bias.grad is None
    assert [layer.training for layer in net] == [False, True, False] and not net.training
    np.testing.assert_equal(nnet.random.get_state(), state)


def test_inference_alone(file: Path) -> None:
    net = model().train()
    found = nnet.tune(net, (1, 3, 16, 16), training=False, seconds=1e-4)
    assert {choice.problem.which for choice in found.choices} == {"forward"}
    assert net.training


def test_results_while_measuring_are_right(file: Path) -> None:
    net, images = nn.Conv2d(32, 32, 3, padding=1), nnet.tensor(np.ones((2, 32, 16, 16), np.float32))
    expected = net(images).data
    with dispatch.wrapped(tuning._Measurer({}, True, 1e-4)):
        np.testing.assert_allclose(net(images).data, expected, rtol=0, atol=1e-4)


def test_errors(file: Path) -> None:
    with pytest.raises(ValueError, match="seconds must be positive and finite, got 0"):
        nnet.tune(model(), (3, 16, 16), seconds=0)
    with pytest.raises(TypeError, match="input_shape must be an integer, got 1.5"):
        nnet.tune(model(), (3, 16, 1.5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels"):
        nnet.tune(model(), (4, 16, 16))
    assert dispatch._wrap is None  # nothing measures any more


def test_a_forced_kernel_is_not_measured_alone() -> None:
    with nnet.use("cpu.direct"), pytest.raises(RuntimeError, match=r"outside of it"):
        nnet.tune(nn.Conv2d(4, 4, 3), (1, 4, 8, 8))


def test_other_errors_name_the_argument() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3))
    with pytest.raises(TypeError, match="model must be a Module, got int"):
        nnet.tune(5, (1, 2, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="input_shape must be a sequence of sizes, got 5"):
        nnet.tune(model, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seconds must be a number, got 'x'"):
        nnet.tune(model, (1, 2, 4, 4), seconds="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds must be positive and finite, got inf"):
        nnet.tune(model, (1, 2, 4, 4), seconds=float("inf"))
    with pytest.raises(MemoryError):
        nnet.tune(model, (1, 2, 2**62, 5))
