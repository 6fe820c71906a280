"""The trial of a recorded step: it needs no copy of what optimizers update, and leaves everything as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.capturing import trial
from numbanet.tensor import Tensor
from tests.capturing.trainer import REPLAYED, Trainer, adam, compared, sgd, usual

WIDTH = 160  # weights are large enough to be guarded, not copied


class Here:
    """The CPU, where updates are held back."""

    place = "cpu"

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.calls: list[str] = []
        run: Any = trial.Recording.run
        monkeypatch.setattr(trial.Recording, "run", lambda recording: (self.calls.append("graph"), run(recording))[1])


def wide() -> nn.Module:
    generator = np.random.default_rng(1)
    return nn.Sequential(
        nn.Linear(6, WIDTH, generator=generator), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(WIDTH, WIDTH, generator=generator), nn.Linear(WIDTH, 6, generator=generator),
    )  # fmt: skip


def pair(step: Any, optimizer: Any = sgd) -> tuple[Trainer, Trainer]:
    return (
        Trainer("cpu", wide, optimizer, step, captured=False),
        Trainer("cpu", wide, optimizer, step),
    )


def shrunk(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    loss = usual(model, optimizer, x, y)
    with nnet.no_grad():
        model[4].weight.mul_(0.9)  # type: ignore[index, operator]
    return loss


def twice(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    return [usual(model, optimizer, x, y) for _ in range(2)]


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("step", [usual, twice, shrunk])
def test_a_trial_leaves_no_trace(step: Any, optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair(step, optimizer)
    assert compared(Here(monkeypatch), here, there) == REPLAYED


def test_what_is_updated_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    clone = trial.ops.clone
    monkeypatch.setattr(trial.ops, "clone", lambda x: (copied.append(x.nbytes), clone(x))[1])
    trainer = Trainer("cpu", wide, adam)
    for number in range(4):
        trainer.step(number)
    assert trainer.run.replays == 2  # type: ignore[attr-defined]
    assert copied and max(copied) < 4 * WIDTH * WIDTH


@pytest.mark.parametrize("what", ["parameter", "average", "state"])
def test_what_only_some_calls_change(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third run, which tries the recording on other values, is the first that halves something."""
    runs: dict[int, int] = {}

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        runs[id(model)] = runs.get(id(model), 0) + 1
        if runs[id(model)] >= 3:
            with nnet.no_grad():
                weight: Any = model[4].weight  # type: ignore[index]
                if what == "parameter":
                    weight.mul_(0.5)
                elif what == "average":
                    model[1].running_mean.mul_(0.5)  # type: ignore[index, operator]
                else:
                    optimizer.state[weight]["momentum_buffer"] *= 0.5
        return loss

    here, there = pair(step)
    assert compared(Here(monkeypatch), here, there)[3:] == [0, 0]
    assert not there.run.replays  # type: ignore[attr-defined]


def test_what_follows_an_update_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assignment to elements is NumPy's: without an update before, the second row is like the first already."""

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        with nnet.no_grad():
            weight: Any = model[4].weight  # type: ignore[index]
            weight[1] = weight[0]
        return loss

    here, there = pair(step)
    assert compared(Here(monkeypatch), here, there)[3:] == [0, 0]
    assert not there.run.replays  # type: ignore[attr-defined]


def test_ctrl_c_in_a_trial_leaves_the_state() -> None:
    runs: list[int] = []

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        runs.append(1)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return loss

    trainer = Trainer("cpu", wide, adam, step)
    trainer.step(0)
    trainer.step(1)
    before = trainer.state()
    with pytest.raises(KeyboardInterrupt):
        trainer.step(2)
    after = trainer.state()
    for name in before:
        if not name.startswith("gradient"):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert all(p.data.flags.writeable for p in trainer.model.parameters())
    trainer.step(2)
    trainer.step(3)
    assert trainer.run.replays == 2  # type: ignore[attr-defined]


def test_a_gradient_that_python_works_out_is_seen() -> None:
    """The update is not made in a trial: what it would be made of tells."""

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        model[5].bias.grad = nnet.tensor(np.full(6, len(found), np.float32))  # type: ignore[index]
        optimizer.step()
        return loss

    found: list[float] = []
    trainer = Trainer("cpu", wide, sgd, step)
    for number in range(4):
        found.append(trainer.step(number).item())
    assert not trainer.run.replays  # type: ignore[attr-defined]
