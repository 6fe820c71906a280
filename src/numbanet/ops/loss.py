"""Losses on arrays: cross entropy, negative log-likelihood, mean squared error.

Each ``..._with_state`` function returns the loss and what its backward function takes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import contiguous
from numbanet.ops.steady import steady
from numbanet.problem import loss as check
from numbanet.problem.base import as_array, dtype_name, float_array, same_dtype
from numbanet.problem.loss import CrossEntropyProblem, MSEProblem, NLLProblem

# Of steady calls, which find them by their identities.
_cross_entropy_problem = lru_cache(maxsize=1024)(CrossEntropyProblem)
_nll_problem = lru_cache(maxsize=1024)(NLLProblem)
_mse_problem = lru_cache(maxsize=1024)(MSEProblem)
_INT64 = np.dtype(np.int64)


class LossState(NamedTuple):
    """What a backward pass needs: its problem, the operands as the kernels see them, and what was saved.

    Attributes
    ----------
    options : tuple
        What makes the problem's fields, but for the pass; first the dtype.
    operands : tuple of numpy.ndarray
        The operands of the backward kernels after the gradient; the weights of the classes may be None.
    shape : tuple of int
        Shape of the input.
    """

    options: tuple[Any, ...]
    operands: tuple[Any, ...]
    shape: tuple[int, ...]


def _class_rows(x: np.ndarray) -> np.ndarray:
    """Return (C), (N, C) or (N, C, d...) as contiguous rows of classes; free for channels-last memory."""
    if x.ndim == 2 and type(x) is np.ndarray and x.flags.c_contiguous:
        return x
    moved = x.transpose(0, *range(2, x.ndim), 1) if x.ndim > 2 else x
    moved = contiguous(moved)
    return moved if x.ndim == 2 else moved.reshape(_sizes(x.shape))


def _sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    rows, classes = check.row_shape(shape)
    return math.prod(rows), classes


def _empty_gradient(shape: tuple[int, ...], dtype: np.dtype, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an array of the shape, its classes contiguous in memory, and the same memory as rows of classes."""
    rows, classes = check.row_shape(shape)
    base = memory.empty((*rows, classes), dtype, like)
    if len(shape) == 2:
        return base, base
    shaped = base.transpose(0, len(rows), *range(1, len(rows))) if rows else base
    return shaped, base.reshape(_sizes(shape))


def _labels(target: Any, x: np.ndarray) -> Any:
    """Return class indices as kernels take them, one number a row; those that are so already are not yet checked."""
    if type(target) is np.ndarray and target.ndim == 1 and x.ndim == 2:
        if target.dtype == _INT64 and target.flags.c_contiguous:
            return target
    return check.indices(target, x.shape)


