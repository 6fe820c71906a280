"""Losses: one fused pass forward (log-sum-exp and loss together), one backward.

A forward task writes the losses of its rows and, in float64, their sum and the sum of what a mean divides by; `finish`
adds these up in the order of the tasks, so the result does not depend on the threads. Cross entropy keeps of each row
its largest score and the logarithm of the sum of exponentials, which is all that the backward pass needs.

The loss of a label that is no class is NaN, and so is the sum, which Python turns into an error. No kernel takes such a
label for an index, be it one that was changed before the backward pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    first_lane,
    floats,
    fma,
    integers,
    lanes,
    load,
    load_tail,
    reduce_add,
    splat,
    store,
    store_tail,
)
from numbanet.cpu.softmax import row_statistics
from numbanet.cpu.vmath import exp_below, log
from numbanet.problem.base import doubles

_TASK = 1 << 14  # elements a task, about


@kernel
def finish(task: Index, ints: I64, partial: F64, total: T, divisor: F64):
    """Add up the tasks' pairs (sum of losses, sum of weights) and divide."""
    parts, mean = integers(ints, 2)
    losses, weights = 0.0, 0.0
    for part in range(parts):
        losses += partial[2 * part]
        weights += partial[2 * part + 1]
    divisor[0] = weights if mean else 1.0
    total[0] = losses / divisor[0]


# ---------------------------------------------------------------------------------------------------------------------
# Cross entropy


@device
def _keep_statistics(x, start, classes, statistics, row):
    """Write a row's largest score and the logarithm of its sum of exponentials behind it; return both."""
    top, total = row_statistics(x, start, classes, x, False)
    largest, logarithm = first_lane(top), first_lane(log(total))
    statistics[2 * row], statistics[2 * row + 1] = largest, logarithm
    return largest, logarithm


@device
def _weighted(x, target, weight, top, logarithm, keep, share):
    """Return w (keep t + share) (-log p): what cross entropy sums over the classes."""
    return weight * fma(target, keep, share) * (logarithm - (x - top))


@device
def _row_loss(x, start, target, first, weight, classes, top, logarithm, keep, share):
    """Sum w (keep t + share) (-log p) over the classes of one row; t from `target`, from element `first` on."""
    top, logarithm, keep, share = splat(x, top), splat(x, logarithm), splat(x, keep), splat(x, share)
    total = splat(x, 0.0)
    c = 0
    while c + lanes(x) <= classes:
        v, t, w = load(x, start + c), load(target, first + c), load(weight, c)
        total = total + _weighted(v, t, w, top, logarithm, keep, share)
        c += lanes(x)
    if c < classes:
        n = classes - c  # the weights beyond are zero
        v, t, w = load_tail(x, start + c, n), load_tail(target, first + c, n), load_tail(weight, c, n)
        total = total + _weighted(v, t, w, top, logarithm, keep, share)
    return reduce_add(total)


@device
def _row_weight(target, first, weight, classes, keep, share):
    """Sum w (keep t + share) over the classes of one row."""
    keep, share = splat(weight, keep), splat(weight, share)
    total = splat(weight, 0.0)
    c = 0
    while c + lanes(weight) <= classes:
        total = fma(load(weight, c), fma(load(target, first + c), keep, share), total)
        c += lanes(weight)
    if c < classes:
        n = classes - c
        total = fma(load_tail(weight, c, n), fma(load_tail(target, first + c, n), keep, share), total)
    return reduce_add(total)


@device
def _slope(x, target, weight, top, logarithm, g, mass, keep, share):
    return g * (mass * exp_below((x - top) - logarithm) - weight * fma(target, keep, share))


@device
def _row_gradient(x, start, target, first, weight, classes, top, logarithm, g, mass, keep, share, dx):
    """Write g (mass p - w (keep t + share)) for the classes of one row."""
    top, logarithm, g, mass = splat(x, top), splat(x, logarithm), splat(x, g), splat(x, mass)
    keep, share = splat(x, keep), splat(x, share)
    c = 0
    while c + lanes(x) <= classes:
        v, t, w = load(x, start + c), load(target, first + c), load(weight, c)
        store(dx, start + c, _slope(v, t, w, top, logarithm, g, mass, keep, share))
        c += lanes(x)
    if c < classes:
        n = classes - c
        v, t, w = load_tail(x, start + c, n), load_tail(target, first + c, n), load_tail(weight, c, n)
        store_tail(dx, start + c, _slope(v, t, w, top, logarithm, g, mass, keep, share), n)


