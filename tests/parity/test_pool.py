"""Pooling against PyTorch: values, indices, gradients and refusals over a grid of shapes and options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F

SIZES = [(1, 1), (4, 5), (7, 7), (11, 6)]
KERNELS = [1, 2, 3, (2, 3)]
STRIDES = [None, 1, 2, (3, 2)]
PADDINGS = [0, 1, (1, 0)]


def outcome(function, data, grad_seed=0, **options):
    """Return value and gradient (and indices) as arrays, or None where the arguments are refused."""
    tensor = data if isinstance(data, torch.Tensor) else nnet.tensor(data)
    tensor = tensor.requires_grad_(True)
    try:
        result = function(tensor, **options)
    except (RuntimeError, ValueError, IndexError):
        return None
    y, *rest = result if isinstance(result, tuple) else (result,)
    found = [y.detach().numpy(), *(indices.numpy() for indices in rest)]
    if found[0].size:  # PyTorch has no gradient for results without elements
        grad = np.random.default_rng(grad_seed).standard_normal(tuple(y.shape))
        y.backward(torch.tensor(grad) if isinstance(y, torch.Tensor) else grad)
        found.append(tensor.grad.numpy())
    return found


def compare(ours, theirs, data, **options):
    mine, other = outcome(ours, data, **options), outcome(theirs, torch.tensor(data), **options)
    assert (mine is None) == (other is None), f"{options} on {data.shape}: only one of the two refuses"
    for a, b in zip(mine or (), other or ()):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=f"{options} on {data.shape}")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool(size, ceil_mode, rng):
    data = rng.integers(-3, 4, (2, 5, *size)).astype(np.float64)
    for kernel, stride, padding, dilation in itertools.product(KERNELS, STRIDES, PADDINGS, [1, 2, (1, 3)]):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        if misses_the_input(size, kernel, padding, dilation):
            continue
        compare(F.max_pool2d, TF.max_pool2d, data, kernel_size=kernel, return_indices=True, **options)


def misses_the_input(size, kernel, padding, dilation):
    """PyTorch writes out of bounds where a dilated window lies in the padding altogether."""
    pairs = [v if isinstance(v, tuple) else (v, v) for v in (padding, dilation)]
    return any(pad and gap > 1 and n < gap for n, pad, gap in zip(size, *pairs))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_avg_pool(size, ceil_mode, rng):
    data = rng.standard_normal((2, 5, *size))
    for kernel, stride, padding, include, divisor in itertools.product(
        KERNELS, STRIDES, PADDINGS, [True, False], [None, 3]
    ):
        options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        options |= {"count_include_pad": include, "divisor_override": divisor}
        compare(F.avg_pool2d, TF.avg_pool2d, data, kernel_size=kernel, **options)


@pytest.mark.parametrize("shape", [(2, 5, 1, 1), (2, 17, 7, 6), (5, 7, 6), (0, 3, 4, 4), (2, 0, 4, 4)], ids=str)
@pytest.mark.parametrize("output", [1, 2, (3, 5), (None, 2), (4, None), (9, 10), 0, -1], ids=str)
def test_adaptive_avg_pool(shape, output, rng):
    compare(F.adaptive_avg_pool2d, TF.adaptive_avg_pool2d, rng.standard_normal(shape), output_size=output)


@pytest.mark.parametrize("shape", [(3, 6, 7), (0, 3, 6, 7), (2, 0, 6, 7), (2, 3, 0, 7), (0, 6, 7), (6, 7)], ids=str)
def test_shapes(shape, rng):
    data = rng.standard_normal(shape)
    compare(F.max_pool2d, TF.max_pool2d, data, kernel_size=2, return_indices=True)
    compare(F.avg_pool2d, TF.avg_pool2d, data, kernel_size=2)


def test_non_finite_values(rng):
    data = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0], (4, 20, 9, 9), p=[0.1, 0.1, 0.5, 0.2, 0.1])
    compare(F.max_pool2d, TF.max_pool2d, data, kernel_size=3, stride=2, padding=1, return_indices=True)
    compare(F.avg_pool2d, TF.avg_pool2d, data, kernel_size=2)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 0},
        {"kernel_size": 2, "stride": 0},
        {"kernel_size": 2, "padding": 2},
        {"kernel_size": 2, "padding": -1},
        {"kernel_size": 9},
        {"kernel_size": (2, 2, 2)},
        {"kernel_size": (2,), "stride": (1,), "padding": (1,)},
        {"kernel_size": 2, "stride": []},
    ],
    ids=str,
)
def test_arguments(options, rng):
    data = rng.standard_normal((1, 2, 6, 6))
    compare(F.max_pool2d, TF.max_pool2d, data, **options)
    compare(F.avg_pool2d, TF.avg_pool2d, data, **options)
