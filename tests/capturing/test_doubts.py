"""Training steps that a replay would not do as they are: they run each time, and why is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.optim import lr_scheduler
from numbanet.tensor import Tensor
from tests.capturing.trainer import Replayer, Trainer, both, compared, small, usual


def reading(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> float:
    return usual(model, optimizer, x, y).item()


def adding(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def zeroing(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=False)
    return adding(model, optimizer, x, y)


def scheduled(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    loss = usual(model, optimizer, x, y)
    lr_scheduler.LinearLR(optimizer)
    return loss


def decaying(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.param_groups[0]["lr"] *= 0.5
    return usual(model, optimizer, x, y)


def masking(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = (model(x)[x[:, 0] > 0] ** 2).sum()
    loss.backward()
    optimizer.step()
    return loss


def by_numpy(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    return usual(model, optimizer, x * float(1 + 0 * np.random.rand()), y)  # noqa: NPY002


class Seldom(optim.SGD):
    """An optimizer that does something in every third step only."""

    def step(self, closure: Any = None) -> Any:
        if self.step_count % 3 == 2:
            with nnet.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.mul_(0.5)
        return super().step(closure)


class Skipping(nn.Module):
    """A layer that is left out at random."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = np.random.default_rng(3)
        self.layer = small()

    def forward(self, input: Tensor) -> Tensor:
        return self.layer(input) if self.dice.random() < 0.7 else input + 0.0 * self.layer(input)


def counting(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    model.calls = getattr(model, "calls", 0) + 1  # type: ignore[assignment, operator]
    return usual(model, optimizer, x * float(model.calls), y)  # type: ignore[arg-type]


def no_backward(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def test_what_optimizers_and_layers_do_in_python_is_run(driver: Replayer) -> None:
    assert compared(driver, *both(driver, optimizer=lambda p: Seldom(p, lr=0.1)), steps=4) == [0] * 4
    assert compared(driver, *both(driver, Skipping), steps=4) == [0] * 4


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (reading, "a value was read"), (adding, "a gradient from before the call was read"),
        (zeroing, "a gradient from before the call was read"), (scheduled, "a schedule of learning rates went on"),
        (decaying, "a replay gives other values"), (masking, "an array was an index|values were brought from the GPU"),
        (by_numpy, "random numbers of Python or NumPy were drawn"), (counting, "an attribute was changed"),
        (no_backward, "a result has a tape"),
    ],
)  # fmt: skip
def test_what_a_graph_would_miss_is_run(
    step: Any, reason: str, driver: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(nnet.settings, "log", said.append)
    here, there = both(driver, step=step)
    graphs = compared(driver, here, there, steps=4)
    assert graphs[3] == 0 and not there.run.replays  # type: ignore[attr-defined]
    (told,) = [line for line in said if "is not replayed" in line]
    assert any(words in told for words in reason.split("|"))


def test_a_step_that_is_replaced_later_is_called(driver: Replayer) -> None:
    trainer, calls = Trainer(driver.place), []
    for number in range(4):
        trainer.step(number)
    assert trainer.run.replays  # type: ignore[attr-defined]
    own = trainer.optimizer.step
    trainer.optimizer.step = lambda: (calls.append(1), own())[1]  # type: ignore[method-assign]
    for number in range(3):
        trainer.step(number)
    assert calls == [1] * 3
