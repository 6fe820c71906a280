"""More than 2**31 elements: indices far into memory are right, and results that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from numbanet import Tensor, ops
from numbanet import functional as F
from tests.fuzz.guards import limited

SIZE = 2**31 + 11
STEP = 2**30  # elements; four of them lie 2**32 bytes apart and more


@pytest.fixture(scope="module")
def far() -> np.ndarray:
    """Eight gigabytes of addresses, of which a few pages are written: what is only read shares one page of zeros."""
    x = np.zeros(SIZE, np.float32)
    x[5], x[STEP + 2], x[2**31], x[-1] = 1, 2, -4, 8
    return x


REDUCTIONS: dict[str, tuple[Callable[[np.ndarray], Any], float]] = {
    "sum": (ops.sum, 7),
    "mean": (ops.mean, 7 / SIZE),
    "norm": (ops.vector_norm, 85**0.5),
    "mse_loss": (lambda x: ops.mse_loss(x, x[::-1][::-1], "sum"), 0),
    "adaptive_avg_pool2d": (lambda x: ops.adaptive_avg_pool2d(x[: 2**31 + 8].reshape(1, 1, -1, 8), 1), -1 / 2**31),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_all_elements(far: np.ndarray, name: str) -> None:
    function, expected = REDUCTIONS[name]
    np.testing.assert_allclose(function(far), expected, 1e-6)


def test_places_beyond_32_bits(far: np.ndarray) -> None:
    with pytest.warns(RuntimeWarning, match="no fast kernel takes ExtremumProblem"):
        values, places = ops.extremum(far, 0)
    assert (values, places) == (8, SIZE - 1)
    assert Tensor(far)[-1].item() == 8


VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "add": lambda x: ops.add(x, x),
    "exp": ops.exp,
    "relu": ops.relu,
    "where": lambda x: ops.where(x > 0, x, x),
    "clone": ops.clone,
    "contiguous": ops.contiguous,
    "reshape": lambda x: ops.reshape(x, (-1,)),
    "cat": lambda x: ops.cat([x, x], 1),
    "pad": lambda x: ops.pad(x, (1, 1)),
    "sum": lambda x: ops.sum(x, 0),
    "extremum": lambda x: ops.extremum(x, 0)[1],
    "softmax": lambda x: ops.softmax(x, 0),
    "log_softmax": lambda x: ops.log_softmax(x, 1),
    "cross_entropy": lambda x: ops.cross_entropy(x, np.arange(3)),
    "matmul": lambda x: ops.matmul(x, x.T),
    "linear": lambda x: ops.linear(x, x),
    "mse_loss": lambda x: ops.mse_loss(x, x + 1),
    "batch_norm": lambda x: ops.batch_norm(x, training=True),
    "layer_norm": lambda x: ops.layer_norm(x, (4,)),
    "max_pool2d": lambda x: ops.max_pool2d(x[None], 2),
    "avg_pool2d": lambda x: ops.avg_pool2d(x[None], 2),
    "conv2d": lambda x: ops.conv2d(x[None], np.ones((1, 1, 2, 2), np.float32)),
    "interpolate": lambda x: ops.interpolate(x[None, None], scale_factor=2),
    "var": lambda x: F.var(Tensor(x), 1).data,
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("backwards", [False, True])
def test_strides_beyond_32_bits(far: np.ndarray, name: str, backwards: bool) -> None:
    view = as_strided(far, (3, 4), (4 * STEP, 4 * 2))
    if backwards:
        view = view[::-1, ::-1]
    assert view.any(axis=1).sum() >= 2
    np.testing.assert_array_equal(VIEWS[name](view), VIEWS[name](view.copy()))


def test_a_convolution_of_a_large_image(far: np.ndarray) -> None:
    image = far[-(2**31) :].reshape(1, 1, 2**16, 2**15)
    out = ops.conv2d(image, np.ones((1, 1, 2, 2), np.float32), stride=(2**15 - 1 << 1, 2**14 - 1 << 1))
    assert out.shape == (1, 1, 2, 2)
    assert out[0, 0, -1, -1] == 8
    assert np.count_nonzero(out) == 1


REFUSED: dict[str, Callable[[np.ndarray], Any]] = {
    "add": lambda x: ops.add(x, 1),
    "relu": ops.relu,
    "exp": ops.exp,
    "clone": ops.clone,
    "cat": lambda x: ops.cat([x, x]),
    "pad": lambda x: ops.pad(x, (1, 1)),
    "softmax": lambda x: ops.softmax(x, 0),
    "sum": ops.sum,
    "cross_entropy": lambda x: ops.cross_entropy(x[None], np.array([7])),
    "batch_norm": lambda x: ops.batch_norm(x[None], training=False, running_mean=x, running_var=x),
    "matmul": lambda x: ops.matmul(x[:, None], x[None, :5]),
    "outer product": lambda x: ops.matmul(x[: 2**16, None], x[None, : 2**16]),
    "conv2d": lambda x: ops.conv2d(x[None, None, None], np.ones((1, 1, 1, 1), np.float32)),
    "max_pool2d": lambda x: ops.max_pool2d(x[None, None], 1),
    "interpolate": lambda x: ops.interpolate(x[None, None, :2, None], size=(2**16, 2**16)),
    "dropout": lambda x: F.dropout(Tensor(x)).data,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    x = np.broadcast_to(np.float32(1), SIZE)  # on the memory of one element
    with limited(), pytest.raises(MemoryError):
        REFUSED[name](x)


def test_integers_of_one_element() -> None:
    assert ops.sum(np.broadcast_to(np.int8(3), SIZE)) == 3 * SIZE
