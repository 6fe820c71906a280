"""An entry of the table: a function in both libraries, and the values of its options."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

import numbanet as nnet
from tests.parity.grid.pairs import Choice, Covering, Held, Rule, Space, Values, breaks
from tests.parity.grid.running import Call, Outcome, run
from tests.parity.grid.values import OMIT, Bad, plain

FEWEST, MOST = 80, 150
OURS = {"gradients": (True, False), "by_position": (False, True)}
"""What every function has besides its own options: whether gradients are asked for, and how its arguments are given."""


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
        their names, or by position up to the first one that is omitted, which is one more option, "by_position".
    tolerance : float
        As a multiple of what 32-bit results may differ by (1e-5 of the largest element), or 64-bit ones (1e-10).
    refuses : dict
        Which values PyTorch refuses together though each is good: a reason, and a function of the options it is about.
    possible : function, optional
        ``possible(**choice)``: whether the two may be called so at all.
    fewest : int
        The number of cases, where every pair needs less.
    pairwise : bool
        Whether the cases hold every pair of values, or only every value.
    """

    name: str
    ours: Callable
    theirs: Callable
    options: dict[str, Sequence[Any]]
    call: Callable[..., Call] | None = None
    tolerance: float = 1.0
    refuses: dict[str, Callable[..., bool]] = field(default_factory=dict)
    possible: Callable[..., bool] | None = None
    fewest: int = FEWEST
    pairwise: bool = True

    @cached_property
    def all_options(self) -> dict[str, Sequence[Any]]:
        """The options, and those of `OURS` that there are."""
        extra = {} if self.call is not None or len(self.options) == 1 else {"by_position": OURS["by_position"]}
        return {**self.options, **extra, "gradients": OURS["gradients"]}

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """What `refuses` says of the numbers of values."""
        names = list(self.all_options)
        return {reason: self._rule(when, names) for reason, when in self.refuses.items()}

    def _rule(self, when: Callable[..., bool], names: list[str]) -> Rule:
        about = list(inspect.signature(when).parameters)
        values = [
            [(k, value) for k, value in enumerate(self.all_options[name]) if not isinstance(value, Bad)]
            for name in about
        ]
        together = (zip(*chosen) for chosen in itertools.product(*values))
        return tuple(names.index(name) for name in about), frozenset(
            numbers for numbers, chosen in together if when(*chosen)
        )

    def chosen(self, choice: Choice) -> dict[str, Any]:
        """Return the values of a choice."""
        return {name: values[k] for (name, values), k in zip(self.all_options.items(), choice)}

    def _possible(self, choice: Choice) -> bool:
        chosen = {name: plain(value) for name, value in self.chosen(choice).items() if name not in OURS}
        return self.possible is None or self.possible(**chosen)

    def covered(self) -> tuple[list[Case], list[str]]:
        """Return cases, the same ones each time, that hold what they shall; and what is wrong with the rules."""
        made: dict[Choice, Case] = {}

        def case(choice: Choice) -> Case:
            return made.setdefault(choice, Case(self, self.chosen(choice)))

        def answered(choice: Choice) -> bool:
            return case(choice).theirs.error is None

        bad = [[isinstance(value, Bad) for value in values] for values in self.all_options.values()]
        space = Space(bad, list(self.rules.values()), self._possible, answered)
        found = (Covering if self.pairwise else Values)(space).cover(self.fewest)
        assert len(found.choices) <= MOST, f"{self.name}: {len(found.choices)} cases, more than {MOST}"
        wrong = [f"{self.name}: never answered, and no rule says so: {self._words(pair)}" for pair in found.missing]
        wrong += [f"{self.name}: never asked: {self._words(pair)}" for pair in found.unasked]
        for reason, rule in self.rules.items() if self.pairwise else ():
            if not rule[1]:
                wrong.append(f"{self.name}: a rule about nothing: {reason}")
            against = [case(choice) for choice in [*found.choices, *space.probes(rule)] if breaks(choice, rule)]
            wrong += [f"{c}\n    is answered, against the rule: {reason}" for c in against if c.theirs.error is None]
        return [case(choice) for choice in found.choices], wrong

    def _words(self, held: Held) -> str:
        items = list(self.all_options.items())
        return " and ".join(f"{items[k][0]}={items[k][1][v]!r}" for k, v in held.items())


@dataclass(frozen=True, eq=False)
class Case:
    """One choice of values."""

    entry: Entry
    choice: dict[str, Any]

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The choice without the marks of bad values."""
        return {name: plain(value) for name, value in self.choice.items()}

    @property
    def bad(self) -> bool:
        """Whether there is a bad value."""
        return any(isinstance(value, Bad) for value in self.choice.values())

    @cached_property
    def call(self) -> Call:
        """The arguments."""
        given = {name: value for name, value in self.plain.items() if name not in OURS}
        if self.entry.call is not None:
            return self.entry.call(**given)
        names = list(given)
        by_position = 1
        if self.plain.get("by_position"):
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
        return f"{self.entry.name}: " + ", ".join(f"{k}={v!r}" for k, v in self.choice.items())
