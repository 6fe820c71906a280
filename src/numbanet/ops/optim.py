"""Steps of optimizers on arrays, in place; norms and clipping of gradients.

The state arrays have the parameter's shape and dtype. Every array may have any strides; one in the parameter's memory
order costs no copy.
"""

from __future__ import annotations

import math
import operator
from functools import reduce

import numpy as np

from numbanet import dispatch, memory
from numbanet.problem.base import dtype_name, float_array
from numbanet.problem.optim import (
    ClipProblem,
    VectorNormProblem,
    check_in_place,
    check_match,
    optimizer_problem,
)

_CHUNK = 1 << 14  # elements of a partial norm


def _step(
    rule: str,
    parameter: np.ndarray,
    grad: np.ndarray,
    state: dict[str, np.ndarray | None],
    coefficients: tuple[float, ...],
    options: tuple[str, ...] = (),
) -> None:
    check_in_place("parameter", parameter)
    check_match("grad", grad, parameter)
    used = tuple(name for name, array in state.items() if array is not None)
    for name in used:
        check_match(name, check_in_place(name, state[name]), parameter)
    target = memory.dense(parameter)
    arrays = [None if array is None else memory.like_layout(array, target) for array in state.values()]
    problem = optimizer_problem(rule, dtype_name(target.dtype), target.size, used, options)
    inputs = memory.flat(memory.like_layout(grad, target)), np.array(coefficients, np.float64)
    dispatch.run(problem, inputs, tuple(None if a is None else memory.flat(a) for a in (target, *arrays)))
    for original, result in zip((parameter, *state.values()), (target, *arrays)):
        if original is not None and original is not result:
            original[...] = result


def sgd_step(
    parameter: np.ndarray,
    grad: np.ndarray,
    momentum_buffer: np.ndarray | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
) -> None:
    """Take one step of stochastic gradient descent, in place.

    Parameters
    ----------
    parameter : numpy.ndarray
        Any shape; float32 or float64. Updated.
    grad : numpy.ndarray
        Its gradient.
    momentum_buffer : numpy.ndarray, optional
        The running direction. Updated.
    lr, momentum, dampening, weight_decay, nesterov, maximize
        As in `numbanet.optim.SGD`.
    first : bool
        Whether this step starts the momentum buffer: its content is then not read.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    chosen = {"first": first, "nesterov": nesterov}
    coefficients = (-1.0 if maximize else 1.0, weight_decay, lr, momentum, 1 - dampening)
    options = tuple(name for name, wanted in chosen.items() if wanted)
    _step("sgd", parameter, grad, {"momentum_buffer": momentum_buffer}, coefficients, options)


def adam_step(
    parameter: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    max_exp_avg_sq: np.ndarray | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """Take one step of Adam (AdamW with `decoupled_weight_decay`, AMSGrad with `max_exp_avg_sq`), in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray
        As in `sgd_step`.
    exp_avg, exp_avg_sq, max_exp_avg_sq : numpy.ndarray
        The running means and the largest of the second; zeros before the first step. Updated.
    step : int
        The number of this step, from 1.
    lr, betas, eps, weight_decay, decoupled_weight_decay, maximize
        As in `numbanet.optim.Adam`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    beta1, beta2 = betas
    decay, keep = (0.0, 1 - lr * weight_decay) if decoupled_weight_decay else (weight_decay, 1.0)
    size = lr / (1 - beta1**step)
    scale = 1 / math.sqrt(1 - beta2**step)
    state = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "max_exp_avg_sq": max_exp_avg_sq}
    coefficients = (-1.0 if maximize else 1.0, decay, keep, 1 - beta1, beta2, 1 - beta2, size, scale, eps)
    _step("adam", parameter, grad, state, coefficients)


def rmsprop_step(
    parameter: np.ndarray,
    grad: np.ndarray,
    square_avg: np.ndarray,
    grad_avg: np.ndarray | None = None,
    momentum_buffer: np.ndarray | None = None,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of RMSprop (centred with `grad_avg`, with momentum if there is a buffer for it), in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray
        As in `sgd_step`.
    square_avg, grad_avg, momentum_buffer : numpy.ndarray
        The running means of g^2 and g, and the running direction; zeros before the first step. Updated.
    lr, alpha, eps, weight_decay, momentum, maximize
        As in `numbanet.optim.RMSprop`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    state = {"square_avg": square_avg, "grad_avg": grad_avg, "momentum_buffer": momentum_buffer}
    coefficients = (-1.0 if maximize else 1.0, weight_decay, lr, alpha, 1 - alpha, momentum, eps)
    _step("rmsprop", parameter, grad, state, coefficients)


def adagrad_step(
    parameter: np.ndarray,
    grad: np.ndarray,
    sum: np.ndarray,
    *,
    lr: float = 1e-2,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of Adagrad, in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray
        As in `sgd_step`.
    sum : numpy.ndarray
        The sum of g^2 over all steps. Updated.
    lr, eps, weight_decay, maximize
        As in `numbanet.optim.Adagrad`; a decay of the learning rate is the caller's.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    _step("adagrad", parameter, grad, {"sum": sum}, (-1.0 if maximize else 1.0, weight_decay, lr, eps))


def adadelta_step(
    parameter: np.ndarray,
    grad: np.ndarray,
    square_avg: np.ndarray,
    acc_delta: np.ndarray,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of Adadelta, in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray
        As in `sgd_step`.
    square_avg, acc_delta : numpy.ndarray
        The running means of the squares of gradients and of steps; zeros before the first step. Updated.
    lr, rho, eps, weight_decay, maximize
        As in `numbanet.optim.Adadelta`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    coefficients = (-1.0 if maximize else 1.0, weight_decay, lr, rho, 1 - rho, eps)
    _step("adadelta", parameter, grad, {"square_avg": square_avg, "acc_delta": acc_delta}, coefficients)


def vector_norm(x: np.ndarray, ord: float = 2) -> float:
    """Return (sum of |x|^ord)^(1/ord) over all elements, added up in float64 in a fixed order.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape; float32 or float64.
    ord : float
        inf: the largest |x|; -inf: the least; 0: the number of elements that are not zero.

    Raises
    ------
    TypeError
        If `x` has another dtype.
    """
    x, ord = memory.dense(float_array("x", x)), float(ord)
    if x.size == 0:
        return math.inf if ord < 0 else 0.0
    partial = np.empty(-(-x.size // _CHUNK))
    dispatch.run(VectorNormProblem("forward", dtype_name(x.dtype), x.size, ord, _CHUNK), (memory.flat(x),), (partial,))
    if ord in (math.inf, -math.inf):
        return float(partial.max() if ord > 0 else partial.min())
    total = reduce(operator.add, partial.tolist())
    with np.errstate(divide="ignore"):
        return total if ord == 0 else float(np.float64(total) ** (1 / ord))


def _clip(function: str, x: np.ndarray, coefficients: tuple[float, float]) -> None:
    target = memory.dense(check_in_place("x", x))
    problem = ClipProblem("forward", dtype_name(x.dtype), function, x.size)
    dispatch.run(problem, (np.array(coefficients, np.float64),), (memory.flat(target),))
    if target is not x:
        x[...] = target


def scale_(x: np.ndarray, factor: float) -> None:
    """Multiply an array by a number, in place.

    Raises
    ------
    TypeError, ValueError
        If `x` is no writeable array of float32 or float64.
    """
    _clip("scale", x, (factor, 0.0))


def clamp_(x: np.ndarray, min: float, max: float) -> None:
    """Limit the elements of an array to [min, max], in place; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If `x` is no writeable array of float32 or float64.
    """
    _clip("clamp", x, (min, max))
