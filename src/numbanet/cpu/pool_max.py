"""Maximum pooling: forward, with or without the offsets of the maxima, and the indices that PyTorch returns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I32, I64, U8, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.pool_windows import windows
from numbanet.cpu.simd import (
    convert,
    integers,
    lanes,
    load,
    load_as,
    load_tail,
    maximum,
    select,
    splat,
    splat_as,
    store,
    store_tail,
)
from numbanet.problem.pool import MaxPoolProblem

_FEW = 4  # vectors of channels


@device
def _visit(x, i, y, offsets, o, count, code, first, located):
    """Let `count` elements of x, whole vectors, compete with the maxima so far; if `located`, keep winners' codes."""
    for k in range(0, count, lanes(x)):
        v = load(x, i + k)
        here = splat_as(load_as(offsets, o + k, v), code)
        if first:
            store(y, o + k, v)
            if located:
                store(offsets, o + k, here)
        elif located:
            best = load(y, o + k)
            better = (v > best) | (v != v)  # NaN beats numbers, and the last NaN wins, as in PyTorch
            store(y, o + k, select(better, v, best))
            store(offsets, o + k, select(better, here, load_as(offsets, o + k, v)))
        else:
            store(y, o + k, maximum(load(y, o + k), v))


@device
def _compare(x, at, down, right, tall, wide, y, offsets, o, n, code, pitch, located, full):
    """Write the maxima of tall x wide vectors, or of their first n lanes; minus infinity if there are none."""
    best = splat(x, -np.inf)
    where = splat_as(convert(best, offsets), code)
    for r in range(tall):
        for s in range(wide):
            i = at + r * down + s * right
            v = load(x, i) if full else load_tail(x, i, n)
            if located:
                better = (v > best) | (v != v)
                best = select(better, v, best)
                where = select(better, splat_as(where, code + r * pitch + s), where)
            else:
                best = maximum(best, v)
    if full:
        store(y, o, best)
        if located:
            store(offsets, o, where)
    else:
        store_tail(y, o, best, n)
        if located:
            store_tail(offsets, o, where, n)


@device
def _max_row(task, ints, rows, columns, x, y, offsets, located):
    """Write one output row; with `located` False, `offsets` is any pointer.

    Of many channels, the maxima grow in the output, which the first-level cache holds, so that x is read in long runs:
    up to 1.5 times as fast as channels in the outer loop and maxima in registers, which is the way for few.
    """
    c, h, w, p, q, pitch, dilation_h, dilation_w = integers(ints, 8)
    image, row = task // p, 3 * (task % p)
    top = (image * h + rows[row]) * w * c
    down, right = dilation_h * w * c, dilation_w * c
    tall, whole = rows[row + 1], c - c % lanes(x)
    for j in range(q):
        at = top + columns[3 * j] * c
        out = (task * q + j) * c
        wide = columns[3 * j + 1]
        code = rows[row + 2] * pitch + columns[3 * j + 2]
        if whole > _FEW * lanes(x) and tall * wide > 0:
            _visit(x, at, y, offsets, out, whole, code, True, located)
            for tap in range(1, tall * wide):
                r, s = tap // wide, tap % wide
                i = at + r * down + s * right
                _visit(x, i, y, offsets, out, whole, code + r * pitch + s, False, located)
        else:
            for k in range(0, whole, lanes(x)):
                _compare(x, at + k, down, right, tall, wide, y, offsets, out + k, c, code, pitch, located, True)
        if whole < c:
            k = whole
            _compare(x, at + k, down, right, tall, wide, y, offsets, out + k, c - k, code, pitch, located, False)


@kernel
def max_pool2d(task: Index, ints: I64, rows: I64, columns: I64, x: T, y: T):
    """One task an output row."""
    _max_row(task, ints, rows, columns, x, y, y, False)


@kernel
def max_pool2d_bytes(task: Index, ints: I64, rows: I64, columns: I64, x: T, y: T, offsets: U8):
    """One task an output row."""
    _max_row(task, ints, rows, columns, x, y, offsets, True)


@kernel
def max_pool2d_words(task: Index, ints: I64, rows: I64, columns: I64, x: T, y: T, offsets: I32):
    """One task an output row."""
    _max_row(task, ints, rows, columns, x, y, offsets, True)


@device
def _indices_row(task, ints, steps, offsets, indices):
    c, w, p, q, stride_h, stride_w, padding_h, padding_w = integers(ints, 8)
    for j in range(q):
        corner = ((task % p) * stride_h - padding_h) * w + j * stride_w - padding_w
        out = (task * q + j) * c
        for i in range(c):
            indices[out + i] = corner + steps[offsets[out + i]]


@kernel
def max_pool2d_indices_bytes(task: Index, ints: I64, steps: I64, offsets: U8, indices: I64):
    """One task an output row; `steps` holds the distance of each tap from the corner of its window."""
    _indices_row(task, ints, steps, offsets, indices)


@kernel
def max_pool2d_indices_words(task: Index, ints: I64, steps: I64, offsets: I32, indices: I64):
    """One task an output row; `steps` holds the distance of each tap from the corner of its window."""
    _indices_row(task, ints, steps, offsets, indices)


_FORWARD = {"": max_pool2d, "uint8": max_pool2d_bytes, "int32": max_pool2d_words}
_INDICES = {"uint8": max_pool2d_indices_bytes, "int32": max_pool2d_indices_words}


@lru_cache(maxsize=1024)
def max_windows(problem: MaxPoolProblem) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of the windows, along the rows and along the columns."""
    kernel, stride, padding, dilation = problem.kernel, problem.stride, problem.padding, problem.dilation
    return (
        windows(problem.h, problem.p, kernel[0], stride[0], padding[0], dilation[0]),
        windows(problem.w, problem.q, kernel[1], stride[1], padding[1], dilation[1]),
    )


def _forward(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    ints = (problem.c, problem.h, problem.w, problem.p, problem.q, problem.kernel[1], *problem.dilation)
    arrays = (*max_windows(problem), inputs[0], *outputs)
    launch(_FORWARD[problem.offsets], problem.n * problem.p, arrays, ints, problem.dtype)


def _indices(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (r, s), (down, right) = problem.kernel, problem.dilation
    steps = (np.arange(r)[:, None] * down * problem.w + np.arange(s) * right).astype(np.int64).ravel()
    ints = (problem.c, problem.w, problem.p, problem.q, *problem.stride, *problem.padding)
    arrays = (steps, *inputs, *outputs)
    launch(_INDICES[problem.offsets], problem.n * problem.p, arrays, ints, problem.dtype)


CANDIDATES: CandidateLists = {
    ("max_pool2d", "forward"): [Candidate("cpu.vector", _forward)],
    ("max_pool2d", "indices"): [Candidate("cpu.vector", _indices)],
}
