"""Batch normalisation layers: state, modes, and running averages."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn


def test_state_has_torch_names_and_dtypes():
    state = nn.BatchNorm2d(3).state_dict()
    assert {name: (value.shape, value.dtype.name) for name, value in state.items()} == {
        "weight": ((3,), "float32"),
        "bias": ((3,), "float32"),
        "running_mean": ((3,), "float32"),
        "running_var": ((3,), "float32"),
        "num_batches_tracked": ((), "int64"),
    }
    assert list(nn.BatchNorm1d(3, affine=False).state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.BatchNorm1d(3, track_running_stats=False, bias=False).state_dict()) == ["weight"]
    assert nn.BatchNorm2d(3).double().state_dict()["num_batches_tracked"].dtype == np.int64


def test_running_averages(rng):
    layer = nn.BatchNorm1d(4, momentum=0.25, dtype=np.float64)
    x = rng.standard_normal((10, 4))
    layer(nnet.tensor(x))
    np.testing.assert_allclose(layer.running_mean.data, 0.25 * x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(layer.running_var.data, 0.75 + 0.25 * x.var(axis=0, ddof=1), rtol=1e-13)
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    y = layer(nnet.tensor(x))
    assert layer.num_batches_tracked.item() == 1
    np.testing.assert_allclose(
        y.data, (x - layer.running_mean.data) / np.sqrt(layer.running_var.data + 1e-5), rtol=1e-12, atol=1e-13
    )
    layer.reset_parameters()
    assert layer.running_mean.tolist() == [0] * 4
    assert layer.num_batches_tracked.item() == 0


def test_without_momentum_all_batches_count_alike(rng):
    layer = nn.BatchNorm1d(2, momentum=None, dtype=np.float64)
    batches = rng.standard_normal((5, 7, 2))
    for batch in batches:
        layer(nnet.tensor(batch))
    np.testing.assert_allclose(layer.running_mean.data, batches.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.data, batches.var(axis=1, ddof=1).mean(axis=0), rtol=1e-12)


def test_without_tracking_the_batch_counts_in_both_modes(rng):
    layer = nn.BatchNorm2d(2, track_running_stats=False)
    x = nnet.tensor(rng.standard_normal((3, 2, 4, 4)).astype(np.float32))
    assert np.array_equal(layer(x).data, layer.eval()(x).data)


def test_dimensions():
    with pytest.raises(ValueError, match="4 dimensions"):
        nn.BatchNorm2d(3)(nnet.tensor(np.ones((2, 3))))
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        nn.BatchNorm1d(3)(nnet.tensor(np.ones((2, 3, 1, 1))))
    x = nnet.tensor(np.zeros((2, 16, 4, 4), np.float32))
    for layer, argument in ((nn.BatchNorm2d(32), "num_features"), (nn.GroupNorm(4, 32), "num_channels")):
        with pytest.raises(ValueError, match=rf"^input must have 32 channels, .*{argument}.*, got 16 in shape \(2,"):
            layer(x)
    one = nnet.tensor(np.zeros(16, np.float32))
    with pytest.raises(ValueError, match=r"weight must have shape \(16,\), one number a channel of input, got \(32,\)"):
        F.batch_norm(x, one, one, nnet.tensor(np.zeros(32, np.float32)))
    with pytest.raises(TypeError, match="num_features"):
        nn.BatchNorm2d(2.5)


def test_repr():
    text = "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
    assert repr(nn.BatchNorm2d(3)) == text
