"""Captured steps with losses and figures that are written by hand: of masks, and of whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.tensor import Tensor
from tests.capturing.common import host
from tests.capturing.conftest import Replays
from tests.capturing.trainer import REPLAYED, Trainer, both, compared, usual, whole

Loss = Callable[[nn.Module, Tensor, Tensor], Any]


def step_of(loss: Loss) -> Callable[..., Any]:
    """Return a step with a loss, which may have figures beside it."""

    def step(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> Any:
        optimizer.zero_grad()
        found = loss(model, x, y)
        value = found[0] if isinstance(found, tuple) else found
        value.backward()
        optimizer.step()
        return found

    return step


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> Any:
    scores = model(x)
    return F.cross_entropy(scores, y), (scores.argmax(1) == y).float().mean()


def _figures(model: nn.Module, x: Tensor, y: Tensor) -> Any:
    scores = model(x)
    guess, right = scores.detach().argmax(1), scores.max(1)[1] == y
    return F.cross_entropy(scores, y), guess, right, right.sum(), (guess != y).any(), (y + 1) * 2


BY_HAND: dict[str, Loss] = {
    "mean": lambda model, x, y: (model(x) * (x * 2)).mean(),
    "sum": lambda model, x, y: (model(x) * x).sum(),
    "squares": lambda model, x, y: ((model(x) - x) ** 2).mean(),
    "rows": lambda model, x, y: (model(x).sum(1) * x.mean(1)).mean(),
    "strides": lambda model, x, y: (model(x)[:, ::2] * x[:, 1::2]).mean(),
    "mask": lambda model, x, y: (model(x) * (x > 0).float()).mean(),
    "where": lambda model, x, y: F.where(x > 0, model(x), x).mean(),
    "labels": lambda model, x, y: (model(x).mean(1) * (y > 2)).sum(),
    "two": lambda model, x, y: ((model(x) * x).mean(), model(x).detach() - x),
    "accuracy": _accuracy,
    "figures": _figures,
}


@pytest.mark.parametrize("make", [None, whole])
@pytest.mark.parametrize("name", BY_HAND)
def test_steps_are_replayed(name: str, make: Any, driver: Replays) -> None:
    options = {} if make is None else {"make": make}
    assert compared(driver, *both(driver, step=step_of(BY_HAND[name]), **options)) == REPLAYED


def test_masks_may_be_operands(device: str) -> None:
    rng = np.random.default_rng(0)
    captured = nnet.capture(lambda x, mask: F.where(mask, x * 2.0, 0.0) + x * mask)
    with nnet.no_grad():
        for _ in range(4):
            x, mask = rng.standard_normal((3, 5), np.float32), rng.random((3, 5)) > 0.5
            np.testing.assert_array_equal(host(captured(nnet.tensor(x), nnet.tensor(mask))), 3 * x * mask)
    assert captured.replays == 2


def test_the_best_class_is_told_by_a_replay(device: str) -> None:
    rng = np.random.default_rng(0)
    captured = nnet.capture(lambda x: x.argmax(1))
    with nnet.no_grad():
        for _ in range(5):
            x = rng.standard_normal((4, 7), np.float32)
            np.testing.assert_array_equal(host(captured(nnet.tensor(x))), x.argmax(1))
    assert captured.replays == 3


def test_whole_numbers_that_steer_python_are_run(device: str) -> None:
    table = nn.Parameter(nnet.tensor(np.arange(12, dtype=np.float32).reshape(6, 2)))

    def chosen(x: Tensor, y: Tensor) -> Tensor:
        return table[y + 1] * x

    def kept(x: Tensor, y: Tensor) -> Tensor:
        return x[y > 2].sum()

    def margin(x: Tensor, y: Tensor) -> Tensor:
        return F.multi_margin_loss(x, (y + 1) * 0 + x.argmax(1))

    def guessed(x: Tensor, y: Tensor) -> Tensor:
        return table[x.argmax(1)] * x

    rng = np.random.default_rng(0)
    for function in (chosen, kept, guessed, margin):
        captured = nnet.capture(function)
        with nnet.no_grad():
            for _ in range(5):
                x, y = nnet.tensor(rng.standard_normal((4, 2), np.float32)), nnet.tensor(rng.integers(0, 5, 4))
                np.testing.assert_array_equal(host(captured(x, y)), host(function(x, y)))
        assert not captured.replays or device == "cuda"  # whose kernels look at them


RUN = [0] * len(REPLAYED)  # on a GPU, a cumulative average's share is a number of the host


def cumulative() -> nn.Module:
    model = whole()
    model[2].momentum = None
    return model


def test_a_cumulative_average_is_replayed(driver: Replays) -> None:
    here, there = both(driver, make=cumulative)
    assert compared(driver, here, there) == (REPLAYED if driver.place == "cpu" else RUN)
    assert there.model[2].num_batches_tracked.item() == 5  # type: ignore[index]


def test_a_norm_that_runs_twice_averages_both_batches(driver: Replays) -> None:
    def twice(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
        return usual(lambda x: model(x) + model(x * 2.0), optimizer, x, y)  # type: ignore[arg-type]

    assert compared(driver, *both(driver, make=cumulative, step=twice)) == (REPLAYED if driver.place == "cpu" else RUN)


@pytest.mark.parametrize("device", ["cpu"], indirect=True)  # a GPU's replay is one graph
def test_an_error_in_a_replay_takes_back_its_counts(monkeypatch: pytest.MonkeyPatch, driver: Replays) -> None:
    trainer = Trainer(driver.place, make=whole, step=step_of(_accuracy))
    for number in range(3):
        trainer.step(number)
    (plan,) = trainer.run._plans.values()  # type: ignore[attr-defined]
    parts, count = plan._recording._parts, trainer.model[2].num_batches_tracked  # type: ignore[index]
    between = next(i for i, part in enumerate(parts) if not hasattr(part, "__self__"))

    def fail() -> None:
        raise ZeroDivisionError

    before, draws = [p.data.copy() for p in trainer.model.parameters()], nnet.random.get_state()
    monkeypatch.setattr(plan._recording, "_parts", [*parts[:between], fail, *parts[between + 1 :]])
    with pytest.raises(ZeroDivisionError):
        trainer.step(3)
    monkeypatch.undo()
    for p, values in zip(trainer.model.parameters(), before):
        np.testing.assert_array_equal(p.data, values)
        assert p.grad is None
    assert count.item() == 3
    np.testing.assert_equal(nnet.random.get_state(), draws)
    replays = trainer.run.replays  # type: ignore[attr-defined]
    trainer.step(4)
    assert trainer.run.replays == replays + 1  # type: ignore[attr-defined]
