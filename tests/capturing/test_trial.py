"""The trial of a recorded step: it needs no copy of what optimizers update, and leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.capturing import trial
from numbanet.capturing.effects import Effects
from numbanet.capturing.plan import Plan
from numbanet.cpu.turn import Turn
from numbanet.tensor import Tensor
from tests.capturing.trainer import REPLAYED, Trainer, adam, compared, sgd, usual
from tests.interrupts import Interrupt

ATOMIC = ("trial.py", "plan.py", "effects.py", "turn.py", "again.py", "optimizer.py")  # where interrupts are tried
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


def beside(change: Callable[[Any], None]) -> Any:
    """Return a step that changes a weight after its update, without a gradient."""

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        with nnet.no_grad():
            for number in (4, 5):
                change(model[number].weight)  # type: ignore[index]
        return loss

    return step


def first_row(w: Any) -> None:
    w[1] = w[0]


def clipped_row(w: Any) -> None:
    w[1] = w[1].clamp(min=0)


def part(w: Any) -> None:
    w[:2, 1:5] = w[3, :4] * 0.5


def clipped(w: Any) -> None:
    w.copy_(w.clamp(-0.05, 0.05))


def element(w: Any) -> None:
    w[1, 2] = w[3, 4] * 0.5


@pytest.mark.parametrize("change", [first_row, clipped_row, part, clipped, element])
def test_assignments_are_replayed(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair(beside(change))
    assert compared(Here(monkeypatch), here, there) == REPLAYED


def number(w: Any) -> None:
    w[1] = 0.25


def rows(w: Any) -> None:
    w[[0, 2]] = w[3]


def overlapping(w: Any) -> None:
    w[1:4] = w[0:3]


@pytest.mark.parametrize("change", [number, rows, overlapping])
def test_assignments_of_numpy_are_run(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair(beside(change))
    assert compared(Here(monkeypatch), here, there)[3:] == [0, 0]
    assert not there.run.replays  # type: ignore[attr-defined]


def test_weights_with_one_row_are_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading dimension of size 1 is no reason for NumPy to assign, nor is what the trial does not reach."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 1, generator=np.random.default_rng(1)), nn.Linear(1, 6))

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        with nnet.no_grad():
            for p in model.parameters():
                p.copy_(p.clamp(-0.3, 0.3))
        return loss

    here, there = (Trainer("cpu", make, sgd, step, captured=captured) for captured in (False, True))
    there.model.load_state_dict(here.model.state_dict())
    assert compared(Here(monkeypatch), here, there, steps=12)[2:] == [2, *[1] * 9]


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


def interrupted(trainer: Trainer, seed: int, at: int) -> int:
    """Make a step, with an interrupt before an instruction of Python's in the trial; return how many were met."""
    attempt, interrupt = Plan.attempt, Interrupt(ATOMIC, at)

    def traced(*args: Any) -> None:
        with interrupt:
            attempt(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "attempt", traced)
        if not at:
            trainer.step(seed)
            return interrupt.met
        with pytest.raises(KeyboardInterrupt):
            trainer.step(seed)
    return interrupt.met


def check_state(trainer: Trainer, before: dict[str, np.ndarray]) -> None:
    """See whether the state is as before, and may be changed; gradients may have gone."""
    after = trainer.state()
    for name in before:
        if not name.startswith("gradient") or after[name].ndim:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    states = [v for state in trainer.optimizer.state.values() for v in state.values() if isinstance(v, np.ndarray)]
    assert all(array.flags.writeable for array in (*[p.data for p in trainer.model.parameters()], *states))


