"""Calls that come again with operands that share memory: one array as both, views of one, in any order of patterns."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import ops
from numbanet.ops import activation, norm
from numbanet.ops.steady import steady
from tests.ops.steadiness import matrix, same, settle, vector

Pair = tuple[np.ndarray, np.ndarray]


def once(function: Any, arrays: int = 2) -> Any:
    """Return an operation that has met no operands yet."""
    return steady(arrays)(function.__wrapped__)


def one_twice() -> Pair:
    x = matrix()
    return x, x


def one_and_its_view() -> Pair:
    x = matrix()
    return x, x[:]


def two() -> Pair:
    return matrix(), matrix()


def neighbours() -> Pair:
    x = matrix(9)
    return x[1:], x[:-1]


PATTERNS = {"x, x": one_twice, "x, x[:]": one_and_its_view, "x, y": two, "x[1:], x[:-1]": neighbours}


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "matmul"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_operands_that_overlap_are_steady(name: str, pattern: str, asked: list[Any]) -> None:
    function, make = once(getattr(ops, name)), PATTERNS[pattern]
    settle(function, make)
    asked.clear()
    found = [(function(*pair), pair) for pair in (make() for _ in range(3))]
    assert not asked
    for y, pair in found:
        same(y, function.__wrapped__(*pair))


@pytest.mark.parametrize("order", list(permutations(PATTERNS)), ids="; ".join)
@pytest.mark.parametrize("name", ["sub", "matmul"])
def test_every_pattern_after_every_other(name: str, order: tuple[str, ...]) -> None:
    """All of them are of one kind: what was learnt from one is done with the others."""
    for calls in (1, 2, 5):
        function = once(getattr(ops, name))
        for pattern in (*order, *order):
            for _ in range(calls):
                pair = PATTERNS[pattern]()
                same(function(*pair), function.__wrapped__(*pair))


def test_a_matrix_and_its_transpose(asked: list[Any]) -> None:
    for function in (once(ops.sub), once(ops.matmul)):
        for turn in range(8):
            x, asked[:] = matrix(), []
            y = function(x, x.T)
            assert turn < 4 or not asked
            same(y, function.__wrapped__(x, x.T))
            pair = matrix(), matrix().T
            same(function(*pair), function.__wrapped__(*pair))


def test_a_vector_along_a_matrix_that_it_is_a_row_of() -> None:
    function = once(ops.sub)
    for _ in range(6):
        x = matrix()
        same(function(x, x[3]), x - x[3])
        same(function(x, x[:, 3:4]), x - x[:, 3:4])
        same(function(x, np.broadcast_to(x[:1], x.shape)), x - x[:1])


def test_what_is_written_to_that_is_two_operands(asked: list[Any]) -> None:
    """The statistics of a batch norm, in memory that it also reads as something else."""

    def operands(pattern: str) -> tuple[Any, ...]:
        x, mean, var = matrix(16), vector(), vector()
        shared = {
            "apart": (x, mean, var, vector(), vector()),
            "mean is bias": (x, mean, var, vector(), mean),
            "var is a row": (x, mean, x[2], vector(), vector()),
            "weight is bias": (x, mean, var, *[vector()] * 2),
        }
        return (*shared[pattern], None, True, 0.1, 1e-5, None)

    for order in permutations(("apart", "mean is bias", "var is a row", "weight is bias")):
        function = once(norm._forward, 6)
        for repeated, pattern in enumerate((*order, *order)):
            for _ in range(4):
                args, asked[:] = operands(pattern), []
                state = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
                found = function(*args)
                assert repeated < len(order) or not asked  # they are replayed by then
                changed = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
                for x, before in zip(args, state):
                    if isinstance(x, np.ndarray):
                        x[...] = before
                same(found, function.__wrapped__(*args))
                same(tuple(changed), args)


def test_columns_of_a_wide_matrix_are_not_copied_with_all_between_them() -> None:
    x = np.zeros((20_000, 1024), np.float32)  # zeros take no memory before they are written
    for function, operands in ((once(ops.add), (x[:, 0], x[:, 1])), (once(ops.sum, 1), (x[:, 0],))):
        peaks = []
        for _ in range(7):
            tracemalloc.start()
            try:
                same(function(*operands), function.__wrapped__(*operands))
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        assert max(peaks[1:]) < 8 << 20, peaks


def test_what_is_written_to_is_written_once() -> None:
    @steady(3)
    def smooth(x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
        return norm._forward.__wrapped__(x, mean, var, None, None, None, True, 0.5, 1e-5, None)[0]

    values, mean = matrix(16), np.zeros(8, np.float32)
    for turn in range(7):
        x = values.copy()
        smooth(x, mean, x[0])
        np.testing.assert_allclose(mean, values.mean(0) * (1 - 0.5 ** (turn + 1)), rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_the_result() -> None:
    function = once(activation._backward)
    for _ in range(6):
        x = matrix()
        same(function(x, x, "relu"), np.maximum(x, 0))
        same(function(x, matrix() * 0 + 1, "relu"), x)


def sums(x: nnet.Tensor, y: nnet.Tensor) -> Iterator[Callable[[], nnet.Tensor]]:
    yield lambda: x + x
    yield lambda: x + y
    yield lambda: y + y
    yield lambda: x + x[:]
    yield lambda: x + x.T
    yield lambda: x[1:] + x[:-1]


def test_tensors(asked: list[Any]) -> None:
    x, y = (nnet.tensor(matrix(), requires_grad=True) for _ in range(2))
    expected = [2 * x.data, x.data + y.data, 2 * y.data, 2 * x.data, x.data + x.data.T, x.data[1:] + x.data[:-1]]
    for turn in range(6):
        asked.clear()
        for function, values in zip(sums(x, y), expected):
            np.testing.assert_array_equal(function().detach().numpy(), values)
        assert turn < 4 or not asked


def test_changes_in_place() -> None:
    for _ in range(6):
        x, y = nnet.tensor(matrix()), nnet.tensor(matrix())
        values = x.data.copy()
        np.testing.assert_array_equal(x.add_(x).numpy(), 2 * values)
        np.testing.assert_array_equal(x.add_(y).numpy(), 2 * values + y.data)
        np.testing.assert_array_equal(x.mul_(x[:]).numpy(), (2 * values + y.data) ** 2)
        np.testing.assert_array_equal(y.add_(y.T).numpy(), y.data.T)