def _result(reduction: str, losses: np.ndarray, total: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return losses.reshape(check.row_shape(shape)[0]) if reduction == "none" else total


def _refuse_others(total: np.ndarray, labels: np.ndarray, classes: int, index: int) -> None:
    """Raise IndexError for labels that are no classes: of those kernels make NaN, so there is seldom need to look."""
    if type(total) is np.ndarray and math.isnan(total):
        check.refuse_others(labels, classes, index)


def _gradient(grad: Any, state: LossState) -> np.ndarray:
    grad = float_array("grad", grad)
    dtype, *_ = state.options
    if grad.dtype != dtype:
        raise TypeError(f"grad must have the dtype {dtype} of the loss, got {grad.dtype}")
    return contiguous(grad).reshape(-1)


def _weights(weight: Any, shape: tuple[int, ...], images: bool, like: np.ndarray) -> np.ndarray:
    return memory.placed(check.class_weight(weight, shape[1], like.dtype, images), like)


def cross_entropy_with_state(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[np.ndarray, LossState]:
    """Return `cross_entropy` and the state for `cross_entropy_backward`."""
    x, target = float_array("input", x), as_array(target)
    shape, probabilities = x.shape, target.shape == x.shape
    if probabilities:
        check.row_shape(shape)
        given = check.class_probabilities(target, shape, check.ignored(ignore_index))
        same_dtype(input=x, target=given)
        target = _class_rows(given)
    else:
        target = _labels(target, x)
    rows, images = _class_rows(x), len(shape) > 2 and not probabilities
    options = probabilities, reduction, ignore_index, label_smoothing
    losses, statistics, total, divisor = _cross_entropy(rows, target, weight, images, *options)
    if not probabilities:
        _refuse_others(total, target, rows.shape[1], ignore_index)
    elif not rows.shape[1] and reduction == "mean":
        total.fill(math.nan)  # of no numbers
    state = LossState((x.dtype, images, *options), (rows, target, weight, statistics, divisor), shape)
    return _result(reduction, losses, total, shape), state


def _cross_entropy_fields(
    rows: np.ndarray, probabilities: bool, reduction: str, ignore_index: int, label_smoothing: float
) -> tuple[Any, ...]:
    """Return what makes a problem, but for the pass."""
    words = check.reduction_word(reduction), check.ignored(ignore_index), check.smoothing(label_smoothing)
    return dtype_name(rows.dtype), *rows.shape, probabilities, *words


@steady(3)
def _cross_entropy(
    rows: np.ndarray, target: np.ndarray, weight: Any, images: bool, *options: Any
) -> tuple[np.ndarray, ...]:
    """Return the loss of each row, what is kept of it, their sum or mean, and what that was divided by."""
    (count, _), dtype, (probabilities, *_) = rows.shape, rows.dtype, options
    if not probabilities:
        target = check.indices(target, rows.shape)
    weights = _weights(weight, rows.shape, images, rows)
    problem = _cross_entropy_problem("forward", *_cross_entropy_fields(rows, *options))
    losses, total = memory.vector(count, dtype, rows), memory.vector((), dtype, rows)
    statistics, divisor = memory.vector(2 * count, dtype, rows), memory.vector(1, np.float64, rows)
    dispatch.run(problem, (rows, target, weights), (losses, statistics, total, divisor))
    return losses, statistics, total, divisor


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
    x, target, weight, statistics, divisor = state.operands
    saved = statistics, divisor, state.shape, *state.options[1:]
    return _cross_entropy_backward(_gradient(grad, state), x, target, weight, *saved)


@steady(6)
def _cross_entropy_backward(
    grad: np.ndarray, x: np.ndarray, target: np.ndarray, weight: Any, statistics: np.ndarray, divisor: np.ndarray,
    shape: tuple[int, ...], images: bool, *options: Any,
) -> np.ndarray:  # fmt: skip
    dx, rows = _empty_gradient(shape, x.dtype, x)
    problem = _cross_entropy_problem("backward_input", *_cross_entropy_fields(x, *options))
    weights = _weights(weight, x.shape, images, x)
    dispatch.run(problem, (grad, x, target, weights, statistics, divisor), (rows,))
    return dx


def cross_entropy_backward_target(grad: np.ndarray, state: LossState) -> np.ndarray:
    """Return the gradient of `cross_entropy` with respect to a target of probabilities."""
    x, _, weight, statistics, divisor = state.operands
    _, images, *options = state.options
    dt, rows = _empty_gradient(state.shape, x.dtype, x)
    problem = _cross_entropy_problem("backward_target", *_cross_entropy_fields(x, *options))
    weights = _weights(weight, x.shape, images, x)
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
    shape, labels, rows = x.shape, _labels(target, x), _class_rows(x)
    images = len(shape) > 2
    losses, total, divisor = _nll_loss(rows, labels, weight, images, reduction, ignore_index)
    _refuse_others(total, labels, rows.shape[1], ignore_index)
    state = LossState((x.dtype, images, reduction, ignore_index), (labels, weight, divisor), shape)
    return _result(reduction, losses, total, shape), state


def _nll_fields(dtype: np.dtype, shape: tuple[int, int], reduction: str, ignore_index: int) -> tuple[Any, ...]:
    """Return what makes a problem, but for the pass."""
    return dtype_name(dtype), *shape, check.reduction_word(reduction), check.ignored(ignore_index)


@steady(3)
def _nll_loss(
    rows: np.ndarray, target: np.ndarray, weight: Any, images: bool, reduction: str, ignore_index: int
) -> tuple[np.ndarray, ...]:
    """Return the loss of each row, their sum or mean, and what that was divided by."""
    labels, weights = check.indices(target, rows.shape), _weights(weight, rows.shape, images, rows)
    problem = _nll_problem("forward", *_nll_fields(rows.dtype, rows.shape, reduction, ignore_index))
    losses, total = memory.vector(rows.shape[0], rows.dtype, rows), memory.vector((), rows.dtype, rows)
    divisor = memory.vector(1, np.float64, rows)
    dispatch.run(problem, (rows, labels, weights), (losses, total, divisor))
    return losses, total, divisor


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
    (labels, weight, divisor), (_, *options) = state.operands, state.options
    return _nll_loss_backward(_gradient(grad, state), labels, weight, divisor, state.shape, *options)


@steady(4)
def _nll_loss_backward(
    grad: np.ndarray, labels: np.ndarray, weight: Any, divisor: np.ndarray, shape: tuple[int, ...], images: bool,
    reduction: str, ignore_index: int,
) -> np.ndarray:  # fmt: skip
    dx, rows = _empty_gradient(shape, grad.dtype, labels)
    problem = _nll_problem("backward_input", *_nll_fields(grad.dtype, rows.shape, reduction, ignore_index))
    weights = _weights(weight, rows.shape, images, grad)
    dispatch.run(problem, (grad, labels, weights, divisor), (rows,))
    return dx


def mse_loss_with_state(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> tuple[np.ndarray, LossState]:
    """Return `mse_loss` and the state for `mse_loss_backward`."""
    x, target = memory.dense(float_array("input", x)), float_array("target", target)
    if x.shape != target.shape:
        raise ValueError(f"target must have the shape {x.shape} of the input, got {target.shape}")
    target = memory.like_layout(target, x)
    loss, divisor = _mse_loss(x, target, reduction)
    return loss, LossState((x.dtype, reduction), (x, target, divisor), x.shape)


def _mse_fields(x: np.ndarray, target: np.ndarray, reduction: str) -> tuple[str, int, str]:
    """Return what makes a problem, but for the pass."""
    return same_dtype(input=x, target=target), x.size, check.reduction_word(reduction)


@steady(2)
def _mse_loss(x: np.ndarray, target: np.ndarray, reduction: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss, and what it was divided by."""
    problem = _mse_problem("forward", *_mse_fields(x, target, reduction))
    values = memory.empty_like(x) if reduction == "none" else None
    total, divisor = memory.vector((), x.dtype, x), memory.vector(1, np.float64, x)
    outputs = (memory.flat(values) if values is not None else None, total, divisor)
    dispatch.run(problem, (memory.flat(x), memory.flat(target)), outputs)
    return (total if values is None else values), divisor


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
    grad = float_array("grad", grad)
    same_dtype(grad=grad, input=x)
    along = memory.flat(memory.like_layout(grad, x)) if state.options[-1] == "none" else grad.reshape(1)
    return _mse_loss_backward(along, *((target, x) if of_target else (x, target)), divisor, state.options[-1])


@steady(4)
def _mse_loss_backward(
    grad: np.ndarray, x: np.ndarray, target: np.ndarray, divisor: np.ndarray, reduction: str
) -> np.ndarray:
    dx, problem = memory.empty_like(x), _mse_problem("backward_input", *_mse_fields(x, target, reduction))
    inputs = (grad, memory.flat(x), memory.flat(target), divisor)
    dispatch.run(problem, inputs, (memory.flat(dx),))
    return dx