def test_an_interrupt_at_any_instruction_of_a_trial_leaves_the_state() -> None:
    trainer = Trainer("cpu", wide, adam)
    trainer.step(0)
    trainer.step(1)
    count = interrupted(trainer, 2, at=0)
    assert count > 1000
    for at in range(3, count, count // 24):
        trainer = Trainer("cpu", wide, adam)
        trainer.step(0)
        trainer.step(1)
        before, steps = trainer.state(), trainer.optimizer.step_count
        interrupted(trainer, 2, at)
        check_state(trainer, before)
        assert trainer.optimizer.step_count == steps


def test_an_interrupt_right_before_the_launches_of_a_replay_leaves_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer("cpu", wide, adam)
    for seed in range(4):
        trainer.step(seed)
    before, steps, go_on = trainer.state(), trainer.optimizer.step_count, Effects.go_on

    def interrupted(effects: Effects) -> bool:
        assert go_on(effects) and trainer.optimizer.step_count == steps + 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Effects, "go_on", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.step(4)
    check_state(trainer, before)
    assert trainer.optimizer.step_count == steps
    replayed = trainer.run.replays  # type: ignore[attr-defined]
    trainer.step(4)
    assert trainer.run.replays == replayed + 1  # type: ignore[attr-defined]


def test_errors_while_all_is_put_back() -> None:
    done: list[int] = []
    errors = [KeyboardInterrupt("first"), None, TimeoutError("second"), None, None]

    def undo(number: int) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error
        done.append(number)

    tried = trial.Trial(None, None)
    tried._undo += [partial(undo, number) for number in range(3)]
    with pytest.raises(KeyboardInterrupt, match="first"):
        tried.put_back()
    assert done == [0, 1, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_are_turned_over_and_back(dtype: Any) -> None:
    array = np.array([[1.0, 1.0, 0.0], [np.inf, np.nan, -2.0]], dtype).T
    before = array.tobytes()
    turn = Turn(array, 3)
    turn.over()
    assert array[0, 0] != 1 and array[0, 0] != array[1, 0] and abs(array[0, 0] - 1) < 0.1
    once = array.tobytes()
    turn.over()
    assert array.tobytes() not in (once, before)
    turn.back()
    assert array.tobytes() == before
    turn.back()
    assert array.tobytes() == before


def test_what_bits_are_turned_of() -> None:
    x = np.zeros((4, 6), np.float32)
    assert all(Turn.fits(y) for y in (x, x.T, x[1:3], x.reshape(2, 2, 6).transpose(1, 2, 0), x[0, 0:1]))
    others = [x.astype(dtype) for dtype in (np.float16, np.int32, ">f4")]
    assert not any(Turn.fits(y) for y in (x[:, 1:], x[::-1], *others))


@pytest.mark.parametrize("kind", ["view first", "base first", "overlap", "one array", "gaps"])
def test_weights_that_share_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> nn.Module:
        a, b = (nn.Linear(WIDTH, WIDTH, bias=False, generator=np.random.default_rng(1)) for _ in range(2))
        flat = np.random.default_rng(2).standard_normal(WIDTH * (WIDTH + 1)).astype(np.float32) * np.float32(0.1)
        base = flat[WIDTH:].reshape(WIDTH, WIDTH).copy()
        first, second = {
            "view first": (base.T, base), "base first": (base, base.T), "one array": (base, base),
            "overlap": (flat[WIDTH:].reshape(WIDTH, WIDTH), flat[:-WIDTH].reshape(WIDTH, WIDTH)),
            "gaps": (np.concatenate([base, base], 1)[:, ::2], base),
        }[kind]  # fmt: skip
        a.weight.data, b.weight.data = first, second
        ends = (nn.Linear(m, n, generator=np.random.default_rng(3)) for m, n in ((6, WIDTH), (WIDTH, 6)))
        return nn.Sequential(next(ends), a, nn.Tanh(), b, next(ends))

    before = nnet.get_num_threads()
    nnet.set_num_threads(1)  # two threads would update the same numbers, in whatever order
    try:
        here, there = (Trainer("cpu", make, sgd, captured=captured) for captured in (False, True))
        graphs = compared(Here(monkeypatch), here, there)
    finally:
        nnet.set_num_threads(before)
    assert graphs == (REPLAYED if kind != "gaps" else [0, 0, 1, 0, 0])  # of which the update makes a copy each time
    assert all(p.data.flags.writeable for p in there.model.parameters())


def test_no_memory_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is run as it is, and no gradient is left that is another's memory."""

    def refuse(x: Any) -> Any:
        raise MemoryError

    def change(trainer: Trainer, number: int) -> None:
        if number == 2:
            monkeypatch.setattr(trial, "ops", SimpleNamespace(clone=refuse))

    here, there = pair(usual, adam)
    assert compared(Here(monkeypatch), here, there, change=change) == [0] * 5


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
