"""Choices of option values that hold every pair of values at least once; the same ones each time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from functools import cache

Choice = tuple[int, ...]
"""For each option the number of its value."""
Pair = tuple[int, int, int, int]
"""An option, its value, a later option, its value."""


def pairs_of(choice: Sequence[int]) -> list[Pair]:
    """Return the pairs that a choice holds."""
    return [(i, choice[i], j, choice[j]) for i, j in itertools.combinations(range(len(choice)), 2)]


def all_pairs(
    bad: Sequence[Sequence[bool]],
    possible: Callable[[Choice], bool],
    answered: Callable[[Choice], bool],
    at_least: int,
) -> list[Choice]:
    """Return choices that hold every pair of values for which there is a possible choice.

    Parameters
    ----------
    bad : sequence of sequences of bool
        For each option, and each of its values, whether it is refused whatever the others are. A refusal hides what
        good values do together: pairs of these are held by choices that are answered, if there are such. Each bad value
        has a choice in which it is the only one, and stands in others with every value of every other option.
    possible : function
        Whether a choice may be run at all.
    answered : function
        Whether a choice is answered, or refused.
    at_least : int
        Choices drawn at random, without bad values, make up the number, where there are so many.
    """
    may_be = cache(lambda choice: possible(choice) and answered(choice))
    draw = random.Random(0)
    every = [range(len(values)) for values in bad]
    good = [[value for value in values if not bad[option][value]] or values for option, values in enumerate(every)]
    found: dict[Choice, None] = {}
    left = set(_pairs(good))
    for pair in _pairs(good):
        if pair in left:
            _cover(pair, good, may_be, left, draw, found)
    for option, values in enumerate(every):
        for value in sorted(set(values) - set(good[option])):
            others = [[value] if k == option else good[k] for k in range(len(bad))]
            alone = next(filter(possible, (_drawn(others, draw) for _ in range(20))), None)
            found |= {} if alone is None else {alone: None}
    left = set(_pairs(every)) - {pair for choice in found for pair in pairs_of(choice)}
    for pair in _pairs(every):
        if pair in left:
            _cover(pair, every, possible, left, draw, found)
    for _ in range(20 * at_least):
        if len(found) >= at_least:
            break
        choice = _drawn(good, draw)
        if may_be(choice):
            found[choice] = None
    return list(found)


def _pairs(values: Sequence[Sequence[int]]) -> list[Pair]:
    options = itertools.combinations(range(len(values)), 2)
    return [(i, a, j, b) for i, j in options for a in values[i] for b in values[j]]


def _drawn(values: Sequence[Sequence[int]], draw: random.Random) -> Choice:
    return tuple(draw.choice(option) for option in values)


def _cover(
    pair: Pair,
    values: Sequence[Sequence[int]],
    possible: Callable[[Choice], bool],
    left: set[Pair],
    draw: random.Random,
    found: dict[Choice, None],
) -> None:
    """Add a choice that holds this pair, and many that are left; none where no choice with it is possible."""
    for attempt in range(20):
        choice = {pair[0]: pair[1], pair[2]: pair[3]}
        for option in draw.sample(range(len(values)), len(values)):
            if option in choice:
                continue
            offers = draw.sample(values[option], len(values[option]))
            if attempt:  # the best one is impossible: any other
                choice[option] = offers[0]
                continue
            held = list(choice.items())
            choice[option] = max(
                offers,
                key=lambda value: sum(
                    ((option, value, *other) if option < other[0] else (*other, option, value)) in left  # noqa: B023
                    for other in held  # noqa: B023
                ),
            )
        made = tuple(choice[option] for option in range(len(values)))
        if possible(made):
            found[made] = None
            left.difference_update(pairs_of(made))
            return
    left.discard(pair)
