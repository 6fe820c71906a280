"""The base of the learning-rate schedules."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

from numbanet.optim.optimizer import Optimizer
from numbanet.watch import doubt


def positive(name: str, value: Any) -> int:
    """Return `value` if it is an integer above 0, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return value


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """Return one value for each parameter group; ValueError for a list of another length."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(optimizer.param_groups)
    if len(values) != len(optimizer.param_groups):
        raise ValueError(f"{name} must have one entry for each of the {len(optimizer.param_groups)} parameter groups, "
                         f"got {len(values)}")  # fmt: skip
    return values


class LRScheduler(ABC):
    """The base of the schedules.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        -1 starts the schedule; to go on with one, load its state instead, or give the number of steps done.

    Attributes
    ----------
    last_epoch : int
        Number of steps done.
    base_lrs : list of float
        The rate of each group at the start.

    Raises
    ------
    TypeError
        If `optimizer` is none.
    KeyError
        If `last_epoch` says that steps were done, and a group does not know its initial rate.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"last_epoch={last_epoch}, but parameter group {number} has no 'initial_lr'")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._start()

    def _start(self) -> None:
        self._step_count = 0
        self._initial = True
        self.step()
        self._initial = False

    @abstractmethod
    def get_lr(self) -> list[float]:
        """Return the rate of each group at `last_epoch`, given the rates before it."""

    def _first_lr(self) -> list[float]:
        """Return the rates of a schedule that `SequentialLR` starts now."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """Return the rates that were set last."""
        return self._last_lr

    def step(self) -> None:
        """Go on by one step and set the rates; call it after ``optimizer.step()``."""
        if self._step_count == 1 and self.optimizer.step_count == 0:
            warnings.warn(
                "step() of a schedule before the first optimizer.step(): the initial learning rate is never used",
                stacklevel=2,
            )
        self._step_count += 1
        self.last_epoch += 1
        self._set(self.get_lr())

    def _restart(self) -> None:
        self.last_epoch = 0
        self._set(self._first_lr())

    def _set(self, rates: list[float]) -> None:
        doubt("a schedule of learning rates went on")
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["lr"] = rate
        self._last_lr = list(rates)

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer, as numbers, strings, lists and dictionaries."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned. The rates themselves stand in the optimizer's state."""
        vars(self).update(state_dict)
