"""What calls are compared by before they are repeated (tests/ops/test_steady.py has the calls)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from numbanet import ops
from numbanet.cpu.program import _equal


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
def test_arrays_are_compared_by_their_bits(dtype: Any) -> None:
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype).transpose(0, 3, 1, 2)
    assert _equal(x, x.copy("K"))
    assert not _equal(x, x.copy("C"))  # other strides
    y = x.copy("K")
    y[-1, -1, -1, -1] = 0
    assert not _equal(x, y)


def test_bits_of_floats() -> None:
    zeros = np.zeros((3, 4), np.float32)
    assert not _equal(zeros, -zeros)
    nan = np.full((3, 4), np.nan, np.float32)
    assert _equal(nan, nan.copy())
    other = nan.copy()
    other.view(np.uint32)[1, 1] ^= 1
    assert not _equal(nan, other)
    assert _equal(None, None) and not _equal(None, zeros)


def test_a_trial_copies_operands_and_results_once() -> None:
    x = np.random.default_rng(0).standard_normal((8, 16, 64, 64), np.float32)
    ops.relu(x)  # with all that is made once
    peaks = []
    for _ in range(5):
        tracemalloc.start()
        try:
            ops.relu(x)
            peaks.append(tracemalloc.get_traced_memory()[1] / x.nbytes)
        finally:
            tracemalloc.stop()
    assert 2 <= max(peaks) < 2.5, peaks
