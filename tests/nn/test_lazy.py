"""Options that Keras users reach for: inferred channels, activations by name, channels last."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import io, memory, nn, optim


def test_lazy_layers_become_ordinary_ones(rng):
    x = nnet.tensor(rng.standard_normal((2, 6, 5, 5)).astype(np.float32))
    model = nn.Sequential(
        nn.LazyConv2d(4, 3, groups=2, generator=np.random.default_rng(1)), nn.Flatten(),
        nn.LazyLinear(3, generator=np.random.default_rng(2)),
    )  # fmt: skip
    assert repr(model[0]) == "LazyConv2d(0, 4, kernel_size=(3, 3), stride=(1, 1), groups=2)"
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
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


def lazy_model(dtype=None):
    generator = np.random.default_rng(1)
    first = nn.LazyConv2d(4, 3, groups=2, dtype=dtype, generator=generator)
    return nn.Sequential(first, nn.Flatten(), nn.LazyLinear(3, dtype=dtype, generator=generator))


def test_an_optimizer_made_before_the_first_call_trains_the_weights(rng):
    x = nnet.tensor(rng.standard_normal((2, 6, 5, 5)).astype(np.float32))
    model = lazy_model()
    weights, optimizer = [model[0].weight, model[2].weight], optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()  # nothing has a gradient
    model(x).sum().backward()
    assert [type(w) for w in weights] == [nn.Parameter] * 2 and model[0].weight is weights[0]
    before = [w.data.copy() for w in weights]
    optimizer.step()
    for w, old in zip(weights, before):
        assert np.allclose(w.data, old - 0.1 * w.grad.data) and np.abs(w.grad.data).max() > 0


def test_a_full_state_fills_lazy_layers(rng):
    x = nnet.tensor(rng.standard_normal((2, 6, 5, 5)).astype(np.float32))
    whole, lazy = lazy_model(), lazy_model()
    y = whole(x)
    lazy[0].bias.data[...] = 0
    weight = lazy[0].weight
    assert lazy.load_state_dict(whole.state_dict()) == ([], [])
    assert lazy[0].weight is weight and memory.dense(weight.data.transpose(0, 2, 3, 1)).flags.c_contiguous
    assert repr(lazy) == repr(whole) and lazy[2].in_features == 36
    assert type(lazy[0]) is nn.Conv2d and type(lazy[2]) is nn.Linear
    assert np.array_equal(lazy(x).data, y.data)


def test_a_part_of_a_state_settles_what_it_fills(rng):
    whole, lazy = lazy_model(), lazy_model()
    whole(nnet.tensor(rng.standard_normal((2, 6, 5, 5)).astype(np.float32)))
    state = {name: value for name, value in whole.state_dict().items() if name.startswith("0")}
    lazy.load_state_dict(state, strict=False)
    assert repr(lazy[0]) == repr(whole[0]) and repr(lazy[2]).startswith("LazyLinear(in_features=0")
    fused = nn.fuse(lazy)
    assert type(fused[0]).__name__ == "FusedConv2d" and type(fused[2]) is nn.LazyLinear


def test_saving_names_the_parameter_that_waits(tmp_path):
    for save in (lambda: io.save_model(lazy_model(), tmp_path / "model.safetensors"),
                 lambda: io.save_state(tmp_path / "state.safetensors", lazy_model().state_dict())):  # fmt: skip
        with pytest.raises(ValueError, match="^0.weight: .*not initialized: call the model once"):
            save()
    assert not list(tmp_path.iterdir())


def test_a_state_that_does_not_fit_lazy_layers_changes_nothing():
    lazy, empty = lazy_model(), lazy_model()
    state = {"0.weight": np.ones((4, 3, 5, 5)), "2.weight": np.ones((3, 7)), "0.bias": np.ones(4), "2.bias": np.ones(3)}
    with pytest.raises(RuntimeError, match=r"0.weight: has shape \(4, 3, 5, 5\), the model needs \(4, any, 3, 3\)"):
        lazy.load_state_dict(state)
    assert isinstance(lazy[2].weight, nn.UninitializedParameter)
    assert lazy.load_state_dict(empty.state_dict()) == ([], [])  # both still wait
    assert np.array_equal(lazy[2].bias.data, empty[2].bias.data)
    with pytest.raises(RuntimeError, match=r"weight: is not initialized, the model needs values of shape \(3, 7\)"):
        nn.Linear(7, 3).load_state_dict(nn.LazyLinear(3).state_dict())


def test_lazy_models_can_be_converted_and_copied(rng):
    x = nnet.tensor(rng.standard_normal((2, 6, 5, 5)))
    model = lazy_model().double().requires_grad_(False).to("cpu")
    model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    model.zero_grad()
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    want = model(x)
    assert want.dtype == np.float64 and not want.requires_grad
    assert twin[0].weight.dtype == np.float64 and not twin[0].weight.requires_grad
    assert np.array_equal(twin[2](nnet.tensor(np.ones((1, 36)))).shape, (1, 3))
    assert nn.summary(lazy_model(), (6, 5, 5)).parameters == 4 * 3 * 9 + 4 + 36 * 3 + 3


def test_a_parameter_without_a_shape():
    p = nn.UninitializedParameter(dtype=np.float64, shape=(3, None))
    assert repr(p) == "<UninitializedParameter>" and p.dtype == np.float64 and p.requires_grad and p.is_leaf
    assert p.grad is None and p.device == "cpu" and isinstance(p, nn.Parameter)
    uses = [
        lambda: p.numel(), lambda: p.dim(), lambda: p.data, lambda: p + 1, lambda: F.relu(p), lambda: p.detach(),
        lambda: p.clone(), lambda: p.zero_(), lambda: p.sum(), lambda: nn.init.zeros_(p), lambda: p.item(),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ValueError, match="not initialized: call the model once"):
            use()
    for use in (lambda: p.shape, lambda: p.ndim, lambda: len(p), lambda: p.backward(), lambda: p.size()):
        with pytest.raises((RuntimeError, ValueError), match="not initialized: call the model once"):
            use()
    with pytest.raises(ValueError, match=r"shape must be \(3, any\), got \(4, 2\)"):
        p.materialize((4, 2))
    p.materialize((3, 2))
    assert type(p) is nn.Parameter and p.shape == (3, 2) and p.dtype == np.float64
    q = nn.UninitializedParameter()
    q.data = np.ones((2, 2))
    assert type(q) is nn.Parameter and q.tolist() == [[1, 1], [1, 1]]


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


def test_an_activation_sees_the_layers_format(rng):
    x = nnet.tensor(rng.standard_normal((2, 5, 6, 3)).astype(np.float32))
    seen = []
    conv = nn.Conv2d(3, 4, 3, data_format="channels_last", activation=lambda y: (seen.append(y.shape), y)[1])
    conv(x)
    nn.ConvTranspose2d(3, 4, 3, data_format="channels_last", activation=conv.activation)(x)
    assert seen == [(2, 3, 4, 4), (2, 7, 8, 4)]


LAYERS = [
    lambda **more: nn.Conv2d(2, 3, 1, **more), lambda **more: nn.Linear(2, 3, **more),
    lambda **more: nn.Conv1d(2, 3, 1, **more), lambda **more: nn.ConvTranspose2d(2, 3, 1, **more),
    lambda **more: nn.LazyConv2d(3, 1, **more), lambda **more: nn.LazyLinear(3, **more),
]  # fmt: skip


@pytest.mark.parametrize("make", LAYERS)
def test_another_activation_is_assigned(make):
    layer = make(activation=nn.PReLU(3))
    assert list(layer._modules) == ["activation"]
    for value, children in ((F.relu, []), (nn.ReLU(), ["activation"]), ("relu", []), (nn.ReLU(), ["activation"])):
        layer.activation = value
        assert layer.activation is value and list(layer._modules) == children
        assert copy.deepcopy(layer)._modules.keys() == layer._modules.keys()
    for none in (None, "linear"):
        layer.activation = nn.ReLU()
        layer.activation = none
        assert layer.activation is None and "activation" not in repr(layer) and not list(layer.children())
    with pytest.raises(ValueError, match="activation must be None.*'rely'"):
        layer.activation = "rely"
    layer.activation = nn.ReLU()
    del layer.activation
    assert layer.activation is None
    with pytest.raises(AttributeError, match="has no attribute 'activations'"):
        _ = layer.activations


@pytest.mark.parametrize("make", LAYERS[:4])
def test_a_layer_of_before_there_were_activations(make, rng):
    layer = make()
    x = nnet.tensor(rng.standard_normal((2, 2) if isinstance(layer, nn.Linear) else (2, 2, 4, 4)).astype(np.float32))
    x = x[..., 0] if isinstance(layer, nn.Conv1d) else x
    state = {name: value for name, value in vars(layer).items() if name not in ("activation", "data_format")}
    old = type(layer).__new__(type(layer))
    vars(old).update(state)
    for twin in (old, pickle.loads(pickle.dumps(old)), copy.deepcopy(old)):
        assert np.array_equal(twin(x).data, layer(x).data) and repr(twin) == repr(layer)
    with nnet.no_grad():
        assert np.array_equal(nn.fuse(nn.Sequential(old))(x).data, layer(x).data)
    old.activation = nn.ReLU()
    assert np.array_equal(old(x).data, np.maximum(layer(x).data, 0))


def test_text_of_activations():
    assert repr(nn.Linear(2, 3, activation=F.relu)).endswith(", activation=relu)")
    assert repr(nn.Linear(2, 3, activation="linear")) == repr(nn.Linear(2, 3))
    assert repr(nn.Conv1d(2, 3, 1, activation="gelu")).endswith(", stride=(1,), activation=gelu)")
    layer = nn.ConvTranspose2d(2, 3, 1, activation=nn.PReLU(3), data_format="channels_last")
    assert "data_format=channels_last\n  (activation): PReLU(num_parameters=3)" in repr(layer)
    assert list(layer.state_dict()) == ["weight", "bias", "activation.weight"]


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
     (lambda x: nn.Conv2d(3, 4, 3, activation=nn.ReLU), r"activation must be a layer such as ReLU\(\), got the class"),
     (lambda x: nn.Conv1d(3, 4, 3, activation=nn.ReLU), "got the class"),
     (lambda x: nn.ConvTranspose2d(3, 4, 3, activation="rely"), "activation must be None.*'rely'"),
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
