"""Local response normalisation: kernels against the definition, gradients, edges."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck

OPTIONS = [(5,), (1, 0.5), (2, 0.3, 0.5), (4, 1e-2, 0.75, 2.0), (9, 0.1, 1.5, 0.5)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_kernels_against_definition(options, dtype, tolerance, rng):
    for shape in [(2, 17, 3, 5), (1, 1, 2, 2), (2, 3, 4), (1, 16, 70, 30), (1, 33, 1, 1), (0, 4, 2, 2)]:
        x, grad = (rng.standard_normal(shape).astype(dtype) * 3 for _ in range(2))
        y, dx = ops.local_response_norm(x, *options), ops.local_response_norm_backward(grad, x, *options)
        wide = x.astype(np.float64), grad.astype(np.float64)
        with nnet.use("reference"):
            want = ops.local_response_norm(wide[0], *options)
            want_dx = ops.local_response_norm_backward(wide[1], wide[0], *options)
        assert y.dtype == dtype and y.shape == shape
        for got, right in ((y, want), (dx, want_dx)):
            assert np.abs(got - right).max(initial=0) <= tolerance * np.abs(right).max(initial=1)


def test_by_hand():
    x = np.arange(1.0, 5.0).reshape(1, 4, 1)
    y = ops.local_response_norm(x, 3, 3.0, 1.0, 1.0)
    assert np.allclose(y[0, :, 0], [1 / 6, 2 / 15, 3 / 30, 4 / 26])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients(options, rng):
    gradcheck(lambda t: F.local_response_norm(t, *options), rng.standard_normal((2, 6, 2, 2)))


def test_any_strides(rng):
    x = rng.standard_normal((2, 6, 4, 5))[:, ::-1, :, ::2]
    x.flags.writeable = False
    assert np.array_equal(ops.local_response_norm(x, 3), ops.local_response_norm(x.copy(), 3))


def test_thread_count_does_not_matter(rng):
    from numbanet.cpu.parallel import get_num_threads, set_num_threads

    x, threads, results = rng.standard_normal((4, 24, 40, 40)).astype(np.float32), get_num_threads(), []
    for count in (1, threads):
        set_num_threads(count)
        results.append(ops.local_response_norm_backward(x, x, 5))
    assert np.array_equal(*results)


def test_refusals_and_layer(rng):
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        ops.local_response_norm(np.zeros((2, 3)), 3)
    with pytest.raises(ValueError, match="size must be at least 1"):
        ops.local_response_norm(np.zeros((2, 3, 4)), 0)
    with pytest.raises(TypeError, match="float32 or float64"):
        ops.local_response_norm(np.zeros((2, 3, 4), int), 3)
    with pytest.raises(TypeError, match="beta must be a number"):
        ops.local_response_norm(np.zeros((2, 3, 4)), 3, beta="x")
    layer, x = nn.LocalResponseNorm(5, 1e-3), nnet.tensor(rng.standard_normal((1, 7, 2, 2)))
    assert repr(layer) == "LocalResponseNorm(5, alpha=0.001, beta=0.75, k=1.0)"
    assert np.array_equal(layer(x).data, ops.local_response_norm(x.data, 5, 1e-3))
