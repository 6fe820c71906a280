"""Matrix products on arrays, in all memory orders, against NumPy in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.cpu import matmul_few, matmul_outer, parallel
from numbanet.problem.conv import epilogue
from numbanet.problem.matmul import MatmulProblem

SIZES = [
    (1, 1, 1), (3, 5, 7), (15, 33, 17), (64, 70, 300), (14, 16, 1), (1, 100, 40), (100, 1, 1100), (193, 65, 513),
    (1, 300, 700), (2, 17, 600), (3, 2100, 50), (7, 9, 130), (8, 40, 33), (50, 6, 257), (4, 1, 5000),
    (61, 70, 1100), (1100, 9, 20), (20, 530, 300), (16, 16, 20000), (20, 3, 70001),
]  # fmt: skip


def stored(shape: tuple[int, int], by_rows: bool, dtype: str, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(shape).astype(dtype)
    return x if by_rows else np.asfortranarray(x)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fill every array that the package allocates with NaN: what a kernel forgets to write shows."""
    real = memory.empty

    def empty(shape, dtype, like=None):
        out = real(shape, dtype)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", empty)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_transpositions(size, dtype, rng):
    m, n, k = size
    unit = 3e-6 if dtype == "float32" else 6e-15
    for a_rows, b_rows in itertools.product([True, False], repeat=2):
        a, b = stored((m, k), a_rows, dtype, rng), stored((k, n), b_rows, dtype, rng)
        expected = a.astype(np.float64) @ b.astype(np.float64)
        layouts = a.flags.c_contiguous, b.flags.c_contiguous  # a single row or column lies both ways
        for candidate, refusal in dispatch.verdicts(MatmulProblem("forward", dtype, m, n, k, *layouts), "cpu"):
            if refusal is None:
                with nnet.use(candidate.name):
                    out = nnet.ops.matmul(a, b)
                assert out.dtype == dtype
                error = np.abs(out - expected).max() / np.abs(expected).max()
                assert error <= unit * (k / 1000 + 1) ** 0.5, candidate.name


