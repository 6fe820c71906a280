"""Activations, formulas with parameters, and their sums on the GPU: every formula, and the loops around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from numbanet.cuda import activation, pointwise
from numbanet.problem.activation import ActivationProblem
from numbanet.problem.pointwise import PointwiseProblem
from numbanet.reference.activation import BACKWARD, FORWARD
from numbanet.reference.pointwise import FUNCTIONS
from tests.cuda.formulas import evaluate
from tests.cuda.twins import compare, poison

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 25.0, -40.0, 0.3, -0.7, 88.0, -88.0, np.nan])


def numbers(dtype: str, count: int) -> list[np.ndarray]:
    """Return operands: special numbers in every pair, and random ones."""
    rng = np.random.default_rng(3)
    pairs = [part.reshape(-1) for part in np.meshgrid(SPECIAL, SPECIAL)]
    found = [np.concatenate([pairs[k % 2], 3 * rng.standard_normal(60)]).astype(dtype) for k in range(count)]
    return found


def check(
    table: dict[str, Callable], definitions: dict[str, Any], operands: list[np.ndarray], parameters: tuple[float, ...]
) -> None:
    dtype = operands[0].dtype
    extra = [np.full(operands[0].size, value, dtype) for value in (*parameters, 0.0)[:2]]
    found = evaluate("_".join(table)[:40], list(table.values()), [*operands, *extra])
    for name, values in zip(table, found):
        given = [x.astype(np.float64) for x in operands]
        with np.errstate(all="ignore"):
            expected = definitions[name](*given, *parameters)
        unit = 40 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(values, expected, rtol=unit, atol=unit, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_activation(dtype: str) -> None:
    x, grad = numbers(dtype, 2)
    check(activation.forward_formulas(dtype), FORWARD, [x], (0.25,))
    check(activation.backward_formulas(dtype), BACKWARD, [grad, x], (0.25,))


def arity(name: str, arguments: int) -> bool:
    return FUNCTIONS[name].__code__.co_argcount - 2 == arguments


# Of float64 those of two operands: derivatives of activations, and losses.
@pytest.mark.parametrize(
    ("dtype", "operands"), [("float32", 1), ("float32", 2), ("float32", 3), ("float32", 4), ("float64", 2)]
)
def test_every_pointwise_formula(dtype: str, operands: int) -> None:
    table = {name: f for name, f in pointwise.formulas(dtype).items() if arity(name, operands)}
    assert pointwise.formulas(dtype).keys() == FUNCTIONS.keys()
    assert table
    values = numbers(dtype, operands)
    bounded = {name: f for name, f in table.items() if name.startswith(("binary", "kl_div"))}
    rest = {name: f for name, f in table.items() if name not in bounded}
    if rest:
        check(rest, FUNCTIONS, values, (0.75, 1.5))
    if bounded:  # their operands are probabilities, or logarithms of them
        inside = [(0.999 * np.abs(np.sin(x))).astype(dtype) for x in values]
        check(bounded, FUNCTIONS, inside, (0.75, 1.5))


# Sizes around a vector and around a block of 256 threads.
SIZES = [0, 1, 3, 4, 5, 1023, 1029]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_the_loop(dtype: str, size: int) -> None:
    rng = np.random.default_rng(4)
    x, grad = rng.standard_normal((2, size + 1)).astype(dtype)
    compare(ActivationProblem("forward", dtype, "leaky_relu", size, 0.1), (x[:-1],), (poison((size,), dtype),))
    problem = ActivationProblem("backward_input", dtype, "relu", size)
    compare(problem, (grad[1:], x[1:]), (poison((size,), dtype),))  # not at a multiple of 16 bytes


@pytest.mark.parametrize("which", ["forward", "sum"])
@pytest.mark.parametrize("size", [0, 1, 5, 2050])
def test_broadcast_operands_and_sums(which: str, size: int) -> None:
    rng = np.random.default_rng(5)
    x, target = rng.standard_normal((2, size)).astype(np.float32)
    numbers = np.array([0.5, 2.0])
    out = poison((size,), "float32") if which == "forward" else poison((1,), "float32")
    for dense, other in ((True, target), (False, np.array([0.25], np.float32))):
        for mean in (False, True) if which == "sum" else (False,):
            problem = PointwiseProblem(which, "float32", "huber", size, (True, dense), mean)
            compare(problem, (x, other, numbers), (out,))
