"""Maximum pooling: forward, with or without the offsets of the maxima, and the indices that PyTorch returns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I32, I64, U8, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.pool_windows import portion, windows
from numbanet.cpu.simd import (
    anywhere,
    bits,
    convert,
    integers,
    lanes,
    load,
    load_as,
    load_tail,
    numpy_lanes,
    select,
    shift_right,
    splat,
    splat_as,
    store,
    store_tail,
)
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.problem.pool import MaxPoolProblem
from numbanet.watch import constant

# A window is a tuple: its rows, its columns, the offset of its first tap; the steps of the index from tap to tap along
# a row, and from the last tap of a row to the first of the next; and the same two of the offset.


@device
def next_tap(i, code, left, window):
    """Return the index and the offset of the tap that follows, and how many are left in its row, itself included."""
    _, wide, _, right, down, step, turn = window
    if left > 1:
        return i + right, code + step, left - 1
    return i + down, code + turn, wide


@device
def _better(v, best, exact):
    """Return where v takes the place of the best so far; NaN beats numbers, and the last NaN wins, as in PyTorch.

    If not `exact`, a NaN of v is overlooked, but a number never beats a NaN.
    """
    better = v > best
    return better | (v != v) if exact else better


@device
def _compete(x, at, window, y, offsets, o, first, located, exact, vectors):
    """Write the maxima of the runs of 1, 2 or 4 vectors that lie at the taps of a window; -inf if it has none.

    A comparison that minds NaN takes three instructions in place of one. So here all elements are added up as well, by
    other units than those that compare; if the sum is NaN, nothing is written and true is returned, unless `exact`.
    """
    tall, wide, code = window[:3]
    w = lanes(x)
    b0, w0 = _so_far(y, offsets, o, code, first, located)
    b1, w1 = _so_far(y, offsets, o + w, code, first, located) if vectors > 1 else (b0, w0)
    b2, w2 = _so_far(y, offsets, o + 2 * w, code, first, located) if vectors > 2 else (b0, w0)
    b3, w3 = _so_far(y, offsets, o + 3 * w, code, first, located) if vectors > 2 else (b0, w0)
    seen = splat(x, 0.0)
    i, left = at, wide
    for _ in range(tall * wide):
        here = splat_as(w0, code)
        v0 = load(x, i)
        better = _better(v0, b0, exact)
        b0, w0 = select(better, v0, b0), select(better, here, w0)
        if vectors > 1:
            v1 = load(x, i + w)
            better = _better(v1, b1, exact)
            b1, w1 = select(better, v1, b1), select(better, here, w1)
            v0 = v0 + v1
        if vectors > 2:
            v2, v3 = load(x, i + 2 * w), load(x, i + 3 * w)
            better = _better(v2, b2, exact)
            b2, w2 = select(better, v2, b2), select(better, here, w2)
            better = _better(v3, b3, exact)
            b3, w3 = select(better, v3, b3), select(better, here, w3)
            v0 = v0 + (v2 + v3)
        seen = seen + v0
        i, code, left = next_tap(i, code, left, window)
    if not exact and anywhere(seen != seen):
        return True
    _keep(b0, w0, y, offsets, o, located)
    if vectors > 1:
        _keep(b1, w1, y, offsets, o + w, located)
    if vectors > 2:
        _keep(b2, w2, y, offsets, o + 2 * w, located)
        _keep(b3, w3, y, offsets, o + 3 * w, located)
    return False


@device
def _so_far(y, offsets, o, code, first, located):
    """Return the maxima so far, of which the `first` taps have none, and their offsets."""
    best = splat(y, -np.inf) if first else load(y, o)
    where = splat_as(bits(best), code)
    return best, convert(load_as(offsets, o, best), where) if located and not first else where


@device
def _keep(best, where, y, offsets, o, located):
    store(y, o, best)
    if located:
        store(offsets, o, convert(where, offsets))


@device
def _compete_tail(x, at, window, y, offsets, o, n, located):
    """Do so for n elements of a vector."""
    tall, wide, code = window[:3]
    best = splat(x, -np.inf)
    where = splat_as(bits(best), code)
    i, left = at, wide
    for _ in range(tall * wide):
        v = load_tail(x, i, n)
        better = _better(v, best, True)
        best, where = select(better, v, best), select(better, splat_as(where, code), where)
        i, code, left = next_tap(i, code, left, window)
    store_tail(y, o, best, n)
    if located:
        store_tail(offsets, o, convert(where, offsets), n)


@device
def _compete_fast(x, at, window, y, offsets, o, first, located, vectors):
    """Do so, and where the sum is NaN (or infinities of both signs), once more and exactly."""
    if _compete(x, at, window, y, offsets, o, first, located, False, vectors):
        for k in range(0, vectors * lanes(x), lanes(x)):
            _compete(x, at + k, window, y, offsets, o + k, first, located, True, 1)


@device
def _max_row(task, ints, rows, columns, x, y, offsets, located):
    """Write one output row; with `located` False, `offsets` is any pointer.

    Maxima stay in registers: of four vectors at a time, which is two cache lines of each tap. Where `portion` says so,
    they grow in the output instead, with the next part of each window.
    """
    c, h, w, p, q, pitch, dilation_h, dilation_w, high, broad = integers(ints, 10)
    below = dilation_h * w * c
    right = dilation_w * c
    image, row = task // p, 3 * (task % p)
    top = (image * h + rows[row]) * w * c
    tall, whole = rows[row + 1], c - c % lanes(x)
    for r in range(0, max(tall, 1), high):
        for j in range(q):
            out = (task * q + j) * c
            wide = columns[3 * j + 1] if tall else 0
            for s in range(0, max(wide, 1), broad):
                at = top + r * below + columns[3 * j] * c + s * right
                code = (rows[row + 2] + r) * pitch + columns[3 * j + 2] + s
                some = min(wide - s, broad)
                window = min(tall, high), some, code, right, below - (some - 1) * right, 1, pitch - (some - 1)
                first = r + s == 0
                k = 0
                while k + 4 * lanes(x) <= whole:
                    _compete_fast(x, at + k, window, y, offsets, out + k, first, located, 4)
                    k += 4 * lanes(x)
                if k + 2 * lanes(x) <= whole:
                    _compete_fast(x, at + k, window, y, offsets, out + k, first, located, 2)
                    k += 2 * lanes(x)
                if k < whole:
                    _compete(x, at + k, window, y, offsets, out + k, first, located, True, 1)
                if whole < c and first:
                    window = tall, wide, code, right, below - (wide - 1) * right, 1, pitch - (wide - 1)
                    _compete_tail(x, at + whole, window, y, offsets, out + whole, c - whole, located)


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
def _corner(task, j, w, p, stride_h, stride_w, padding_h, padding_w):
    """Return where the window of one output begins, in numbers of its channel: negative where that is padding."""
    return ((task % p) * stride_h - padding_h) * w + j * stride_w - padding_w


@kernel
def max_pool2d_indices_bytes(task: Index, ints: I64, steps: I32, offsets: U8, indices: I64):
    """One task an output row. Tap t lies ``t * right + t // wide * turn`` behind the corner of its window.

    ``t // wide`` is a product with 65536 / wide, rounded up: exact for numbers of one byte.
    """
    c, w, p, q, stride_h, stride_w, padding_h, padding_w, right, turn, wide_part, large = integers(ints, 12)
    past = large != 0 and aligned(indices)
    width = lanes(steps)
    along, back, part = splat(steps, right), splat(steps, turn), splat(steps, wide_part)
    for j in range(q):
        corner = _corner(task, j, w, p, stride_h, stride_w, padding_h, padding_w)
        first, out = splat(steps, corner), (task * q + j) * c
        i, end = out, out + c
        while i + width <= end:
            t = convert(load_as(offsets, i, first), steps)
            put(indices, i, convert(first + t * along + shift_right(t * part, 16) * back, indices), past)
            i += width
        while i < end:
            tap = offsets[i]
            indices[i] = corner + tap * right + (tap * wide_part >> 16) * turn
            i += 1
    if past:
        drain()


@kernel
def max_pool2d_indices_words(task: Index, ints: I64, steps: I64, offsets: I32, indices: I64):
    """One task an output row; `steps` holds the distance of each tap from the corner of its window."""
    c, w, p, q, stride_h, stride_w, padding_h, padding_w = integers(ints, 8)
    for j in range(q):
        corner = _corner(task, j, w, p, stride_h, stride_w, padding_h, padding_w)
        out = (task * q + j) * c
        for i in range(c):
            indices[out + i] = corner + steps[offsets[out + i]]


_FORWARD = {"": max_pool2d, "uint8": max_pool2d_bytes, "int32": max_pool2d_words}
_LIKE = np.zeros(1, np.int32)


@lru_cache(maxsize=1024)
def max_windows(problem: MaxPoolProblem) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of the windows, along the rows and along the columns."""
    kernel, stride, padding, dilation = problem.kernel, problem.stride, problem.padding, problem.dilation
    return (
        windows(problem.h, problem.p, kernel[0], stride[0], padding[0], dilation[0]),
        windows(problem.w, problem.q, kernel[1], stride[1], padding[1], dilation[1]),
    )


