"""Elementwise activation functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numbanet.problem.base import Problem, choice

GELU_FORMS = {"none": "gelu", "tanh": "gelu_tanh"}
"""The word of torch's argument ``approximate``, and the function that it names."""


@dataclass(frozen=True)
class ActivationProblem(Problem):
    """y = function(x), element by element.

    The backward pass takes the gradient of the result and what the forward pass saved: the result where the derivative
    is a function of it (relu, sigmoid, tanh), else the input.

    Attributes
    ----------
    function : str
        ``"relu"``, ``"leaky_relu"``, ``"sigmoid"``, ``"tanh"``, ``"gelu"``, ``"gelu_tanh"`` or ``"silu"``.
    size : int
        Number of elements.
    parameter : float
        The slope of ``leaky_relu``; unused by the others.
    """

    operation: ClassVar[str] = "activation"
    function: str
    size: int
    parameter: float = 0.0


def gelu_form(approximate: str) -> str:
    """Return the function that torch's argument ``approximate`` asks for, or raise ValueError."""
    return GELU_FORMS[choice("approximate", approximate, tuple(GELU_FORMS))]
