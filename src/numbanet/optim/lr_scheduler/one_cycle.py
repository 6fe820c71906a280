"""The one-cycle schedule."""

from __future__ import annotations

import math
from typing import Any

from numbanet.optim.lr_scheduler.base import LRScheduler, per_group, positive
from numbanet.optim.optimizer import Optimizer
from numbanet.problem.pointwise import number


class OneCycleLR(LRScheduler):
    """Rise to `max_lr` and fall far below the start, with the momentum going the other way (Smith and Topin, 2018).

    Call `step` after every batch.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or list of float
        The peak, or that of each group.
    total_steps : int, optional
        Length of the cycle; `epochs` * `steps_per_epoch` unless given.
    epochs, steps_per_epoch : int, optional
    pct_start : float
        Part of the cycle that rises.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether the momentum (beta1 of Adam) falls from `max_momentum` to `base_momentum` while the rate rises.
    base_momentum, max_momentum : float or list of float
    div_factor : float
        The cycle starts at max_lr / div_factor.
    final_div_factor : float
        It ends at max_lr / div_factor / final_div_factor.
    three_phase : bool
        Fall as long as it rose, back to the start, and then go down to the end.
    last_epoch : int

    Raises
    ------
    TypeError, ValueError
        If the length of the cycle is not given, an argument is out of its range, or the optimizer has no momentum.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        if total_steps is not None:
            self.total_steps = positive("total_steps", total_steps)
        elif epochs is None or steps_per_epoch is None:
            raise ValueError("total_steps, or both epochs and steps_per_epoch, must be given")
        else:
            self.total_steps = positive("epochs", epochs) * positive("steps_per_epoch", steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start must be a float between 0 and 1, got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self._phases = _one_cycle_phases(pct_start, self.total_steps, three_phase)
        peaks = [number("max_lr", peak) for peak in per_group("max_lr", optimizer, max_lr)]
        if last_epoch == -1:
            for group, peak in zip(optimizer.param_groups, peaks):
                group["initial_lr"], group["max_lr"] = peak / div_factor, peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            if not {"momentum", "betas"} & set(optimizer.defaults):
                raise ValueError("cycle_momentum needs an optimizer with a momentum or betas")
            lows = per_group("base_momentum", optimizer, base_momentum)
            highs = per_group("max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                for group, low, high in zip(optimizer.param_groups, lows, highs):
                    group["base_momentum"], group["max_momentum"] = low, high
                    _set_momentum(group, high)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(f"step {self.last_epoch} of a cycle of {self.total_steps} steps")
        start, phase = 0.0, self._phases[0]
        for following in self._phases[1:]:
            if self.last_epoch <= phase["end"]:
                break
            start, phase = phase["end"], following
        length = phase["end"] - start
        done = (self.last_epoch - start) / length if length else 1.0
        for group in self.optimizer.param_groups:
            if self.cycle_momentum:
                first, last = phase["momentum"]
                _set_momentum(group, self._anneal(group[first], group[last], done))
        first, last = phase["lr"]
        return [self._anneal(group[first], group[last], done) for group in self.optimizer.param_groups]

    def _anneal(self, start: float, end: float, done: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


def _one_cycle_phases(pct_start: float, total_steps: int, three_phase: bool) -> list[dict[str, Any]]:
    """Return the phases: the step at which each ends, and the group's options that it leads from and to."""
    rise = {"end": pct_start * total_steps - 1, "lr": ["initial_lr", "max_lr"],
            "momentum": ["max_momentum", "base_momentum"]}  # fmt: skip
    if not three_phase:
        fall = {"end": total_steps - 1, "lr": ["max_lr", "min_lr"], "momentum": ["base_momentum", "max_momentum"]}
        return [rise, fall]
    back = {"end": 2 * pct_start * total_steps - 2, "lr": ["max_lr", "initial_lr"],
            "momentum": ["base_momentum", "max_momentum"]}  # fmt: skip
    last = {"end": total_steps - 1, "lr": ["initial_lr", "min_lr"], "momentum": ["max_momentum", "max_momentum"]}
    return [rise, back, last]


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value
