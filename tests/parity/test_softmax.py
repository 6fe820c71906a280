"""Softmax and log_softmax against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(10,), (4, 10), (0, 5), (2, 3, 4), (2, 21, 5, 6)])
def test_values_and_gradients(name, dtype, shape, rng):
    for dim in range(-len(shape), len(shape)):
        data = (rng.standard_normal(shape) * 5).astype(dtype)
        grad = rng.standard_normal(shape).astype(dtype)
        x, t = nnet.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
        y, u = getattr(F, name)(x, dim), getattr(TF, name)(t, dim)
        y.backward(grad)
        u.backward(torch.tensor(grad))
        tolerance = 2e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(y.data, u.detach().numpy(), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(x.grad.data, t.grad.numpy(), rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_implicit_dim(name, rng):
    for shape in [(), (5,), (2, 3), (2, 3, 4), (2, 3, 4, 5)]:
        data = np.asarray(rng.standard_normal(shape))
        with pytest.warns(UserWarning):
            y = getattr(F, name)(nnet.tensor(data))
        with pytest.warns(UserWarning):
            u = getattr(TF, name)(torch.tensor(data))
        np.testing.assert_allclose(y.data, u.numpy(), rtol=1e-14, atol=1e-15)


def test_special_rows():
    data = np.zeros((4, 6), np.float32)
    data[0, 2], data[1, 3], data[2, 4], data[3] = np.nan, np.inf, -np.inf, -np.inf
    for name in ("softmax", "log_softmax"):
        y, u = getattr(F, name)(nnet.tensor(data), 1), getattr(TF, name)(torch.tensor(data), 1)
        np.testing.assert_allclose(y.data, u.numpy(), rtol=1e-6)
