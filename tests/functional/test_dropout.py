"""Dropout: the kernel against the definition, its statistics, the backward mask, states, inplace, channels."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from tests.gradcheck import gradcheck


@pytest.fixture(autouse=True)
def seeded():
    """Give each test the same stream, and put the default generator back."""
    state = nnet.random.get_state()
    nnet.manual_seed(42)
    yield
    nnet.random.set_state(state)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_kernel_against_definition(dtype, p, rng):
    for size in (0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 1000, 40_000):
        x = rng.standard_normal(size).astype(dtype)
        for draw in ((0, 0), (2**64 - 1, 2**64 - 1), (123456789, 2**33 + 5)):
            with nnet.use("reference"):
                want = ops.dropout(x, p, draw)
            np.testing.assert_allclose(ops.dropout(x, p, draw), want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flags_and_backward_against_definition(dtype, rng):
    from numbanet.ops.dropout import dropout_backward, dropout_flags

    key = np.array([7, 2**40 + 3], np.uint64)
    for size in (0, 1, 5, 8, 17, 33, 64, 65, 1000, 40_000):
        x, grad = rng.standard_normal(size).astype(dtype), rng.standard_normal(size).astype(dtype)
        grad[:1] = np.inf  # times zero is NaN
        with nnet.use("reference"):
            want, dropped = dropout_flags(x, 0.3, key)
            want_back = dropout_backward(grad, 0.3, dropped, (0,))
        y, flags = dropout_flags(x, 0.3, key)
        np.testing.assert_array_equal(flags, dropped)
        np.testing.assert_allclose(y, want, rtol=1e-6)
        np.testing.assert_array_equal(y, ops.dropout(x, 0.3, key))
        np.testing.assert_allclose(dropout_backward(grad, 0.3, flags, (0,)), want_back, rtol=1e-6)


def test_every_element_is_written_and_nothing_beyond(rng):
    from numbanet.dispatch import run
    from numbanet.problem.dropout import DropoutProblem

    for size in (1, 17, 100):
        buffer = np.full(size + 32, np.nan, np.float32)
        key = np.array([1, 2], np.uint64)
        run(DropoutProblem("forward", "float32", size, 0.5), (np.ones(size, np.float32), key), (buffer[:size],))
        assert np.isin(buffer[:size], [0, 2]).all() and np.isnan(buffer[size:]).all()


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_statistics(p):
    size = 400_000
    y = F.dropout(nnet.tensor(np.ones(size, np.float32)), p).data
    kept = y != 0
    deviation = np.sqrt(p * (1 - p) / size)
    assert abs(kept.mean() - (1 - p)) < 5 * deviation
    np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=1e-6)
    neighbours = (kept[1:] & kept[:-1]).mean()
    assert abs(neighbours - (1 - p) ** 2) < 10 * deviation


def test_draws_differ_and_states_repeat():
    x = nnet.tensor(np.ones(200))
    first, state = F.dropout(x).data, nnet.random.get_state()
    second = F.dropout(x).data
    assert not np.array_equal(first, second)
    nnet.random.set_state(state)
    assert np.array_equal(F.dropout(x).data, second)
    nnet.manual_seed(42)
    assert np.array_equal(F.dropout(x).data, first)
    nnet.manual_seed(43)
    assert not np.array_equal(F.dropout(x).data, first)


def test_thread_count_does_not_matter():
    threads = get_num_threads()
    x = np.ones(100_003, np.float32)
    try:
        results = []
        for count in (1, threads):
            set_num_threads(count)
            results.append(ops.dropout(x, 0.4, (5, 6)))
    finally:
        set_num_threads(threads)
    assert np.array_equal(*results)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 0, 2, 1)])
def test_gradient_has_the_mask_of_the_result(order, rng):
    inverse = np.argsort(order)
    data = np.ascontiguousarray(rng.uniform(1, 2, (2, 3, 4, 5)).transpose(order)).transpose(inverse)
    x = nnet.Tensor(data, requires_grad=True)
    y = F.dropout(x, 0.5)
    grad = rng.uniform(1, 2, data.shape)  # in row-major order, whatever that of the data is
    y.backward(grad)
    assert np.array_equal(x.grad.data, np.where(y.data != 0, 2 * grad, 0))
    assert y.data.strides == data.strides


def test_gradients(rng):
    def seeded_dropout(function, p):
        def call(t):
            nnet.manual_seed(1)
            return function(t, p)

        return call

    gradcheck(seeded_dropout(F.dropout, 0.3), rng.standard_normal((5, 7)))
    gradcheck(seeded_dropout(F.dropout2d, 0.3), rng.standard_normal((2, 5, 2, 2)))


def test_views_and_scalars(rng):
    base = rng.uniform(1, 2, (6, 8))
    for view in (base[::-1, ::2], base.T, base[:, :0], np.asarray(base[0, 0])):
        view.flags.writeable = False
        y = F.dropout(nnet.Tensor(view), 0.5).data
        assert y.shape == view.shape and (np.isclose(y, 2 * view) | (y == 0)).all()


def test_evaluation_and_zero_probability_return_the_input_and_draw_nothing():
    x = nnet.tensor(np.ones(3))
    state = nnet.random.get_state()
    channels = x.reshape(3, 1, 1, 1)
    assert F.dropout(x, 0.5, training=False) is x and F.dropout(x, 0) is x and F.dropout2d(channels, 0.0) is channels
    assert np.array_equal(state, nnet.random.get_state())


def test_probability_one_gives_zeros_and_keeps_nan_visible():
    x = nnet.tensor(np.array([1.0, -2.0, np.nan, np.inf]), requires_grad=True)
    y = F.dropout(x, 1)
    assert y.data[:2].tolist() == [0, 0] and np.isnan(y.data[2:]).all()
    y.backward(np.ones(4))
    assert x.grad.data.tolist() == [0, 0, 0, 0]


def test_inplace(rng):
    leaf = nnet.tensor(rng.uniform(1, 2, 50), requires_grad=True)
    x = leaf * 1.0
    assert F.dropout(x, 0.5, inplace=True) is x
    x.sum().backward()
    assert np.array_equal(leaf.grad.data, np.where(x.data != 0, 2, 0))


def test_channels_are_dropped_whole(rng):
    x = nnet.tensor(rng.uniform(1, 2, (4, 50, 3, 3)))
    y = F.dropout2d(x, 0.5).data
    kept = (y != 0).all(axis=(2, 3))
    assert (kept | (y == 0).all(axis=(2, 3))).all() and 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(y, 2 * x.data * kept[:, :, None, None])
    with pytest.warns(UserWarning, match=r"\(4, 50\)"):
        F.dropout2d(nnet.tensor(np.ones((4, 50))))


def test_bad_arguments():
    x = nnet.tensor(np.ones(3))
    for p, error in ((1.5, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("a", TypeError)):
        for function in (F.dropout, F.dropout2d, lambda _, q: nn.Dropout(q)):
            with pytest.raises(error, match="p must be"):
                function(x, p)
    with pytest.raises(ValueError, match="input must have shape"):
        F.dropout2d(x)
    with pytest.raises(TypeError, match="float32 or float64"):
        F.dropout(nnet.tensor([1, 2]))


def test_layers():
    x = nnet.tensor(np.ones((2, 3, 4, 4)))
    layer = nn.Dropout(0.25)
    y = layer(x).data
    nnet.manual_seed(42)
    assert np.array_equal(y, F.dropout(x, 0.25).data)
    assert layer.eval()(x) is x
    assert repr(layer) == "Dropout(p=0.25, inplace=False)" and repr(nn.Dropout2d()) == "Dropout2d(p=0.5, inplace=False)"
    assert (nn.Dropout2d(0.5)(x).data.std(axis=(2, 3)) == 0).all()


@pytest.mark.filterwarnings("ignore:dropout2d:UserWarning")
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0)])
def test_channels_of_what_has_none(shape):
    x = nnet.tensor(np.ones(shape, np.float32), requires_grad=True)
    assert F.dropout2d(x, 0.5, training=False) is x and F.dropout2d(x, 0.0) is x
    gone = F.dropout2d(x, 1.0)
    gone.sum().backward()
    assert gone.shape == x.grad.shape == shape and not gone.data.any() and not x.grad.data.any()
    if x.data.size:
        with pytest.raises(ValueError, match=r"input must have shape \(N, C, ...\)"):
            F.dropout2d(x, 0.5)
    else:
        assert F.dropout2d(x, 0.5) is x
    integers = nnet.tensor([1, 2])
    assert nn.Dropout2d().eval()(integers) is integers
