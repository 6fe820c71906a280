"""Dropout: random words decide on elements; the backward pass finds in a byte of each whether it was dropped."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, U8, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.philox import counters, philox, words
from numbanet.cpu.simd import (
    convert,
    floats,
    integers,
    lanes,
    load_as,
    load_as_tail,
    load_pair,
    load_tail,
    select,
    shift_right,
    splat_as,
    store,
    store_tail,
)
from numbanet.problem.dropout import BLOCK, COUNTERS
from numbanet.watch import constant

_CHUNK = 256  # blocks a task
_SIGN = 1 << 31


@device
def _factor(v, dropped, scale):
    return select(dropped, splat_as(v, 0.0), splat_as(v, scale))


@device
def _apply(x, y, flags, i, size, many, keeps, word, limit, scale):
    """Multiply the elements from i on, `many`, one for each word, by 0 where the word is below the limit."""
    dropped = words(word) ^ splat_as(limit, _SIGN) < limit  # comparisons are signed
    n = size - i
    if n >= many:
        v = load_as(x, i, limit)
        store(y, i, v * _factor(v, dropped, scale))
        if keeps:
            store(flags, i, convert(dropped, flags))
    elif n > 0:
        v = load_as_tail(x, i, limit, n)
        store_tail(y, i, v * _factor(v, dropped, scale), n)
        if keeps:
            store_tail(flags, i, convert(dropped, flags), n)


@kernel
def dropout(task: Index, ints: I64, key: I64, factor: F64, x: T, y: T, flags: U8):
    """With `keeps`, write where elements were dropped, too."""
    size, blocks, chunk, counted, threshold, keeps = integers(ints, 6)
    seed, number = integers(key, 2)
    (scale,) = floats(factor, 1)
    low, step = 0xFFFFFFFF, 2 * lanes(key)
    model = counters(key, 0)
    c2, c3 = splat_as(model, number & low), splat_as(model, (number >> 32) & low)
    limit = splat_as(words(model), threshold ^ _SIGN)
    for block in range(task * chunk, min(blocks, (task + 1) * chunk)):
        for part in range(0, counted, step):
            counter = counters(key, block * counted + part)
            c0, c1 = counter & splat_as(model, low), shift_right(counter, 32)
            w0, w1, w2, w3 = philox(c0, c1, c2, c3, seed & low, (seed >> 32) & low)
            i = 4 * counted * block + part
            _apply(x, y, flags, i, size, step, keeps, w0, limit, scale)
            _apply(x, y, flags, i + counted, size, step, keeps, w1, limit, scale)
            _apply(x, y, flags, i + 2 * counted, size, step, keeps, w2, limit, scale)
            _apply(x, y, flags, i + 3 * counted, size, step, keeps, w3, limit, scale)


@device
def _sent_back(v, flags, scale):
    return v * _factor(v, flags != splat_as(flags, 0), scale)


@kernel
def dropout_backward(task: Index, ints: I64, factor: F64, grad: T, flags: U8, dx: T):
    size, chunk = integers(ints, 2)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + 2 * lanes(grad) <= end:
        v = load_pair(grad, i)
        store(dx, i, _sent_back(v, load_as(flags, i, v), factor[0]))
        i += 2 * lanes(grad)
    while i < end:
        v, n = load_tail(grad, i, end - i), end - i
        store_tail(dx, i, _sent_back(v, load_as_tail(flags, i, v, n), factor[0]), n)
        i += lanes(grad)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, key = inputs
    y, flags = outputs if len(outputs) == 2 else (*outputs, None)
    blocks = -(-problem.size // BLOCK)
    unused = key.view(np.uint8)
    arrays = (key.view(np.int64), constant(np.array([problem.scale])), x, y, unused if flags is None else flags)
    sizes = (problem.size, blocks, _CHUNK, COUNTERS, problem.threshold, flags is not None)
    launch(dropout, -(-blocks // _CHUNK), arrays, sizes, problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    chunk = _CHUNK * BLOCK
    arrays = (constant(np.array([problem.scale])), *inputs, *outputs)
    launch(dropout_backward, -(-problem.size // chunk), arrays, (problem.size, chunk), problem.dtype)


CANDIDATES: CandidateLists = {
    ("dropout", "forward"): [Candidate("cpu.philox", _forward)],
    ("dropout", "backward_input"): [Candidate("cpu.vector", _backward)],
}
