"""Captured steps on the CPU that take whole numbers: labels are looked at before each replay, other uses are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.tensor import Tensor
from tests.capturing.conftest import Replays
from tests.capturing.trainer import REPLAYED, Trainer, batch, both, compared, usual

# On a GPU kernels look at labels: see tests/cuda/test_captured_errors.py.
pytestmark = pytest.mark.parametrize("device", ["cpu"], indirect=True)


def trained(driver: Replays, **options: Any) -> Trainer:
    trainer = Trainer(driver.place, **options)
    for number in range(3):
        trainer.step(number)
    return trainer


@pytest.mark.parametrize("wrong", [-1, 6, 1 << 40])
def test_a_label_that_is_no_class_is_told_before_anything_changes(wrong: int, driver: Replays) -> None:
    trainer = trained(driver)
    x, y = batch(3)
    y[2] = wrong
    before = [p.data.copy() for p in trainer.model.parameters()]
    driver.calls.clear()
    with pytest.raises(IndexError, match=f"target holds {wrong}, which is not one of the 6 classes"):
        trainer.run(nnet.tensor(x), nnet.tensor(y))
    assert not driver.calls
    for p, values in zip(trainer.model.parameters(), before):
        np.testing.assert_array_equal(p.data, values)
    trainer.step(4)
    assert driver.calls == ["graph"]


def test_labels_of_images(driver: Replays) -> None:
    """One label a pixel."""
    run = nnet.capture(lambda x, y: F.cross_entropy(x, y))
    rng = np.random.default_rng(0)
    for number in range(6):
        x, y = rng.standard_normal((2, 5, 3, 4), np.float32), rng.integers(5, size=(2, 3, 4))
        expected = F.cross_entropy(nnet.tensor(x), nnet.tensor(y)).item()
        assert run(nnet.tensor(x), nnet.tensor(y)).item() == pytest.approx(expected)
        y[1, 2, number % 4] = 5
        with pytest.raises(IndexError, match="target holds 5, which is not one of the 5 classes"):
            run(nnet.tensor(x), nnet.tensor(y))
    assert "graph" in driver.calls


def test_an_ignored_label_is_none(driver: Replays) -> None:
    trainer = trained(driver)
    x, y = batch(3)
    y[1] = -100
    driver.calls.clear()
    loss = trainer.run(nnet.tensor(x), nnet.tensor(y))
    assert driver.calls == ["graph"] and np.isfinite(loss.item())


def negative_log_likelihood(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = F.nll_loss(F.log_softmax(model(x), 1), y)
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("step", [usual, negative_log_likelihood])
def test_labels_are_those_of_the_call(step: Any, count: int, driver: Replays) -> None:
    assert compared(driver, *both(driver, step=step), count=lambda number: count) == REPLAYED


def bytes_as_labels(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    return usual(model, optimizer, x, y.to(np.uint8))


def rows_by_label(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = (model(x).transpose(0, 1)[y] ** 2).sum()
    loss.backward()
    optimizer.step()
    return loss


def best_guess(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    scores = model(x)
    loss = F.cross_entropy(scores, scores.detach().argmax(1)) + F.cross_entropy(scores, y)
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("step", [bytes_as_labels, rows_by_label, best_guess])
def test_other_uses_of_whole_numbers_are_run(step: Any, count: int, driver: Replays) -> None:
    assert compared(driver, *both(driver, step=step), steps=4, count=lambda number: count)[2:] == [0, 0]
