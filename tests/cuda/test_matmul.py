"""The GPU's matrix products, interpreted, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from numbanet import dispatch
from numbanet.cuda import matmul
from numbanet.cuda.launch import executor
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem
from numbanet.reference.conv import finished
from tests.cuda.ptx.executor import Interpreter

# (m, n, k): rows and columns beyond one tile, a reduction that ends within a slice.
SHAPES = [(130, 12, 20), (5, 131, 13)]


@pytest.fixture(autouse=True)
def interpreted() -> Iterator[None]:
    with executor(Interpreter()):
        yield


def operand(rng: np.random.Generator, dtype: str, rows: int, columns: int, by_rows: bool, *stack: int) -> np.ndarray:
    shape = (*stack, rows, columns) if by_rows else (*stack, columns, rows)
    return rng.standard_normal(shape).astype(dtype)


def check(p: MatmulProblem, inputs: tuple, expected: np.ndarray) -> None:
    tried = 0
    for candidate, refusal in dispatch.verdicts(p, "cuda"):
        if refusal is None:
            out = np.full(expected.shape, np.nan, p.dtype)
            candidate.run(p, inputs, (out,), None)
            error = np.abs(out - expected).max() / np.abs(expected).max()
            assert error <= candidate.tolerance(p), f"{candidate.name}: relative error {error:.1e}"
            tried += 1
    assert tried


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("a_rows", [True, False])
@pytest.mark.parametrize("b_rows", [True, False])
def test_every_memory_order(dtype: str, shape: tuple[int, int, int], a_rows: bool, b_rows: bool) -> None:
    m, n, k = shape
    if m % 4 and not a_rows:
        m += 3  # both kinds of access
    rng = np.random.default_rng(m)
    a, b = operand(rng, dtype, m, k, a_rows), operand(rng, dtype, k, n, b_rows)
    p = MatmulProblem("forward", dtype, m, n, k, a_rows, b_rows)
    left, right = a if a_rows else a.T, b if b_rows else b.T
    check(p, (a, b, None, None), left.astype(np.float64) @ right.astype(np.float64))


@pytest.mark.parametrize("k", [8, 264])
def test_an_epilogue_of_a_whole_and_of_a_cut_reduction(k: int) -> None:
    then = Epilogue(True, True, "relu6")
    p = MatmulProblem("forward", "float32", 8, 8, k, True, False, then)
    rng = np.random.default_rng(k)
    a, b = operand(rng, "float32", 8, k, True), operand(rng, "float32", k, 8, False)
    bias, residual = 3 * rng.standard_normal(8).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    expected = finished(then, a.astype(np.float64) @ b.T.astype(np.float64), bias, residual)
    check(p, (a, b, bias, residual), expected)


@pytest.mark.parametrize("k", [6, 600])
def test_stacks(k: int) -> None:
    rng = np.random.default_rng(k)
    a, b = operand(rng, "float32", 5, k, True, 3), operand(rng, "float32", k, 7, True, 2)
    index = np.array([[0, 1, 2, 0], [1, 1, 0, 0]])
    p = MatmulProblem("forward", "float32", 5, 7, k, True, True, batch=4)
    expected = a[index[0]].astype(np.float64) @ b[index[1]].astype(np.float64)
    check(p, (a, b, None, None, index), expected)


def test_more_products_than_a_grid_is_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = operand(rng, "float32", 2, 3, True, 5), operand(rng, "float32", 3, 2, True, 5)
    p = MatmulProblem("forward", "float32", 2, 2, 3, True, True, batch=5)
    monkeypatch.setattr(matmul, "MOST_BATCH", 2)
    check(p, (a, b, None, None, np.stack([np.arange(5)] * 2)), a.astype(np.float64) @ b.astype(np.float64))


def test_a_reduction_of_nothing_leaves_the_epilogue() -> None:
    then = Epilogue(True, False, None)
    p = MatmulProblem("forward", "float32", 3, 4, 0, True, True, then)
    bias = np.arange(4, dtype=np.float32)
    check(p, (np.zeros((3, 0), np.float32), np.zeros((0, 4), np.float32), bias, None), np.tile(bias, (3, 1)) + 0.0)
