"""Dropout on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import contiguous
from numbanet.problem.base import dtype_name, float_array
from numbanet.problem.dropout import DropoutProblem, probability
from numbanet.problem.shape import dimensions


def dropout(
    x: np.ndarray, p: float, draw: tuple[int, int] | np.ndarray, order: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return x with elements set to zero with probability p, and the others divided by 1 - p.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape; float32 or float64.
    p : float
        From 0 to 1.
    draw : (int, int), or numpy.ndarray of two uint64
        Seed and number of the draw, as `draw` and `key` of `numbanet.random.Generator` return them. The same draw drops
        the same elements, with any number of threads.
    order : tuple of int, optional
        Axes, outermost first, in which the elements are counted and the result is stored; the memory order of `x` if
        None. (The gradient of a dropped array is counted in that array's order.)

    Returns
    -------
    numpy.ndarray
        Same shape and dtype. Infinity and NaN times zero are NaN.

    Raises
    ------
    TypeError, ValueError
        If `x` has another dtype, or `p` is not a number from 0 to 1.
    """
    x = float_array("x", x)
    order = memory.memory_order(x) if order is None else dimensions("order", order, x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"order must name each of the {x.ndim} axes of x, got {order}")
    return _run("forward", x, p, _key(draw), order)


def _run(which: str, x: np.ndarray, p: float, given: np.ndarray, order: tuple[int, ...], *flags: Any) -> np.ndarray:
    moved, out = x.transpose(order), memory.empty(tuple(x.shape[axis] for axis in order), x.dtype, x)
    if not moved.flags.c_contiguous:
        moved = contiguous(moved)
    problem = DropoutProblem(which, dtype_name(x.dtype), x.size, probability(p))
    dispatch.run(problem, (moved.reshape(-1), given), (out.reshape(-1), *flags))
    return out.transpose([order.index(axis) for axis in range(x.ndim)])


def dropout_flags(x: np.ndarray, p: float, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `dropout` of an array, and what `dropout_backward` needs: a byte an element in its order."""
    flags = memory.empty((x.size,), np.uint8, x)
    return _run("forward", x, p, key, memory.memory_order(x), flags), flags


def dropout_backward(grad: np.ndarray, p: float, flags: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Return the gradient of an array from which `dropout_flags` came, and whose memory has that order of axes."""
    return _run("backward_input", float_array("grad", grad), p, flags, order)


def _key(draw: Any) -> np.ndarray:
    if isinstance(draw, np.ndarray) and draw.dtype == np.uint64 and draw.shape == (2,):
        return draw
    if not isinstance(draw, tuple) or len(draw) != 2 or not all(type(word) is int and word >= 0 for word in draw):
        raise TypeError(f"draw must be two integers that are not negative, or an array of two uint64, got {draw!r}")
    return np.array([word % 2**64 for word in draw], np.uint64)
