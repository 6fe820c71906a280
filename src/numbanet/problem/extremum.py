"""Largest and smallest elements along a dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numbanet.problem.base import Problem


@dataclass(frozen=True)
class ExtremumProblem(Problem):
    """values[a, b], positions[a, b] = the extreme of x[a, :, b] and its place, of equals the first; NaN beats numbers.

    Attributes
    ----------
    largest : bool
        Whether the largest is sought, or the smallest.
    outer, reduced, inner : int
        Sizes of x, in the order of memory.
    """

    operation: ClassVar[str] = "extremum"
    largest: bool
    outer: int
    reduced: int
    inner: int
