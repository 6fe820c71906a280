"""Activations against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F

PAIRS = {
    "relu": (F.relu, TF.relu),
    "leaky_relu": (F.leaky_relu, TF.leaky_relu),
    "leaky_relu -0.3": (lambda x: F.leaky_relu(x, -0.3), lambda x: TF.leaky_relu(x, -0.3)),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "tanh": (F.tanh, torch.tanh),
    "gelu": (F.gelu, TF.gelu),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda x: TF.gelu(x, approximate="tanh")),
    "silu": (F.silu, TF.silu),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (17,), (2, 3, 5, 7)])
def test_values_and_gradients(name, dtype, shape, rng):
    ours, theirs = PAIRS[name]
    data = np.asarray(rng.standard_normal(shape) * 3, dtype)
    grad = np.asarray(rng.standard_normal(shape), dtype)
    x, t = nnet.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    y, u = ours(x), theirs(t)
    y.backward(grad)
    u.backward(torch.tensor(grad))
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(y.data, u.detach().numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(x.grad.data, t.grad.numpy(), rtol=tolerance, atol=3 * tolerance)


@pytest.mark.parametrize("name", PAIRS)
def test_special_values(name):
    ours, theirs = PAIRS[name]
    data = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 100.0, -100.0], np.float32)
    if name == "gelu":
        data[1] = 1e30  # torch's vectorised erf has NaN at infinity
    y = ours(nnet.tensor(data)).data
    np.testing.assert_allclose(y, theirs(torch.tensor(data)).numpy(), rtol=1e-6, atol=1e-37)
