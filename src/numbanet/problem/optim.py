"""Steps of optimizers, and what clips gradients before them: in place, over many parameters at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from numbanet.device_array import DeviceArray
from numbanet.problem.base import Problem, choice, float_name, integer
from numbanet.problem.pointwise import below_one, number

RULES: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "rmsprop": ("square_avg", "grad_avg", "momentum_buffer"),
    "adagrad": ("sum",),
    "adadelta": ("square_avg", "acc_delta"),
}
"""The state arrays of each rule, by torch.optim's names and in the order in which kernels take them."""

COEFFICIENTS = {"sgd": 5, "adam": 9, "rmsprop": 7, "adagrad": 4, "adadelta": 6}
"""How many numbers each rule takes."""

_OPTIONAL = ("momentum_buffer", "max_exp_avg_sq", "grad_avg")


@dataclass(frozen=True)
class OptimizerProblem(Problem):
    """One step of an optimizer over parameters that share their options.

    The inputs are the gradients (a sequence of arrays) and the rule's coefficients (float64, in the order that
    `numbanet.reference.optim` unpacks them); the outputs are the parameters and, for each of the rule's states, its
    arrays, updated in place. The arrays of one parameter are dense and lie in memory in the same order of axes. The
    coefficients are data and not part of the problem, since the learning rate may change at every step.

    Attributes
    ----------
    rule : str
        A key of `RULES`.
    sizes : tuple of int
        Number of elements of each parameter.
    state : tuple of str
        Those of the rule's states that the step uses; the others are None among the outputs.
    options : tuple of str
        ``"nesterov"``, and ``"first"`` for the step that starts SGD's momentum buffer.
    """

    operation: ClassVar[str] = "optimizer_step"
    host: ClassVar[tuple[int, ...]] = (1,)
    rule: str
    sizes: tuple[int, ...]
    state: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class VectorNormProblem(Problem):
    """Of each of many dense arrays the sum of |x|^ord, in float64; the input is a sequence of arrays.

    For ord = inf and -inf it is the largest and the least |x| (of nothing: 0 and inf), for 0 the number of elements
    that are not zero.

    Attributes
    ----------
    sizes : tuple of int
        Number of elements of each array.
    ord : float
    """

    operation: ClassVar[str] = "vector_norm"
    sizes: tuple[int, ...]
    ord: float


@dataclass(frozen=True)
class ClipProblem(Problem):
    """Scale, clamp or fill many dense arrays in place.

    The input is two float64 coefficients: (factor, unused), (low, high) or (value, unused); the output a sequence of
    arrays.

    Attributes
    ----------
    function : {"scale", "clamp", "fill"}
    sizes : tuple of int
        Number of elements of each array.
    """

    operation: ClassVar[str] = "clip"
    host: ClassVar[tuple[int, ...]] = (0,)
    function: str
    sizes: tuple[int, ...]


@lru_cache(maxsize=1024)
def optimizer_problem(
    rule: str, dtype: str, sizes: tuple[int, ...], state: tuple[str, ...], options: tuple[str, ...] = ()
) -> OptimizerProblem:
    """Return the problem of one step.

    Raises
    ------
    ValueError
        If there is no such rule, or the rule has no such state.
    TypeError
        If a state that the rule can't do without is missing.
    """
    choice("rule", rule, tuple(RULES))
    for name in RULES[rule]:
        if name not in state and name not in _OPTIONAL:
            raise TypeError(f"{name} must be an array or a list of arrays, got None")
    for name in state:
        choice(f"state of {rule}", name, RULES[rule])
    return OptimizerProblem("step", dtype, rule, sizes, state, options)


def check_in_place(name: str, value: Any) -> np.ndarray:
    """Return `value` if it is an array that can be updated in place.

    Raises
    ------
    TypeError
        If it is not an array of float32 or float64 in the machine's byte order.
    ValueError
        If it is read-only.
    """
    known = isinstance(value, (np.ndarray, DeviceArray))
    if not known or not float_name(value.dtype):
        found = value.dtype if known else type(value).__name__
        raise TypeError(f"{name} must be an array of native float32 or float64, got {found}")
    if not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must not be read-only")
    return value


def check_match(name: str, value: np.ndarray, parameter: np.ndarray) -> None:
    """Raise ValueError or TypeError unless `value` is an array of the parameter's shape and dtype."""
    if not isinstance(value, (np.ndarray, DeviceArray)):
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    if value.shape != parameter.shape:
        raise ValueError(f"{name} must have the parameter's shape {parameter.shape}, got {value.shape}")
    if value.dtype != parameter.dtype:
        raise TypeError(f"{name} must have the parameter's dtype {parameter.dtype}, got {value.dtype}")


class StepNumbers(NamedTuple):
    """What the options of an optimizer come to in one step: see `OptimizerProblem`."""

    coefficients: tuple[float, ...]
    options: tuple[str, ...] = ()


def _floats(**options: Any) -> list[float]:
    """Return options as floats, or raise TypeError naming the one that is no number."""
    return [number(name, value) for name, value in options.items()]


def _sign(maximize: Any) -> float:
    return -1.0 if maximize else 1.0


def sgd_numbers(
    *, lr: Any, momentum: Any, dampening: Any, weight_decay: Any, nesterov: Any, maximize: Any, first: Any
) -> StepNumbers:
    """Return the numbers of a step of SGD; for these functions the errors are those of `numbanet.ops`."""
    chosen = {"first": first, "nesterov": nesterov}
    decay, rate, kept, lost = _floats(weight_decay=weight_decay, lr=lr, momentum=momentum, dampening=dampening)
    options = tuple(name for name, wanted in chosen.items() if wanted)
    return StepNumbers((_sign(maximize), decay, rate, kept, 1 - lost), options)


def adam_numbers(
    *, step: Any, lr: Any, betas: Any, eps: Any, weight_decay: Any, decoupled_weight_decay: Any, maximize: Any
) -> StepNumbers:
    """Return the numbers of a step of Adam or AdamW."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {betas!r}")
    beta1, beta2 = below_one("betas", betas[0]), below_one("betas", betas[1])
    rate, decay, small = _floats(lr=lr, weight_decay=weight_decay, eps=eps)
    step = integer("step", step, 1)
    decay, keep = (0.0, 1 - rate * decay) if decoupled_weight_decay else (decay, 1.0)
    size, scale = rate / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    return StepNumbers((_sign(maximize), decay, keep, 1 - beta1, beta2, 1 - beta2, size, scale, small))


def rmsprop_numbers(
    *, lr: Any, alpha: Any, eps: Any, weight_decay: Any, momentum: Any, maximize: Any
) -> StepNumbers:
    """Return the numbers of a step of RMSprop."""
    decay, rate, kept, momentum, small = _floats(
        weight_decay=weight_decay, lr=lr, alpha=alpha, momentum=momentum, eps=eps
    )  # fmt: skip
    return StepNumbers((_sign(maximize), decay, rate, kept, 1 - kept, momentum, small))


def adagrad_numbers(*, lr: Any, eps: Any, weight_decay: Any, maximize: Any) -> StepNumbers:
    """Return the numbers of a step of Adagrad."""
    return StepNumbers((_sign(maximize), *_floats(weight_decay=weight_decay, lr=lr, eps=eps)))


def adadelta_numbers(*, lr: Any, rho: Any, eps: Any, weight_decay: Any, maximize: Any) -> StepNumbers:
    """Return the numbers of a step of Adadelta."""
    decay, rate, kept, small = _floats(weight_decay=weight_decay, lr=lr, rho=rho, eps=eps)
    return StepNumbers((_sign(maximize), decay, rate, kept, 1 - kept, small))
