"""Gradients that are added to what is known of them as kernels store: every kernel that computes such gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, ops
from numbanet.problem.conv import conv2d_problem, epilogue
from numbanet.problem.matmul import MatmulProblem
from tests.cases import CONV_CASES, ConvCase, operands
from tests.ops.test_conv import EPILOGUE_CASES, layouts


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def made(case: ConvCase, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a gradient, a weight, what is known of the input's gradient, and the sum by the definition in float64."""
    x, weight, _ = operands(case, rng)
    with nnet.use("reference"):
        grad = rng.standard_normal(ops.conv2d(x, weight, **case.options).shape)
        known = channels_last(rng.standard_normal(x.shape))
        return grad, weight, known, known + ops.conv2d_backward_input(grad, weight, x.shape, **case.options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_every_kernel(case: ConvCase, dtype: str, rng: np.random.Generator, poisoned: None) -> None:
    if dtype == "float64" and case.name not in EPILOGUE_CASES:
        pytest.skip("the kernels are the same")
    *arrays, reference = made(case, rng)
    grad, weight, known = (a.astype(dtype) for a in arrays)
    options, before = case.options.values(), known.copy()
    problem = conv2d_problem(
        "backward_input", case.x_shape, case.weight_shape, dtype, **case.options, epilogue=epilogue(residual=True)
    )
    tried = 0
    for candidate, refusal in dispatch.verdicts(problem, "cpu"):
        if refusal is not None or candidate.name == "reference":
            continue
        with nnet.use(candidate.name):
            total = ops.add_conv2d_backward_input(known, grad, weight, case.x_shape, *options)
            apart = ops.conv2d_backward_input(grad, weight, case.x_shape, *options)
            mine = known.copy("K")
            same = ops.add_conv2d_backward_input(mine, grad, weight, case.x_shape, *options, True)
        np.testing.assert_array_equal(total, known + apart, err_msg=candidate.name)
        np.testing.assert_array_equal(known, before)
        np.testing.assert_array_equal(same, total, err_msg=f"{candidate.name}, in the memory of what is known")
        assert np.shares_memory(same, mine) and not np.shares_memory(total, known)
        error = np.abs(total - reference).max() / np.abs(reference - known).max()
        assert error <= candidate.tolerance(problem), f"{candidate.name}: relative error {error:.1e}"
        assert total.transpose(0, 2, 3, 1).flags.c_contiguous
        tried += 1
    assert tried >= 1


def test_the_kernels_are_those_of_the_gradient_alone() -> None:
    for case in CONV_CASES:
        chosen = [
            dispatch.choose(
                conv2d_problem("backward_input", case.x_shape, case.weight_shape, "float32", **case.options, epilogue=e)
            ).name
            for e in (epilogue(), epilogue(residual=True))
        ]
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize("groups", [1, 3])
def test_any_strides(groups: int, rng: np.random.Generator) -> None:
    case = ConvCase("strides", 2, 18, 7, 6, 21, 3, 3, 2, 1, 1, groups)
    grad, weight, known, expected = made(case, rng)
    for laid in layouts(known):
        total = ops.add_conv2d_backward_input(laid, grad, weight, known.shape, *case.options.values())
        np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12)
    one = ConvCase("unbatched", 1, *case.x_shape[1:], 21, 3, 3, 2, 1, 1, groups)
    grad, weight, known, expected = made(one, rng)
    total = ops.add_conv2d_backward_input(known[0], grad[0], weight, known.shape[1:], *one.options.values())
    np.testing.assert_allclose(total, expected[0], rtol=0, atol=1e-12)


def test_a_call_that_comes_again(rng: np.random.Generator) -> None:
    """Small operands: from the third call on, Python decides nothing; see `numbanet.ops.steady`."""
    case = CONV_CASES[5]
    for _ in range(6):
        grad, weight, known, expected = made(case, rng)
        total = ops.add_conv2d_backward_input(known, grad, weight, known.shape, *case.options.values())
        np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12)
        a, b, c = rng.standard_normal((5, 7)), rng.standard_normal((7, 40)), rng.standard_normal((5, 40))
        np.testing.assert_allclose(ops.add_matmul(c, a, b), c + a @ b, rtol=0, atol=1e-12)


def test_nothing_to_add_to() -> None:
    none = np.zeros((0, 4, 5, 5), np.float32)
    assert ops.add_conv2d_backward_input(none, np.zeros((0, 8, 3, 3), np.float32), np.ones((8, 4, 3, 3), np.float32),
                                         none.shape).shape == none.shape  # fmt: skip
    known, weight = np.ones((2, 3, 4, 4)), np.zeros((0, 3, 2, 2))
    for laid in (known, channels_last(known)):
        with pytest.raises(ValueError, match="at least one out-channel"):
            ops.add_conv2d_backward_input(laid, np.zeros((2, 0, 3, 3)), weight, known.shape)
    assert ops.add_matmul(np.ones((0, 3)), np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)
    np.testing.assert_array_equal(ops.add_matmul(np.ones((2, 3)), np.ones((2, 0)), np.ones((0, 3))), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("error", "words", "known"),
    [
        (ValueError, "known must have the input's shape", np.zeros((2, 4, 8, 7), np.float32)),
        (ValueError, "known must have the input's shape", np.zeros((4, 8, 8), np.float32)),
        (TypeError, "dtypes must be equal", np.zeros((2, 4, 8, 8))),
        (TypeError, "known must", None),
    ],
)
def test_errors(error: type[Exception], words: str, known: Any) -> None:
    grad, weight = np.zeros((2, 6, 6, 6), np.float32), np.zeros((6, 4, 3, 3), np.float32)
    with pytest.raises(error, match=words):
        ops.add_conv2d_backward_input(known, grad, weight, (2, 4, 8, 8))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m", [1, 3, 33, 70])
@pytest.mark.parametrize("n", [1, 7, 64, 131])
@pytest.mark.parametrize("k", [1, 40, 300])
def test_matrix_products(m: int, n: int, k: int, dtype: str, rng: np.random.Generator, poisoned: None) -> None:
    a, b, known = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (m, n)))
    product = a.astype(float) @ b.astype(float)
    for left, right in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b)), map(np.asfortranarray, (a, b))):
        rows = left.flags.c_contiguous, right.flags.c_contiguous
        problem = MatmulProblem("forward", dtype, m, n, k, *rows, epilogue(residual=True))
        for candidate, refusal in dispatch.verdicts(problem, "cpu"):
            if refusal is not None:
                continue
            with nnet.use(candidate.name):
                total = ops.add_matmul(known, left, right)
            error = np.abs(total - (known + product)).max() / np.abs(product).max()
            assert error <= candidate.tolerance(problem), f"{candidate.name}: relative error {error:.1e}"


def test_errors_of_matrix_products() -> None:
    a = np.zeros((2, 3))
    for wrong in ((a, a, a), (a, a, a.T), (a[0], a, a), (np.zeros((2, 2)), a[None], a.T)):
        with pytest.raises(ValueError, match="known, input and other must have shapes"):
            ops.add_matmul(*wrong)
    with pytest.raises(TypeError, match="dtypes must be equal"):
        ops.add_matmul(np.zeros((2, 2), np.float32), a, a.T)
