"""Pointwise functions with parameters, on arrays: what activations and losses compute element by element."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.steady import steady
from numbanet.problem.base import choice, doubles, flag, float_array, same_dtype
from numbanet.problem.pointwise import MAX_OPERANDS, MAX_PARAMETERS, PointwiseProblem, number
from numbanet.reference.pointwise import FUNCTIONS


@lru_cache(maxsize=64)
def _counts(function: str) -> tuple[int, int]:
    """Return how many operands and parameters a function takes; in its definition, p and q are what it ignores."""
    names = tuple(inspect.signature(FUNCTIONS[choice("function", function, tuple(FUNCTIONS))]).parameters)
    used = sum(name not in ("p", "q") for name in names[-MAX_PARAMETERS:])
    return len(names) - MAX_PARAMETERS, used


def _check(function: str, operands: tuple[np.ndarray, ...], parameters: tuple[float, ...]) -> tuple[float, ...]:
    if not isinstance(function, str):
        raise TypeError(f"function must be a name, got {function!r}")
    expected, wanted = _counts(function)
    if not isinstance(operands, tuple) or len(operands) != expected:
        raise ValueError(f"operands must be a tuple of {expected} arrays for {function}, got {operands!r}")
    if len(parameters) != wanted:
        raise ValueError(f"parameters must be {wanted} numbers for {function}, got {parameters}")
    return tuple([number("parameters", value) for value in parameters])


def _numbers(parameters: tuple[float, ...]) -> np.ndarray:
    return doubles(*parameters, *(0.0,) * (MAX_PARAMETERS - len(parameters)))


def _prepare(
    which: str, function: str, operands: tuple[np.ndarray, ...], mean: bool = False
) -> tuple[PointwiseProblem, np.ndarray, tuple[np.ndarray, ...]]:
    """Return the problem, the operand whose memory order the result has, and the operands as the kernels see them."""
    arrays = [float_array("input", operand) for operand in operands]
    dtype = same_dtype(**{f"operand {position}": array for position, array in enumerate(arrays)})
    model = memory.dense(arrays[function.endswith(("_backward", "_backward_target"))])
    dense = tuple(array.ndim > 0 for array in arrays)
    for array in arrays:
        if array.ndim and array.shape != model.shape:
            raise ValueError(f"operands of {function} must have one shape, got {array.shape} and {model.shape}")
    flat = (memory.flat(memory.like_layout(a, model)) if a.ndim else a.reshape(1) for a in arrays)
    return PointwiseProblem(which, dtype, function, model.size, dense, mean), model, tuple(flat)


def pointwise(function: str, operands: tuple[np.ndarray, ...], *parameters: float) -> np.ndarray:
    """Return a function of arrays, element by element.

    Parameters
    ----------
    function : str
        A name of `numbanet.reference.pointwise`; those that end with ``_backward`` or ``_backward_target`` take the
        gradient of the result first.
    operands : tuple of numpy.ndarray
        Arrays of one shape and dtype, float32 or float64; those of no dimension serve every element. The result has
        the shape and memory order of the first, or of the second where that is a gradient.
    *parameters : float
        At most two.

    Raises
    ------
    TypeError, ValueError
        If there is no such function, it takes another number of operands or parameters, or dtypes or shapes differ.
    """
    return _pointwise(*_four(function, operands, parameters), function, len(operands), parameters)


def pointwise_sum(function: str, operands: tuple[np.ndarray, ...], *parameters: float, mean: bool) -> np.ndarray:
    """Return the sum, or the mean, of what `pointwise` returns, without that array; no dimension."""
    return _pointwise_sum(*_four(function, operands, parameters), function, len(operands), parameters, mean)


def _four(
    function: str, operands: tuple[np.ndarray, ...], parameters: tuple[float, ...]
) -> tuple[Any, Any, Any, Any]:
    """Return the operands, and None for those that there are not."""
    if type(operands) is not tuple or len(operands) > MAX_OPERANDS:
        _check(function, operands, parameters)  # which raises
    a, b, c, d = (*operands, None, None, None, None)[:MAX_OPERANDS]
    return a, b, c, d


@steady(MAX_OPERANDS)
def _pointwise(
    a: Any, b: Any, c: Any, d: Any, function: str, count: int, parameters: tuple[float, ...]
) -> np.ndarray:
    operands = (a, b, c, d)[:count]
    numbers = _numbers(_check(function, operands, parameters))
    problem, model, flat = _prepare("forward", function, operands)
    y = memory.empty_like(model)
    dispatch.run(problem, (*flat, numbers), (memory.flat(y),))
    return y


@steady(MAX_OPERANDS)
def _pointwise_sum(
    a: Any, b: Any, c: Any, d: Any, function: str, count: int, parameters: tuple[float, ...], mean: bool
) -> np.ndarray:
    operands = (a, b, c, d)[:count]
    numbers = _numbers(_check(function, operands, parameters))
    problem, _, flat = _prepare("sum", function, operands, flag("mean", mean))
    total = memory.vector((), problem.dtype, flat[0])
    dispatch.run(problem, (*flat, numbers), (total,))
    return total
