"""Conv2d and Linear: attributes, memory, text, errors, results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn


def images(*shape: int, dtype: Any = np.float64) -> nnet.Tensor:
    return nnet.tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))


def test_attributes() -> None:
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=[1, 2], dilation=(1, 1), groups=2)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (4, 6, 2)
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (2, 2), (1, 2), (1, 1))
    assert layer.weight.shape == (6, 2, 3, 3) and layer.bias.shape == (6,)
    assert layer.weight.dtype == np.float32 and layer.weight.requires_grad and layer.bias.requires_grad
    assert nn.Conv2d(1, 1, 1, bias=False).bias is None
    assert list(nn.Conv2d(1, 1, 1, bias=False).state_dict()) == ["weight"]
    assert nn.Conv2d(1, 1, 1, dtype=np.float64, device="cpu").weight.dtype == np.float64


def test_weights_lie_in_the_memory_order_of_the_kernels() -> None:
    """OIHW shape, OHWI memory: after construction, loading, conversion, and in the gradient."""
    layer = nn.Conv2d(3, 4, (5, 2))

    def in_order(array: np.ndarray) -> bool:
        return array.transpose(0, 2, 3, 1).flags.c_contiguous and not array.flags.c_contiguous

    assert in_order(layer.weight.data)
    layer.load_state_dict({"weight": np.arange(120.0).reshape(4, 3, 5, 2), "bias": np.zeros(4)})
    assert in_order(layer.weight.data) and layer.weight.data[1, 2, 3, 1] == 30 + 20 + 7
    assert in_order(layer.double().weight.data)
    layer(images(1, 3, 6, 6)).sum().backward()
    assert in_order(layer.weight.grad.data)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1))"),
        ({"stride": 2, "padding": 1}, "Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))"),
        ({"padding": "same", "groups": 2, "bias": False},
         "Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=same, groups=2, bias=False)"),
        ({"dilation": 2, "padding": (0, 1), "padding_mode": "reflect"},
         "Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=(0, 1), dilation=(2, 2), padding_mode=reflect)"),
        ({"padding": ((0, 1), (2, 3))},
         "Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=((0, 1), (2, 3)))"),
    ],
)  # fmt: skip
def test_text(arguments: dict[str, Any], text: str) -> None:
    assert repr(nn.Conv2d(4, 6, 3, **arguments)) == text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1, got 0"),
        ({"out_channels": 2.0}, TypeError, "out_channels must be an integer, got 2.0"),
        ({"groups": 0}, ValueError, "groups must be at least 1, got 0"),
        ({"groups": 3}, ValueError, "in_channels must be a multiple of groups=3, got 4"),
        ({"groups": 4}, ValueError, "out_channels must be a multiple of groups=4, got 6"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size must be an integer or a pair"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"dilation": "2"}, TypeError, "dilation must be an integer, got '2'"),
        ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"padding": "full"}, ValueError, "padding must be one of 'valid', 'same', 'same_upper', got 'full'"),
        ({"padding": "same", "stride": 2}, ValueError, "padding='same' needs stride 1"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of 'zeros', .*, got 'mirror'"),
        ({"dtype": np.int32}, TypeError, "dtype must be float32 or float64, got int32"),
        ({"dtype": "nonsense"}, TypeError, "dtype must be float32 or float64, got 'nonsense'"),
        ({"device": "tpu"}, ValueError, "device must be one of"),
    ],
)
def test_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **arguments})


def test_result_is_that_of_the_function() -> None:
    layer = nn.Conv2d(4, 6, 3, stride=(2, 1), padding=((0, 1), (2, 0)), dilation=(1, 2), groups=2, dtype=np.float64)
    x = images(2, 4, 7, 8)
    expected = F.conv2d(x, layer.weight, layer.bias, (2, 1), ((0, 1), (2, 0)), (1, 2), 2)
    assert np.array_equal(layer(x).data, expected.data)
    assert layer(images(4, 7, 8)).shape == (6, *expected.shape[2:])


_NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", _NUMPY_MODES)
@pytest.mark.parametrize("padding", [2, (1, 0), ((0, 1), (2, 3)), "same", "same_upper", "valid"])
def test_padding_modes(mode: str, padding: Any) -> None:
    stride = 2 if padding == "same_upper" else 1
    layer = nn.Conv2d(2, 3, (3, 4), stride, padding, padding_mode=mode, dtype=np.float64)
    x = images(2, 2, 6, 7)
    top, bottom, left, right = layer.pads((6, 7))
    padded = np.pad(x.data, ((0, 0), (0, 0), (top, bottom), (left, right)), _NUMPY_MODES[mode])
    expected = F.conv2d(nnet.tensor(padded), layer.weight, layer.bias, stride).data
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12, atol=1e-12)
    if padding == "same":
        assert layer(x).shape == (2, 3, 6, 7)
    if padding == "same_upper":
        assert layer(x).shape == (2, 3, 3, 4)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_negative_padding_takes_pixels_away(mode: str) -> None:
    x = images(2, 2, 6, 7)
    for padding in (-1, ((-1, 2), (0, -3))):
        layer = nn.Conv2d(2, 3, 2, padding=padding, padding_mode=mode, dtype=np.float64)
        top, bottom, left, right = layer.pads((6, 7))
        cut = x.data[:, :, max(-top, 0) : 6 - max(-bottom, 0), max(-left, 0) : 7 - max(-right, 0)]
        rest = ((0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
        padded = nnet.tensor(np.pad(cut, rest, _NUMPY_MODES[mode]))
        np.testing.assert_allclose(layer(x).data, F.conv2d(padded, layer.weight, layer.bias).data, rtol=1e-12)
    line = nn.Conv1d(2, 3, 2, padding=-1, padding_mode=mode, dtype=np.float64)
    row = images(2, 2, 7)
    np.testing.assert_allclose(
        line(row).data, F.conv1d(row[..., 1:-1], line.weight, line.bias).data, rtol=1e-12
    )


def test_linear() -> None:
    layer = nn.Linear(3, 2, dtype=np.float64)
    assert repr(layer) == "Linear(in_features=3, out_features=2, bias=True)"
    assert repr(nn.Linear(3, 2, bias=False)) == "Linear(in_features=3, out_features=2, bias=False)"
    assert layer.weight.shape == (2, 3) and layer.bias.shape == (2,)
    for shape in ((3,), (5, 3), (2, 5, 3), (0, 3)):
        x = images(*shape)
        expected = x.data @ layer.weight.data.T + layer.bias.data
        assert layer(x).shape == expected.shape
        np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12)
    for value, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="in_features must be"):
            nn.Linear(value, 2)


def test_generator_makes_layers_equal() -> None:
    def weights() -> list[np.ndarray]:
        generator = np.random.default_rng(7)
        layers = nn.Conv2d(2, 3, 3, generator=generator), nn.Linear(4, 5, generator=generator)
        return [p.data for layer in layers for p in layer.parameters()]

    assert all(map(np.array_equal, weights(), weights()))
