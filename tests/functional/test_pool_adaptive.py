"""Adaptive maximum pooling: kernels against the definition, gradients, edges."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck

CASES = [((2, 17, 7, 9), (3, 4)), ((1, 1, 1, 1), 1), ((2, 3, 4, 5), (7, 2)), ((3, 66, 5, 6), (None, 1)),
         ((0, 3, 4, 4), 2), ((16, 5, 5), (2, 5)), ((1, 33, 20, 20), 6)]  # fmt: skip


@pytest.mark.parametrize(("shape", "size"), CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_against_definition(shape, size, dtype, rng, poisoned):
    x = np.round(rng.standard_normal(shape) * 3).astype(dtype)  # with ties
    y, positions = ops.adaptive_max_pool2d(x, size)
    grad = rng.standard_normal(y.shape).astype(dtype)
    dx = ops.adaptive_max_pool2d_backward(grad, positions, shape)
    with nnet.use("reference"):
        want, places = ops.adaptive_max_pool2d(x, size)
        want_dx = ops.adaptive_max_pool2d_backward(grad, places, shape)
    assert np.array_equal(y, want) and np.array_equal(positions, places) and positions.dtype == np.int64
    np.testing.assert_allclose(dx, want_dx, atol=1e-5)


def test_gradients_and_nan(rng):
    gradcheck(lambda t: F.adaptive_max_pool2d(t, (3, 2)), rng.permutation(120).reshape(2, 3, 4, 5))
    x = np.zeros((1, 2, 2, 2))
    x[0, 0, 0, 1], x[0, 1] = np.nan, -np.inf
    y, at = F.adaptive_max_pool2d(nnet.tensor(x), 1, return_indices=True)
    assert np.isnan(y.data[0, 0, 0, 0]) and at.data.reshape(-1).tolist() == [1, 0] and y.data[0, 1, 0, 0] == -np.inf


def test_strides_threads_and_layer(rng):
    from numbanet.cpu.parallel import get_num_threads, set_num_threads

    x = rng.standard_normal((2, 6, 30, 40))[:, ::-1, :, ::2]
    x.flags.writeable = False
    threads, results = get_num_threads(), []
    for count, view in ((1, x), (threads, x.copy())):
        set_num_threads(count)
        y, at = nn.AdaptiveMaxPool2d((7, 5), return_indices=True)(nnet.Tensor(view))
        results.append((y.data, at.data, ops.adaptive_max_pool2d_backward(y.data, at.data, x.shape)))
    assert all(np.array_equal(a, b) for a, b in zip(*results))
    assert repr(nn.AdaptiveMaxPool2d((2, None))) == "AdaptiveMaxPool2d(output_size=(2, None))"


def test_refusals():
    x = nnet.tensor(np.zeros((1, 2, 3, 4)))
    for size, error in ((-1, ValueError), ((1, 2, 3), ValueError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="output_size"):
            F.adaptive_max_pool2d(x, size)
    with pytest.raises(ValueError, match="at least one"):
        F.adaptive_max_pool2d(x[:, :, :0], 1)
    with pytest.raises(ValueError, match="grad must have the shape"):
        ops.adaptive_max_pool2d_backward(np.zeros((1, 2, 1, 1)), np.zeros((1, 2, 2, 2), np.int64), (1, 2, 3, 4))


def test_a_gradient_of_other_images_is_refused():
    """It was read beyond its end."""
    for shape in ((7, 33, 7, 5), (1, 34, 7, 5), (33, 7, 5), (1, 1, 33, 7, 5)):
        with pytest.raises(ValueError, match="grad must have the samples and channels of input_shape|input_shape must"):
            ops.adaptive_max_pool2d_backward(np.ones((1, 33, 1, 1)), np.zeros((1, 33, 1, 1), np.int64), shape)


def test_positions_outside_the_image_are_refused(rng):
    x, grad = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((2, 3, 2, 2))
    _, positions = ops.adaptive_max_pool2d(x, 2)
    for wrong in (30, -1, 2**62, -(2**62)):
        changed = positions.copy()
        changed[1, 2, 1, 0] = wrong
        with pytest.raises(ValueError, match="positions"):
            ops.adaptive_max_pool2d_backward(grad, changed, x.shape)
    with pytest.raises(TypeError, match="positions"):
        ops.adaptive_max_pool2d_backward(grad, positions.astype(np.int32), x.shape)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 4, 5), (3, 4, 5)])
@pytest.mark.parametrize("size", [0, (0, 2), (2, 0)])
def test_no_pixels_have_no_gradient(shape, size):
    for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        x = nnet.tensor(np.ones(shape), requires_grad=True)
        y = pool(x, size)
        assert 0 in y.shape[-2:]
        with pytest.raises(ValueError, match="output_size must have pixels"):
            y.sum().backward()


def test_a_single_image_may_have_no_channels():
    for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        x = nnet.tensor(np.ones((0, 3, 3)), requires_grad=True)
        pool(x, 2).sum().backward()
        assert x.grad.shape == (0, 3, 3)
    with pytest.raises(ValueError, match="at least one channel"):
        F.adaptive_max_pool2d(x[None], 2)
