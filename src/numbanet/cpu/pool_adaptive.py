"""Adaptive maximum pooling: the maxima of rectangles with their positions, and the gradients sent back there."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.pad import fill_run
from numbanet.cpu.parallel import launch
from numbanet.cpu.pool_windows import adaptive_windows
from numbanet.cpu.simd import convert, integers, lanes, load_tail, select, splat, store_tail

_CHANNELS = 64  # of a task of the backward pass


@kernel
def adaptive_max(task: Index, ints: I64, rows: I64, columns: I64, x: T, y: T, positions: I64):
    """One task an output row. Positions are counted in the lanes of a float vector, which holds them exactly."""
    c, h, w, p, q = integers(ints, 5)
    image, row = task // p * h * w, task % p
    top, tall = rows[3 * row], rows[3 * row + 1]
    for j in range(q):
        left, wide = columns[3 * j], columns[3 * j + 1]
        for k in range(0, c, lanes(x)):
            n = c - k
            first = top * w + left
            best, at = load_tail(x, (image + first) * c + k, n), splat(x, float(first))
            for r in range(top, top + tall):
                for s in range(left, left + wide):
                    v = load_tail(x, (image + r * w + s) * c + k, n)
                    better = (v > best) | (v != v)
                    best, at = select(better, v, best), select(better, splat(x, float(r * w + s)), at)
            o = (task * q + j) * c + k
            store_tail(y, o, best, n)
            store_tail(positions, o, convert(at, positions), n)


@kernel
def adaptive_max_backward(task: Index, ints: I64, grad: T, positions: I64, dx: T):
    """One task a block of an image's channels, so that windows which overlap add in their order, without races."""
    c, pixels, windows, block, blocks = integers(ints, 5)
    image, first = task // blocks, task % blocks * block
    count = min(block, c - first)
    base = image * pixels * c + first
    for pixel in range(pixels):
        fill_run(dx, base + pixel * c, count, 0.0)
    for window in range(image * windows, (image + 1) * windows):
        i = window * c + first
        for k in range(count):
            dx[base + positions[i + k] * c + k] += grad[i + k]


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    rows, columns = adaptive_windows(problem.h, problem.p), adaptive_windows(problem.w, problem.q)
    sizes = (problem.c, problem.h, problem.w, problem.p, problem.q)
    launch(adaptive_max, problem.n * problem.p, (rows, columns, *inputs, *outputs), sizes, problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    blocks = -(-problem.c // _CHANNELS)
    sizes = (problem.c, problem.h * problem.w, problem.p * problem.q, _CHANNELS, blocks)
    launch(adaptive_max_backward, problem.n * blocks, (*inputs, *outputs), sizes, problem.dtype)


def _supports(problem: Any) -> str | None:
    exact = 1 << (24 if problem.dtype == "float32" else 53)
    return None if problem.h * problem.w <= exact else f"positions beyond {exact} are not exact in {problem.dtype}"


CANDIDATES: CandidateLists = {
    ("adaptive_max_pool2d", "forward"): [Candidate("cpu.vector", _forward, _supports)],
    ("adaptive_max_pool2d", "backward_input"): [Candidate("cpu.scatter", _backward)],
}
