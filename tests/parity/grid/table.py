"""The whole table: what the grid holds, and what came out."""

from __future__ import annotations

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
)
from tests.parity.grid.cases import Entry
from tests.parity.grid.compare import difference
from tests.parity.grid.known import KNOWN, Known

FAMILIES = (
    convolution, pooling, normalisation, activation, images, losses, arithmetic, reductions, shapes, layers,
)  # fmt: skip
ENTRIES: dict[str, Entry] = {entry.name: entry for family in FAMILIES for entry in family.ENTRIES}


@dataclass
class Result:
    """What came out for one entry."""

    cases: int = 0
    known: dict[Known, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def agreed(self) -> int:
        """The number of cases in which the libraries agree."""
        return self.cases - sum(self.known.values()) - len(self.wrong)


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
    for case in entry.cases():
        result.cases += 1
        text = difference(case)
        if not text:
            continue
        reason = next((known for known in expected if known.explains(case)), None)
        if reason is None:
            result.wrong.append(f"{case}\n    {text}")
        else:
            result.known[reason] += 1
    result.wrong += [f"{entry.name}: no longer differs: {known.reason}" for known, n in result.known.items() if not n]
    return result