@device
def _fill(dx, start, count, number):
    i, end, v = start, start + count, splat(dx, number)
    while i + lanes(dx) <= end:
        store(dx, i, v)
        i += lanes(dx)
    if i < end:
        store_tail(dx, i, v, end - i)


@kernel
def indices_forward(
    task: Index, ints: I64, smooth: F64, x: T, target: I64, weight: T, losses: T, statistics: T, partial: F64
):
    rows, classes, block, ignore = integers(ints, 4)
    (smoothing,) = floats(smooth, 1)
    keep, share = 1.0 - smoothing, smoothing / classes
    loss_sum, weight_sum = 0.0, 0.0
    for row in range(task * block, min(rows, (task + 1) * block)):
        label, start = target[row], row * classes
        if label == ignore or label < 0 or label >= classes:
            losses[row] = statistics[2 * row] = statistics[2 * row + 1] = 0.0 if label == ignore else math.nan
            loss_sum += losses[row]
            continue
        top, logarithm = _keep_statistics(x, start, classes, statistics, row)
        loss = keep * weight[label] * (logarithm - (x[start + label] - top))
        if share > 0:  # no target takes part: all classes alike
            loss += _row_loss(x, start, weight, 0, weight, classes, top, logarithm, 0.0, share)
        losses[row] = loss
        loss_sum += loss
        weight_sum += weight[label]
    partial[2 * task], partial[2 * task + 1] = loss_sum, weight_sum


@kernel
def indices_backward(
    task: Index, ints: I64, smooth: F64, grad: T, x: T, target: I64, weight: T, statistics: T, divisor: F64, dx: T
):
    rows, classes, block, ignore, step = integers(ints, 5)
    (smoothing,) = floats(smooth, 1)
    keep, share = 1.0 - smoothing, smoothing / classes
    uniform = _row_weight(weight, 0, weight, classes, 0.0, share)
    for row in range(task * block, min(rows, (task + 1) * block)):
        label, start = target[row], row * classes
        if label == ignore or label < 0 or label >= classes:
            _fill(dx, start, classes, 0.0 if label == ignore else math.nan)
            continue
        g = grad[row * step] / divisor[0]
        mass = keep * weight[label] + uniform
        top, logarithm = statistics[2 * row], statistics[2 * row + 1]
        _row_gradient(x, start, weight, 0, weight, classes, top, logarithm, g, mass, 0.0, share, dx)
        dx[start + label] -= g * keep * weight[label]


@kernel
def probabilities_forward(
    task: Index, ints: I64, smooth: F64, x: T, target: T, weight: T, losses: T, statistics: T, partial: F64
):
    rows, classes, block = integers(ints, 3)
    (smoothing,) = floats(smooth, 1)
    keep, share = 1.0 - smoothing, smoothing / classes
    loss_sum, count = 0.0, 0.0
    for row in range(task * block, min(rows, (task + 1) * block)):
        start = row * classes
        top, logarithm = _keep_statistics(x, start, classes, statistics, row)
        loss = _row_loss(x, start, target, start, weight, classes, top, logarithm, keep, share)
        losses[row] = loss
        loss_sum += loss
        count += 1.0
    partial[2 * task], partial[2 * task + 1] = loss_sum, count


@kernel
def probabilities_backward(
    task: Index, ints: I64, smooth: F64, grad: T, x: T, target: T, weight: T, statistics: T, divisor: F64, dx: T
):
    rows, classes, block, _, step = integers(ints, 5)
    (smoothing,) = floats(smooth, 1)
    keep, share = 1.0 - smoothing, smoothing / classes
    for row in range(task * block, min(rows, (task + 1) * block)):
        start = row * classes
        g = grad[row * step] / divisor[0]
        mass = _row_weight(target, start, weight, classes, keep, share)
        top, logarithm = statistics[2 * row], statistics[2 * row + 1]
        _row_gradient(x, start, target, start, weight, classes, top, logarithm, g, mass, keep, share, dx)


@kernel
def probabilities_backward_target(
    task: Index, ints: I64, smooth: F64, grad: T, x: T, weight: T, statistics: T, divisor: F64, dt: T
):
    rows, classes, block, _, step = integers(ints, 5)
    (smoothing,) = floats(smooth, 1)
    for row in range(task * block, min(rows, (task + 1) * block)):
        start = row * classes
        g = splat(x, grad[row * step] / divisor[0] * (1.0 - smoothing))
        top, logarithm = splat(x, statistics[2 * row]), splat(x, statistics[2 * row + 1])
        for c in range(0, classes, lanes(x)):
            n = min(lanes(x), classes - c)
            v = logarithm - (load_tail(x, start + c, n) - top)
            store_tail(dt, start + c, g * load_tail(weight, c, n) * v, n)


