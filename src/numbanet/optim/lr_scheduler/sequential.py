"""Schedules after one another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from numbanet.optim.lr_scheduler.base import LRScheduler
from numbanet.optim.optimizer import Optimizer
from numbanet.problem.base import integer


class SequentialLR(LRScheduler):
    """One schedule after the other.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of LRScheduler
        Made for the same optimizer.
    milestones : list of int
        The steps at which the second, third, ... begin.
    last_epoch : int

    Raises
    ------
    ValueError
        If there is no schedule, one is made for another optimizer, or the number of milestones does not fit.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int],
        last_epoch: int = -1,
    ):  # fmt: skip
        for name, given in (("schedulers", schedulers), ("milestones", milestones)):
            if not isinstance(given, (list, tuple)):
                raise TypeError(f"{name} must be a list, got {given!r}")
        milestones = [integer("milestones", milestone) for milestone in milestones]
        if len(schedulers) < 1:
            raise ValueError("schedulers must hold at least one schedule, got none")
        for number, schedule in enumerate(schedulers):
            if not isinstance(schedule, LRScheduler):
                raise TypeError(f"schedulers[{number}] must be a schedule, got {type(schedule).__name__}")
            if schedule.optimizer is not optimizer:
                raise ValueError(f"schedulers[{number}] was made for another optimizer")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"milestones must have {len(schedulers) - 1} entries for {len(schedulers)} schedules, "
                             f"got {len(milestones)}")  # fmt: skip
        self.optimizer = optimizer
        self._schedulers, self._milestones = list(schedulers), list(milestones)
        self.last_epoch = last_epoch + 1
        # Each schedule has set its first rate; undo that, and start the one that is on.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self._undo_step()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._start()
        self._last_lr = first.get_last_lr()

    def _undo_step(self) -> None:
        for schedule in self._schedulers:
            if isinstance(schedule, SequentialLR):
                schedule._undo_step()
            else:
                schedule.last_epoch -= 1

    def get_lr(self) -> list[float]:
        return self._schedulers[bisect_right(self._milestones, self.last_epoch)].get_lr()

    def step(self) -> None:
        """Go on by one step with the schedule that is on."""
        self.last_epoch += 1
        on = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[on]
        if on > 0 and self._milestones[on - 1] == self.last_epoch:
            schedule._restart()
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()

    def _restart(self) -> None:
        self.last_epoch = 0
        self._schedulers[bisect_right(self._milestones, 0)]._restart()
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer; the states of the schedules under ``"_schedulers"``."""
        return {**super().state_dict(), "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        vars(self).update({key: value for key, value in state_dict.items() if key != "_schedulers"})
        for schedule, state in zip(self._schedulers, state_dict["_schedulers"]):
            schedule.load_state_dict(state)
