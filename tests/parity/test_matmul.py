"""Matrix products and linear, with gradients, against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import numbanet as nnet
from tests.functional.test_matmul import SHAPES


@pytest.mark.parametrize(("a", "b"), [*SHAPES, ((0, 3, 4), (4, 2)), ((3, 0), (0, 4)), ((200, 70), (70, 90))])
def test_matmul(a, b, rng):
    arrays = rng.standard_normal(a), rng.standard_normal(b)
    check(nnet.functional.matmul, torch.matmul, arrays, rng)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4)])
@pytest.mark.parametrize(("weight", "bias"), [((5, 4), True), ((5, 4), False), ((4,), False)])
def test_linear(shape, weight, bias, rng):
    arrays = rng.standard_normal(shape), rng.standard_normal(weight)
    if bias:
        arrays += (rng.standard_normal(weight[:-1]),)
    check(nnet.functional.linear, torch.nn.functional.linear, arrays, rng)


@pytest.mark.parametrize("bias", [(), (1,), (1, 5), (3, 1), (3, 5)])
def test_linear_bias_broadcasts(bias, rng):
    arrays = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(bias)
    check(nnet.functional.linear, torch.nn.functional.linear, arrays, rng)


def check(ours, theirs, arrays, rng):
    mine = [nnet.tensor(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*mine), theirs(*other)
    assert y.shape == tuple(expected.shape)
    np.testing.assert_allclose(y.data, expected.detach().numpy(), atol=1e-11)
    grad = rng.standard_normal(y.shape)
    y.backward(grad)
    expected.backward(torch.tensor(grad))
    for a, b in zip(mine, other):
        np.testing.assert_allclose(a.grad.data, b.grad.numpy(), atol=1e-11)
