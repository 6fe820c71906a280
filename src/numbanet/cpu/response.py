"""Local response normalisation: sums over a window that slides along the channels of a pixel.

A task writes the squares of some pixels to rows of scratch with zeros at both ends; the sums are then loads at
neighbouring addresses, with no test at the borders. Several pixels at a time: a load that covers parts of two stores
waits until both have left for the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.partial import get, put
from numbanet.cpu.simd import floats, fma, integers, lanes, splat
from numbanet.cpu.vmath import exp, log

_CHUNK = 1 << 12  # elements a task: they and their scratch fit in the first-level cache


@device
def _window(scratch, i, size, n):
    """Return the sum of `size` vectors that begin at neighbouring elements."""
    total = get(scratch, i, n)
    for j in range(1, size):
        total = total + get(scratch, i + j, n)
    return total


@device
def _clear(scratch, start, end):
    for i in range(start, end):
        scratch[i] = 0.0


@device
def _squares(x, first, last, scratch, base, channels, before, width):
    """Write the squares of some pixels, each between zeros."""
    for row in range(first, last):
        i, line = row * channels, base + (row - first) * width
        _clear(scratch, line, line + before)
        _clear(scratch, line + before + channels, line + width)
        for c in range(0, channels, lanes(x)):
            v = get(x, i + c, channels - c)
            put(scratch, line + before + c, v * v, channels - c)


@kernel
def forward(task: Index, ints: I64, x: T, numbers: F64, scratch: T, y: T):
    rows, channels, chunk, before, after = integers(ints, 5)
    alpha, beta, k = floats(numbers, 3)
    size = before + after + 1
    width = channels + size - 1
    base, first, last = task * chunk * width, task * chunk, min(rows, (task + 1) * chunk)
    _squares(x, first, last, scratch, base, channels, before, width)
    share, power, offset = splat(x, alpha / size), splat(x, -beta), splat(x, k)
    for row in range(first, last):
        i, line = row * channels, base + (row - first) * width
        for c in range(0, channels, lanes(x)):
            n = channels - c
            d = fma(_window(scratch, line + c, size, n), share, offset)
            put(y, i + c, get(x, i + c, n) * exp(power * log(d)), n)


@kernel
def backward(task: Index, ints: I64, grad: T, x: T, numbers: F64, scratch: T, dx: T):
    rows, channels, chunk, before, after = integers(ints, 5)
    alpha, beta, k = floats(numbers, 3)
    size = before + after + 1
    width = channels + size - 1
    base, first, last = 2 * task * chunk * width, task * chunk, min(rows, (task + 1) * chunk)
    second = base + chunk * width
    _squares(x, first, last, scratch, base, channels, before, width)
    share, power, offset = splat(x, alpha / size), splat(x, -beta), splat(x, k)
    factor = splat(x, -2.0 * alpha * beta / size)
    for row in range(first, last):
        i, line, other = row * channels, base + (row - first) * width, second + (row - first) * width
        _clear(scratch, other, other + after)
        _clear(scratch, other + after + channels, other + width)
        for c in range(0, channels, lanes(x)):
            n = channels - c
            d = fma(_window(scratch, line + c, size, n), share, offset)
            g = get(grad, i + c, n) * exp(power * log(d))
            put(dx, i + c, g, n)
            put(scratch, other + after + c, g * get(x, i + c, n) / d, n)
    for row in range(first, last):
        i, other = row * channels, second + (row - first) * width
        for c in range(0, channels, lanes(x)):
            n = channels - c
            shared = factor * _window(scratch, other + c, size, n)
            put(dx, i + c, fma(get(x, i + c, n), shared, get(dx, i + c, n)), n)


def _cut(problem: Any) -> tuple[int, int]:
    """Return the number of tasks and the rows of one."""
    chunk = max(1, _CHUNK // max(1, problem.channels))
    return -(-problem.rows // chunk), chunk


def _run(chosen: Any, problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    tasks, chunk = _cut(problem)
    sizes = (problem.rows, problem.channels, chunk, problem.before, problem.after)
    launch(chosen, tasks, (*inputs, workspace.view(problem.dtype), *outputs), sizes, problem.dtype)


def _scratch_bytes(problem: Any) -> int:
    tasks, chunk = _cut(problem)
    rows = max(1, tasks * chunk * (1 if problem.which == "forward" else 2))
    return rows * (problem.channels + problem.size) * np.dtype(problem.dtype).itemsize


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(forward, problem, inputs, outputs, workspace)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(backward, problem, inputs, outputs, workspace)


CANDIDATES: CandidateLists = {
    ("local_response_norm", "forward"): [Candidate("cpu.vector", _forward, workspace_bytes=_scratch_bytes)],
    ("local_response_norm", "backward_input"): [Candidate("cpu.vector", _backward, workspace_bytes=_scratch_bytes)],
}
