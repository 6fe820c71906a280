"""Local response normalisation: argument checks and the matrix that its kernels see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from numbanet.problem.base import Problem, integer


@dataclass(frozen=True)
class ResponseNormProblem(Problem):
    """y[r, c] = x[r, c] / (k + alpha / size * sum of x[r, j]^2)^beta, j from c - before to c + after inside the row.

    Attributes
    ----------
    rows, channels : int
    size : int
        Channels of a window.
    """

    operation: ClassVar[str] = "local_response_norm"
    host: ClassVar[tuple[int, ...]] = (-1,)
    rows: int
    channels: int
    size: int

    @property
    def before(self) -> int:
        """Channels of a window before its own."""
        return self.size // 2

    @property
    def after(self) -> int:
        """Channels of a window behind its own."""
        return (self.size - 1) // 2


def response_norm_problem(which: str, dtype: str, shape: Sequence[int], size: int) -> ResponseNormProblem:
    """Return the problem for an input of shape (N, C, ...).

    Raises
    ------
    TypeError, ValueError
        If the input has fewer than three dimensions, or `size` is not a positive integer.
    """
    if len(shape) < 3:
        raise ValueError(f"input must have at least 3 dimensions (N, C, ...), got shape {tuple(shape)}")
    rows = shape[0] * math.prod(shape[2:])
    return ResponseNormProblem(which, dtype, rows, shape[1], integer("size", size, 1))
