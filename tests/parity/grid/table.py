"""The whole table: what the grid holds, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from tests.parity.grid import (
    activation,
    arithmetic,
    convolution,
    images,
    layers,
    losses,
    normalisation,
    pooling,
    reductions,
    shapes,
    shaping,
    stateless,
)
from tests.parity.grid.cases import Entry
from tests.parity.grid.compare import difference
from tests.parity.grid.known import KNOWN, Known, empty

FAMILIES = (
    convolution, pooling, normalisation, activation, images, losses, arithmetic, reductions, shapes, layers, stateless,
    shaping,
)  # fmt: skip
ENTRIES: dict[str, Entry] = {entry.name: entry for family in FAMILIES for entry in family.ENTRIES}


@dataclass
class Result:
    """What came out for one entry."""

    cases: int = 0
    known: dict[Known, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    differ: int = 0
    """The number of cases that differ for no reason that is known."""

    @property
    def reasons(self) -> dict[str, int]:
        """The number of cases that differ for each reason."""
        counts = Counter[str]()
        for known, count in self.known.items():
            counts[known.reason] += count
        return dict(counts)

    @property
    def agreed(self) -> int:
        """The number of cases in which the libraries agree."""
        return self.cases - sum(self.known.values()) - self.differ


def row(name: str, result: Result) -> str:
    """Return a line of the table of docs/parity.md."""
    why = "; ".join(f"{count}: {reason}" for reason, count in result.reasons.items())
    return f"| {name} | {result.cases} | {result.agreed} | {why}{' ' if why else ''}|"


def total(results: Iterable[Result]) -> str:
    """Return the last line of the table."""
    results = list(results)
    return f"| total | {sum(r.cases for r in results)} | {sum(r.agreed for r in results)} | |"


def examine(entry: Entry) -> Result:
    """Run an entry's cases."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the cases are small, and other processes test too
    try:
        return _examined(entry)
    finally:
        torch.set_num_threads(threads)


def _examined(entry: Entry) -> Result:
    expected = [known for known in KNOWN if entry.name in known.functions]
    result = Result(known=dict.fromkeys(expected, 0))
    cases, result.wrong = entry.covered()
    for case in cases:
        result.cases += 1
        text = difference(case)
        if not text and case.bad and case.theirs.error is None and not empty(case.plain):
            result.wrong.append(f"{case}\n    is answered, though it holds a value that is marked as bad")
        if not text:
            continue
        reason = next((known for known in expected if known.explains(case)), None)
        if reason is None:
            result.wrong.append(f"{case}\n    {text}")
            result.differ += 1
        else:
            result.known[reason] += 1
    result.wrong += [f"{entry.name}: no longer differs: {known.reason}" for known, n in result.known.items() if not n]
    return result
