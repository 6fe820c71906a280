"""An entry of the table: a function in both libraries, and the values of its options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

import numbanet as nnet
from tests.parity.grid.pairs import all_pairs
from tests.parity.grid.running import Call, Outcome, run
from tests.parity.grid.values import OMIT, Bad

FEWEST, MOST = 80, 150


@dataclass(frozen=True, eq=False)
class Entry:
    """One function.

    Attributes
    ----------
    name : str
    ours, theirs : function
        Of numbanet and PyTorch.
    options : dict
        For each option the values it shall have.
    call : function, optional
        ``call(**choice)`` gives the `Call`; else the options are the arguments, in the function's order: handed over by
        their names in every other case, and else by position.
    tolerance : float
        As a multiple of what 32-bit results may differ by (1e-5 of the largest element), or 64-bit ones (1e-10).
    possible : function, optional
        ``possible(**choice)``: whether the two may be called so at all.
    fewest : int
        The number of cases, where every pair needs less.
    """

    name: str
    ours: Callable
    theirs: Callable
    options: dict[str, Sequence[Any]]
    call: Callable[..., Call] | None = None
    tolerance: float = 1.0
    possible: Callable[..., bool] | None = None
    fewest: int = FEWEST

    @cached_property
    def all_options(self) -> dict[str, Sequence[Any]]:
        """The options, and whether gradients are asked for."""
        return {**self.options, "gradients": (True, False)}

    def _chosen(self, choice: Sequence[int]) -> dict[str, Any]:
        return {name: values[k] for (name, values), k in zip(self.all_options.items(), choice)}

    def _possible(self, choice: Sequence[int]) -> bool:
        chosen = {name: plain(value) for name, value in self._chosen(choice).items() if name != "gradients"}
        return self.possible is None or self.possible(**chosen)

    @cached_property
    def choices(self) -> list[dict[str, Any]]:
        """The choices of values, at most `MOST`, that hold every pair."""
        bad = [[isinstance(value, Bad) for value in values] for values in self.all_options.values()]
        answered = lambda choice: Case(self, 0, self._chosen(choice)).theirs.error is None  # noqa: E731
        found = [self._chosen(choice) for choice in all_pairs(bad, self._possible, answered, self.fewest)]
        assert len(found) <= MOST, f"{self.name}: {len(found)} cases are needed for every pair, more than {MOST}"
        return found

    def cases(self) -> Iterator[Case]:
        """Return the cases, which are the same each time."""
        return (Case(self, number, choice) for number, choice in enumerate(self.choices))


@dataclass(frozen=True, eq=False)
class Case:
    """One choice of values."""

    entry: Entry
    number: int
    choice: dict[str, Any]

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The choice without the marks of bad values."""
        return {name: plain(value) for name, value in self.choice.items()}

    @cached_property
    def call(self) -> Call:
        """The arguments."""
        given = {name: value for name, value in self.plain.items() if name != "gradients"}
        if self.entry.call is not None:
            return self.entry.call(**given)
        names = list(given)
        by_position = 1
        if self.number % 2:
            by_position = next((k for k, name in enumerate(names) if given[name] is OMIT), len(names))
        first = tuple(given[name] for name in names[:by_position])
        return Call(first, {name: given[name] for name in names[by_position:] if given[name] is not OMIT})

    @cached_property
    def theirs(self) -> Outcome:
        """What PyTorch does."""
        return run(torch, self.entry.theirs, self.call, self.choice["gradients"])

    @cached_property
    def ours(self) -> Outcome:
        """What numbanet does."""
        return run(nnet, self.entry.ours, self.call, self.choice["gradients"])

    def __str__(self) -> str:
        return f"{self.entry.name} {self.number}: " + ", ".join(f"{k}={v!r}" for k, v in self.choice.items())


def plain(value: Any) -> Any:
    """Return a value without the mark of bad ones."""
    return value.value if isinstance(value, Bad) else value
