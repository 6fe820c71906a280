"""Losses on arrays: cross entropy, negative log-likelihood, mean squared error.

Each ``..._with_state`` function returns the loss and what its backward function takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import contiguous
from numbanet.problem import loss as check
from numbanet.problem.base import as_array, dtype_name, float_array, same_dtype
from numbanet.problem.loss import CrossEntropyProblem, MSEProblem, NLLProblem


@dataclass(frozen=True)
class LossState:
    """What a backward pass needs: the problem's fields, the operands as the kernels see them, and what was saved.

    Attributes
    ----------
    fields : dict
        Fields of the problem, without the pass.
    operands : tuple of numpy.ndarray
        The operands of the backward kernels after the gradient.
    shape : tuple of int
        Shape of the input.
    """

    fields: dict[str, Any]
    operands: tuple[np.ndarray, ...]
    shape: tuple[int, ...]


def _class_rows(x: np.ndarray) -> np.ndarray:
    """Return (C), (N, C) or (N, C, d...) as contiguous rows of classes; free for channels-last memory."""
    moved = x.transpose(0, *range(2, x.ndim), 1) if x.ndim > 2 else x
    moved = contiguous(moved)
    return moved if x.ndim == 2 else moved.reshape(_sizes(x.shape))


def _sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    rows, classes = check.row_shape(shape)
    return math.prod(rows), classes


def _empty_gradient(shape: tuple[int, ...], dtype: str, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an array of the shape, its classes contiguous in memory, and the same memory as rows of classes."""
    rows, classes = check.row_shape(shape)
    base = memory.empty((*rows, classes), dtype, like)
    if len(shape) == 2:
        return base, base
    shaped = base.transpose(0, len(rows), *range(1, len(rows))) if rows else base
    return shaped, base.reshape(_sizes(shape))


