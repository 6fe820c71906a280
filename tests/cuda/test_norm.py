"""Batch normalisation on the GPU: every pass against the definition in float64, and accuracy far from zero."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.problem.norm import BatchNormProblem
from tests.cuda.twins import agree, compare, poison, run

# (rows, channels): one strip and several, scalar and vector columns, one row, parts that a block does not fill.
SHAPES = [(35, 3), (50, 16), (300, 4), (9, 132), (2, 65), (1, 8), (2100, 1)]


def operands(rows: int, channels: int, dtype: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    matrices = rng.standard_normal((4, rows, channels)).astype(dtype)
    vectors = rng.standard_normal((3, channels)).astype(dtype)
    found = dict(zip(("x", "grad", "residual", "y"), matrices)) | dict(zip(("weight", "bias", "mean"), vectors))
    return found | {"x": 2 * found["x"] + 3, "var": (rng.random(channels) + 0.5).astype(dtype)}


NUMBERS = np.array([1e-3, 0.3])


@pytest.mark.parametrize(("shape", "dtype"), [*((shape, "float32") for shape in SHAPES), ((50, 16), "float64")])
def test_every_pass(shape: tuple[int, int], dtype: str) -> None:
    rows, channels = shape
    a = operands(rows, channels, dtype)
    training = rows > 1
    vector = poison((channels,), dtype)
    given = (a["x"], a["weight"], a["bias"], a["mean"].copy(), a["var"].copy(), NUMBERS)
    problem = BatchNormProblem("statistics", dtype, rows, channels, training)
    compare(problem, given, (vector, vector, poison((3, channels), dtype)), 2)
    relu = BatchNormProblem("forward", dtype, rows, channels, training, "relu", True)
    compare(relu, (*given, a["residual"]), (poison(shape, dtype), vector, vector), 4)
    plain = BatchNormProblem("forward", dtype, rows, channels, False)
    compare(plain, (a["x"], None, None, *given[3:], None), (poison(shape, dtype), vector, vector), 2)
    inverse = 1 / np.sqrt(a["var"])
    for activation, residual in ((None, False), ("relu", False), ("relu", True)):
        backward = BatchNormProblem("backward", dtype, rows, channels, training, activation, residual)
        inputs = (a["grad"], a["x"], a["weight"], a["mean"], inverse, a["y"] if activation else None)
        outputs = (poison(shape, dtype), vector, vector, poison(shape, dtype) if residual else None)
        compare(backward, inputs, outputs, 8, absolute=True)


def test_running_statistics_are_updated() -> None:
    a = operands(40, 6, "float32")
    mean, var = a["mean"].copy(), a["var"].copy()
    problem = BatchNormProblem("statistics", "float32", 40, 6, True)
    outputs = [poison(shape, "float32") for shape in ((6,), (6,), (3, 6))]
    run(problem, (a["x"], None, None, mean, var, NUMBERS), outputs)
    x = a["x"].astype(np.float64)
    agree(mean, 0.7 * a["mean"] + 0.3 * x.mean(0), 1e-6)
    agree(var, 0.7 * a["var"] + 0.3 * x.var(0, ddof=1), 1e-6)


@pytest.mark.parametrize("channels", [3, 16])
def test_a_large_mean_costs_no_digits(channels: int) -> None:
    rng = np.random.default_rng(1)
    x = (1e4 + rng.standard_normal((1500, channels))).astype(np.float32)
    x[0] = 0  # an outlier where a thread begins
    problem = BatchNormProblem("statistics", "float32", 1500, channels, True)
    outputs = [poison(shape, "float32") for shape in ((channels,), (channels,), (3, channels))]
    mean, inverse, _ = run(problem, (x, None, None, None, None, np.zeros(2)), outputs)
    agree(mean, x.mean(0, dtype=np.float64), 1e-7)
    agree(inverse, 1 / x.astype(np.float64).std(0), 1e-5)
