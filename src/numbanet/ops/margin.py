"""The multi-class hinge loss on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import contiguous
from numbanet.problem import loss as check
from numbanet.problem.base import float_array, same_dtype
from numbanet.problem.margin import MarginProblem
from numbanet.problem.pointwise import number
from numbanet.watch import constant


def _operands(x: np.ndarray, target: Any, p: Any, weight: Any) -> tuple[np.ndarray, ...]:
    x = float_array("input", x)
    x = x if x.ndim else x.reshape(1)  # the score of a single class
    if x.ndim not in (1, 2) or x.shape[-1] < 1:
        raise ValueError(f"input must have shape (N, C) or (C), with at least one class, got {x.shape}")
    if isinstance(p, bool) or p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    single = np.ndim(target) == 0
    shape = x.shape[1:] if single and x.shape[0] == 1 and x.ndim == 2 else x.shape
    if getattr(target, "dtype", None) == np.uint8:
        raise TypeError("target must hold class indices of dtype int64, got uint8")
    labels = check.class_indices(np.asarray(target, np.int64) if isinstance(target, int) else target, shape, -1)
    if type(labels) is np.ndarray and labels.size and labels.min() < 0:
        raise IndexError(f"target holds {labels.min()}, which is not one of the {x.shape[-1]} classes of the input")
    rows = contiguous(x).reshape(-1, x.shape[-1])
    return rows, labels, memory.placed(check.class_weight(weight, x.shape[-1], x.dtype), x)


def multi_margin_losses(
    x: np.ndarray, target: Any, p: int = 1, margin: float = 1.0, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return the hinge loss of each row of scores: what `numbanet.functional.multi_margin_loss` averages.

    Parameters
    ----------
    x : numpy.ndarray
        Scores, shape (N, C) or (C), or () of a single class; float32 or float64.
    target : numpy.ndarray
        The right classes, int64, shape (N,); for one row () too.
    p : {1, 2}
    margin : float
    weight : numpy.ndarray, optional
        One factor for each class, dtype of `x`.

    Returns
    -------
    numpy.ndarray
        ``sum over j != y of weight[y] max(0, margin - x[y] + x[j])^p / C``; the shape of `target`.

    Raises
    ------
    IndexError
        If an index is no class.
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    rows, labels, weights = _operands(x, target, p, weight)
    losses = memory.vector(len(rows), rows.dtype, rows)
    problem = MarginProblem("forward", same_dtype(input=rows), rows.shape[0], rows.shape[1], int(p))
    dispatch.run(problem, (rows, labels, weights, constant(np.array([number("margin", margin)]))), (losses,))
    return losses.reshape(np.shape(target))


def multi_margin_losses_backward(
    grad: np.ndarray, x: np.ndarray, target: Any, p: int, margin: float, weight: np.ndarray | None, scale: float = 1.0
) -> np.ndarray:
    """Return the gradient of `multi_margin_losses` with respect to x, times `scale`.

    Parameters
    ----------
    grad : numpy.ndarray
        One number a row, or one for all.
    x, target, p, margin, weight
        As given to `multi_margin_losses`.
    scale : float
    """
    rows, labels, weights = _operands(x, target, p, weight)
    dx = memory.empty(rows.shape, rows.dtype, rows)
    each = grad.size == len(rows)
    dtype = same_dtype(grad=grad, input=rows)
    problem = MarginProblem("backward_input", dtype, rows.shape[0], rows.shape[1], int(p), each)
    numbers = constant(np.array([number("margin", margin), scale]))
    dispatch.run(problem, (contiguous(grad).reshape(-1), rows, labels, weights, numbers), (dx,))
    return dx.reshape(np.shape(x))
