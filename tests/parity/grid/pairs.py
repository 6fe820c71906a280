"""Choices of option values in which every pair of values is answered; the same ones each time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

Choice = tuple[int, ...]
"""For each option the number of its value."""
Held = dict[int, int]
"""For some options the number of their values."""
Pair = tuple[int, int, int, int]
"""An option, its value, a later option, its value."""
Rule = tuple[tuple[int, ...], frozenset[Choice]]
"""Some options, and the values of these that do not go together."""
ATTEMPTS, CANDIDATES, PROBES = 100, 6, 80


def pairs_of(choice: Sequence[int]) -> list[Pair]:
    """Return the pairs that a choice holds."""
    return [(i, choice[i], j, choice[j]) for i, j in itertools.combinations(range(len(choice)), 2)]


@dataclass(frozen=True)
class Space:
    """What choices are drawn from.

    Attributes
    ----------
    bad : sequence of sequences of bool
        For each option, and each of its values, whether it is refused whatever the others are.
    rules : sequence of Rule
        Which good values are refused together.
    possible : function
        Whether a choice may be run at all.
    answered : function
        Whether a choice is answered, or refused.
    """

    bad: Sequence[Sequence[bool]]
    rules: Sequence[Rule]
    possible: Callable[[Choice], bool]
    answered: Callable[[Choice], bool]
    random: random.Random = field(default_factory=lambda: random.Random(0))

    @cached_property
    def every(self) -> list[list[int]]:
        """The values of each option."""
        return [list(range(len(values))) for values in self.bad]

    @cached_property
    def good(self) -> list[list[int]]:
        """The good values of each option; all where it has no other."""
        return [[v for v in values if not self.bad[k][v]] or values for k, values in enumerate(self.every)]

    @cached_property
    def bound(self) -> list[int]:
        """The options that rules are about."""
        return sorted({option for options, _ in self.rules for option in options})

    def goes(self, pair: Pair) -> bool:
        """Whether some values of the other options break no rule together with a pair."""
        held, left = _held(pair), [k for k in self.bound if k not in (pair[0], pair[2])]
        in_order = lambda option, _: self.good[option]  # noqa: E731
        return not self.broken(held) and _completed(held, left, self.rules, in_order) is not None

    def broken(self, held: Held) -> list[Rule]:
        """Return the rules that values break."""
        return [rule for rule in self.rules if _breaks(held, rule)]

    def drawn(self, held: Held, wanted: set[Pair], rules: Sequence[Rule] | None = None) -> Choice | None:
        """Return a choice at random that breaks no rule and, if that can be, has many of the pairs that are wanted."""

        def offers(option: int, held: Held) -> list[int]:
            values = self.random.sample(self.good[option], len(self.good[option]))
            if wanted:
                values.sort(key=lambda v: -sum(_pair(option, v, *other) in wanted for other in held.items()))
            return values

        shuffled = self.random.sample(range(len(self.bad)), len(self.bad))
        left = sorted((k for k in shuffled if k not in held), key=lambda k: k not in self.bound)
        found = _completed(held, left, self.rules if rules is None else rules, offers)
        return None if found is None else tuple(found[k] for k in range(len(self.bad)))

    def probes(self, rule: Rule) -> list[Choice]:
        """Return choices for each thing that a rule forbids, which break no other one, if there are such."""
        others = [other for other in self.rules if other is not rule]
        forbidden = [dict(zip(rule[0], values)) for values in sorted(rule[1])]
        times = max(2, PROBES // max(1, len(forbidden)))
        drawn = [self.drawn(held, set(), others) for held in forbidden for _ in range(times)]
        return list({choice: None for choice in drawn if choice is not None and self.possible(choice)})

    def mixed(self, held: Held, wanted: set[Pair]) -> Choice:
        """Return a choice of good and bad values, whatever the rules say."""
        for option in self.random.sample(range(len(self.bad)), len(self.bad)):
            if option not in held:
                offers = self.random.sample(self.every[option], len(self.every[option]))
                key = lambda v: sum(_pair(option, v, *other) in wanted for other in held.items())  # noqa: B023, E731
                held = {**held, option: max(offers, key=key)}
        return tuple(held[k] for k in range(len(self.bad)))


@dataclass
class Covering:
    """Choices that hold the pairs of a space, and the pairs of good values that none of them answers."""

    space: Space
    choices: dict[Choice, None] = field(default_factory=dict)
    missing: list[Held] = field(default_factory=list)
    _left: set[Pair] = field(default_factory=set)

    def cover(self, at_least: int) -> Covering:
        """Add all choices."""
        self._answered_pairs()
        self._left = set(_pairs(self.space.every)) - {pair for choice in self.choices for pair in pairs_of(choice)}
        self._bad_values()
        self._refused_pairs(at_least)
        self._bad_pairs()
        self._more(at_least)
        return self

    @property
    def unasked(self) -> list[Held]:
        """The pairs of values that no choice holds though they may be run, but those that are said to be missing."""
        return [
            held
            for held in map(_held, sorted(self._left))
            if held not in self.missing
            and any(self.space.possible(self.space.mixed(held, set())) for _ in range(ATTEMPTS))
        ]

    def _answered_pairs(self) -> None:
        """Every pair of good values that breaks no rule, in a choice that is answered."""
        space = self.space
        wanted = [pair for pair in _pairs(space.good) if space.goes(pair)]
        left = set(wanted)
        for pair in wanted:
            if pair not in left:
                continue
            choice = self._one_with(_held(pair), left)
            if choice is None:
                self.missing.append(_held(pair))
                left.discard(pair)
            else:
                self.choices[choice] = None
                left.difference_update(pairs_of(choice))

    def _one_with(self, held: Held, left: set[Pair]) -> Choice | None:
        """Return an answered choice with some values, the one with the most new pairs among the first drawn."""
        space, answered = self.space, {}
        for attempt in range(ATTEMPTS):
            choice = space.drawn(held, left if attempt < 2 * CANDIDATES else set())
            if choice is not None and choice not in answered and space.possible(choice) and space.answered(choice):
                answered[choice] = len(left.intersection(pairs_of(choice)))
            if answered and (attempt >= 2 * CANDIDATES or len(answered) == CANDIDATES):
                break
        return max(answered, key=lambda choice: answered[choice], default=None)

    def _bad_values(self) -> None:
        """Every bad value in a choice in which it is the only reason for a refusal."""
        space = self.space
        for option, values in enumerate(space.every):
            for value in values:
                if space.bad[option][value] and value not in space.good[option]:
                    self._add(lambda: space.drawn({option: value}, self._left))  # noqa: B023

    def _refused_pairs(self, at_most: int) -> None:
        """Pairs of good values that break rules, each in a choice that breaks no other, as long as there is room."""
        space = self.space
        for pair in _pairs(space.good):
            if len(self.choices) >= at_most:
                break
            if pair in self._left and not space.goes(pair):
                broken = space.broken(_held(pair))
                others = [rule for rule in space.rules if rule not in broken] if broken else []
                self._add(lambda: space.drawn(_held(pair), self._left, others))  # noqa: B023

    def _bad_pairs(self) -> None:
        """Every other pair, in choices with any number of reasons for a refusal."""
        for pair in _pairs(self.space.every):
            if pair in self._left and _held(pair) not in self.missing:
                for wanted in (self._left, set()):  # what is wanted most may be what cannot be run
                    if self._add(lambda: self.space.mixed(_held(pair), wanted)):  # noqa: B023
                        break

    def _more(self, at_least: int) -> None:
        """Choices drawn at random, which are answered, until there are enough, where there are so many."""
        space = self.space
        for _ in range(20 * at_least):
            if len(self.choices) >= at_least:
                break
            choice = space.drawn({}, set())
            if choice is not None and space.possible(choice) and space.answered(choice):
                self.choices[choice] = None

    def _add(self, drawn: Callable[[], Choice | None]) -> bool:
        """Add the first choice drawn that may be run; whether there was one."""
        tried = (drawn() for _ in range(20))
        choice = next((c for c in tried if c is not None and self.space.possible(c)), None)
        if choice is not None:
            self.choices[choice] = None
            self._left.difference_update(pairs_of(choice))
        return choice is not None


class Values(Covering):
    """Choices that hold the values of a space, each good one in one that is answered."""

    @property
    def unasked(self) -> list[Held]:
        """The values that no choice holds though they may be run."""
        held = {value for choice in self.choices for value in enumerate(choice)}
        every = [(option, value) for option, values in enumerate(self.space.every) for value in values]
        return [{option: value} for option, value in every if (option, value) not in held and self._runs(option, value)]

    def _runs(self, option: int, value: int) -> bool:
        return any(self.space.possible(self.space.mixed({option: value}, set())) for _ in range(ATTEMPTS))

    def cover(self, at_least: int) -> Values:
        """Add all choices."""
        found: set[tuple[int, int]] = set()
        for option, values in enumerate(self.space.good):
            for value in values:
                if (option, value) in found or self.space.bad[option][value]:
                    continue
                choice = self._one_with({option: value}, set())
                if choice is None:
                    broken = self.space.broken({option: value})
                    others = [rule for rule in self.space.rules if rule not in broken]
                    if self._add(lambda: self.space.drawn({option: value}, set(), others)) and not broken:  # noqa: B023
                        self.missing.append({option: value})
                else:
                    self.choices[choice] = None
                    found.update(enumerate(choice))
        self._bad_values()
        self._more(at_least)
        return self


def _pairs(values: Sequence[Sequence[int]]) -> list[Pair]:
    options = itertools.combinations(range(len(values)), 2)
    return [(i, a, j, b) for i, j in options for a in values[i] for b in values[j]]


def _pair(option: int, value: int, other: int, its: int) -> Pair:
    return (option, value, other, its) if option < other else (other, its, option, value)


def _held(pair: Pair) -> Held:
    return {pair[0]: pair[1], pair[2]: pair[3]}


def breaks(choice: Choice, rule: Rule) -> bool:
    """Whether a choice breaks a rule."""
    return _breaks(dict(enumerate(choice)), rule)


def _breaks(held: Held, rule: Rule) -> bool:
    options, together = rule
    return all(k in held for k in options) and tuple(held[k] for k in options) in together


def _completed(
    held: Held, left: Sequence[int], rules: Sequence[Rule], offers: Callable[[int, Held], Sequence[int]]
) -> Held | None:
    """Return values for all that is left, the first ones offered that break no rule; nothing where there are none."""
    if not left:
        return held
    option, *rest = left
    for value in offers(option, held):
        more = {**held, option: value}
        if not any(option in rule[0] and _breaks(more, rule) for rule in rules):
            found = _completed(more, rest, rules, offers)
            if found is not None:
                return found
    return None
