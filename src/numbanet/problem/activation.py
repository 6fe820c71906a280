"""Elementwise activation functions: relu, leaky_relu, sigmoid, tanh, gelu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numbanet.problem.base import Problem


@dataclass(frozen=True)
class ActivationProblem(Problem):
    """y = function(x), element by element.

    Attributes
    ----------
    function : str
        ``"relu"``, ``"leaky_relu"``, ...
    size : int
        Number of elements.
    parameter : float
        The slope of ``leaky_relu``; unused by the others.
    """

    operation: ClassVar[str] = "activation"
    function: str
    size: int
    parameter: float = 0.0
