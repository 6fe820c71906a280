"""The multi-class hinge loss: one pass over each row of scores, and one for its gradient."""

from __future__ import annotations

import math
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import floats, integers, lanes, load_tail_or, maximum, reduce_add, select, splat, store_tail

_CHUNK = 1 << 14  # elements a task


@device
def _excess(x, i, n, least, zero):
    """Return max(0, x - least) of n elements; lanes beyond are zero, and so is what is -inf, even if `least` is too."""
    lowest = splat(x, -math.inf)
    v = load_tail_or(x, i, n, lowest)
    return select(v <= lowest, zero, maximum(v - least, zero))


@device
def _sum(x, i, n, least, power):
    """Return the sum of what n elements exceed a bound by, or of its squares."""
    zero = splat(x, 0.0)
    total = zero
    for j in range(0, n, lanes(x)):
        v = _excess(x, i + j, n - j, least, zero)
        total = total + (v * v if power == 2 else v)
    return total


@device
def _slopes(x, i, n, least, factor, power, dx):
    """Write the derivatives of n elements; return their sum."""
    zero, two = splat(x, 0.0), splat(x, 2.0)
    total = zero
    for j in range(0, n, lanes(x)):
        v = _excess(x, i + j, n - j, least, zero)
        v = v * two * factor if power == 2 else select(v > zero, factor, zero)
        total = total + v
        store_tail(dx, i + j, v, n - j)
    return total


@kernel
def forward(task: Index, ints: I64, x: T, target: I64, weight: T, numbers: F64, losses: T):
    rows, classes, chunk, power = integers(ints, 4)
    (margin,) = floats(numbers, 1)
    for row in range(task * chunk, min(rows, (task + 1) * chunk)):
        i, y = row * classes, target[row]
        least = splat(x, x[i + y] - margin)
        # The classes before the right one, and those behind it.
        total = _sum(x, i, y, least, power) + _sum(x, i + y + 1, classes - y - 1, least, power)
        losses[row] = weight[y] * reduce_add(total) / classes


@kernel
def backward(task: Index, ints: I64, grad: T, x: T, target: I64, weight: T, numbers: F64, dx: T):
    rows, classes, chunk, power, each = integers(ints, 5)
    margin, scale = floats(numbers, 2)
    for row in range(task * chunk, min(rows, (task + 1) * chunk)):
        i, y = row * classes, target[row]
        least = splat(x, x[i + y] - margin)
        factor = splat(x, weight[y] * grad[row if each else 0] * scale / classes)
        total = _slopes(x, i, y, least, factor, power, dx)
        total = total + _slopes(x, i + y + 1, classes - y - 1, least, factor, power, dx)
        dx[i + y] = -reduce_add(total)


def _chunk(problem: Any) -> int:
    return max(1, _CHUNK // problem.classes)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    chunk = _chunk(problem)
    sizes = (problem.rows, problem.classes, chunk, problem.power)
    launch(forward, -(-problem.rows // chunk), (*inputs, *outputs), sizes, problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    chunk = _chunk(problem)
    sizes = (problem.rows, problem.classes, chunk, problem.power, problem.each)
    launch(backward, -(-problem.rows // chunk), (*inputs, *outputs), sizes, problem.dtype)


CANDIDATES: CandidateLists = {
    ("multi_margin_loss", "forward"): [Candidate("cpu.rows", _forward)],
    ("multi_margin_loss", "backward_input"): [Candidate("cpu.rows", _backward)],
}