SHAPES = [
    ((7,), (7,)),
    ((7,), (7, 3)),
    ((5, 7), (7,)),
    ((2, 5, 7), (7, 9)),
    ((2, 5, 7), (7,)),
    ((7,), (3, 7, 2)),
    ((3, 1, 5, 7), (4, 7, 9)),
    ((0, 3), (3, 4)),
    ((3, 0), (0, 4)),
    ((0, 3, 4), (4, 2)),
    ((2, 3, 4), (2, 4, 0)),
    ((2, 3, 0), (2, 0, 4)),
    ((40, 3, 4), (40, 4, 5)),
    ((3, 70, 300), (3, 300, 90)),
    ((70, 300), (2, 1, 300, 20)),
    ((2, 1, 1, 40), (3, 40, 1)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_dimensions(a, b, rng):
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    expected = x @ y
    out = nnet.ops.matmul(x, y)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [shapes for shapes in SHAPES if min(map(len, shapes)) > 1])
def test_stacks_in_all_memory_orders(a, b, rng):
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    for xs, ys in itertools.product(orders(x), orders(y)):
        np.testing.assert_allclose(nnet.ops.matmul(xs, ys), x @ y, rtol=0, atol=1e-12)


def orders(x: np.ndarray):
    """Yield arrays equal to a stack of matrices: row by row, column by column, and with gaps."""
    yield x
    yield np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    yield np.repeat(x, 2, axis=-1)[..., ::2]


def test_any_strides(rng):
    x, y = rng.standard_normal((9, 8))[::2, ::-1], np.broadcast_to(rng.standard_normal((8, 1)), (8, 6))
    np.testing.assert_allclose(nnet.ops.matmul(x, y), x @ y, atol=1e-12)


def test_linear(rng):
    x, weight, bias = rng.standard_normal((2, 3, 7)), rng.standard_normal((5, 7)), rng.standard_normal(5)
    np.testing.assert_allclose(nnet.ops.linear(x, weight, bias), x @ weight.T + bias, atol=1e-12)
    np.testing.assert_allclose(nnet.ops.linear(x, weight), x @ weight.T, atol=1e-12)
    for shape in ((2, 3, 5), (3, 1), (1,), ()):
        wide = rng.standard_normal(shape)
        np.testing.assert_allclose(nnet.ops.linear(x, weight, wide), x @ weight.T + wide, atol=1e-12)
        y = nnet.ops.linear(x, weight, wide, residual=2 * (x @ weight.T), activation="relu")
        np.testing.assert_allclose(y, np.maximum(3 * (x @ weight.T) + wide, 0), atol=1e-12)
    np.testing.assert_allclose(nnet.ops.linear(x, weight[0]), x @ weight[0], atol=1e-12)
    np.testing.assert_allclose(nnet.ops.linear(x[..., :0], weight[:, :0], bias), np.broadcast_to(bias, (2, 3, 5)))


def test_epilogue_of_dots_in_shares(rng):
    x, weight, bias = rng.standard_normal((5, 50000)), rng.standard_normal((18, 50000)), rng.standard_normal(18)
    addend = rng.standard_normal((5, 18))
    assert matmul_few._plan(MatmulProblem("forward", "float64", 5, 18, 50000, True, False)).splits > 1
    with nnet.use("cpu.few"):
        y = nnet.ops.linear(x, weight, bias, residual=addend, activation="relu")
    np.testing.assert_allclose(y, np.maximum(x @ weight.T + bias + addend, 0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("columns", [1, 5, 33])
def test_every_epilogue(dtype, rows, columns, rng):
    x, weight, bias = (
        4 * rng.standard_normal(shape).astype(dtype) for shape in ((rows, 19), (columns, 19), (columns,))
    )
    addend = rng.standard_normal((rows, columns)).astype(dtype)
    for bias_, addend_, activation in itertools.product((None, bias), (None, addend), (None, "relu", "relu6")):
        y = x.astype(float) @ weight.T.astype(float)
        y = y + (0 if bias_ is None else bias_) + (0 if addend_ is None else addend_)
        y = y if activation is None else np.clip(y, 0, 6 if activation == "relu6" else None)
        for matrix in (weight, np.asfortranarray(weight)):
            then = epilogue(bias_ is not None, addend_ is not None, activation)
            problem = MatmulProblem("forward", dtype, rows, columns, 19, True, matrix.T.flags.c_contiguous, then)
            for candidate, refusal in dispatch.verdicts(problem, "cpu"):
                if refusal is None:
                    with nnet.use(candidate.name):
                        out = nnet.ops.linear(x, matrix, bias_, residual=addend_, activation=activation)
                    np.testing.assert_allclose(out, y, rtol=0, atol=2e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shares_of_long_sums(dtype, rng):
    """Few rows and columns, and many terms: shares of the sums are results of their own, which are added."""
    x, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((50, 6100), (7, 6100), (7,)))
    residual, unit = rng.standard_normal((50, 7)).astype(dtype), 8e-6 if dtype == "float32" else 2e-14
    sums = x.astype(float) @ weight.T.astype(float)
    problem = MatmulProblem("forward", dtype, 50, 7, 6100, True, False)
    assert matmul_outer._plan(problem).integers.splits > 1
    before, results = parallel.get_num_threads(), []
    for threads in (1, before):
        parallel.set_num_threads(threads)
        with nnet.use("cpu.outer"):
            y = nnet.ops.linear(x, weight, bias, residual=residual, activation="relu")
            stacks = nnet.ops.matmul(np.stack([x, -x]), np.stack([weight.T, weight.T]))
        results.append((y, stacks))
    parallel.set_num_threads(before)
    for first, last in zip(*results):
        np.testing.assert_array_equal(first, last)
    largest = np.abs(sums).max()
    np.testing.assert_allclose(y, np.maximum(sums + bias + residual, 0), rtol=0, atol=unit * largest)
    np.testing.assert_allclose(stacks, [sums, -sums], rtol=0, atol=unit * largest)


def test_an_activation_keeps_nan():
    x = np.array([[np.nan, 1.0], [-1, 0], [9, 0]])
    np.testing.assert_array_equal(nnet.ops.linear(x, np.eye(2), activation="relu6"), [[np.nan] * 2, [0, 0], [6, 0]])


def test_threads_do_not_change_a_bit(rng):
    a, b = rng.standard_normal((200, 90)).astype(np.float32), rng.standard_normal((90, 70)).astype(np.float32)
    stack = rng.standard_normal((50, 9, 10)).astype(np.float32)
    pairs = [(a, b), (b.T, a.T), (a.T, a), (a[0], b), (a[:2], a.T), (b.T, a[0]), (stack, stack.swapaxes(1, 2))]
    before = parallel.get_num_threads()
    try:
        results = []
        for threads in (1, before):
            parallel.set_num_threads(threads)
            results.append([nnet.ops.matmul(*pair) for pair in pairs])
    finally:
        parallel.set_num_threads(before)
    for first, last in zip(*results):
        np.testing.assert_array_equal(first, last)


F32 = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "words", "a", "b"),
    [
        (ValueError, "the last dimension of input", F32, F32),
        (ValueError, "at least one dimension", F32, np.float32(1)),
        (ValueError, "do not broadcast", np.zeros((2, 3, 4)), np.zeros((3, 4, 5))),
        (TypeError, "dtypes must be equal", F32, np.zeros((4, 2))),
        (TypeError, "dtypes must be equal", F32, np.zeros((4, 2), int)),
    ],
)
def test_bad_arguments_are_named(error, words, a, b):
    with pytest.raises(error, match=words):
        nnet.ops.matmul(a, b)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("input must have shape", (np.zeros((2, 3)), np.zeros((4, 5)), None)),
        ("weight must have shape", (np.zeros((2, 3)), np.zeros((4, 5, 3)), None)),
        ("bias must have shape", (np.zeros((2, 3)), np.zeros((4, 3)), np.zeros(3))),
        ("residual must have the result's shape", (np.zeros((2, 3)), np.zeros((4, 3)), None, np.zeros(4))),
        ("activation must be one of", (np.zeros((2, 3)), np.zeros((4, 3)), None, None, "tanh")),
    ],
)
def test_bad_linear_arguments_are_named(words, arguments):
    with pytest.raises(ValueError, match=words):
        x, weight, bias, *options = arguments
        nnet.ops.linear(x, weight, bias, **dict(zip(("residual", "activation"), options)))


def test_the_definition_takes_stacks_and_residuals_of_any_dimensions(rng):
    a, b = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((2, 3, 4, 6))
    x, weight, residual = rng.standard_normal((8, 1, 4)), rng.standard_normal((2, 4)), rng.standard_normal((8, 1, 2))
    with dispatch.use("reference"):
        product, linear = nnet.ops.matmul(a, b), nnet.ops.linear(x, weight, residual=residual)
    np.testing.assert_allclose(product, a @ b, rtol=1e-12)
    np.testing.assert_allclose(linear, x @ weight.T + residual, rtol=1e-12)
    np.testing.assert_allclose(nnet.ops.linear(x, weight, residual=residual), linear, rtol=1e-12)
