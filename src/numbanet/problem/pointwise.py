"""Formulas applied element by element to operands of one memory layout: activations and losses with parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from numbanet.problem.base import Problem, integer

MAX_OPERANDS, MAX_PARAMETERS = 4, 2


@dataclass(frozen=True)
class PointwiseProblem(Problem):
    """y[i] = function(operands[i]; parameters), or with ``which="sum"`` the sum of these numbers, or their mean.

    Attributes
    ----------
    function : str
        ``"elu"``, ``"huber_backward"``, ...; see `numbanet.reference.pointwise`.
    size : int
        Number of elements.
    dense : tuple of bool
        For each operand, whether it has `size` elements, or a single one that serves all.
    mean : bool
        Divide the sum by `size`.
    """

    operation: ClassVar[str] = "pointwise"
    host: ClassVar[tuple[int, ...]] = (-1,)
    function: str
    size: int
    dense: tuple[bool, ...]
    mean: bool = False


def number(name: str, value: Any, least: float = -math.inf, above: bool = False) -> float:
    """Return a float parameter.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is below `least`, or with `above` equal to it, or an integer of more than 64 bits.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, int):
        value = integer(name, value)
    if value < least or (above and value == least):
        raise ValueError(f"{name} must be {'above' if above else 'at least'} {least}, got {value}")
    return float(value)


def below_one(name: str, value: Any) -> float:
    """Return a number from 0 on and below 1, such as how much of a running mean stays, or raise as `number`."""
    found = number(name, value)
    if not 0 <= found < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return found
