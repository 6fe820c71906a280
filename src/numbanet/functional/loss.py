"""Differentiable losses, as in torch.nn.functional."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.functional.shape import to_dtype
from numbanet.problem.loss import reduction_word, row_shape
from numbanet.problem.promotion import alike, operand, promote
from numbanet.tape import record
from numbanet.tensor import Tensor, array_of, constant, values
from numbanet.watch import label, watcher


def _weight(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else constant("weight", tensor)


def _targets(input: Tensor, target: Tensor, ignore_index: int) -> np.ndarray:
    """Return the array of a target, of which class indices need not steer Python: kernels read them where they lie."""
    if watcher() is None:  # nobody asks what steers Python
        return values("target", target)
    if type(target) is Tensor and isinstance(input, Tensor) and target.device == "cpu" and target.dtype == np.int64:
        array = array_of(target)
        if array.flags.c_contiguous and input.ndim:
            label(target, row_shape(input.shape)[1], ignore_index)
            return array
    return values("target", target)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy between class scores and targets; see `numbanet.ops.cross_entropy` for the errors.

    Parameters
    ----------
    input : Tensor
        Scores before softmax, shape (C), (N, C) or (N, C, d1, ...); float32 or float64.
    target : Tensor
        Class indices of dtype int64, for rows of scores also uint8, shape (), (N) or (N, d1, ...); or class
        probabilities of the input's shape, to which gradients flow too.
    weight : Tensor, optional
        One factor for each class, shape (C).
    size_average, reduce : bool, optional
        Deprecated: use `reduction`.
    ignore_index : int
        Elements with this index count nothing.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by the sum of the targets' weights, or, for probabilities, by the number of elements.
    label_smoothing : float
        From 0 to 1: this share of the target is spread evenly over the classes.

    Returns
    -------
    Tensor
        No dimension, or with ``"none"`` the shape of the indices.

    Raises
    ------
    RuntimeError
        If the weight requires a gradient: it would get none.
    """
    reduction = reduction_word(reduction, size_average, reduce)
    labels, x = _targets(input, target, ignore_index), values("input", input)
    if x.shape == labels.shape and x.dtype.kind == labels.dtype.kind == "f":
        common = promote(x.dtype, labels.dtype)
        if weight is not None:
            common = promote(common, weight.dtype)
            weight = weight.to(common)
        input, target = input.to(common), target.to(common)
        labels, x = values("target", target), values("input", input)
    options = (_weight(weight), ignore_index, reduction, label_smoothing)
    loss, state = ops.cross_entropy_with_state(x, labels, *options)
    need_input, need_target = input.requires_grad, target.requires_grad

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        return (
            ops.cross_entropy_backward(grad, state) if need_input else None,
            ops.cross_entropy_backward_target(grad, state) if need_target else None,
        )

    return record(loss, (input, target), backward)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the negative log-likelihood of class indices, from log-probabilities (such as `log_softmax` returns).

    Arguments, result and errors as for `cross_entropy`, but the target holds indices.
    """
    options = (_weight(weight), ignore_index, reduction_word(reduction, size_average, reduce))
    labels = _targets(input, target, ignore_index)
    loss, state = ops.nll_loss_with_state(values("input", input), labels, *options)
    need = input.requires_grad
    return record(loss, (input, target), lambda grad: (ops.nll_loss_backward(grad, state) if need else None, None))


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Return the squared differences of two tensors: their mean, their sum, or each.

    Parameters
    ----------
    input, target : Tensor
        Shapes that broadcast; different ones get a warning. One of them holds floats, unless there are weights.
        Gradients flow to both.
    size_average, reduce : bool, optional
        Deprecated: use `reduction`.
    reduction : {"mean", "sum", "none"}
        With weights, ``"mean"`` divides by their sum.
    weight : Tensor, optional
        A factor for each difference, of the input's shape.

    Returns
    -------
    Tensor
        No dimension, or with ``"none"`` the common shape.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not broadcast, or a dtype or the word does not fit.
    """
    reduction = reduction_word(reduction, size_average, reduce)
    x, t = values("input", input), values("target", target)
    matched = alike(x, t)
    if not matched:
        for name, given in (("input", x), ("target", t)):
            operand(name, given)
    if x.shape != t.shape:
        text = (
            f"target has shape {target.shape}, input {input.shape}: they are broadcast, which is seldom what is meant"
        )
        warnings.warn(text, UserWarning, stacklevel=2)
    if weight is None and not matched:
        common = promote(x.dtype, t.dtype)
        if common.kind != "f":
            raise TypeError(f"input or target must have dtype float32 or float64, got {x.dtype} and {t.dtype}")
        input, target = to_dtype(input, common), to_dtype(target, common)
        x, t = input.data, target.data
    if weight is not None or not (matched or input.shape == target.shape):
        return _general_mse(input, target, weight, reduction)
    loss, state = ops.mse_loss_with_state(x, t, reduction)
    need_input, need_target = input.requires_grad, target.requires_grad

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        return (
            ops.mse_loss_backward(grad, state) if need_input else None,
            ops.mse_loss_backward(grad, state, of_target=True) if need_target else None,
        )

    return record(loss, (input, target), backward)


def _general_mse(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Write it out in broadcasting arithmetic."""
    difference = input - target
    squares: Any = difference * difference
    if weight is not None:
        if values("weight", weight).shape != input.shape:
            raise ValueError(f"weight must have the shape {input.shape} of input, got {weight.shape}")
        squares = squares * weight
    if reduction == "none":
        return squares
    if reduction == "sum" or weight is None:
        return squares.sum() if reduction == "sum" else squares.mean()
    return squares.sum() / weight.sum()
