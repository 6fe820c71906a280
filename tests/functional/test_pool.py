"""Differentiable pooling: gradients against finite differences, and what is kept for them."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck


@pytest.fixture
def x(rng):
    """Different values, far enough apart for finite differences of maxima."""
    return rng.permutation(2 * 3 * 6 * 7).reshape(2, 3, 6, 7).astype(np.float64)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 1, "dilation": 2, "padding": 1},
        {"kernel_size": (2, 3), "stride": 2, "ceil_mode": True},
    ],
    ids=str,
)
def test_max_pool_gradient(x, options):
    gradcheck(lambda t: F.max_pool2d(t, **options), x, tolerance=1e-6)
    gradcheck(lambda t: F.max_pool2d(t, **options, return_indices=True)[0], x[0], tolerance=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
        {"kernel_size": (2, 3), "divisor_override": 4},
    ],
    ids=str,
)
def test_avg_pool_gradient(rng, options):
    x = rng.standard_normal((2, 3, 6, 7))
    gradcheck(lambda t: F.avg_pool2d(t, **options), x)
    gradcheck(lambda t: F.avg_pool2d(t, **options), x[0])


@pytest.mark.parametrize("size", [1, (2, 3), (None, 4), 9], ids=str)
def test_adaptive_avg_pool_gradient(rng, size):
    gradcheck(lambda t: F.adaptive_avg_pool2d(t, size), rng.standard_normal((2, 3, 5, 6)))


def test_empty_batch():
    x = nnet.tensor(np.zeros((0, 3, 6, 6), np.float32), requires_grad=True)
    y = F.adaptive_avg_pool2d(F.avg_pool2d(F.max_pool2d(x, 2), 2, 1), 1)
    assert y.shape == (0, 3, 1, 1)
    y.backward(np.zeros(y.shape, np.float32))
    assert x.grad.shape == x.shape


def test_no_offsets_without_gradients(x):
    t = nnet.tensor(x, requires_grad=True)
    assert F.max_pool2d(t, 2).requires_grad
    with nnet.no_grad():
        assert not F.max_pool2d(t, 2).requires_grad
    indices = F.max_pool2d(t, 2, return_indices=True)[1]
    assert indices.dtype == np.int64 and not indices.requires_grad


def test_layers(x):
    t = nnet.tensor(x)
    pairs = [
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), F.max_pool2d(t, 3, 2, 1, ceil_mode=True)),
        (nn.MaxPool2d(2, dilation=2), F.max_pool2d(t, 2, dilation=2)),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), F.avg_pool2d(t, 3, 2, 1, count_include_pad=False)),
        (nn.AvgPool2d(2, divisor_override=3), F.avg_pool2d(t, 2, divisor_override=3)),
        (nn.AdaptiveAvgPool2d((None, 2)), F.adaptive_avg_pool2d(t, (None, 2))),
    ]
    for layer, expected in pairs:
        np.testing.assert_array_equal(layer(t).data, expected.data)
    y, indices = nn.MaxPool2d(2, return_indices=True)(t)
    flat = x.reshape(2, 3, -1)
    np.testing.assert_array_equal(np.take_along_axis(flat, indices.data.reshape(2, 3, -1), 2), y.data.reshape(2, 3, -1))


def test_layer_repr():
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"
    assert repr(nn.AvgPool2d(3, 2, 1)) == "AvgPool2d(kernel_size=3, stride=2, padding=1)"
    assert repr(nn.AdaptiveAvgPool2d((1, None))) == "AdaptiveAvgPool2d(output_size=(1, None))"


@pytest.mark.parametrize("kernel", [2**31, (2**40, 2**40)])
def test_windows_far_beyond_the_image(kernel, rng):
    """In time that does not grow with the window."""
    x = rng.standard_normal((2, 3, 5, 4))
    y = ops.avg_pool2d(x, kernel, ceil_mode=True)
    np.testing.assert_allclose(y, x.mean((2, 3), keepdims=True))
    dx = ops.avg_pool2d_backward(np.ones(y.shape), x.shape, kernel, ceil_mode=True)
    np.testing.assert_allclose(dx, np.full(x.shape, 1 / 20))
