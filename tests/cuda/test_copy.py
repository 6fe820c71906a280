"""Copies between any strides, and conversions, on the GPU."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.cuda.copy import CANDIDATES
from numbanet.cuda.launch import executor
from numbanet.problem.shape import ConvertProblem, CopyProblem
from tests.cuda.ptx.executor import Interpreter
from tests.cuda.twins import poison, run

# (shape, order of memory of x, order of y): lines, turned planes, and neither; tails of every tile.
COPIES = [
    ((2, 8, 3, 5), (0, 1, 2, 3), (0, 1, 2, 3)),
    ((3, 36, 5, 7), (0, 2, 3, 1), (0, 1, 2, 3)),
    ((2, 33, 40), (0, 1, 2), (0, 2, 1)),
    ((2, 3, 9, 4), (0, 1, 2, 3), (0, 2, 3, 1)),
    ((6, 5, 4), (2, 1, 0), (1, 0, 2)),
    ((), (), ()),
    ((0, 3), (0, 1), (1, 0)),
]


def laid_out(shape: tuple[int, ...], order: tuple[int, ...], dtype: str) -> np.ndarray:
    base = poison(tuple(shape[axis] for axis in order), dtype)
    return base.transpose(np.argsort(order)) if shape else base


@pytest.mark.parametrize(("shape", "order", "other"), COPIES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copies(shape: tuple[int, ...], order: tuple[int, ...], other: tuple[int, ...], dtype: str) -> None:
    x, y = laid_out(shape, order, dtype), laid_out(shape, other, dtype)
    x[...] = np.arange(x.size).reshape(shape)
    check(x, y)


def check(x: np.ndarray, y: np.ndarray) -> None:
    strides = [tuple(s // a.itemsize for s in a.strides) for a in (x, y)]
    problem = CopyProblem("forward", x.dtype.name, x.shape, *strides)
    with executor(Interpreter()):
        CANDIDATES["copy", "forward"][0].run(problem, (x,), (y,), None)
    np.testing.assert_array_equal(x, y)


def test_views_with_gaps_and_negative_strides() -> None:
    memory = poison((6, 10), "float32")
    check(np.arange(60, dtype=np.float32).reshape(6, 10)[::-2, 8:1:-3], memory[1::2, 2:8:2])
    assert np.isnan(memory).sum() == 51  # the gaps stay as they were
    check(np.broadcast_to(np.float32(3), (5, 8)), poison((5, 8), "float32"))
    check(np.arange(33, dtype=np.float32)[1:], poison((32,), "float32"))  # not at a multiple of 16 bytes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conversions(dtype: str) -> None:
    x = np.array([0.1, -1e300 if dtype == "float64" else 3e38, np.nan, 1e-46, 1 / 3], dtype)
    other = "float64" if dtype == "float32" else "float32"
    (found,) = run(ConvertProblem("forward", dtype, x.size), (x,), (poison(x.shape, other),))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, x.astype(other))
