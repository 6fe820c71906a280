"""Learning-rate schedules against their formulas; stopping and resuming; wrong arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import numbanet as nnet
from numbanet import optim
from numbanet.io.state import load_state, save_state
from numbanet.optim import lr_scheduler as schedules


def optimizer(kind: str = "SGD", lr: float = 0.8) -> optim.Optimizer:
    groups = [{"params": [nnet.tensor([1.0])]}, {"params": [nnet.tensor([2.0])], "lr": lr / 4}]
    return getattr(optim, kind)(groups, lr=lr)


def rates(schedule: schedules.LRScheduler, steps: int, group: int = 0) -> list[float]:
    """The rate before each of so many steps."""
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[group]["lr"])
        assert schedule.get_last_lr()[group] == found[-1]
        schedule.optimizer.step()
        schedule.step()
    return found


def cosine(step: int) -> float:
    return 0.1 + 0.7 * (1 + math.cos(math.pi * step / 8)) / 2


FORMULAS: dict[str, tuple[Callable[[optim.Optimizer], schedules.LRScheduler], Callable[[int], float]]] = {
    "lambda": (lambda o: schedules.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 0.8 / (1 + t)),
    "step": (lambda o: schedules.StepLR(o, 3, 0.5), lambda t: 0.8 * 0.5 ** (t // 3)),
    "milestones": (
        lambda o: schedules.MultiStepLR(o, [9, 2, 5, 5], 0.5),
        lambda t: 0.8 * 0.5 ** ((t >= 2) + 2 * (t >= 5) + (t >= 9)),
    ),
    "line": (lambda o: schedules.LinearLR(o, 0.25, 0.75, 6), lambda t: 0.8 * (0.25 + 0.5 * min(t, 6) / 6)),
    "cosine": (lambda o: schedules.CosineAnnealingLR(o, 8, 0.1), cosine),
    "sequence": (
        lambda o: schedules.SequentialLR(o, [schedules.LinearLR(o, 0.25, 1.0, 4), schedules.StepLR(o, 5)], [4]),
        lambda t: 0.8 * (0.25 + 0.75 * t / 4) if t < 4 else 0.8 * 0.1 ** ((t - 4) // 5),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    make, formula = FORMULAS[name]
    found = rates(make(optimizer()), 30)
    assert found == pytest.approx([formula(t) for t in range(30)], rel=1e-9, abs=1e-12)


def test_each_group_has_its_own_start() -> None:
    assert rates(schedules.StepLR(optimizer(), 2), 4, group=1) == pytest.approx([0.2, 0.2, 0.02, 0.02])
    both = schedules.LambdaLR(optimizer(), [lambda t: t, lambda t: 2 * t])
    both.optimizer.step()
    both.step()
    assert both.get_last_lr() == pytest.approx([0.8, 0.4])


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle(strategy: str) -> None:
    schedule = schedules.OneCycleLR(optimizer(), [1.0, 2.0], 21, pct_start=0.5, anneal_strategy=strategy,
                                    div_factor=10, final_div_factor=100)  # fmt: skip
    group, found, momenta = schedule.optimizer.param_groups[0], [], []
    for number in range(21):
        found.append(group["lr"])
        momenta.append(group["momentum"])
        if number < 20:
            schedule.optimizer.step()
            schedule.step()
    assert found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.001)
    peak = max(found)
    assert peak == pytest.approx(1.0, rel=0.05) and found.index(peak) in (9, 10)
    assert momenta[0] == momenta[-1] == 0.95 and min(momenta) == pytest.approx(0.85, rel=0.01)
    assert found[5] == pytest.approx(0.1 + 0.9 * (5 / 9.5 if strategy == "linear"
                                                  else (1 - math.cos(math.pi * 5 / 9.5)) / 2))  # fmt: skip


def test_one_cycle_turns_beta1_and_ends() -> None:
    schedule = schedules.OneCycleLR(optimizer("Adam"), 1.0, epochs=2, steps_per_epoch=5)
    assert schedule.total_steps == 10 and schedule.optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    rates(schedule, 10)
    with pytest.raises(ValueError, match="step 11 of a cycle of 10 steps"):
        schedule.step()
    quiet = schedules.OneCycleLR(optimizer("Adagrad"), 1.0, 10, cycle_momentum=False)
    assert "momentum" not in quiet.optimizer.param_groups[0]


@pytest.mark.parametrize("name", [*FORMULAS, "one-cycle"])
def test_resume_bit_for_bit(name: str, tmp_path: Any) -> None:
    make = FORMULAS[name][0] if name in FORMULAS else lambda o: schedules.OneCycleLR(o, 1.0, 30)
    expected = rates(make(optimizer()), 20)
    first = make(optimizer())
    assert rates(first, 7) == expected[:7]
    save_state(tmp_path / "s", {"optimizer": first.optimizer.state_dict(), "schedule": first.state_dict()})
    state = load_state(tmp_path / "s")
    second = make(optimizer())
    second.load_state_dict(state["schedule"])
    second.optimizer.load_state_dict(state["optimizer"])
    second.optimizer.step()
    assert rates(second, 13) == expected[7:]


def test_a_rate_set_by_hand_stays() -> None:
    schedule = schedules.StepLR(optimizer(), 2, 0.5)
    rates(schedule, 1)
    schedule.optimizer.param_groups[0]["lr"] = 0.4
    schedule.optimizer.step()
    schedule.step()
    assert rates(schedule, 3) == [0.2, 0.2, 0.1]


def test_warns_when_the_first_rate_is_skipped() -> None:
    schedule = schedules.StepLR(optimizer(), 2)
    with pytest.warns(UserWarning, match=r"before the first optimizer.step\(\)"):
        schedule.step()


def test_sequences_of_sequences() -> None:
    o = optimizer()
    inner = schedules.SequentialLR(o, [schedules.LinearLR(o, 0.5, 1.0, 2), schedules.StepLR(o, 2)], [3])
    outer = schedules.SequentialLR(o, [schedules.LambdaLR(o, lambda t: 2.0), inner], [2])
    assert rates(outer, 7) == pytest.approx([1.6, 1.6, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_wrong_arguments() -> None:
    o = optimizer()
    with pytest.raises(TypeError, match="optimizer must be an Optimizer, got int"):
        schedules.StepLR(3, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optimizer must be an Optimizer, got int"):
        schedules.OneCycleLR(3, 2, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_lr must be a number, got None"):
        schedules.OneCycleLR(o, None, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step_size must be a positive integer, got 0"):
        schedules.StepLR(o, 0)
    with pytest.raises(ValueError, match="T_max must be a positive integer, got 0"):
        schedules.CosineAnnealingLR(o, 0)
    with pytest.raises(ValueError, match="lr_lambda must have one entry for each of the 2 parameter groups, got 1"):
        schedules.LambdaLR(o, [lambda t: 1.0])
    with pytest.raises(ValueError, match=r"start_factor must be in \(0, 1\], got 0"):
        schedules.LinearLR(o, start_factor=0)
    with pytest.raises(ValueError, match=r"end_factor must be in \[0, 1\], got 2"):
        schedules.LinearLR(o, end_factor=2)
    with pytest.raises(KeyError, match="parameter group 0 has no 'initial_lr'"):
        schedules.StepLR(o, 2, last_epoch=3)
    with pytest.raises(ValueError, match="total_steps, or both epochs and steps_per_epoch"):
        schedules.OneCycleLR(o, 1.0, epochs=3)
    with pytest.raises(ValueError, match="total_steps must be a positive integer, got 1.5"):
        schedules.OneCycleLR(o, 1.0, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pct_start must be a float between 0 and 1"):
        schedules.OneCycleLR(o, 1.0, 10, pct_start=2.0)
    with pytest.raises(ValueError, match="anneal_strategy must be 'cos' or 'linear', got 'cosine'"):
        schedules.OneCycleLR(o, 1.0, 10, anneal_strategy="cosine")
    with pytest.raises(ValueError, match="an optimizer with a momentum or betas"):
        schedules.OneCycleLR(optimizer("Adagrad"), 1.0, 10)
    with pytest.raises(ValueError, match="at least one schedule"):
        schedules.SequentialLR(o, [], [])
    with pytest.raises(ValueError, match="milestones must have 0 entries for 1 schedules, got 1"):
        schedules.SequentialLR(o, [schedules.StepLR(o, 2)], [3])
    with pytest.raises(ValueError, match=r"schedulers\[0\] was made for another optimizer"):
        schedules.SequentialLR(o, [schedules.StepLR(optimizer(), 2)], [])
    with pytest.raises(TypeError, match=r"schedulers\[0\] must be a schedule, got int"):
        schedules.SequentialLR(o, [3], [])  # type: ignore[list-item]
