"""Convolution, forward and both gradients, against PyTorch in float64: the table of cases and a grid of options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import numbanet as nnet
from tests.cases import CONV_CASES, ConvCase, operands


def compare(case: ConvCase, rng: np.random.Generator, with_bias: bool = True) -> None:
    x, weight, bias = operands(case, rng)
    ours = [nnet.tensor(a, requires_grad=True) for a in (x, weight, bias)[: 2 + with_bias]]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)[: 2 + with_bias]]
    y = nnet.functional.conv2d(*ours, **({} if with_bias else {"bias": None}), **case.options)
    expected = torch.nn.functional.conv2d(*theirs, **case.options)
    value = expected.detach().numpy()
    np.testing.assert_allclose(y.data, value, rtol=0, atol=1e-10 * np.abs(value).max())
    grad = rng.standard_normal(y.shape)
    y.backward(grad)
    expected.backward(torch.tensor(grad))
    for our, their in zip(ours, theirs):
        reference = their.grad.numpy()
        np.testing.assert_allclose(our.grad.data, reference, rtol=0, atol=1e-10 * max(1, np.abs(reference).max()))


def torch_has(case: ConvCase) -> bool:
    asymmetric = isinstance(case.padding, tuple) and isinstance(case.padding[0], tuple)
    return not asymmetric and case.padding != "same_upper"


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", [c for c in CONV_CASES if torch_has(c)], ids=str)
def test_cases(case, rng):
    compare(case, rng)


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
def test_options(stride, padding, dilation, rng):
    for size, filter_size, (c, k, groups) in itertools.product(
        [(9, 8), (7, 11)], [(1, 1), (2, 3), (3, 3)], [(3, 5, 1), (4, 8, 4), (6, 6, 6), (18, 34, 2)]
    ):
        case = ConvCase("grid", 2, c, *size, k, *filter_size, stride, padding, dilation, groups)
        compare(case, rng, with_bias=groups == 1)


REFUSED = [
    {"stride": 0},
    {"padding": -1},
    {"dilation": 0},
    {"groups": 3},
    {"groups": 0},
    {"padding": "same", "stride": 2},
    {"padding": "full"},
    {"dilation": 9},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_what_torch_refuses_is_refused(options):
    x, weight = np.zeros((1, 4, 6, 6)), np.zeros((6, 4, 3, 3))
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), **options)
    with pytest.raises((ValueError, TypeError)):
        nnet.functional.conv2d(nnet.tensor(x), nnet.tensor(weight), **options)


ACCEPTED = [{"stride": [2]}, {"padding": [1]}, {"dilation": (2,)}, {"stride": [1, 2], "padding": [0, 1]}]


@pytest.mark.parametrize("options", ACCEPTED, ids=str)
def test_what_torch_accepts_is_answered(options, rng):
    x, weight = rng.standard_normal((4, 9, 9)), rng.standard_normal((6, 4, 3, 3))
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), **options).numpy()
    np.testing.assert_allclose(nnet.ops.conv2d(x, weight, **options), expected, atol=1e-12)
