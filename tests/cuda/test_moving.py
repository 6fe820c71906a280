"""Padding, index_add, fold, resampling, extremes and the norms of samples on the GPU, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numbanet import dispatch
from numbanet.problem.extremum import ExtremumProblem
from numbanet.problem.group_norm import GroupNormProblem
from numbanet.problem.resample import ResampleProblem
from numbanet.problem.response import ResponseNormProblem
from numbanet.problem.shape import IndexAddProblem, pad_problem
from numbanet.problem.unfold import FoldProblem
from tests.cuda.twins import compare, poison, run


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "pad", "mode"),
    [
        ((3, 4, 5), (1, 2, 0, -1), "constant"), ((2, 3, 4, 8), (0, 0, 1, 1, 2, 0), "constant"),
        ((2, 3, 4), (3, 2, 1, 2), "reflect"), ((2, 3, 4), (0, 3, 2, 0), "circular"),
        ((2, 2, 4, 3), (1, 4, 0, 2), "replicate"),
        ((5,), (2, 1), "constant"),
    ],
)  # fmt: skip
def test_pad(shape: tuple[int, ...], pad: tuple[int, ...], mode: str) -> None:
    problem = pad_problem("forward", shape, "float32", pad, mode)
    y = poison(problem.padded_shape, "float32")
    compare(problem, (normal(shape), np.array([0.75])), (y,))
    if mode != "constant":
        backward = pad_problem("backward_input", shape, "float32", pad, mode)
        compare(backward, (normal(problem.padded_shape),), (poison(shape, "float32"),))


@pytest.mark.parametrize(("rows", "count", "inner"), [(7, 300, 3), (600, 40, 1), (3, 0, 2)])
def test_index_add(rows: int, count: int, inner: int) -> None:
    positions = np.random.default_rng(1).integers(0, rows, count)
    problem = IndexAddProblem("forward", "float32", rows, count, inner)
    grad = normal((count, inner))
    compare(problem, (grad, positions), (poison((rows, inner), "float32"),))
    expected = np.zeros((rows, inner), np.float32)
    np.add.at(expected, positions, grad)
    (found,) = run(problem, (grad, positions), (poison((rows, inner), "float32"),))
    np.testing.assert_array_equal(found, expected)  # bit for bit: the summands come in their order


def test_positions_of_no_row_are_left_out() -> None:
    grad, positions = normal((6, 2)), np.array([2, -1, 0, 3, 2, 2**32])
    problem = IndexAddProblem("forward", "float32", 3, 6, 2)
    (found,) = run(problem, (grad, positions), (poison((3, 2), "float32"),))
    np.testing.assert_array_equal(found, np.stack([grad[2], 0 * grad[0], grad[0] + grad[4]]))


@pytest.mark.parametrize("which", ["forward", "backward_input"])
@pytest.mark.parametrize(("mode", "q"), [("nearest", 9), ("bilinear", 9), ("bicubic", 9), ("bicubic", 3)])
@pytest.mark.parametrize("channels", [3, 4])
def test_resample(which: str, mode: str, q: int, channels: int) -> None:
    problem = ResampleProblem(which, "float32", 2, 5, 4, channels, 7, q, mode, False, (None, None), antialias=q == 3)
    shapes = (2, 5, 4, channels), (2, 7, q, channels)
    source, target = shapes if which == "forward" else shapes[::-1]
    compare(problem, (normal(source),), (poison(target, "float32"),))


def test_fold() -> None:
    problem = FoldProblem("forward", "float32", 3, 9, 8, 3, 2, 2, 5, (3, 1), (2, 3))
    compare(problem, (normal((3, 3, 2, 2, 5)),), (poison((3, 9, 8), "float32"),))


@pytest.mark.parametrize("which", ["forward", "backward_input"])
@pytest.mark.parametrize("size", [1, 4, 5])
def test_local_response_norm(which: str, size: int) -> None:
    problem = ResponseNormProblem(which, "float32", 9, 7, size)
    numbers = np.array([0.3, 0.75, 1.5])
    given = (normal((9, 7)),) if which == "forward" else (normal((9, 7), seed=1), normal((9, 7)))
    compare(problem, (*given, numbers), (poison((9, 7), "float32"),), 2)


@pytest.mark.parametrize("sizes", [(5, 70, 1), (3, 4, 1), (2, 9, 5)], ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_extremes(sizes: tuple[int, int, int], largest: bool) -> None:
    outer, reduced, inner = sizes
    x = np.random.default_rng(2).integers(0, 5, sizes).astype(np.float32)
    x[1, 2:4] = np.nan
    x[0] = -np.inf if largest else np.inf
    problem = ExtremumProblem("forward", "float32", largest, outer, reduced, inner)
    compare(problem, (x.reshape(-1),), (poison((outer * inner,), "float32"), poison((outer * inner,), "int64")))


# (n, positions, channels, groups): layer norm by warps and blocks, groups, instance norm, vectors and single columns.
NORMS = [(9, 1, 33, 1), (3, 1, 2100, 1), (4, 1, 12, 3), (2, 35, 6, 3), (3, 9, 16, 2), (2, 300, 4, 4)]


@pytest.mark.parametrize("sizes", NORMS, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_norms_of_samples(sizes: tuple[int, int, int, int], affine: bool) -> None:
    n, positions, channels, groups = sizes
    for dtype in ("float32", "float64") if affine and sizes == NORMS[3] else ("float32",):
        x, grad = 2 * normal((n, positions, channels), dtype) + 3, normal((n, positions, channels), dtype, 1)
        weight, bias = normal((2, channels), dtype, 2) if affine else (None, None)
        statistics = [poison((n, groups), dtype) for _ in range(3)]
        forward = GroupNormProblem("forward", dtype, n, positions, channels, groups)
        compare(forward, (x, weight, bias, np.array([1e-3])), (poison(x.shape, dtype), *statistics), 4)
        given: Any = (x, weight, bias, np.array([1e-3]))
        _, mean, inverse, _ = run(forward, given, (poison(x.shape, dtype), *statistics))
        backward = GroupNormProblem("backward", dtype, n, positions, channels, groups)
        outputs = (poison(x.shape, dtype), poison((channels,), dtype), poison((channels,), dtype))
        compare(backward, (grad, x, weight, mean, inverse), outputs, 8, absolute=True)


def test_norms_whose_factors_exceed_32_bits_are_refused() -> None:
    problem = GroupNormProblem("backward", "float32", 65535, 2, 16384, 1)
    with pytest.raises(ValueError, match="more than 2147483647 elements"):
        dispatch.choose(problem, "cuda")
