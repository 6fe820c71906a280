"""Options that Keras users reach for: inferred channels, activations by name, channels last."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn


def test_lazy_layers_become_ordinary_ones(rng):
    x = nnet.tensor(rng.standard_normal((2, 6, 5, 5)).astype(np.float32))
    model = nn.Sequential(
        nn.LazyConv2d(4, 3, groups=2, generator=np.random.default_rng(1)), nn.Flatten(),
        nn.LazyLinear(3, generator=np.random.default_rng(2)),
    )  # fmt: skip
    assert repr(model[0]) == "LazyConv2d(0, 4, kernel_size=(3, 3), stride=(1, 1), groups=2)"
    assert [name for name, _ in model.named_parameters()] == ["0.bias", "2.bias"]
    model.eval()
    seen = []
    model[0].register_forward_hook(lambda module, args, result: seen.append(result.shape))
    y = model(x)
    assert type(model[0]) is nn.Conv2d and type(model[2]) is nn.Linear and not model[0].training
    conv = nn.Conv2d(6, 4, 3, groups=2, generator=np.random.default_rng(1))
    linear = nn.Linear(36, 3, generator=np.random.default_rng(2))
    assert np.array_equal(y.data, linear(F.flatten(conv(x), 1)).data)
    assert seen == [(2, 4, 3, 3)] and repr(model[0]) == repr(conv) and model[2].in_features == 36
    assert np.array_equal(model(x).data, y.data)


def test_lazy_layers_draw_nothing_before_the_first_call():
    nnet.manual_seed(3)
    nn.LazyConv2d(4, 3)
    first = nn.Linear(2, 2).weight.data.copy()
    nnet.manual_seed(3)
    assert np.array_equal(first, nn.Linear(2, 2).weight.data)


@pytest.mark.parametrize("name", ["relu", "gelu", "sigmoid", "hardswish"])
def test_activation_by_name(name, rng):
    x = nnet.tensor(rng.standard_normal((2, 3, 4, 4)).astype(np.float32))
    conv = nn.Conv2d(3, 4, 3, activation=name)
    assert np.array_equal(conv(x).data, getattr(F, name)(F.conv2d(x, conv.weight, conv.bias)).data)
    assert repr(conv).endswith(f", activation={name})")
    linear = nn.Linear(4, 5, activation=name)
    assert np.array_equal(linear(x).data, getattr(F, name)(F.linear(x, linear.weight, linear.bias)).data)
    same = nn.Linear(4, 5, activation=getattr(F, name))
    same.load_state_dict(linear.state_dict())
    assert np.array_equal(linear(x).data, same(x).data)


@pytest.mark.parametrize(
    "options", [{}, {"padding": "same_upper", "stride": 2}, {"padding": 1, "padding_mode": "reflect"}], ids=str
)
def test_channels_last(options, rng):
    x = rng.standard_normal((2, 5, 6, 3)).astype(np.float32)
    last = nn.Conv2d(3, 4, 3, data_format="channels_last", activation="relu", **options)
    first = nn.Conv2d(3, 4, 3, activation="relu", **options)
    first.load_state_dict(last.state_dict())
    t = nnet.tensor(x, requires_grad=True)
    y, want = last(t), first(nnet.tensor(x.transpose(0, 3, 1, 2)))
    assert np.array_equal(y.data, want.data.transpose(0, 2, 3, 1)) and y.data.flags.c_contiguous
    y.sum().backward()
    assert t.grad.shape == x.shape
    assert np.array_equal(last(nnet.tensor(x[0])).data, y.data[0])
    lazy = nn.LazyConv2d(4, 3, data_format="channels_last", **options)
    assert lazy(nnet.tensor(x)).shape == y.shape and lazy.in_channels == 3


def test_fused_models_keep_the_activation(rng):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, activation="relu"), nn.BatchNorm2d(4)).eval()
    model[1].running_mean.data[...] = 0.5
    x = nnet.tensor(rng.standard_normal((2, 3, 5, 5)).astype(np.float32))
    with nnet.no_grad():
        np.testing.assert_allclose(nn.fuse(model)(x).data, model(x).data, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda x: nn.Conv2d(3, 4, 3, activation="rely"), "activation must be None.*'rely'"),
     (lambda x: nn.Linear(3, 4, activation=3), "activation must be None"),
     (lambda x: nn.Conv2d(3, 4, 3, data_format="NHWC"), "data_format must be one of"),
     (lambda x: nn.LazyConv2d(3, 3, groups=2), "multiple of groups"),
     (lambda x: nn.LazyConv2d(4, 3, groups=2)(x), "input must have a multiple of groups=2 channels"),
     (lambda x: nn.LazyConv2d(4, 3)(x[0, 0]), "3 or 4 dimensions"),
     (lambda x: nn.Conv2d(3, 4, 3, data_format="channels_last")(x[0, 0]), r"\(N, H, W, C\)"),
     (lambda x: nn.LazyLinear(4)(x[0, 0, 0, 0]), "at least one dimension")],
)  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make(nnet.tensor(np.zeros((2, 3, 5, 5), np.float32)))
