"""Dropout: which elements stay is a function of their index and of a draw of the generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from numbanet.problem.base import Problem

COUNTERS = 16
"""Counters of a block: word w of counter 16 b + j decides on element 64 b + 16 w + j, so vectors of words are
neighbours in memory."""

BLOCK = 4 * COUNTERS
"""Elements of a block."""


@dataclass(frozen=True)
class DropoutProblem(Problem):
    """y = x times 0 where the element's random word is below p 2^32, else times 1 / (1 - p).

    The words are those of Philox4x32-10; see `COUNTERS` for the low half of the counter. Its high half is the number of
    the draw, the key the seed. Elements are counted in the order of memory. Where a second output, of bytes, is given,
    it says which elements are dropped: the backward pass, which multiplies the gradient alike, takes it in place of the
    draw.

    Attributes
    ----------
    size : int
        Number of elements.
    p : float
        Probability of an element to be dropped.
    """

    operation: ClassVar[str] = "dropout"
    size: int
    p: float

    @property
    def host(self) -> tuple[int, ...]:  # type: ignore[override]
        """The draw; the backward pass takes none."""
        return (1,) if self.which == "forward" else ()

    @property
    def threshold(self) -> int:
        """Elements with a smaller random word are dropped."""
        return min(round(self.p * 2**32), 2**32 - 1)

    @property
    def scale(self) -> float:
        """The factor of the elements that stay."""
        return 0.0 if self.p == 1 else 1 / (1 - self.p)


def probability(p: Any, name: str = "p") -> float:
    """Return p as a float; errors call it `name`.

    Raises
    ------
    TypeError, ValueError
        If it is not a number from 0 to 1.
    """
    if isinstance(p, bool) or not isinstance(p, (int, float, np.floating)):
        raise TypeError(f"{name} must be a number, got {p!r}")
    if math.isnan(p) or not 0 <= p <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {p}")
    return float(p)
