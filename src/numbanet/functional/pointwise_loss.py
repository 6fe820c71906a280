"""Differentiable losses of pairs of numbers, and the hinge loss, as in torch.nn.functional."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

from numbanet import memory, ops
from numbanet.functional.elementwise import div, mul
from numbanet.functional.reduce import mean, sum
from numbanet.functional.shape import expand, to_dtype
from numbanet.ops.margin import multi_margin_losses, multi_margin_losses_backward
from numbanet.ops.pointwise import pointwise, pointwise_sum
from numbanet.problem.elementwise import broadcast_shape
from numbanet.problem.loss import ones, reduction_word
from numbanet.problem.pointwise import number
from numbanet.problem.promotion import alike, operand, promote
from numbanet.tape import needs_grad, record
from numbanet.tensor import Tensor, constant, values

Gradient = Callable[[np.ndarray, float], np.ndarray]


def _loss(
    function: str,
    pair: tuple[Tensor, Tensor],
    reduction: str,
    to_input: Gradient,
    to_target: Gradient,
    parameters: tuple[float, ...] = (),
    weights: tuple[np.ndarray, ...] = (),
) -> Tensor:
    """Record a loss; the gradients are functions of that of the result and of a factor (1 / size for the mean)."""
    input, target = pair
    operands = (input.data, target.data, *weights)
    if reduction == "none":
        y = pointwise(function, operands, *parameters)
    else:
        y = pointwise_sum(function, operands, *parameters, mean=reduction == "mean")
    scale = 1.0 / max(1, operands[0].size) if reduction == "mean" else 1.0
    need_input, need_target = input.requires_grad, target.requires_grad

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        return to_input(grad, scale) if need_input else None, to_target(grad, scale) if need_target else None

    return record(y, pair, backward)


def _pair(input: Tensor, target: Tensor, quiet: bool = False) -> tuple[Tensor, Tensor]:
    """Return both in one dtype and shape; different shapes get a warning."""
    x, t = values("input", input), values("target", target)
    if alike(x, t):
        return input, target
    for name, given in (("input", x), ("target", t)):
        operand(name, given)
    if x.shape != t.shape:
        shape = broadcast_shape(x.shape, t.shape)
        if not quiet:
            text = f"target has shape {t.shape}, input {x.shape}: they are broadcast, which is seldom what is meant"
            warnings.warn(text, UserWarning, stacklevel=3)
        input, target = expand(input, shape), expand(target, shape)
    dtype = promote(x.dtype, t.dtype)
    return to_dtype(input, dtype), to_dtype(target, dtype)


def _weighted(losses: Tensor, weight: Tensor, reduction: str, shape: tuple[int, ...], by_weights: bool) -> Tensor:
    """Reduce losses times weights; the mean is over the elements, or divided by the sum of the weights."""
    if values("weight", weight).shape != shape:
        raise ValueError(f"weight must have the shape {shape} of input, got {weight.shape}")
    each = mul(losses, weight)
    if reduction == "none":
        return each
    if reduction == "sum" or by_weights:
        return sum(each) if reduction == "sum" else div(sum(each), sum(weight))
    return mean(each)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Return the absolute differences of two tensors: their mean, their sum, or each.

    Parameters
    ----------
    input, target : Tensor
        Shapes that broadcast; different ones get a warning. Gradients flow to both.
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
    pair = _pair(input, target)
    _refuse_booleans(input, target)
    if weight is not None:
        return _weighted(_l1(pair, "none"), weight, reduction, input.shape, by_weights=True)
    return _l1(pair, reduction)


def _refuse_booleans(input: Tensor, target: Tensor) -> None:
    for name, given in (("input", input), ("target", target)):
        if given.dtype.kind == "b":
            raise TypeError(f"{name} must hold numbers, got booleans")


def _refuse_integers(name: str, tensor: Tensor) -> None:
    if values(name, tensor).dtype.kind in "biu":
        raise TypeError(f"{name} must have dtype float32 or float64, got {tensor.dtype}")


def _l1(pair: tuple[Tensor, Tensor], reduction: str) -> Tensor:
    x, t = pair[0].data, pair[1].data
    if x.dtype.kind != "f":
        each = Tensor(ops.abs(ops.sub(x, t)))
        return each if reduction == "none" else sum(each) if reduction == "sum" else mean(each)
    return _loss(
        "l1", pair, reduction,
        lambda grad, scale: pointwise("l1_backward", (grad, x, t), scale),
        lambda grad, scale: pointwise("l1_backward", (grad, x, t), -scale),
    )  # fmt: skip


def _huber(pair: tuple[Tensor, Tensor], reduction: str, delta: float, factor: float) -> Tensor:
    x, t = pair[0].data, pair[1].data
    return _loss(
        "huber", pair, reduction,
        lambda grad, scale: pointwise("huber_backward", (grad, x, t), delta, factor * scale),
        lambda grad, scale: pointwise("huber_backward", (grad, x, t), delta, -factor * scale),
        (delta, factor),
    )  # fmt: skip


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Return d^2 / (2 beta) for differences d up to beta in size, beyond it |d| - beta / 2 (arXiv:1504.08083).

    Arguments, result and errors as for `l1_loss`, which it is with a `beta` of 0; it must not be negative.
    """
    reduction = reduction_word(reduction, size_average, reduce)
    pair, beta = _pair(input, target), number("beta", beta, 0)
    if beta:
        return _huber(pair, reduction, beta, 1 / beta)
    _refuse_booleans(input, target)
    return _l1(pair, reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Return d^2 / 2 for differences d up to delta in size, beyond it delta (|d| - delta / 2) (Huber, 1964).

    Arguments, result and errors as for `l1_loss`; `delta` must be positive, the input not of integers, and the mean of
    weighted losses is over their number. The loss has the dtype of the input; for gradients the target has it too.
    """
    reduction = reduction_word(reduction)
    _refuse_integers("input", input)
    pair, delta = _pair(input, target), number("delta", delta, 0, above=True)
    if input.dtype != target.dtype and needs_grad(input, target):
        raise TypeError(f"target must have the dtype {input.dtype} of input for gradients, got {target.dtype}")
    losses = to_dtype(_huber(pair, reduction if weight is None else "none", delta, 1.0), input.dtype)
    return losses if weight is None else _weighted(losses, weight, reduction, input.shape, by_weights=False)


def _some_nan(y: np.ndarray) -> bool:
    return bool(np.isnan(y).any()) if y.ndim else math.isnan(y)  # in less time


def _factor(name: str, tensor: Tensor | None, like: np.ndarray) -> np.ndarray:
    """Return weights as an array of the shape and dtype of the input, or as the number 1."""
    if tensor is None:
        return memory.number(ones((), like.dtype), like)
    array = constant(name, tensor)
    operand(name, array)
    array = ops.to_dtype(array, like.dtype)
    if broadcast_shape(array.shape, like.shape, names=f"{name} and input") != like.shape:
        raise ValueError(f"{name} must broadcast to the shape {like.shape} of input, got {array.shape}")
    return np.broadcast_to(array, like.shape) if array.ndim else array


def _same_shape(input: Tensor, target: Tensor) -> bool:
    """Refuse different shapes; return whether the dtype is the same as well."""
    x, t = values("input", input), values("target", target)
    if alike(x, t):
        return True
    for name, given in (("input", x), ("target", t)):
        operand(name, given)
    if x.shape != t.shape:
        raise ValueError(f"target must have the shape {input.shape} of input, got {target.shape}")
    return x.dtype.newbyteorder("=") == t.dtype.newbyteorder("=")


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -(target log(input) + (1 - target) log(1 - input)), the logarithms at least -100.

    Parameters
    ----------
    input, target : Tensor
        Probabilities from 0 to 1, one shape and dtype. Gradients flow to both.
    weight : Tensor, optional
        Factors that broadcast to the input's shape.
    size_average, reduce : bool, optional
        Deprecated: use `reduction`.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    TypeError, ValueError
        If a shape, a dtype or the word does not fit, or an input or a target is no probability.
    RuntimeError
        If the weight requires a gradient.
    """
    reduction = reduction_word(reduction, size_average, reduce)
    same_dtype = _same_shape(input, target)
    x, t = input.data, target.data
    if not same_dtype:
        raise TypeError(f"input and target must have one dtype, got {x.dtype} and {t.dtype}")
    factor = _factor("weight", weight, x)
    loss = _loss(
        "binary_cross_entropy", (input, target), reduction,
        lambda grad, scale: pointwise("binary_cross_entropy_backward", (grad, x, t, factor), scale),
        lambda grad, scale: pointwise("binary_cross_entropy_backward_target", (grad, x, t, factor), scale),
        weights=(factor,),
    )  # fmt: skip
    # What is no probability makes the loss NaN: an input has no logarithm, of a target the kernel sees it.
    # A GPU would have to be waited for: there the NaN is the answer.
    if type(x) is np.ndarray and _some_nan(loss.data):
        for name, given, words in (("input", x, ": binary_cross_entropy_with_logits takes scores"), ("target", t, "")):
            wrong = given[~(np.greater_equal(given, 0) & np.less_equal(given, 1))]
            if wrong.size:
                raise ValueError(f"{name} must hold probabilities from 0 to 1, got {wrong[0]}{words}")
    return loss


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return the binary cross entropy of sigmoid(input), computed from the scores: nothing overflows.

    Parameters
    ----------
    input, target : Tensor
        Scores and probabilities, one shape; float32 or float64. Gradients flow to both, and the loss has the dtype of
        `target`.
    weight : Tensor, optional
        Factors that broadcast to the input's shape.
    size_average, reduce : bool, optional
        Deprecated: use `reduction`.
    reduction : {"mean", "sum", "none"}
    pos_weight : Tensor, optional
        Factors of target log(sigmoid(input)); broadcast to the input's shape.

    Raises
    ------
    TypeError, ValueError
        If a shape, a dtype or the word does not fit.
    RuntimeError
        If a weight requires a gradient.
    """
    reduction = reduction_word(reduction, size_average, reduce)
    _same_shape(input, target)
    _refuse_integers("input", input)
    _refuse_integers("target", target)
    pair = _pair(input, target)
    x, t = pair[0].data, pair[1].data
    factor, positive = _factor("weight", weight, x), _factor("pos_weight", pos_weight, x)

    def weighted(grad: np.ndarray) -> np.ndarray:
        return grad if weight is None else ops.mul(grad, factor)

    def to_input(grad: np.ndarray, scale: float) -> np.ndarray:
        return pointwise("cross_entropy_with_logits_backward", (weighted(grad), x, t, positive), scale)

    def to_target(grad: np.ndarray, scale: float) -> np.ndarray:
        return pointwise("cross_entropy_with_logits_backward_target", (weighted(grad), x, positive), scale)

    weights = (factor, positive)
    loss = _loss("cross_entropy_with_logits", pair, reduction, to_input, to_target, weights=weights)
    return to_dtype(loss, target.dtype)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Return target (log(target) - input): the divergence of Kullback and Leibler from log-probabilities.

    Parameters
    ----------
    input : Tensor
        Logarithms of probabilities.
    target : Tensor
        Probabilities, or with `log_target` their logarithms; shapes broadcast. Gradients flow to both.
    size_average, reduce : bool, optional
        Deprecated: use `reduction`.
    reduction : {"mean", "batchmean", "sum", "none"}
        ``"mean"`` divides by the number of elements, with a warning; ``"batchmean"``, the divergence, by that of rows.
    log_target : bool

    Raises
    ------
    TypeError, ValueError
        If the shapes do not broadcast, or a dtype or the word does not fit.
    """
    old = size_average is not None or reduce is not None
    rows = reduction == "batchmean"  # also beside the older flags, which say what is divided
    word = "sum" if rows and not old else reduction_word(reduction, size_average, reduce)
    if word == "mean" and not old:
        text = "reduction='mean' divides by the number of elements: the divergence is reduction='batchmean'"
        warnings.warn(text, UserWarning, stacklevel=2)
    for name, given in (("input", input), ("target", target)):
        if values(name, given).dtype.kind != "f":
            raise TypeError(f"{name} must have dtype float32 or float64, got {given.dtype}")
    pair = _pair(input, target, quiet=True)
    x, t = pair[0].data, pair[1].data

    def to_input(grad: np.ndarray, scale: float) -> np.ndarray:
        if log_target:
            return pointwise("kl_div_log_backward", (grad, t), scale)
        return ops.mul(t, ops.mul(grad, -scale))

    def to_target(grad: np.ndarray, scale: float) -> np.ndarray:
        return pointwise("kl_div_log_backward_target" if log_target else "kl_div_backward_target", (grad, x, t), scale)

    loss = _loss("kl_div_log" if log_target else "kl_div", pair, word, to_input, to_target)
    return div(loss, input.shape[0]) if rows and input.ndim else loss


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the multi-class hinge loss of scores (Weston and Watkins, 1999): that of a support vector machine.

    Parameters
    ----------
    input : Tensor
        Scores, shape (N, C) or (C), or () of a single class.
    target : Tensor
        The right classes y, int64, shape (N); for one row () too.
    p : {1, 2}
    margin : float
    weight : Tensor, optional
        One factor for each class, shape (C).
    size_average, reduce : bool, optional
        Deprecated: use `reduction`.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    Tensor
        Over the rows the mean or sum of ``sum over j != y of weight[y] max(0, margin - x[y] + x[j])^p / C``, or each.

    Raises
    ------
    IndexError
        If an index is no class.
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    reduction = reduction_word(reduction, size_average, reduce)
    x, labels = values("input", input), values("target", target)
    options = (labels, p, margin, None if weight is None else constant("weight", weight))
    losses = multi_margin_losses(x, *options)
    y = losses if reduction == "none" else (ops.sum if reduction == "sum" else ops.mean)(losses)
    scale = 1.0 / max(1, losses.size) if reduction == "mean" else 1.0
    return record(y, (input,), lambda grad: (multi_margin_losses_backward(grad, x, *options, scale),))