# ---------------------------------------------------------------------------------------------------------------------
# Negative log-likelihood


@kernel
def nll_forward(task: Index, ints: I64, x: T, target: I64, weight: T, losses: T, partial: F64):
    rows, classes, block, ignore = integers(ints, 4)
    loss_sum, weight_sum = 0.0, 0.0
    for row in range(task * block, min(rows, (task + 1) * block)):
        label = target[row]
        if label == ignore or label < 0 or label >= classes:
            losses[row] = 0.0 if label == ignore else math.nan
            loss_sum += losses[row]
            continue
        loss = -weight[label] * x[row * classes + label]
        losses[row] = loss
        loss_sum += loss
        weight_sum += weight[label]
    partial[2 * task], partial[2 * task + 1] = loss_sum, weight_sum


@kernel
def nll_backward(task: Index, ints: I64, grad: T, target: I64, weight: T, divisor: F64, dx: T):
    rows, classes, block, ignore, step = integers(ints, 5)
    for row in range(task * block, min(rows, (task + 1) * block)):
        label = target[row]
        _fill(dx, row * classes, classes, 0.0)
        if label != ignore and 0 <= label < classes:
            dx[row * classes + label] = -weight[label] * grad[row * step] / divisor[0]


# ---------------------------------------------------------------------------------------------------------------------
# How they are launched


def _block(problem: Any) -> int:
    """Rows a task."""
    return max(1, _TASK // max(problem.classes, 1))


def _reduce(problem: Any, parts: int, partial: np.ndarray, total: np.ndarray, divisor: np.ndarray) -> None:
    arrays = (partial, total, divisor)
    launch(finish, 1, arrays, (parts, problem.reduction == "mean"), problem.dtype)


def _cross_entropy(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    losses, statistics, total, divisor = outputs
    block = _block(problem)
    parts = -(-problem.rows // block)
    partial, smooth = memory.empty((2 * parts,), np.float64), doubles(problem.label_smoothing)
    function = probabilities_forward if problem.probabilities else indices_forward
    sizes = (problem.rows, problem.classes, block, problem.ignore_index)
    launch(function, parts, (smooth, *inputs, losses, statistics, partial), sizes, problem.dtype)
    _reduce(problem, parts, partial, total, divisor)


def _backward_sizes(problem: Any) -> tuple[int, ...]:
    """Sizes; the step from one row's gradient to the next is 0 where one gradient serves all."""
    return problem.rows, problem.classes, _block(problem), problem.ignore_index, int(problem.reduction == "none")


def _cross_entropy_backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    function = probabilities_backward if problem.probabilities else indices_backward
    arrays = (doubles(problem.label_smoothing), *inputs, *outputs)
    launch(function, -(-problem.rows // _block(problem)), arrays, _backward_sizes(problem), problem.dtype)


def _cross_entropy_backward_target(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    arrays = (doubles(problem.label_smoothing), *inputs, *outputs)
    tasks = -(-problem.rows // _block(problem))
    launch(probabilities_backward_target, tasks, arrays, _backward_sizes(problem), problem.dtype)


def _nll(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    losses, total, divisor = outputs
    parts = -(-problem.rows // _TASK)
    partial = memory.empty((2 * parts,), np.float64)
    sizes = (problem.rows, problem.classes, _TASK, problem.ignore_index)
    launch(nll_forward, parts, (*inputs, losses, partial), sizes, problem.dtype)
    _reduce(problem, parts, partial, total, divisor)


def _nll_backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    tasks = -(-problem.rows // _block(problem))
    launch(nll_backward, tasks, (*inputs, *outputs), _backward_sizes(problem), problem.dtype)


CANDIDATES: CandidateLists = {
    ("cross_entropy", "forward"): [Candidate("cpu.fused", _cross_entropy)],
    ("cross_entropy", "backward_input"): [Candidate("cpu.fused", _cross_entropy_backward)],
    ("cross_entropy", "backward_target"): [Candidate("cpu.fused", _cross_entropy_backward_target)],
    ("nll_loss", "forward"): [Candidate("cpu.vector", _nll)],
    ("nll_loss", "backward_input"): [Candidate("cpu.vector", _nll_backward)],
}
