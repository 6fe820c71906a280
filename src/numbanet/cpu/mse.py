"""Mean squared error: squared differences, their sum, and the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.loss import finish
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import convert, fma, integers, lanes, load, load_tail, reduce_add, splat, store, store_tail

_CHUNK = 1 << 14  # elements a task
_EXACT = 8  # squares that are added in the input's dtype before their sum goes to float64


@kernel
def squares(task: Index, ints: I64, x: T, target: T, y: T):
    size, chunk = integers(ints, 2)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(x) <= end:
        d = load(x, i) - load(target, i)
        store(y, i, d * d)
        i += lanes(x)
    if i < end:
        d = load_tail(x, i, end - i) - load_tail(target, i, end - i)
        store_tail(y, i, d * d, end - i)


@kernel
def sum_of_squares(task: Index, ints: I64, x: T, target: T, partial: F64):
    size, chunk = integers(ints, 2)
    start, end = task * chunk, min(size, (task + 1) * chunk)
    i, zero = start, splat(x, 0.0)
    total = convert(zero, partial)
    while i < end:
        stop = min(end, i + 2 * _EXACT * lanes(x))
        even, odd = zero, zero  # two sums hide the latency of an addition
        while i + 2 * lanes(x) <= stop:
            d, e = load(x, i) - load(target, i), load(x, i + lanes(x)) - load(target, i + lanes(x))
            even, odd = fma(d, d, even), fma(e, e, odd)
            i += 2 * lanes(x)
        while i < stop:
            n = min(lanes(x), stop - i)
            d = load_tail(x, i, n) - load_tail(target, i, n)
            even = fma(d, d, even)
            i += lanes(x)
        total = total + (convert(even, partial) + convert(odd, partial))
    partial[2 * task], partial[2 * task + 1] = reduce_add(total), end - start


@device
def _slope(grad, x, target, scale):
    return grad * scale * (x - target)


@kernel
def backward(task: Index, ints: I64, grad: T, x: T, target: T, divisor: F64, dx: T):
    size, chunk, each = integers(ints, 3)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    scale, g = splat(x, 2.0 / divisor[0]), splat(x, grad[0])
    while i + lanes(x) <= end:
        if each:
            g = load(grad, i)
        store(dx, i, _slope(g, load(x, i), load(target, i), scale))
        i += lanes(x)
    if i < end:
        n = end - i
        if each:
            g = load_tail(grad, i, n)
        store_tail(dx, i, _slope(g, load_tail(x, i, n), load_tail(target, i, n), scale), n)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    values, total, divisor = outputs
    parts = -(-problem.size // _CHUNK)
    if problem.reduction == "none":
        launch(squares, parts, (*inputs, values), (problem.size, _CHUNK), problem.dtype)
        divisor[0] = 1
        return
    partial = memory.empty((2 * parts,), np.float64)
    launch(sum_of_squares, parts, (*inputs, partial), (problem.size, _CHUNK), problem.dtype)
    launch(finish, 1, (partial, total, divisor), (parts, problem.reduction == "mean"), problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    sizes = (problem.size, _CHUNK, problem.reduction == "none")
    launch(backward, -(-problem.size // _CHUNK), (*inputs, *outputs), sizes, problem.dtype)


CANDIDATES: CandidateLists = {
    ("mse_loss", "forward"): [Candidate("cpu.vector", _forward)],
    ("mse_loss", "backward_input"): [Candidate("cpu.vector", _backward)],
}
