"""Steps of optimizers, and what clips gradients before them: in place, over one parameter at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from numbanet.problem.base import Problem, choice, float_name

RULES: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "rmsprop": ("square_avg", "grad_avg", "momentum_buffer"),
    "adagrad": ("sum",),
    "adadelta": ("square_avg", "acc_delta"),
}
"""The state arrays of each rule, by torch.optim's names and in the order in which kernels take them."""


@dataclass(frozen=True)
class OptimizerProblem(Problem):
    """One step of an optimizer over one parameter.

    The inputs are the gradient and the rule's coefficients (float64, in the order that `numbanet.reference.optim`
    unpacks them); the outputs are the parameter and the state arrays, updated in place. The coefficients are data and
    not part of the problem, since the learning rate may change at every step.

    Attributes
    ----------
    rule : str
        A key of `RULES`.
    size : int
        Number of elements.
    state : tuple of str
        Those of the rule's state arrays that the step uses; the others are None among the outputs.
    options : tuple of str
        ``"nesterov"``, and ``"first"`` for the step that starts SGD's momentum buffer.
    """

    operation: ClassVar[str] = "optimizer_step"
    rule: str
    size: int
    state: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class VectorNormProblem(Problem):
    """Parts of a norm: of each chunk of the input the sum of |x|^ord, in float64.

    For ord = inf and -inf it is the largest and the least |x|, for 0 the number of elements that are not zero. The last
    chunk may be shorter.
    """

    operation: ClassVar[str] = "vector_norm"
    size: int
    ord: float
    chunk: int


@dataclass(frozen=True)
class ClipProblem(Problem):
    """Scale or clamp an array in place; the input is two float64 coefficients: (factor, unused) or (low, high).

    Attributes
    ----------
    function : {"scale", "clamp"}
    size : int
    """

    operation: ClassVar[str] = "clip"
    function: str
    size: int


@lru_cache(maxsize=1024)
def optimizer_problem(
    rule: str, dtype: str, size: int, state: tuple[str, ...], options: tuple[str, ...] = ()
) -> OptimizerProblem:
    """Return the problem of one step.

    Raises
    ------
    ValueError
        If there is no such rule, or the rule has no such state.
    """
    choice("rule", rule, tuple(RULES))
    for name in state:
        choice(f"state of {rule}", name, RULES[rule])
    return OptimizerProblem("step", dtype, rule, size, state, options)


def check_in_place(name: str, value: Any) -> np.ndarray:
    """Return `value` if it is an array that can be updated in place.

    Raises
    ------
    TypeError
        If it is not an array of float32 or float64 in the machine's byte order.
    ValueError
        If it is read-only.
    """
    if not isinstance(value, np.ndarray) or not float_name(value.dtype):
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name} must be an array of native float32 or float64, got {found}")
    if not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must not be read-only")
    return value


def check_match(name: str, value: np.ndarray, parameter: np.ndarray) -> None:
    """Raise ValueError or TypeError unless `value` has the shape and dtype of the parameter."""
    if value.shape != parameter.shape:
        raise ValueError(f"{name} must have the parameter's shape {parameter.shape}, got {value.shape}")
    if value.dtype != parameter.dtype:
        raise TypeError(f"{name} must have the parameter's dtype {parameter.dtype}, got {value.dtype}")
