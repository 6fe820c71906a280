"""Gradients of sums and means against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from tests.gradcheck import gradcheck


@pytest.mark.parametrize("function", [F.sum, F.mean])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (1, -1), ()])
@pytest.mark.parametrize("keepdim", [False, True])
def test_gradients(function, dim, keepdim, rng):
    gradcheck(lambda x: function(x, dim, keepdim), rng.standard_normal((2, 3, 4)))
    gradcheck(lambda x: function(x * x, dim, keepdim), rng.standard_normal((2, 4, 3)).transpose(0, 2, 1))


def test_methods_and_empty(rng):
    x = nnet.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    assert x.sum().item() == 6
    assert x.mean(1, keepdim=True).shape == (2, 1)
    assert nnet.tensor([True, True]).sum().item() == 2
    empty = nnet.tensor(np.ones((0, 3)), requires_grad=True)
    empty.sum().backward()
    assert empty.grad.shape == (0, 3)
