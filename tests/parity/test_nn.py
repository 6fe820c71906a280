"""Module, containers, Conv2d, Linear and initial values against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tnn

import numbanet as nnet
from numbanet import nn


def build(lib: Any) -> Any:
    """A model of either library that uses every kind of registration."""
    model = lib.Sequential()
    model.add_module("stem", lib.Conv2d(3, 8, 3, padding="same", bias=False))
    model.add_module("body", lib.ModuleList([lib.Linear(8, 8), lib.Linear(8, 8), lib.Linear(8, 4), lib.Identity()]))
    model.add_module(
        "tail", lib.Sequential(lib.Conv2d(8, 8, (3, 1), 2, (1, 0), groups=8), lib.Linear(4, 2, bias=False))
    )
    model.add_module("none", None)
    model.tail.append(lib.Sequential())
    model.body[0].weight = model.body[1].weight
    return model


OURS, THEIRS = build(nn), build(tnn)


@pytest.mark.parametrize("method", ["named_parameters", "named_modules", "named_children", "named_buffers"])
def test_names_and_order(method: str) -> None:
    assert [n for n, _ in getattr(OURS, method)()] == [n for n, _ in getattr(THEIRS, method)()]
    if method != "named_children":
        ours, theirs = (getattr(m, method)(prefix="p", remove_duplicate=False) for m in (OURS, THEIRS))
        assert [n for n, _ in ours] == [n for n, _ in theirs]


def test_state_dict_keys_and_shapes() -> None:
    theirs = {name: tuple(value.shape) for name, value in THEIRS.state_dict().items()}
    assert {name: value.shape for name, value in OURS.state_dict().items()} == theirs
    assert list(OURS.state_dict()) == list(theirs)


def test_text() -> None:
    assert repr(OURS) == repr(THEIRS)


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"stride": 2}, {"padding": (1, 2)}, {"padding": "valid"}, {"padding": "same", "dilation": 2}, {"groups": 2},
        {"bias": False, "padding": 1, "padding_mode": "circular"}, {"kernel_size": (1, 5), "stride": (2, 1)},
    ],
)  # fmt: skip
def test_text_of_conv2d(arguments: dict[str, Any]) -> None:
    arguments = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **arguments}
    assert repr(nn.Conv2d(**arguments)) == repr(tnn.Conv2d(**arguments))


def test_loads_what_torch_saves() -> None:
    ours = build(nn)
    result = ours.load_state_dict(THEIRS.state_dict())
    assert result.missing_keys == [] and result.unexpected_keys == []
    for name, value in THEIRS.state_dict().items():
        assert np.array_equal(ours.state_dict()[name], value.numpy())
    partial = {"stem.weight": np.zeros((8, 3, 3, 3), np.float32), "alien": np.zeros(1)}
    theirs = THEIRS.load_state_dict({k: torch.tensor(v) for k, v in partial.items()}, strict=False)
    assert tuple(ours.load_state_dict(partial, strict=False)) == tuple(theirs)


def test_refusals() -> None:
    """What torch refuses is refused with the same kind of error."""
    cases: list[Any] = [
        lambda lib: lib.Conv2d(4, 6, 3, groups=4),
        lambda lib: lib.Conv2d(4, 6, 3, groups=0),
        lambda lib: lib.Conv2d(4, 6, 3, padding="full"),
        lambda lib: lib.Conv2d(4, 6, 3, padding="same", stride=2),
        lambda lib: lib.Conv2d(4, 6, 3, padding_mode="mirror"),
        lambda lib: lib.Sequential().add_module("a.b", lib.Identity()),
        lambda lib: lib.Sequential().add_module("", None),
        lambda lib: lib.Sequential().add_module("training", None),
        lambda lib: lib.Sequential().add_module("a", 3),
        lambda lib: lib.Sequential(3),
        lambda lib: lib.ModuleList([lib.Identity()])[1],
        lambda lib: setattr(lib.Linear(1, 1), "weight", 3),
        lambda lib: lib.Linear(1, 1).register_parameter("in_features", None),
        lambda lib: lib.Linear(1, 1).train(1),
        lambda lib: lib.Linear(1, 1).missing,
        lambda lib: lib.Linear(1, 1).load_state_dict({}),
        lambda lib: lib.Linear(1, 1).load_state_dict([]),
        lambda lib: lib.Module()(1),
        lambda lib: lib.init.calculate_gain("swish"),
    ]
    for number, case in enumerate(cases):
        with pytest.raises(Exception, match=".") as theirs:
            case(tnn)
        with pytest.raises(theirs.type, match="."):
            case(nn)
            pytest.fail(f"case {number} was accepted")


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies its input for even filters
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [2, (1, 0), "same", "valid"])
def test_conv2d(mode: str, padding: Any) -> None:
    arguments = {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 4), "dilation": (2, 1), "groups": 2}
    arguments |= {"padding": padding, "padding_mode": mode}
    theirs = tnn.Conv2d(**arguments, dtype=torch.float64)
    ours = nn.Conv2d(**arguments, dtype=np.float64)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 8))
    a, b = nnet.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    result, expected = ours(a), theirs(b)
    np.testing.assert_allclose(result.data, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    grad = np.random.default_rng(1).standard_normal(result.shape)
    result.backward(grad)
    expected.backward(torch.tensor(grad))
    pairs = [(a, b), (ours.weight, theirs.weight), (ours.bias, theirs.bias)]
    for ours_, theirs_ in pairs:
        np.testing.assert_allclose(ours_.grad.data, theirs_.grad.numpy(), rtol=1e-10, atol=1e-11)


INITS: list[tuple[str, dict[str, Any]]] = [
    ("uniform_", {"a": -1.0, "b": 2.0}),
    ("normal_", {"mean": 1.0, "std": 3.0}),
    ("trunc_normal_", {"std": 0.5, "a": -0.3, "b": 0.8}),
    ("xavier_uniform_", {"gain": 2.0}),
    ("xavier_normal_", {}),
    ("kaiming_uniform_", {"a": 2.0}),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ("constant_", {"val": 4.0}),
    ("ones_", {}),
    ("zeros_", {}),
]


@pytest.mark.parametrize(("name", "arguments"), INITS)
@pytest.mark.parametrize("shape", [(60, 40, 5, 3), (300, 120)])
def test_initial_values_have_torch_statistics(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    theirs, ours = torch.empty(shape), nnet.tensor(np.empty(shape, np.float32))
    torch.manual_seed(0)
    getattr(tnn.init, name)(theirs, **arguments)
    chance = {} if name in ("constant_", "ones_", "zeros_") else {"generator": np.random.default_rng(0)}
    getattr(nn.init, name)(ours, **arguments, **chance)
    quantiles = np.linspace(0.02, 0.98, 9)
    a, b = np.quantile(ours.data, quantiles), np.quantile(theirs.numpy(), quantiles)
    scale = max(np.abs(b).max(), 1e-9)
    np.testing.assert_allclose(a / scale, b / scale, atol=0.03)


@pytest.mark.parametrize("make", [lambda lib: lib.Conv2d(32, 128, 3, groups=2), lambda lib: lib.Linear(144, 256)])
def test_layers_start_with_torch_statistics(make: Any) -> None:
    ours, theirs = make(nn), make(tnn)
    bound = 144**-0.5
    for name, value in theirs.state_dict().items():
        array = ours.state_dict()[name]
        for sample in (array, value.numpy()):
            assert np.abs(sample).max() <= bound * 1.000001 and np.abs(sample).max() > 0.95 * bound
        assert abs(array.std() - value.numpy().std()) < 0.1 * bound


def test_hooks_are_called_in_torch_order() -> None:
    def trace(lib: Any, x: Any) -> list[str]:
        order: list[str] = []
        model = lib.Sequential(lib.Identity(), lib.Identity())
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda m, a, name=name: order.append(f"pre {name}"))
            module.register_forward_hook(lambda m, a, y, name=name: order.append(f"post {name}"))
            module.register_forward_hook(lambda m, a, y, name=name: order.append(f"early {name}"), prepend=True)
        model(x)
        return order

    assert trace(nn, nnet.tensor([1.0])) == trace(tnn, torch.tensor([1.0]))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (5,), (2, 3, 4), (0, 3)])
def test_matrices(shape: tuple[int, ...]) -> None:
    """Ones on the diagonal, the same refusals, and zeros and lengths of the same numbers."""

    def filled(lib: Any, fill: Any) -> Any:
        tensor = torch.ones(shape) if lib is tnn else nnet.tensor(np.ones(shape, np.float32))
        try:
            return fill(lib.init, tensor).numpy()
        except (ValueError, RuntimeError, IndexError):
            return None

    both = [filled(lib, lambda init, t: init.eye_(t)) for lib in (nn, tnn)]
    assert (both[0] is None) == (both[1] is None) and (both[0] is None or np.array_equal(*both))
    for sparsity in (0.0, 0.3, 1.0):
        both = [filled(lib, lambda init, t, s=sparsity: init.sparse_(t, s)) for lib in (nn, tnn)]
        assert (both[0] is None) == (both[1] is None)
        assert both[0] is None or np.array_equal(*((array == 0).sum(0) for array in both))
    both = [filled(lib, lambda init, t: init.orthogonal_(t, 1.5)) for lib in (nn, tnn)]
    assert (both[0] is None) == (both[1] is None)
    if both[0] is not None and both[0].size:
        np.testing.assert_allclose(*((array**2).sum() for array in both), rtol=1e-5)


@pytest.mark.parametrize("shape, groups", [((5, 3, 3, 3), 1), ((2, 3, 4, 5), 1), ((6, 2, 3), 3), ((4, 1, 1, 2, 2), 4)])
def test_dirac(shape: tuple[int, ...], groups: int) -> None:
    expected = tnn.init.dirac_(torch.empty(shape), groups)
    np.testing.assert_array_equal(nn.init.dirac_(nnet.Tensor(np.empty(shape)), groups).data, expected.numpy())
