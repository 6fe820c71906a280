"""Windows along an axis as tables of integers, so that pooling kernels neither divide nor test borders.

A table has a row ``(first, count, tap)`` for each position: the window covers `count` positions of the other side from
`first` on, in constant steps, and meets the first of them with its tap number `tap`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.cpu.stream import streams

_LONG_ROW, _LONG_RUN, _SHORT_RUN = 1 << 14, 1 << 10, 1 << 8  # bytes
_TAPS = 16  # of a window, at once


def portion(problem: Any) -> tuple[int, int]:
    """Return how many rows (one or all) and columns of each window a forward pass shall take at once.

    All of them, as a rule: the results stay in registers. But memory is read fastest in its own order: for windows side
    by side, all the first rows of an output row's windows before the second ones; for many channels, tap by tap. To
    walk in a few rows at once costs little where they are long, and nothing where a cache holds them.
    """
    pixel = problem.c * np.dtype(problem.dtype).itemsize
    (tall, wide), (down, right) = problem.kernel, problem.stride
    if down < tall or right < wide:
        return tall, wide
    if tall * wide > _TAPS:
        return 1, wide
    if pixel < _SHORT_RUN or not streams(problem.n * problem.h * problem.w * pixel):
        return tall, wide
    if pixel >= _LONG_RUN:
        return 1, 1
    return (1, wide) if problem.w * pixel <= _LONG_ROW else (tall, wide)


def windows(size: int, count: int, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """Return the table of the inputs that each of `count` outputs sees: steps of `dilation`, taps ascending."""
    table = np.zeros((count, 3), np.int64)
    for i in range(count):
        start = i * stride - padding
        tap, last = max(0, -(start // dilation)), min(kernel - 1, (size - 1 - start) // dilation)
        if tap <= last:
            table[i] = start + tap * dilation, last - tap + 1, tap
    return table


def adaptive_windows(size: int, count: int) -> np.ndarray:
    """Return the table of the inputs whose mean is each of `count` outputs: floor(i*size/count) and so on."""
    starts = [i * size // count for i in range(count)]
    ends = [-(-(i + 1) * size // count) for i in range(count)]
    return np.array([(a, b - a, 0) for a, b in zip(starts, ends)], np.int64).reshape(count, 3)


def inverse(table: np.ndarray, size: int, step: int) -> np.ndarray:
    """Return the table of the outputs that see each of `size` inputs, given that of the inputs that outputs see.

    The outputs of one input ascend in constant steps, and their taps descend in constant steps.
    """
    found = np.zeros((size, 3), np.int64)
    for i, (first, count, tap) in enumerate(table.tolist()):
        for k in range(count):
            row = found[first + k * step]
            if not row[1]:
                row[0], row[2] = i, tap + k
            row[1] += 1
    return found