def _forward(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    ints = (
        problem.c,
        problem.h,
        problem.w,
        problem.p,
        problem.q,
        problem.kernel[1],
        *problem.dilation,
        *portion(problem),
    )
    arrays = (*max_windows(problem), inputs[0], *outputs)
    launch(_FORWARD[problem.offsets], problem.n * problem.p, arrays, ints, problem.dtype)


def _indices(problem: MaxPoolProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (_, s), (down, right) = problem.kernel, problem.dilation
    ints = (problem.c, problem.w, problem.p, problem.q, *problem.stride, *problem.padding)
    tasks, turn = problem.n * problem.p, down * problem.w - s * right
    if problem.offsets == "uint8":
        large = streams(outputs[0].nbytes) and problem.c % numpy_lanes(np.int32) == 0
        numbers = (*ints, right, turn, -(-(1 << 16) // s), large)
        launch(max_pool2d_indices_bytes, tasks, (_LIKE, *inputs, *outputs), numbers, problem.dtype)
    else:
        tap = np.arange(problem.kernel[0] * s, dtype=np.int64)
        steps = constant(tap * right + tap // s * turn)
        launch(max_pool2d_indices_words, tasks, (steps, *inputs, *outputs), ints, problem.dtype)


def _supports_indices(problem: MaxPoolProblem) -> str | None:
    return "positions of more than 31 bits" if problem.h * problem.w >= 1 << 31 else None


CANDIDATES: CandidateLists = {
    ("max_pool2d", "forward"): [Candidate("cpu.vector", _forward)],
    ("max_pool2d", "indices"): [Candidate("cpu.vector", _indices, _supports_indices)],
}
