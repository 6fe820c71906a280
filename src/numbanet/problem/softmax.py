"""Softmax and its logarithm along one dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numbanet.problem.base import Problem, integer
from numbanet.problem.reduce import reduced_dims


@dataclass(frozen=True)
class SoftmaxProblem(Problem):
    """y = softmax(x) along the middle one of three dimensions, (outer, length, inner).

    Attributes
    ----------
    log : bool
        Whether the logarithm is wanted.
    outer, length, inner : int
        Sizes of the three dimensions, in the order of memory.
    """

    operation: ClassVar[str] = "softmax"
    log: bool
    outer: int
    length: int
    inner: int


def softmax_dim(dim: Any, ndim: int) -> int:
    """Return the dimension, from 0 on; an array of no dimension counts as one of a single dimension.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If there is no such dimension.
    """
    return reduced_dims(integer("dim", dim), ndim)[0]


def implicit_dim(ndim: int) -> int:
    """Return the dimension that torch takes where none is given."""
    return 0 if ndim in (0, 1, 3) else 1
