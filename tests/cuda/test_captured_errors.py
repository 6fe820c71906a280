"""Captured training steps on a GPU, errors in the middle, and other threads."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn
from numbanet.cuda import launch
from numbanet.tensor import Tensor
from tests.capturing.test_errors import (  # noqa: F401 - what is imported is tested here
    test_an_error_in_a_step_leaves_the_next_ones_right,
    test_options_that_make_no_sense_are_told_as_ever,
)
from tests.capturing.trainer import REPLAYED, Trainer, adam, batch, both, compared, numbers, sgd, small, usual, whole
from tests.cuda.fake import FakeDriver


def test_an_error_on_other_values_is_no_error(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function runs once more when it is recorded: what goes wrong then is undone, and the step is run."""
    calls = {"cpu": 0, "cuda": 0}

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        calls[x.device] += 1
        loss = usual(model, optimizer, x, y)
        if x.device == "cuda" and calls["cuda"] == 3:
            raise FloatingPointError
        return loss

    said: list[str] = []
    monkeypatch.setattr(nnet.settings, "log", said.append)
    assert compared(driver, *both(driver, whole, sgd, step), steps=3) == [0, 0, 0]
    assert any("on other values the function raised FloatingPointError" in line for line in said)


def cycle() -> None:
    """Leave a cycle of references, as compilers of kernels do: it holds the frames, and the arrays, of all callers."""
    try:
        raise KeyError
    except KeyError as error:
        found = error  # noqa: F841


def test_what_nobody_reaches_is_not_kept(driver: FakeDriver) -> None:
    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        cycle()
        return loss

    here, there = both(driver, step=step)
    gc.disable()
    try:
        assert compared(driver, here, there) == REPLAYED
    finally:
        gc.enable()


def test_a_label_that_is_no_class_is_told_by_the_call_that_records(driver: FakeDriver) -> None:
    """The GPU tells of it when Python waits: that may be when the step is tried on other values."""
    trainer = Trainer(driver.place)
    trainer.step(0)
    x, y = trainer.tensors(1)
    with pytest.raises(IndexError, match="target holds 99, which is not one of the 6 classes"):
        trainer.run(x, y * 0 + 99)
    graphs = []
    for number in range(3):
        driver.calls.clear()
        trainer.step(number).item()
        graphs.append(driver.calls.count("graph"))
    assert graphs == [0, 2, 1], "recorded, tried and replayed, replayed"


def test_what_the_gpu_finds_wrong_with_other_values_is_no_error(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that are worked out of numbers may be beyond the table when the numbers are others."""
    said: list[str] = []
    monkeypatch.setattr(nnet.settings, "log", said.append)
    table = nnet.tensor(np.arange(4, dtype=np.float32), device="cuda")
    look_up = nnet.capture(lambda table, x: table[(15.0 / x).to(np.int64)])
    with nnet.no_grad():
        for shift in range(3):
            x = nnet.tensor(np.float32([5, 5, 5]) + np.float32(shift) / 4, device="cuda")
            assert look_up(table, x).tolist() == [[3, 3, 3], [2, 2, 2], [2, 2, 2]][shift]
    assert any("on other values the function raised IndexError" in line for line in said)
    assert (table + 1.0).tolist() == [1, 2, 3, 4], "nothing is told later"


def test_ctrl_c_is_told_whatever_the_gpu_finds_wrong(driver: FakeDriver) -> None:
    calls: list[int] = []

    def look_up(table: Tensor, x: Tensor) -> Tensor:
        found = table[(15.0 / x).to(np.int64)]
        calls.append(1)
        if len(calls) == 3:  # on other values, which are beyond the table
            raise KeyboardInterrupt
        return found

    table = nnet.tensor(np.arange(4, dtype=np.float32), device="cuda")
    x, captured = nnet.tensor(np.float32([5, 15, 8]), device="cuda"), nnet.capture(look_up)
    with nnet.no_grad():
        captured(table, x)
        captured(table, x)
        with pytest.raises(KeyboardInterrupt):
            captured(table, x)


def test_what_another_thread_runs_meanwhile_is_no_part_of_the_graph(driver: FakeDriver) -> None:
    gpu, ran = launch.current(), []

    def meanwhile() -> None:
        def work() -> None:
            with launch.executor(gpu):
                ran.append((nnet.tensor([1.0, 2.0], device="cuda") * 3.0).tolist())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    driver.meanwhile = meanwhile
    assert compared(driver, *both(driver, make=small)) == REPLAYED
    assert ran == [[3.0, 6.0]]


def test_several_threads_take_turns(driver: FakeDriver) -> None:
    """Each step is made once, whole, whoever makes it."""
    trainer, gpu = Trainer(driver.place), launch.current()
    operands = trainer.tensors(0)
    for _ in range(2):
        trainer.run(*operands)

    def work() -> None:
        with launch.executor(gpu):
            for _ in range(3):
                trainer.run(*operands)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other = Trainer("cpu", captured=False)
    for _ in range(11):
        other.step(0)
    state, wanted = trainer.state(), other.state()
    assert trainer.optimizer.step_count == 11
    for name in wanted:
        np.testing.assert_allclose(state[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_operands_come_on_a_stream_of_their_own(driver: FakeDriver) -> None:
    """Nobody waits between the steps: batches, and the numbers of the optimizer, change before the GPU is at it."""
    staging = launch.current().staging()
    here, there = both(driver, optimizer=adam)
    losses, expected = [], []
    for number in range(6):
        for trainer in (here, there):
            trainer.optimizer.param_groups[0]["lr"] = 0.05 / (1 + number)
        coming = [staging.start(values) for values in batch(number)]
        losses.append(there.run(*[Tensor(part.take()) for part in coming]))
        del coming
        expected.append(here.step(number))
    assert there.run.replays == 4  # type: ignore[attr-defined]
    np.testing.assert_allclose(numbers(losses), numbers(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there.state()["0.weight"], here.state()["0.weight"], rtol=1e-4, atol=1e-5)
