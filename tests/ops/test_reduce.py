"""Sums and means over every choice of dimensions and layouts, and their accuracy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from numbanet import dispatch, memory, ops
from numbanet.cpu.simd import numpy_lanes

pytestmark = pytest.mark.usefixtures("poisoned")


SHAPES = [(), (7,), (0,), (3, 4), (2, 33, 7, 9), (0, 3, 4, 2), (300, 17, 2, 3), (2, 1, 3, 70), (3, 2, 1, 2, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_choice_of_dimensions(shape, rng):
    x = rng.standard_normal(shape)
    orders = {tuple(range(x.ndim)), tuple(reversed(range(x.ndim))), (0, *range(2, x.ndim), 1)[: x.ndim]}
    for order in orders:
        stored = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order)) if x.ndim else x
        for count in range(1, x.ndim + 1):
            for dims in itertools.combinations(range(x.ndim), count):
                for keepdim in (False, True):
                    out = ops.sum(stored, dims, keepdim)
                    expected = x.sum(axis=dims, keepdims=keepdim)
                    assert out.shape == expected.shape
                    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-12)


# (outer, reduced, inner): direct and blocked, narrow and wide, whole and cut rows, tiles of wide columns.
MATRICES = [
    (1, 40000, 1), (3, 33000, 1), (1, 12345, 3), (2, 500, 16), (1, 1000, 64), (3, 700, 100), (1, 300, 128),
    (2, 200, 129), (1, 150, 2100), (5, 129, 33), (1, 20001, 7), (70000, 2, 1), (2, 128, 65), (3, 227, 33), (2, 227, 65),
    (2, 203, 100), (2, 150, 520), (1, 131, 1030), (4, 50, 300), (3, 6, 21),
    (3, 1000, 1), (40, 131, 1), (2, 700, 256),
]  # fmt: skip


@pytest.mark.parametrize("sizes", MATRICES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks(sizes, dtype, rng, on_one_thread):
    x = rng.standard_normal(sizes).astype(dtype)
    out = ops.sum(x, 1)
    with dispatch.use("reference"):
        expected = ops.sum(x.astype(np.float64), 1)
    assert out.dtype == dtype
    assert np.abs(out - expected).max() <= (1e-5 if dtype == "float32" else 1e-13) * np.abs(x).sum(axis=1).max() / 100
    assert np.array_equal(on_one_thread(lambda: ops.sum(x, 1)), out)


def test_ten_million_numbers_keep_their_digits(rng):
    x = rng.random(10_000_000, dtype=np.float32)
    exact = float(np.sum(x, dtype=np.float64))
    assert abs(float(ops.sum(x)) - exact) <= 1e-7 * exact
    columns = ops.sum(x[:9_999_999].reshape(-1, 3), 0)
    np.testing.assert_allclose(columns, x[:9_999_999].reshape(-1, 3).sum(axis=0, dtype=np.float64), rtol=1e-7)


@pytest.mark.parametrize("shape", [(10_000_000,), (3_333_333, 3), (100_000, 70), (60_001, 130), (40_003, 200)], ids=str)
def test_equal_numbers_keep_their_digits(shape):
    for value in np.float32([0.1, 1 / 3, 1.1920928]):
        x = np.full(shape, value, np.float32)
        np.testing.assert_allclose(ops.sum(x, 0), float(value) * shape[0], rtol=3e-7)
        np.testing.assert_allclose(ops.mean(x), value, rtol=3e-7)


def test_layouts(rng):
    x = rng.standard_normal((6, 8, 10))
    read_only = x.copy()
    read_only.flags.writeable = False
    for view in (read_only, x[::-1, ::2, 1:], x.T, np.broadcast_to(x[:, :1], (6, 8, 10)), x[:, ::-1]):
        np.testing.assert_allclose(ops.sum(view, 1), view.sum(axis=1), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(ops.mean(view, (0, -1)), view.mean(axis=(0, 2)), rtol=1e-13, atol=1e-13)


def test_result_keeps_the_order_of_memory():
    x = memory.empty_channels_last((2, 3, 4, 5), np.float32)
    x[...] = 1
    assert ops.sum(x, 0).transpose(1, 2, 0).flags.c_contiguous


def test_all_dimensions():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for dim in (None, (), [0, 1], (-1, -2)):
        assert ops.sum(x, dim) == 15
        assert ops.mean(x, dim) == 2.5
    assert ops.sum(np.float32(3)) == 3
    assert ops.sum(np.array(3.0), -1) == 3


def test_empty_and_special():
    assert ops.sum(np.zeros((0, 3), np.float32), 0).tolist() == [0, 0, 0]
    assert np.isnan(ops.mean(np.zeros((0, 3), np.float32), 0)).all()
    assert ops.mean(np.zeros((0, 3), np.float32), 1).shape == (0,)
    for shape, dims in (((0, 2, 2), (0, 2)), ((2, 0, 3), (1, 2)), ((0, 2, 3, 4), (0, 3)), ((2, 3, 0), (0, 2))):
        empty = ops.mean(np.zeros(shape, np.float32), dims)
        assert empty.size and np.isnan(empty).all()
    assert np.isnan(ops.sum(np.array([np.inf, -np.inf], np.float32)))
    assert ops.sum(np.array([np.inf, 1], np.float32)) == np.inf


def test_integers_and_booleans():
    out = ops.sum(np.array([[True, False], [True, True]]), 0)
    assert out.dtype == np.int64
    assert out.tolist() == [2, 1]
    assert ops.sum(np.array([1, 2], np.int32)).dtype == np.int64


def test_refusals():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="dim .* got 2"):
        ops.sum(x, 2)
    with pytest.raises(ValueError, match="once"):
        ops.sum(x, (0, -2))
    with pytest.raises(TypeError, match="dim"):
        ops.sum(x, 1.0)
    with pytest.raises(TypeError, match="int64"):
        ops.mean(np.array([1, 2]))


@pytest.mark.parametrize("columns", [1, 3, 40, 300])
@pytest.mark.parametrize("rows", [8, 11, 100, 400])
@pytest.mark.parametrize("apart", ["neighbours", "quarters"])
def test_parts_that_overflow_where_sums_do_not(rows: int, columns: int, apart: str) -> None:
    step = 1 if apart == "neighbours" else rows // 4
    x = np.zeros((rows, columns), np.float32)
    x[[0, step]], x[[2 * step, 3 * step]] = 3e38, -3e38
    assert not ops.sum(x, 0).any() and not ops.mean(x, 0).any()
    x[3 * step, -1] = np.inf
    assert ops.sum(x, 0)[-1] == np.inf and not ops.sum(x, 0)[:-1].any()
    x[2 * step, 0] = np.nan
    assert np.isnan(ops.sum(x, 0)[0])


def test_parts_of_a_row_that_overflow_where_its_sum_does_not() -> None:
    x, w = np.zeros((3, 300), np.float32), numpy_lanes("float32")
    x[1, [0, w]], x[1, [2 * w, 3 * w]] = 3e38, -3e38
    assert not ops.sum(x, 1).any()
    x[1, 3 * w] = -np.inf
    assert ops.sum(x, 1).tolist() == [0, -np.inf, 0]
    x[1, 3 * w] = np.nan
    assert np.isnan(ops.sum(x, 1)).tolist() == [False, True, False]