def _result(reduction: str, losses: np.ndarray, total: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return losses.reshape(shape) if reduction == "none" else total.reshape(())


def _gradient(grad: Any, state: LossState) -> np.ndarray:
    grad = float_array("grad", grad)
    if dtype_name(grad.dtype) != state.fields["dtype"]:
        raise TypeError(f"grad must have the dtype {state.fields['dtype']} of the loss, got {grad.dtype}")
    return contiguous(grad).reshape(-1)


def cross_entropy_with_state(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[np.ndarray, LossState]:
    """Return `cross_entropy` and the state for `cross_entropy_backward`."""
    x = float_array("input", x)
    row_shape, classes = check.row_shape(x.shape)
    index, target = check.ignored(ignore_index), as_array(target)
    probabilities = target.shape == x.shape
    if probabilities:
        given = check.class_probabilities(target, x.shape, index)
        same_dtype(input=x, target=given)
        target = _class_rows(given)
    else:
        target = check.class_indices(target, x.shape, index)
    images = x.ndim > 2 and not probabilities
    weights, rows = memory.placed(check.class_weight(weight, classes, x.dtype, images), x), _class_rows(x)
    fields: dict[str, Any] = {
        "dtype": dtype_name(x.dtype),
        "rows": rows.shape[0],
        "classes": classes,
        "probabilities": probabilities,
        "reduction": check.reduction_word(reduction),
        "ignore_index": index,
        "label_smoothing": check.smoothing(label_smoothing),
    }
    losses, total = memory.vector(rows.shape[0], x.dtype, x), memory.vector(1, x.dtype, x)
    statistics, divisor = memory.vector(2 * rows.shape[0], x.dtype, x), memory.vector(1, np.float64, x)
    problem = CrossEntropyProblem("forward", **fields)
    dispatch.run(problem, (rows, target, weights), (losses, statistics, total, divisor))
    if probabilities and not classes and fields["reduction"] == "mean":
        total.fill(math.nan)  # of no numbers
    state = LossState(fields, (rows, target, weights, statistics, divisor), x.shape)
    return _result(reduction, losses, total, row_shape), state


def cross_entropy(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> np.ndarray:
    """Return the cross entropy between class scores and targets.

    Parameters
    ----------
    x : numpy.ndarray
        Scores before softmax, shape (C,), (N, C) or (N, C, d1, ...); float32 or float64.
    target : numpy.ndarray
        Class indices, shape (), (N,) or (N, d1, ...), int64, for rows of scores also uint8; or class probabilities of
        the shape and dtype of `x`.
    weight : numpy.ndarray, optional
        One factor for each class, dtype of `x`.
    ignore_index : int
        Rows with this index count nothing.
    reduction : {"mean", "sum", "none"}
        The mean over rows: with indices, divided by the sum of the targets' weights.
    label_smoothing : float
        From 0 to 1: this share of the target is spread evenly over the classes (Szegedy et al., arXiv:1512.00567).

    Returns
    -------
    numpy.ndarray
        No dimension, or with ``"none"`` the shape of the indices.

    Raises
    ------
    IndexError
        If an index is no class.
    TypeError, ValueError
        If a dtype, a shape or a word does not fit.
    """
    return cross_entropy_with_state(x, target, weight, ignore_index, reduction, label_smoothing)[0]


def cross_entropy_backward(grad: np.ndarray, state: LossState) -> np.ndarray:
    """Return the gradient of `cross_entropy` with respect to its input; its memory is channels-last."""
    dx, rows = _empty_gradient(state.shape, state.fields["dtype"], state.operands[0])
    problem = CrossEntropyProblem("backward_input", **state.fields)
    dispatch.run(problem, (_gradient(grad, state), *state.operands), (rows,))
    return dx


def cross_entropy_backward_target(grad: np.ndarray, state: LossState) -> np.ndarray:
    """Return the gradient of `cross_entropy` with respect to a target of probabilities."""
    dt, rows = _empty_gradient(state.shape, state.fields["dtype"], state.operands[0])
    x, _, weights, statistics, divisor = state.operands
    problem = CrossEntropyProblem("backward_target", **state.fields)
    dispatch.run(problem, (_gradient(grad, state), x, weights, statistics, divisor), (rows,))
    return dt


def nll_loss_with_state(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[np.ndarray, LossState]:
    """Return `nll_loss` and the state for `nll_loss_backward`."""
    x = float_array("input", x)
    row_shape, classes = check.row_shape(x.shape)
    index = check.ignored(ignore_index)
    labels = check.class_indices(target, x.shape, index)
    weights, rows = memory.placed(check.class_weight(weight, classes, x.dtype, x.ndim > 2), x), _class_rows(x)
    fields: dict[str, Any] = {
        "dtype": dtype_name(x.dtype),
        "rows": rows.shape[0],
        "classes": classes,
        "reduction": check.reduction_word(reduction),
        "ignore_index": index,
    }
    losses, total = memory.vector(rows.shape[0], x.dtype, x), memory.vector(1, x.dtype, x)
    divisor = memory.vector(1, np.float64, x)
    dispatch.run(NLLProblem("forward", **fields), (rows, labels, weights), (losses, total, divisor))
    return _result(reduction, losses, total, row_shape), LossState(fields, (labels, weights, divisor), x.shape)


def nll_loss(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> np.ndarray:
    """Return the negative log-likelihood of class indices, from log-probabilities `x`.

    Arguments and errors as for `cross_entropy`, but the target holds indices.
    """
    return nll_loss_with_state(x, target, weight, ignore_index, reduction)[0]


def nll_loss_backward(grad: np.ndarray, state: LossState) -> np.ndarray:
    """Return the gradient of `nll_loss` with respect to its input; its memory is channels-last."""
    dx, rows = _empty_gradient(state.shape, state.fields["dtype"], state.operands[0])
    dispatch.run(NLLProblem("backward_input", **state.fields), (_gradient(grad, state), *state.operands), (rows,))
    return dx


def mse_loss_with_state(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> tuple[np.ndarray, LossState]:
    """Return `mse_loss` and the state for `mse_loss_backward`."""
    x, target = memory.dense(float_array("input", x)), float_array("target", target)
    if x.shape != target.shape:
        raise ValueError(f"target must have the shape {x.shape} of the input, got {target.shape}")
    target = memory.like_layout(target, x)
    fields: dict[str, Any] = {
        "dtype": same_dtype(input=x, target=target),
        "size": x.size,
        "reduction": check.reduction_word(reduction),
    }
    each = reduction == "none"
    values = memory.empty_like(x) if each else None
    total, divisor = memory.vector(1, x.dtype, x), memory.vector(1, np.float64, x)
    outputs = (memory.flat(values) if values is not None else None, total, divisor)
    dispatch.run(MSEProblem("forward", **fields), (memory.flat(x), memory.flat(target)), outputs)
    state = LossState(fields, (x, target, divisor), x.shape)
    return (total.reshape(()) if values is None else values), state


def mse_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> np.ndarray:
    """Return the squared differences of two arrays of one shape and dtype: their mean, their sum, or each.

    Parameters
    ----------
    x, target : numpy.ndarray
        Float32 or float64.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    TypeError, ValueError
        If a dtype, the shapes or the word do not fit.
    """
    return mse_loss_with_state(x, target, reduction)[0]


def mse_loss_backward(grad: np.ndarray, state: LossState, of_target: bool = False) -> np.ndarray:
    """Return the gradient of `mse_loss` with respect to its input, or to its target."""
    x, target, divisor = state.operands
    dx = memory.empty_like(x)
    grad = float_array("grad", grad)
    same_dtype(grad=grad, input=x)
    along = memory.flat(memory.like_layout(grad, x)) if state.fields["reduction"] == "none" else grad.reshape(1)
    pair = (target, x) if of_target else (x, target)
    inputs = (along, *(memory.flat(a) for a in pair), divisor)
    dispatch.run(MSEProblem("backward_input", **state.fields), inputs, (memory.flat(dx),))
    return dx
