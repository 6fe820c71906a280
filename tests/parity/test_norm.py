"""Batch normalisation against torch: functions, gradients, layers over several steps, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn

SHAPES = [(4, 3), (2, 5, 9), (2, 3, 5, 7), (3, 64, 4, 4), (2, 130, 3, 3), (2, 1, 1, 1), (0, 3, 2, 2), (2, 3, 2, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", ["both", "weight", "bias", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_function(shape, training, affine, dtype, rng):
    channels = shape[1]
    x, grad = rng.standard_normal((2, *shape)).astype(dtype) * 2 + 1
    weight, bias, mean = rng.standard_normal((3, channels)).astype(dtype)
    var = (rng.random(channels) + 0.5).astype(dtype)
    given = [x, weight if affine in ("both", "weight") else None, bias if affine in ("both", "bias") else None]
    ours = [None if a is None else nnet.tensor(a, requires_grad=True) for a in given]
    theirs = [None if a is None else torch.tensor(a, requires_grad=True) for a in given]
    m, v, tm, tv = nnet.tensor(mean), nnet.tensor(var), torch.tensor(mean), torch.tensor(var)
    y = F.batch_norm(ours[0], m, v, ours[1], ours[2], training, 0.3, 1e-3)
    u = TF.batch_norm(theirs[0], tm, tv, theirs[1], theirs[2], training, 0.3, 1e-3)
    y.backward(grad)
    u.backward(torch.tensor(grad))
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    pairs = [(y.data, u.detach()), (m.data, tm), (v.data, tv)]
    pairs += [(a.grad.data, b.grad) for a, b in zip(ours, theirs) if a is not None]
    for found, right in pairs:
        np.testing.assert_allclose(found, right.numpy(), rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"bias": False}], ids=str)
def test_layers_over_several_steps(momentum, options, rng):
    layer = nn.BatchNorm2d(5, momentum=momentum, **options)
    other = torch.nn.BatchNorm2d(5, momentum=momentum, **options)
    assert repr(layer).startswith("BatchNorm2d(5, eps=1e-05, ")
    for training in (True, True, False, True):
        layer.train(training)
        other.train(training)
        x = rng.standard_normal((3, 5, 4, 4)).astype(np.float32)
        np.testing.assert_allclose(
            layer(nnet.tensor(x)).data, other(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-5
        )
        ours, theirs = layer.state_dict(), other.state_dict()
        assert list(ours) == list(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].numpy().dtype
            np.testing.assert_allclose(ours[name], theirs[name].numpy(), rtol=1e-5, atol=1e-6)


def test_a_large_mean_is_no_worse_than_torch(rng):
    x = (rng.standard_normal((16, 8, 30, 30)) + 3000).astype(np.float32)
    exact = TF.batch_norm(torch.tensor(x).double(), None, None, training=True).numpy()
    ours = F.batch_norm(nnet.tensor(x), None, None, training=True).data
    theirs = TF.batch_norm(torch.tensor(x), None, None, training=True).numpy()
    assert np.abs(ours - exact).max() <= np.abs(theirs - exact).max()


@pytest.mark.parametrize(
    ("shape", "training", "count"), [((1, 3, 1, 1), True, 3), ((1, 3), True, 3), ((2, 3), True, 2), ((2, 3), False, 0)]
)
def test_what_torch_refuses(shape, training, count):
    ours = nnet.tensor(np.ones(count, np.float32)) if count else None
    theirs = torch.ones(count) if count else None
    with pytest.raises((ValueError, RuntimeError)):
        TF.batch_norm(torch.ones(shape), theirs, theirs, training=training)
    with pytest.raises(ValueError):
        F.batch_norm(nnet.tensor(np.ones(shape, np.float32)), ours, ours, training=training)
