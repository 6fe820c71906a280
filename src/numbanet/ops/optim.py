"""Steps of optimizers on arrays, in place.

The state arrays have the parameter's shape and dtype. Every array may have any strides; one in the parameter's memory
order costs no copy. Where the arguments are lists, with an entry for each of many parameters, all of them are updated
at once, which is faster than one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.many import Arrays, kind, listed
from numbanet.problem.base import dtype_name, float_name
from numbanet.problem.optim import (
    StepNumbers,
    adadelta_numbers,
    adagrad_numbers,
    adam_numbers,
    check_in_place,
    check_match,
    optimizer_problem,
    rmsprop_numbers,
    sgd_numbers,
)

_layout = attrgetter("__class__", "dtype", "shape", "strides", "flags.writeable")


@lru_cache(maxsize=64)
def _updatable(layouts: tuple[Any, ...]) -> tuple[str, tuple[int, ...]] | None:
    """Return the dtype and the sizes of arrays that kernels can update together as they are; None if they can't.

    They are told by what `_layout` says of each.
    """
    name = float_name(layouts[0][1])
    for cls, dtype, shape, strides, writeable in layouts:
        plain = cls is np.ndarray and dtype == layouts[0][1] and writeable
        if name is None or not (plain and memory.is_dense(shape, strides, dtype.itemsize)):
            return None
    return dtype_name(layouts[0][1]), tuple([math.prod(shape) for _, _, shape, _, _ in layouts])


def _dense(names: tuple[str, ...], row: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Check the arrays of one parameter; return them dense and in its order of memory, copied where they must be."""
    parameter = row[0]
    check_in_place(names[0], parameter)
    target = memory.dense(parameter)
    shape, strides, dtype, same = parameter.shape, parameter.strides, parameter.dtype, target is parameter
    found = [target]
    for name, array in zip(names[1:], row[1:]):
        if name != "grad":
            check_in_place(name, array)
        if type(array) is not type(parameter) or array.dtype != dtype or array.shape != shape:
            check_match(name, array, parameter)
        found.append(array if same and array.strides == strides else memory.like_layout(array, target))
    return tuple(found)


def optimizer_step(
    rule: str,
    parameter: Arrays,
    grad: Arrays,
    state: Mapping[str, Arrays | None],
    coefficients: np.ndarray,
    options: tuple[str, ...] = (),
) -> None:
    """Take one step of any optimizer, in place; the arguments are those of an `OptimizerProblem`.

    Parameters
    ----------
    rule : str
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    state : mapping
        Each of the rule's states: arrays, or None if the step does not use it.
    coefficients : numpy.ndarray
        float64.
    options : tuple of str

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    used = tuple(name for name, arrays in state.items() if arrays is not None)
    names = ("parameter", "grad", *used)
    operands = (parameter, grad, *(arrays for arrays in state.values() if arrays is not None))
    given = [listed(name, arrays) for name, arrays in zip(names, operands)]
    for name, arrays in zip(names, given):
        if len(arrays) != len(given[0]):
            raise ValueError(f"{name} must have as many entries as parameter, {len(given[0])}, got {len(arrays)}")
    layouts = list(map(_layout, given[0])) if all(type(x) is np.ndarray for x in given[0]) else []
    if layouts and all(list(map(_layout, column)) == layouts for column in given[1:]):
        alike = _updatable(tuple(layouts))
        if alike is not None:  # nearly always: there is nothing to be said about any of them, and nothing to be copied
            problem = optimizer_problem(rule, alike[0], alike[1], used, options)
            plain = dict(zip(names, given))
            dispatch.run(problem, (plain["grad"], coefficients), (plain["parameter"], *map(plain.get, state)))
            return
    rows = list(zip(*given))
    ready = [_dense(names, row) for row in rows]
    for key in dict.fromkeys(kind(row[0]) for row in ready):
        chosen = (row for row in ready if kind(row[0]) == key)
        columns = dict(zip(names, zip(*chosen)))
        sizes = tuple([array.size for array in columns["parameter"]])
        problem = optimizer_problem(rule, dtype_name(key[0]), sizes, used, options)
        outputs = columns["parameter"], *map(columns.get, state)
        dispatch.run(problem, (columns["grad"], coefficients), outputs)
    for originals, results in zip(rows, ready):
        for name, original, result in zip(names, originals, results):
            if original is not result and name != "grad":
                memory.fill(original, result)


def _step(
    rule: str, parameter: Arrays, grad: Arrays, state: Mapping[str, Arrays | None], numbers: StepNumbers
) -> None:
    optimizer_step(rule, parameter, grad, state, np.array(numbers.coefficients, np.float64), numbers.options)


def sgd_step(
    parameter: Arrays,
    grad: Arrays,
    momentum_buffer: Arrays | None = None,
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
    parameter : numpy.ndarray or list of numpy.ndarray
        Any shape; float32 or float64. Updated.
    grad : numpy.ndarray or list of numpy.ndarray
        Its gradient.
    momentum_buffer : numpy.ndarray or list of numpy.ndarray, optional
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
    numbers = sgd_numbers(
        lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=maximize,
        first=first,
    )  # fmt: skip
    _step("sgd", parameter, grad, {"momentum_buffer": momentum_buffer}, numbers)


def adam_step(
    parameter: Arrays,
    grad: Arrays,
    exp_avg: Arrays,
    exp_avg_sq: Arrays,
    max_exp_avg_sq: Arrays | None = None,
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
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    exp_avg, exp_avg_sq, max_exp_avg_sq : numpy.ndarray or list of numpy.ndarray
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
    numbers = adam_numbers(
        step=step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
    )  # fmt: skip
    state = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "max_exp_avg_sq": max_exp_avg_sq}
    _step("adam", parameter, grad, state, numbers)


def rmsprop_step(
    parameter: Arrays,
    grad: Arrays,
    square_avg: Arrays,
    grad_avg: Arrays | None = None,
    momentum_buffer: Arrays | None = None,
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
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    square_avg, grad_avg, momentum_buffer : numpy.ndarray or list of numpy.ndarray
        The running means of g^2 and g, and the running direction; zeros before the first step. Updated.
    lr, alpha, eps, weight_decay, momentum, maximize
        As in `numbanet.optim.RMSprop`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = rmsprop_numbers(
        lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, maximize=maximize
    )  # fmt: skip
    state = {"square_avg": square_avg, "grad_avg": grad_avg, "momentum_buffer": momentum_buffer}
    _step("rmsprop", parameter, grad, state, numbers)


def adagrad_step(
    parameter: Arrays,
    grad: Arrays,
    sum: Arrays,
    *,
    lr: float = 1e-2,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of Adagrad, in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    sum : numpy.ndarray or list of numpy.ndarray
        The sum of g^2 over all steps. Updated.
    lr, eps, weight_decay, maximize
        As in `numbanet.optim.Adagrad`; a decay of the learning rate is the caller's.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = adagrad_numbers(lr=lr, eps=eps, weight_decay=weight_decay, maximize=maximize)
    _step("adagrad", parameter, grad, {"sum": sum}, numbers)


def adadelta_step(
    parameter: Arrays,
    grad: Arrays,
    square_avg: Arrays,
    acc_delta: Arrays,
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
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    square_avg, acc_delta : numpy.ndarray or list of numpy.ndarray
        The running means of the squares of gradients and of steps; zeros before the first step. Updated.
    lr, rho, eps, weight_decay, maximize
        As in `numbanet.optim.Adadelta`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = adadelta_numbers(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
    _step("adadelta", parameter, grad, {"square_avg": square_avg, "acc_delta": acc_delta}, numbers)
