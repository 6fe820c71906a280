"""Gradients of convolution against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from tests.gradcheck import gradcheck

OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same", "dilation": 2},
    {"padding": ((1, 0), (0, 2)), "stride": (1, 2)},
    {"groups": 2, "padding": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_gradients(options, batched, rng):
    groups = options.get("groups", 1)
    x = rng.standard_normal((2, 4, 5, 6) if batched else (4, 5, 6))
    weight, bias = rng.standard_normal((4, 4 // groups, 3, 2)), rng.standard_normal(4)
    gradcheck(lambda *t: nnet.functional.conv2d(*t, **options), x, weight, bias)


def test_depthwise_gradients(rng):
    x, weight = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((3, 1, 3, 3))
    gradcheck(lambda *t: nnet.functional.conv2d(*t, stride=2, padding=1, groups=3), x, weight)


def test_only_what_is_needed_gets_a_gradient(rng):
    x = nnet.tensor(rng.standard_normal((1, 3, 5, 5)))
    weight = nnet.tensor(rng.standard_normal((2, 3, 3, 3)), requires_grad=True)
    nnet.functional.conv2d(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None


def test_gradients_of_weights_lie_in_the_memory_order_of_weights(rng):
    x = nnet.tensor(rng.standard_normal((2, 5, 6, 6)))
    weight = nnet.tensor(np.ones((4, 3, 3, 5)).transpose(0, 3, 1, 2), requires_grad=True)
    nnet.functional.conv2d(x, weight).sum().backward()
    assert weight.grad.data.transpose(0, 2, 3, 1).flags.c_contiguous
