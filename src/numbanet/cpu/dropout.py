"""Dropout: the mask is computed, never stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.philox import philox
from numbanet.cpu.simd import (
    floats,
    integers,
    lane_numbers_pair,
    lanes,
    load_as,
    load_as_tail,
    select,
    shift_right,
    splat_as,
    store,
    store_tail,
)
from numbanet.problem.dropout import BLOCK, COUNTERS
from numbanet.watch import constant

_CHUNK = 256  # blocks a task


@device
def _apply(key, x, y, i, size, word, limit, scale):
    """Multiply the elements from i on, as many as `word` has lanes, by 0 where the word is below the limit."""
    n = size - i
    if n >= 2 * lanes(key):
        v = load_as(x, i, word)
        store(y, i, v * select(word < limit, splat_as(v, 0.0), splat_as(v, scale)))
    elif n > 0:
        v = load_as_tail(x, i, word, n)
        store_tail(y, i, v * select(word < limit, splat_as(v, 0.0), splat_as(v, scale)), n)


@kernel
def dropout(task: Index, ints: I64, key: I64, factor: F64, x: T, y: T):
    size, blocks, chunk, counters, threshold = integers(ints, 5)
    seed, number = integers(key, 2)
    (scale,) = floats(factor, 1)
    low = 0xFFFFFFFF
    numbers = lane_numbers_pair(key)
    c2, c3 = splat_as(numbers, number & low), splat_as(numbers, (number >> 32) & low)
    limit = splat_as(numbers, threshold)
    for block in range(task * chunk, min(blocks, (task + 1) * chunk)):
        for part in range(0, counters, 2 * lanes(key)):
            counter = numbers + splat_as(numbers, block * counters + part)
            c0, c1 = counter & splat_as(numbers, low), shift_right(counter, 32)
            w0, w1, w2, w3 = philox(c0, c1, c2, c3, seed & low, (seed >> 32) & low)
            i = 4 * counters * block + part
            _apply(key, x, y, i, size, w0, limit, scale)
            _apply(key, x, y, i + counters, size, w1, limit, scale)
            _apply(key, x, y, i + 2 * counters, size, w2, limit, scale)
            _apply(key, x, y, i + 3 * counters, size, w3, limit, scale)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, key = inputs
    blocks = -(-problem.size // BLOCK)
    arrays = (key.view(np.int64), constant(np.array([problem.scale])), x, *outputs)
    sizes = (problem.size, blocks, _CHUNK, COUNTERS, problem.threshold)
    launch(dropout, -(-blocks // _CHUNK), arrays, sizes, problem.dtype)


CANDIDATES: CandidateLists = {("dropout", "forward"): [Candidate("cpu.philox", _forward)]}
