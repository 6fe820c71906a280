"""The multi-class hinge loss: argument checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numbanet.problem.base import Problem


@dataclass(frozen=True)
class MarginProblem(Problem):
    """losses[r] = sum over j != y of weight[y] max(0, margin - x[r, y] + x[r, j])^power / classes, y = target[r].

    Attributes
    ----------
    rows, classes : int
    power : {1, 2}
    each : bool
        Backward: whether each row has a gradient of its own, or one serves all.
    """

    operation: ClassVar[str] = "multi_margin_loss"
    host: ClassVar[tuple[int, ...]] = (3, 4)
    rows: int
    classes: int
    power: int
    each: bool = False
