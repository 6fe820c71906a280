"""The step of an optimizer in a captured call: what Python does for it, done again before a replay."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numbanet.tensor import Tensor, array_of

if TYPE_CHECKING:
    from numbanet.optim.optimizer import Optimizer

_Columns = dict[str, list[np.ndarray] | None]


class Update(NamedTuple):
    """An update of many parameters of a group, as it was made."""

    group: dict[str, Any]
    tensors: list[Tensor]
    values: list[np.ndarray]
    columns: _Columns
    coefficients: np.ndarray
    options: tuple[str, ...]
    rule: str
    gradients: list[np.ndarray]

    def written(self) -> list[np.ndarray]:
        """Return the arrays that it changes."""
        return [*self.values, *self.states()]

    def states(self) -> list[np.ndarray]:
        """Return the arrays of the states."""
        return [array for column in self.columns.values() for array in column or ()]


class StepAgain:
    """Counts a step, and works out the numbers that its kernels read: learning rates and the like of the moment."""

    what = "an optimizer made a step"

    def __init__(self, optimizer: Optimizer, updates: list[Update]):
        self._optimizer, self.updates = optimizer, updates
        self._members = [(group, list(group["params"])) for group in optimizer.param_groups]

    def go_on(self) -> bool:
        """Count; False where other arrays, or other kernels, are wanted than those of the recording."""
        optimizer, fresh, found = self._optimizer, dict[Tensor, dict[str, Any]](), list[tuple[float, ...]]()
        if len(optimizer.param_groups) != len(self._members) or optimizer.has_own_step():
            return False
        for group, (known, params) in zip(optimizer.param_groups, self._members):
            if group is not known or not _same(group["params"], params):
                return False
        for update in self.updates:
            states = []
            for p, values in zip(update.tensors, update.values):
                if array_of(p) is not values:
                    return False
                state = fresh[p] = dict(fresh.get(p) or optimizer.state.get(p) or {})
                states.append(state)
            numbers = self._numbers(update, states)
            if numbers is None:
                return False
            found.append(numbers)
        for update, coefficients in zip(self.updates, found):
            update.coefficients[...] = coefficients
        optimizer.state.update(fresh)
        optimizer.step_count += 1
        return True

    def _numbers(self, update: Update, states: list[dict[str, Any]]) -> tuple[float, ...] | None:
        """Bring states to the next step; return its coefficients, or None if they are not all that differs."""
        optimizer, group = self._optimizer, update.group
        held = [name for name, arrays in update.columns.items() if arrays is not None]
        if any(name not in state for state in states for name in held):
            return None
        try:
            kinds = {optimizer._prepare(v, state, group) for v, state in zip(update.values, states)}
            columns = optimizer._columns(states, group)
            numbers = [optimizer._numbers(group, kind) for kind in kinds]
        except (TypeError, ValueError, LookupError, ArithmeticError):
            return None  # run as it is, the step says what is wrong
        if len(numbers) != 1 or numbers[0].options != update.options or columns.keys() != update.columns.keys():
            return None
        if not all(_same(columns[name], arrays) for name, arrays in update.columns.items()):
            return None
        return numbers[0].coefficients

    def save(self) -> Callable[[], None]:
        """Return a function that brings back step counts and options; arrays are not its business."""
        optimizer, groups, table = self._optimizer, self._optimizer.param_groups, self._optimizer.state
        options, states, count = [dict(group) for group in groups], dict(table), optimizer.step_count

        def restore() -> None:
            optimizer.param_groups, optimizer.state, optimizer.step_count = groups, table, count
            for group, before in zip(groups, options):
                group.clear()
                group.update(before)
            table.clear()
            table.update(states)

        return restore

    def arrays(self) -> list[Any]:
        """Return the arrays of the states."""
        return [array for update in self.updates for array in update.states()]


def _same(found: Any, known: Any) -> bool:
    """Return whether two lists hold the same objects; both may be None."""
    if found is None or known is None:
        return found is known
    return len(found) == len(known) and all(map(is_, found, known))
