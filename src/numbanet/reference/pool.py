"""Definitions of pooling: one window after the other, as the formulas say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.problem.pool import AdaptiveAvgPoolProblem, AvgPoolProblem, MaxPoolProblem


def max_window(problem: MaxPoolProblem, p: int, q: int) -> list[tuple[int, int, int]]:
    """Return (row, column, offset) of each element of a window that lies inside the input, in order of offset."""
    found = []
    for r in range(problem.kernel[0]):
        for s in range(problem.kernel[1]):
            row = p * problem.stride[0] + r * problem.dilation[0] - problem.padding[0]
            column = q * problem.stride[1] + s * problem.dilation[1] - problem.padding[1]
            if 0 <= row < problem.h and 0 <= column < problem.w:
                found.append((row, column, r * problem.kernel[1] + s))
    return found


def _max_forward(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """The largest element; NaN beats numbers, the last NaN the others; among equals the first wins."""
    x, y = inputs[0], outputs[0]
    for p, q in np.ndindex(problem.p, problem.q):
        window = max_window(problem, p, q)
        best = np.full((problem.n, problem.c), -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
        offset = np.full(best.shape, window[0][2] if window else 0)
        for row, column, code in window:
            value = x[:, row, column]
            better = (value > best) | (value != value)  # NaN
            best, offset = np.where(better, value, best), np.where(better, code, offset)
        y[:, p, q] = best
        if problem.offsets:
            outputs[1][:, p, q] = offset


def _max_backward(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """Each gradient goes to the element that was the maximum."""
    grad, offsets = inputs
    dx = outputs[0]
    dx[...] = 0
    for p, q in np.ndindex(problem.p, problem.q):
        for row, column, code in max_window(problem, p, q):
            dx[:, row, column] += np.where(offsets[:, p, q] == code, grad[:, p, q], 0)


def _max_indices(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    """Turn offsets in the window into ``row * W + column``."""
    for p, q in np.ndindex(problem.p, problem.q):
        r, s = np.divmod(inputs[0][:, p, q].astype(np.int64), problem.kernel[1])
        row = p * problem.stride[0] + r * problem.dilation[0] - problem.padding[0]
        column = q * problem.stride[1] + s * problem.dilation[1] - problem.padding[1]
        outputs[0][:, p, q] = row * problem.w + column


Region = tuple[slice, slice, int]


def average_regions(problem: AvgPoolProblem) -> Iterator[tuple[int, int, Region]]:
    """Yield p, q, and the rows, the columns and the divisor of each window of an average pooling."""
    for p, q in np.ndindex(problem.p, problem.q):
        starts = [i * s - pad for i, s, pad in zip((p, q), problem.stride, problem.padding)]
        sizes = problem.h, problem.w
        ends = [min(a + k, n + pad) for a, k, n, pad in zip(starts, problem.kernel, sizes, problem.after)]
        inside = [(max(a, 0), min(b, n)) for a, b, n in zip(starts, ends, sizes)]
        counted = list(zip(starts, ends)) if problem.count_include_pad else inside
        divisor = (counted[0][1] - counted[0][0]) * (counted[1][1] - counted[1][0])
        yield p, q, (slice(*inside[0]), slice(*inside[1]), problem.divisor_override or divisor)


def adaptive_regions(problem: AdaptiveAvgPoolProblem) -> Iterator[tuple[int, int, Region]]:
    """Yield p, q, and the rows, the columns and the divisor of each window of an adaptive average pooling."""
    for p, q in np.ndindex(problem.p, problem.q):
        top, bottom = p * problem.h // problem.p, -(-(p + 1) * problem.h // problem.p)
        left, right = q * problem.w // problem.q, -(-(q + 1) * problem.w // problem.q)
        yield p, q, (slice(top, bottom), slice(left, right), (bottom - top) * (right - left))


def _average_forward(regions: Any) -> Any:
    def run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        for p, q, (rows, columns, divisor) in regions(problem):
            total = inputs[0][:, rows, columns].sum((1, 2))
            whole = total.dtype.kind == "i"  # in C, what is left of a division has the sign of the dividend
            if whole:
                quotient = np.abs(total) // abs(divisor)
                outputs[0][:, p, q] = np.sign(total) * np.sign(divisor) * quotient
            else:
                outputs[0][:, p, q] = total / divisor

    return run


def _average_backward(regions: Any) -> Any:
    """Each gradient, divided, goes to every element of its window."""

    def run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        outputs[0][...] = 0
        for p, q, (rows, columns, divisor) in regions(problem):
            outputs[0][:, rows, columns] += (inputs[0][:, p, q] / divisor)[:, None, None]

    return run


def _reference(run: Any) -> list[Candidate]:
    return [Candidate("reference", run, cost=lambda p: float("inf"))]


CANDIDATES: CandidateLists = {
    ("max_pool2d", "forward"): _reference(_max_forward),
    ("max_pool2d", "backward_input"): _reference(_max_backward),
    ("max_pool2d", "indices"): _reference(_max_indices),
    ("avg_pool2d", "forward"): _reference(_average_forward(average_regions)),
    ("avg_pool2d", "backward_input"): _reference(_average_backward(average_regions)),
    ("adaptive_avg_pool2d", "forward"): _reference(_average_forward(adaptive_regions)),
    ("adaptive_avg_pool2d", "backward_input"): _reference(_average_backward(adaptive_regions)),
}
