"""Layers of denormal activations: every kernel reads them as zeros, and the caller's arithmetic stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from numbanet import dispatch, ops
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.ops.pool import max_pool2d_offsets
from numbanet.problem.conv import conv2d_problem
from numbanet.problem.matmul import MatmulProblem
from tests.cases import CONV_CASES, ConvCase, operands

Function = Callable[[np.ndarray], Any]
TINY = {"float32": 1e-39, "float64": 1e-310}
DTYPES = tuple(TINY)


def denormals(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Return 1e-39 (of float64: 1e-310) with random signs."""
    return np.where(rng.random(shape) < 0.5, -TINY[dtype], TINY[dtype]).astype(dtype)


def arrays(results: Any) -> list[np.ndarray]:
    return [np.asarray(r) for r in (results if isinstance(results, tuple) else (results,)) if r is not None]


def check(function: Function, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    """Denormals must give what zeros give, but for those that are handed on; on one thread and on all."""
    x, before = denormals(shape, dtype, rng), get_num_threads()
    expected = arrays(function(np.zeros(shape, dtype)))
    try:
        for threads in {1, before}:
            set_num_threads(threads)
            for found, right in zip(arrays(function(x)), expected, strict=True):
                assert np.isfinite(found).all()
                flushed = np.where(np.abs(found) < np.finfo(dtype).tiny, 0, found) if found.dtype == dtype else found
                np.testing.assert_array_equal(flushed, right)
            product = x * np.ones(1, dtype)
            assert (product == x).all() and (product != 0).all(), "NumPy on this thread keeps denormals"
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_convolutions(case: ConvCase, rng: np.random.Generator) -> None:
    dtype = "float32"
    x, weight, bias = (a.astype(dtype) for a in operands(case, rng))
    y = ops.conv2d(x, weight, bias, **case.options)
    passes: dict[str, tuple[tuple[int, ...], Function]] = {
        "forward": (x.shape, lambda x: ops.conv2d(x, weight, bias, **case.options)),
        "backward_input": (y.shape, lambda g: ops.conv2d_backward_input(g, weight, x.shape, **case.options)),
        "backward_weight": (y.shape, lambda g: ops.conv2d_backward_weight(x, g, weight.shape, **case.options)),
    }
    for which, (shape, function) in passes.items():
        problem = conv2d_problem(which, case.x_shape, case.weight_shape, dtype, **case.options)
        for candidate, refusal in dispatch.verdicts(problem, "cpu"):
            if refusal is None and candidate.name != "reference":
                with dispatch.use(candidate.name):
                    check(function, shape, dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 37])
def test_linear(m: int, dtype: str, rng: np.random.Generator) -> None:
    weight, bias = rng.standard_normal((50, 130)).astype(dtype), rng.standard_normal(50).astype(dtype)
    for candidate, refusal in dispatch.verdicts(MatmulProblem("forward", dtype, m, 50, 130, True, False), "cpu"):
        if refusal is None and candidate.name != "reference":
            with dispatch.use(candidate.name):
                check(lambda x: ops.linear(x, weight, bias), (m, 130), dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training: bool, dtype: str, rng: np.random.Generator) -> None:
    shape = (3, 20, 9, 7)
    other = rng.standard_normal(shape).astype(dtype)
    weight, bias, mean = rng.standard_normal((3, 20)).astype(dtype)
    var = (rng.random(20) + 0.5).astype(dtype)

    def forward(x: np.ndarray) -> Any:
        running = mean.copy(), var.copy()
        return *ops.batch_norm_forward(x, *running, weight, bias, training, 0.1, 1e-5), *running

    check(forward, shape, dtype, rng)
    _, centre, inverse = ops.batch_norm_forward(other, mean.copy(), var.copy(), weight, bias, training, 0.1, 1e-5)
    check(lambda g: ops.batch_norm_backward(g, other, weight, centre, inverse, training), shape, dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 20])
def test_pooling(channels: int, dtype: str, rng: np.random.Generator) -> None:
    shape = (2, channels, 9, 8)
    check(lambda x: ops.max_pool2d(x, 3, 2, 1), shape, dtype, rng)
    check(lambda x: ops.avg_pool2d(x, 3, 2, 1), shape, dtype, rng)
    check(lambda x: ops.adaptive_avg_pool2d(x, 1), shape, dtype, rng)
    check(lambda g: ops.avg_pool2d_backward(g, (2, channels, 18, 16), 2), shape, dtype, rng)
    _, offsets = max_pool2d_offsets(rng.standard_normal((2, channels, 18, 16)).astype(dtype), 2)
    check(lambda g: ops.max_pool2d_backward(g, offsets, (2, channels, 18, 16), 2), shape, dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_and_sums(dtype: str, rng: np.random.Generator) -> None:
    shape = (2, 20, 9, 8)
    other = rng.standard_normal(shape).astype(dtype)
    for function in (ops.relu, ops.gelu, ops.exp):
        check(function, shape, dtype, rng)
    check(lambda x: ops.add(x, other), shape, dtype, rng)
    check(lambda x: ops.mul(x, other), shape, dtype, rng)
    check(lambda x: ops.softmax(x, 1), shape, dtype, rng)
    check(lambda x: ops.sum(x, (2, 3)), shape, dtype, rng)
