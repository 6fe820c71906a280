"""Softmax and log_softmax: both kernels against the definition, gradients, dimensions and orders, extreme values."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.dispatch import run
from numbanet.problem.softmax import SoftmaxProblem
from tests.gradcheck import gradcheck

# outer, length, inner: rows (inner 1) and columns, around multiples of the lanes, and more than one task
SIZES = [
    (0, 3, 1), (3, 0, 1), (1, 1, 1), (5, 10, 1), (2, 15, 1), (2, 16, 1), (2, 17, 1), (3, 33, 1), (40, 1000, 1),
    (0, 3, 5), (2, 0, 4), (2, 3, 0), (1, 1, 2), (2, 5, 15), (2, 4, 16), (1, 21, 17), (3, 3, 63), (2, 7, 129),
]  # fmt: skip


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 4e-15)])
def test_kernels_against_definition(log, dtype, tolerance, rng):
    for outer, length, inner in SIZES:
        shape = (outer, length, inner)
        x = (rng.standard_normal(shape) * 5).astype(dtype)
        grad = rng.standard_normal(shape).astype(dtype)
        forward = SoftmaxProblem("forward", dtype, log, *shape)
        backward = SoftmaxProblem("backward_input", dtype, log, *shape)
        y, dx = np.full(shape, np.nan, dtype), np.full(shape, np.nan, dtype)
        run(forward, (x,), (y,))
        run(backward, (grad, y), (dx,))
        wide, dwide = np.full(shape, np.nan), np.full(shape, np.nan)
        with nnet.use("reference"):
            run(SoftmaxProblem("forward", "float64", log, *shape), (x.astype(np.float64),), (wide,))
            run(SoftmaxProblem("backward_input", "float64", log, *shape), (grad.astype(np.float64), wide), (dwide,))
        scale = max(1.0, np.abs(dwide).max(initial=0))
        np.testing.assert_allclose(y, wide, rtol=4 * tolerance, atol=tolerance, err_msg=str(shape))
        np.testing.assert_allclose(dx, dwide, rtol=0, atol=4 * tolerance * scale, err_msg=str(shape))


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gradients(function, dim, rng):
    gradcheck(lambda t: function(t, dim), rng.standard_normal((3, 4, 5)))


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_every_dimension_of_every_memory_order(function, rng):
    base = rng.standard_normal((3, 4, 5, 6))
    views = {
        "channels last": np.ascontiguousarray(base.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "transposed": base.transpose(2, 0, 3, 1),
        "strided": base[:, ::2, 1:],
        "reversed": base[::-1, :, ::-1],
        "size 1": base[:, :1],
        "empty": base[:, :, :0],
    }
    for word, view in views.items():
        view.flags.writeable = False
        for dim in range(-4, 4):
            x, plain = (nnet.Tensor(a, requires_grad=True) for a in (view, np.array(view, order="C")))
            grad = rng.standard_normal(view.shape)
            y = function(x, dim)
            y.backward(grad)
            with nnet.use("reference"):
                want = function(plain, dim)
                want.backward(grad)
            np.testing.assert_allclose(y.data, want.data, rtol=1e-13, atol=1e-14, err_msg=f"{word}, dim {dim}")
            np.testing.assert_allclose(x.grad.data, plain.grad.data, rtol=0, atol=1e-13, err_msg=f"{word}, dim {dim}")
    channels_last = views["channels last"]
    assert function(nnet.Tensor(channels_last), 1).data.strides == channels_last.strides


@pytest.mark.parametrize("shape", [(3, 20), (3, 20, 2)])
def test_extreme_values(shape):
    x = np.zeros(shape, np.float32)
    x[0, 3] = 3e38
    x[1, :] = -3e38
    x[2, 4] = -np.inf
    y, z = F.softmax(nnet.tensor(x), 1).data, F.log_softmax(nnet.tensor(x), 1).data
    assert (y[0, 3] == 1).all() and y[0].sum() == np.prod(shape[2:], dtype=int)
    np.testing.assert_allclose(y[1], 1 / 20, rtol=1e-6)
    assert (y[2, 4] == 0).all() and (z[2, 4] == -np.inf).all()
    np.testing.assert_allclose(z[2, 5:], -np.log(19), rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(3, 20), (3, 20, 2)])
def test_nan_fills_its_row_and_no_other(poison, shape):
    x = np.zeros(shape, np.float32)
    x[1, 7] = poison
    for function in (F.softmax, F.log_softmax):
        y = function(nnet.tensor(x), 1).data
        assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()
    x[1] = -np.inf
    assert np.isnan(F.softmax(nnet.tensor(x), 1).data[1]).all()


def test_thread_count_does_not_matter(rng):
    threads = get_num_threads()
    x = nnet.tensor(rng.standard_normal((100, 999)).astype(np.float32))
    try:
        results = []
        for count in (1, threads):
            set_num_threads(count)
            results.append([F.softmax(x, dim).data for dim in (0, 1)])
    finally:
        set_num_threads(threads)
    assert all(np.array_equal(a, b) for a, b in zip(*results))


def test_scalar():
    assert F.softmax(nnet.tensor(3.0), 0).data.tolist() == 1
    assert F.log_softmax(nnet.tensor(3.0), -1).data.tolist() == 0


def test_dtype_converts_the_input_and_gradients_flow_back():
    x = nnet.tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = F.softmax(x, 0, dtype=np.float64)
    y.backward(np.array([1.0, 0.0]))
    assert y.dtype == np.float64 and x.grad.dtype == np.float32
    assert F.log_softmax(nnet.tensor([1, 2]), 0, dtype=np.float32).dtype == np.float32


def test_missing_dim_warns():
    x = nnet.tensor(np.arange(6.0).reshape(2, 3))
    with pytest.warns(UserWarning, match="dim"):
        y = F.softmax(x)
    assert np.array_equal(y.data, F.softmax(x, 1).data)


def test_bad_arguments():
    x = nnet.tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="dim must be between -2 and 1, got 2"):
        F.softmax(x, 2)
    with pytest.raises(TypeError, match="dim"):
        F.softmax(x, 1.0)
    with pytest.raises(TypeError, match="float32 or float64"):
        F.log_softmax(nnet.tensor([1, 2]), 0)
    with pytest.raises(ValueError, match="shape"):
        nnet.ops.softmax_backward(np.zeros((3, 2)), np.zeros((2, 3)), 1)


def test_layers(rng):
    x = nnet.tensor(rng.standard_normal((2, 3)))
    assert np.array_equal(nn.Softmax(dim=1)(x).data, F.softmax(x, 1).data)
    assert np.array_equal(nn.LogSoftmax(dim=0)(x).data, F.log_softmax(x, 0).data)
    assert repr(nn.Softmax(1)) == "Softmax(dim=1)" and repr(nn.LogSoftmax(-1)) == "LogSoftmax(dim=-1)"


def test_a_number_is_no_dtype():
    """As a word for a device it would name a GPU."""
    for function in (F.softmax, F.log_softmax):
        with pytest.raises(TypeError, match="dtype must be bool, an integer, float32 or float64, got 0"):
            function(nnet.tensor([1.0, 2.0]), 0, dtype=0)
