"""Definitions of the losses: (value of each row, what a mean divides by), and the gradients of the values.

``grad`` is the gradient of each row's value, already divided by the mean's divisor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.problem.loss import are_classes
from numbanet.reference.softmax import log_softmax


def target_distribution(problem: Any, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return w t, (rows, classes): the factors of -log p in the loss; zero for ignored rows.

    Indices are smoothed as (1 - s) onehot + s / C; each class has its own weight in both parts.
    """
    s, classes = problem.label_smoothing, problem.classes
    share = s / max(classes, 1)
    if problem.probabilities:
        return weight * (target * (1 - s) + share)
    kept = target != problem.ignore_index
    onehot = np.arange(classes) == target[:, None]
    return weight * ((1 - s) * onehot + share) * kept[:, None]


def cross_entropy(problem: Any, x: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """-sum over the classes of w t log softmax(x); a mean divides by the weights of the targets, or by the rows."""
    factors = target_distribution(problem, target, weight)
    logp = log_softmax(x[:, :, None])[:, :, 0] if problem.classes else x
    if problem.probabilities:
        return -(factors * logp).sum(axis=1), problem.rows
    # 0 * -inf is 0 here: a class that is no target does not matter.
    losses = -np.where(factors == 0, 0, factors * logp).sum(axis=1)
    return losses, weight[target[target != problem.ignore_index]].sum()


def cross_entropy_backward(
    problem: Any, grad: np.ndarray, x: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """grad (softmax(x) sum(w t) - w t); zero for ignored rows, even where the mean has nothing to divide by."""
    factors = target_distribution(problem, target, weight)
    p = np.exp(log_softmax(x[:, :, None])[:, :, 0]) if problem.classes else x
    if not problem.probabilities:
        grad = np.where(target == problem.ignore_index, 0, grad)
    return grad[:, None] * (p * factors.sum(axis=1, keepdims=True) - factors)


def nll(problem: Any, x: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """-w x at each row's target."""
    kept = target != problem.ignore_index
    labels = np.where(kept, target, 0)
    factors = np.where(kept, weight[labels], 0) if weight.size else np.zeros(target.shape)
    picked = np.take_along_axis(x, labels[:, None], axis=1)[:, 0] if x.size else np.zeros(target.shape)
    return -np.where(kept, factors * picked, 0), factors.sum()


def nll_backward(problem: Any, grad: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """-w grad at each row's target, zero elsewhere."""
    hit = (np.arange(problem.classes) == target[:, None]) & (target != problem.ignore_index)[:, None]
    return np.where(hit, -weight * grad[:, None], 0)


def _reduce(problem: Any, losses: np.ndarray, divisor: Any, outputs: Arrays) -> None:
    value, total, divided = outputs
    divided[0] = divisor if problem.reduction == "mean" else 1
    if problem.reduction == "none":
        value[...] = losses
    with np.errstate(invalid="ignore", divide="ignore"):
        total[...] = np.float64(losses.sum()) / divided[0]


def _row_gradients(problem: Any, grad: np.ndarray, divisor: np.ndarray, size: int) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.broadcast_to(grad / divisor[0], size)


def _cross_entropy(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    value, statistics, total, divided = outputs
    x = inputs[0]
    if x.size:
        statistics[::2] = x.max(axis=1)
        statistics[1::2] = np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1))
    if problem.probabilities or are_classes(inputs[1], problem.classes, problem.ignore_index):
        _reduce(problem, *cross_entropy(problem, *inputs), (value, total, divided))
    else:
        total.fill(np.nan)  # as kernels say it


def _cross_entropy_backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, target, weight, _, divisor = inputs
    rows = _row_gradients(problem, grad, divisor, problem.rows)
    outputs[0][...] = cross_entropy_backward(problem, rows, x, target, weight)


def _cross_entropy_backward_target(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, _, divisor = inputs
    rows = _row_gradients(problem, grad, divisor, problem.rows)
    logp = log_softmax(x[:, :, None])[:, :, 0]
    outputs[0][...] = -rows[:, None] * (1 - problem.label_smoothing) * weight * logp


def _nll(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    if are_classes(inputs[1], problem.classes, problem.ignore_index):
        _reduce(problem, *nll(problem, *inputs), outputs)
    else:
        outputs[1].fill(np.nan)  # as kernels say it


def _nll_backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, target, weight, divisor = inputs
    outputs[0][...] = nll_backward(problem, _row_gradients(problem, grad, divisor, problem.rows), target, weight)


def _mse(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _reduce(problem, (inputs[0] - inputs[1]) ** 2, problem.size, outputs)


def _mse_backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, target, divisor = inputs
    outputs[0][...] = 2 * (x - target) * _row_gradients(problem, grad, divisor, problem.size)


def _only(run: Any) -> list[Candidate]:
    return [Candidate("reference", run, cost=lambda p: float("inf"))]


CANDIDATES: CandidateLists = {
    ("cross_entropy", "forward"): _only(_cross_entropy),
    ("cross_entropy", "backward_input"): _only(_cross_entropy_backward),
    ("cross_entropy", "backward_target"): _only(_cross_entropy_backward_target),
    ("nll_loss", "forward"): _only(_nll),
    ("nll_loss", "backward_input"): _only(_nll_backward),
    ("mse_loss", "forward"): _only(_mse),
    ("mse_loss", "backward_input"): _only(_mse_backward),
}
