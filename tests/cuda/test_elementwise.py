"""Elementwise functions on the GPU: every formula, and the walk over every kind of operand."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.cuda import elementwise as twin
from numbanet.problem.elementwise import elementwise_plan
from numbanet.reference.elementwise import FUNCTIONS
from tests.cuda.formulas import evaluate
from tests.cuda.twins import agree, poison, run

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -3.0, np.inf, -np.inf, np.nan, 4.0, 0.5, 2.0**26, -0.3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_formula(dtype: str) -> None:
    rng = np.random.default_rng(0)
    operands = [np.concatenate([part.reshape(-1), 2 * rng.standard_normal(300)]).astype(dtype)
                for part in np.meshgrid(SPECIAL, SPECIAL, SPECIAL)]  # fmt: skip
    formulas = twin.formulas(dtype)
    assert formulas.keys() == FUNCTIONS.keys()
    found = evaluate("elementwise", list(formulas.values()), operands)
    for name, values in zip(formulas, found):
        given = [x.astype(np.float64) for x in operands[: twin.operand_count(name)]]
        if name == "where":
            given[2] = operands[2] != 0
        with np.errstate(all="ignore"):
            expected = np.asarray(FUNCTIONS[name](*given), np.float64).astype(dtype)
        np.testing.assert_allclose(values, expected, rtol=16 * np.finfo(dtype).eps, atol=1e-38, err_msg=name)


def elementwise(function: str, *operands: np.ndarray) -> np.ndarray:
    dtype = operands[0].dtype.name
    plan = elementwise_plan(function, dtype, *[(x.shape, x.strides, x.itemsize) for x in operands])
    out = poison(plan.memory_shape, "bool" if function in twin.COMPARISONS else dtype).transpose(plan.axes)
    (found,) = run(plan.problem, operands, (out.copy("K"),))
    exact = [x if x.dtype.kind == "b" else x.astype(np.float64) for x in operands]
    with np.errstate(all="ignore"):
        agree(found, np.asarray(FUNCTIONS[function](*exact)), 16 * float(np.finfo(dtype).eps), function)
    return found


WALKS = [
    ((2, 5, 4, 8), (2, 5, 4, 8)), ((3, 4), (4,)), ((3, 4), (3, 1)), ((3, 5), ()), ((3, 1), (1, 4)), ((17,), (17,)),
    ((2, 5, 4, 3), (5, 1, 1)), ((2, 5, 1, 3), (2, 1, 4, 1)), ((0, 4), (4,)), ((1,), (1,)), ((2, 1, 3, 4), (5, 1, 4)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", WALKS, ids=str)
def test_broadcasting(shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(1)
    elementwise("add", *(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def test_channels_last_and_strided_operands() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 5, 8)).astype(np.float32).transpose(0, 3, 1, 2)
    bias = rng.standard_normal((8, 1, 1)).astype(np.float32)
    elementwise("add", x, bias)
    elementwise("add", x[:, :, ::-1, ::2], bias[::-1])
    elementwise("add", x, np.ascontiguousarray(x))
    elementwise("add", x.reshape(-1)[1:], x.reshape(-1)[:-1])  # not at a multiple of 16 bytes
    for condition in (x > 0, (x > 0)[:, :1], np.array(True)):
        elementwise("where", x, bias, condition)
    elementwise("lt", x, bias)
    elementwise("exp", x[..., :3])
    elementwise("clamp", x.astype(np.float64), np.array(-0.5), bias.astype(np.float64))
