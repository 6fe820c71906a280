"""Images with their channels last: every layer of images, against the same layer with channels first."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn

GENERATOR = np.random.default_rng

# How to make a layer from more options; it takes 4 channels.
LAYERS: dict[str, Any] = {
    "Conv2d": lambda **o: nn.Conv2d(4, 6, 3, 2, "same_upper", generator=GENERATOR(0), **o),
    "ConvTranspose2d": lambda **o: nn.ConvTranspose2d(4, 6, 3, 2, 1, generator=GENERATOR(0), **o),
    "MaxPool2d": lambda **o: nn.MaxPool2d((2, 3), (2, 1), **o),
    "MaxPool2d with indices": lambda **o: nn.MaxPool2d(3, 2, "same_upper", return_indices=True, **o),
    "AvgPool2d": lambda **o: nn.AvgPool2d((3, 2), padding=(1, 0), **o),
    "AdaptiveAvgPool2d": lambda **o: nn.AdaptiveAvgPool2d((3, 2), **o),
    "AdaptiveMaxPool2d": lambda **o: nn.AdaptiveMaxPool2d((3, 2), **o),
    "AdaptiveMaxPool2d with indices": lambda **o: nn.AdaptiveMaxPool2d((3, 2), True, **o),
    "BatchNorm2d": lambda **o: nn.BatchNorm2d(4, **o),
    "GroupNorm": lambda **o: nn.GroupNorm(2, 4, **o),
    "InstanceNorm2d": lambda **o: nn.InstanceNorm2d(4, affine=True, track_running_stats=True, **o),
    "LocalResponseNorm": lambda **o: nn.LocalResponseNorm(3, 0.5, **o),
    "Dropout2d": lambda **o: nn.Dropout2d(0.5, **o),
    "PReLU": lambda **o: nn.PReLU(4, 0.3, **o),
    "Upsample": lambda **o: nn.Upsample((9, 5), **o),
    "UpsamplingNearest2d": lambda **o: nn.UpsamplingNearest2d(scale_factor=2, **o),
    "UpsamplingBilinear2d": lambda **o: nn.UpsamplingBilinear2d((9, 5), **o),
    "PixelShuffle": lambda **o: nn.PixelShuffle(2, **o),
    "PixelUnshuffle": lambda **o: nn.PixelUnshuffle(2, **o),
    "ZeroPad2d": lambda **o: nn.ZeroPad2d((1, 2, 0, 3), **o),
    "ConstantPad2d": lambda **o: nn.ConstantPad2d((1, -2, 0, 3), 2.5, **o),
    "ReflectionPad2d": lambda **o: nn.ReflectionPad2d((1, 2, 0, 3), **o),
    "ReplicationPad2d": lambda **o: nn.ReplicationPad2d(2, **o),
    "CircularPad2d": lambda **o: nn.CircularPad2d((1, 2, 0, 3), **o),
}
BATCHES = ("BatchNorm2d", "GroupNorm", "LocalResponseNorm", "Dropout2d", "PReLU", "Upsample", "UpsamplingNearest2d",
           "UpsamplingBilinear2d")  # fmt: skip


def last(array: np.ndarray) -> np.ndarray:
    """Return (..., C, H, W) as (..., H, W, C)."""
    return np.moveaxis(array, -3, -1)


def results(value: Any) -> list[np.ndarray]:
    return [item.numpy() for item in (value if isinstance(value, tuple) else (value,))]


def outcome(layer: nn.Module, x: np.ndarray, back: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the results, the gradient of the input with channels first, those of parameters, and the buffers."""
    nnet.manual_seed(3)
    t = nnet.tensor(x, requires_grad=True)
    value = layer(t)
    y = value[0] if isinstance(value, tuple) else value
    upstream = GENERATOR(5).standard_normal(back(y.detach().numpy()).shape).astype(x.dtype)
    y.backward(nnet.tensor(upstream if y.shape == upstream.shape else last(upstream)))
    grads = [back(t.grad.numpy()), *(p.grad.numpy() for p in layer.parameters())]
    return [item.detach().numpy() for item in (value if isinstance(value, tuple) else (value,))], [
        *grads, *(b.numpy() for b in layer.buffers())
    ]  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_results_and_gradients_are_those_of_channels_first(name: str, rng: np.random.Generator) -> None:
    make = LAYERS[name]
    x = rng.standard_normal((2, 4, 6, 8)).astype(np.float32)
    first, other = make(), make(data_format="channels_last")
    ys, rest = outcome(first, x, lambda a: a)
    moved, others = outcome(other, last(x), lambda a: np.moveaxis(a, -1, -3))
    assert len(ys) == len(moved) and len(rest) == len(others)
    for y, z in zip(ys, moved):
        assert y.dtype == z.dtype and np.array_equal(last(y), z)
    for a, b in zip(rest, others):
        assert np.array_equal(a, b)
    assert other(nnet.tensor(last(x))) is not None and first.data_format == "channels_first"


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in BATCHES])
def test_single_images(name: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 6, 8)).astype(np.float32)
    first, other = LAYERS[name]().eval(), LAYERS[name](data_format="channels_last").eval()
    for y, z in zip(results_of(first, x), results_of(other, last(x))):
        assert np.array_equal(last(y), z)


def results_of(layer: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    with nnet.no_grad():
        return results(layer(nnet.tensor(x)))


@pytest.mark.parametrize("name", LAYERS)
def test_text_copies_and_pickles(name: str, rng: np.random.Generator) -> None:
    layer = LAYERS[name](data_format="channels_last").eval()
    assert repr(layer).endswith(", data_format=channels_last)") and "data_format" not in repr(LAYERS[name]())
    x = last(rng.standard_normal((2, 4, 6, 8)).astype(np.float32))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        for y, z in zip(results_of(layer, x), results_of(twin, x)):
            assert np.array_equal(y, z)


@pytest.mark.parametrize("name", LAYERS)
def test_refusals_show_the_shape_that_was_given(name: str) -> None:
    with pytest.raises(ValueError, match="data_format must be one of 'channels_first', 'channels_last', got 'NHWC'"):
        LAYERS[name](data_format="NHWC")
    layer = LAYERS[name](data_format="channels_last")
    with pytest.raises(ValueError, match=r"(data_format='channels_last').*\(5, 3\)"):
        layer(nnet.tensor(np.zeros((5, 3), np.float32)))
    with pytest.raises(TypeError, match="input must be a Tensor"):
        layer(np.zeros((2, 5, 5, 4), np.float32))
    if name in BATCHES:
        with pytest.raises(ValueError, match=r"data_format='channels_last'.*\(6, 8, 4\)"):
            layer(nnet.tensor(np.zeros((6, 8, 4), np.float32)))


def test_what_computes_with_channels_first_refuses_in_the_users_words() -> None:
    conv = nn.Conv2d(1, 2, 3, data_format="channels_last")
    text = r"1 channels .* got input of shape \(2, 8, 1, 8\) .*data_format='channels_last'.*shape \(2, 1, 8, 8\)"
    with pytest.raises(ValueError, match=text):
        conv(nnet.tensor(np.zeros((2, 1, 8, 8), np.float32)))
    with pytest.raises(TypeError, match=r"dtypes must be equal.*data_format='channels_last'"):
        conv(nnet.tensor(np.zeros((2, 8, 8, 1), np.float64)))
    with pytest.raises(ValueError, match=r"channels.*input of shape \(2, 3, 8, 8\)"):
        nn.BatchNorm2d(3, data_format="channels_last")(nnet.tensor(np.zeros((2, 3, 8, 8), np.float32)))
    with pytest.raises(ValueError, match=r"groups=2 channels, got shape \(1, 2, 5, 5\) with data_format='channels_"):
        nn.LazyConv2d(4, 3, groups=2, data_format="channels_last")(nnet.tensor(np.zeros((1, 2, 5, 5), np.float32)))


def test_output_size_is_in_the_layers_format(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    first, other = (LAYERS["ConvTranspose2d"](**o) for o in ({}, {"data_format": "channels_last"}))
    want = last(first(nnet.tensor(x), output_size=(10, 11)).detach().numpy())
    for size in ((10, 11), (2, 10, 11, 6)):
        assert np.array_equal(other(nnet.tensor(last(x)), output_size=size).detach().numpy(), want)
    with pytest.raises(ValueError, match=r"from \(9, 11\) to \(10, 12\).*got \(11, 11\)"):
        other(nnet.tensor(last(x)), output_size=(2, 11, 11, 6))


def network(data_format: str) -> nn.Sequential:
    of = {"data_format": data_format}
    generator = GENERATOR(2)
    return nn.Sequential(
        nn.ZeroPad2d(1, **of), nn.LazyConv2d(8, 3, generator=generator, **of), nn.BatchNorm2d(8, **of), nn.ReLU(),
        nn.MaxPool2d(3, 2, padding="same_upper", **of),
        nn.Conv2d(8, 6, 3, 2, padding=1, generator=generator, activation="relu", **of), nn.Dropout2d(0.3, **of),
        nn.AvgPool2d(2, padding="same_upper", **of), nn.GroupNorm(2, 6, **of), nn.AdaptiveAvgPool2d(1, **of),
        nn.Flatten(), nn.Linear(6, 3, generator=generator),
    )  # fmt: skip


@pytest.fixture
def pair_of_networks(rng: np.random.Generator) -> Any:
    x = rng.standard_normal((2, 3, 13, 12)).astype(np.float32)
    first, other = network("channels_first"), network("channels_last")
    for _ in range(2):
        first(nnet.tensor(x))
        other(nnet.tensor(last(x)))
    assert np.array_equal(first[2].running_mean.numpy(), other[2].running_mean.numpy())
    return first.eval(), other.eval(), x


def test_fused_and_captured_networks(pair_of_networks: Any) -> None:
    first, other, x = pair_of_networks
    want = results_of(first, x)[0]
    t = nnet.tensor(last(x))
    assert np.array_equal(results_of(other, last(x))[0], want)
    assert not np.array_equal(results_of(other, last(x) + np.float32(1))[0], want)
    np.testing.assert_allclose(results_of(nn.fuse(other), last(x))[0], want, rtol=1e-5, atol=1e-6)
    with nnet.no_grad():
        replayed = nnet.capture(other)
        for _ in range(3):
            np.testing.assert_allclose(replayed(t).numpy(), want, rtol=1e-5, atol=1e-6)
    other.train()
    with nnet.no_grad():  # in training, batch norm takes the statistics of the batch, in a fused model too
        assert nn.fuse(other)[2].training is False


class Residual(nn.Module):
    """As people write it."""

    def __init__(self, data_format: str, inner: str | None = None) -> None:
        super().__init__()
        of = {"data_format": data_format}
        self.first = nn.Conv2d(4, 4, 3, padding=1, generator=GENERATOR(1), activation="relu", **of)
        self.second = nn.Conv2d(4, 4, 3, padding="same", bias=False, generator=GENERATOR(2), **of)
        self.norm = nn.BatchNorm2d(4, data_format=inner or data_format)

    def forward(self, x: nnet.Tensor) -> nnet.Tensor:
        return F.relu(self.norm(self.second(self.first(x))) + x)


def lived_in(model: Residual) -> Residual:
    for tensor in (model.norm.running_mean, model.norm.running_var, model.norm.weight, model.norm.bias):
        tensor.data[...] = GENERATOR(3).uniform(0.5, 2, 4)
    return model.eval()


def test_a_fused_block_is_its_two_convolutions(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 6, 8)).astype(np.float32)
    want = last(results_of(lived_in(Residual("channels_first")), x)[0])
    model = lived_in(Residual("channels_last"))
    fused = nn.fuse(model)
    seen: list[str] = []
    original = nnet.dispatch.run
    monkeypatch.setattr(nnet.dispatch, "run", lambda p, *a: (seen.append(p.operation), original(p, *a)))
    y = results_of(fused, last(x))[0]
    assert seen == ["conv2d", "conv2d"] and y.shape == want.shape
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(results_of(fused, last(x)[0:1])[0], want[0:1], rtol=1e-5, atol=1e-5)
    with nnet.no_grad(), pytest.raises(ValueError, match=r"4 channels .*data_format='channels_last'.*\(2, 4, 6, 8\)"):
        fused(nnet.tensor(x))


def test_a_batch_norm_of_the_other_format_does_not_join(rng: np.random.Generator) -> None:
    """Here the height is the number of channels: only the format tells which of the two is meant."""
    x = rng.standard_normal((2, 4, 4, 4)).astype(np.float32)
    for outer, inner in (("channels_last", "channels_first"), ("channels_first", "channels_last")):
        model = lived_in(Residual(outer, inner))
        np.testing.assert_allclose(results_of(nn.fuse(model), x)[0], results_of(model, x)[0], rtol=1e-5, atol=1e-5)
        with nnet.no_grad():
            replayed = nnet.capture(model)
            for _ in range(2):
                np.testing.assert_allclose(replayed(nnet.tensor(x)).numpy(), results_of(model, x)[0], atol=1e-5)


def test_summary_counts_and_says_the_same(pair_of_networks: Any) -> None:
    first, other, x = pair_of_networks
    a, b = nn.summary(first, x.shape), nn.summary(other, last(x).shape)
    assert [layer.kind for layer in a.layers] == [layer.kind for layer in b.layers]
    for one, two in zip(a.layers, b.layers):
        assert (one.parameters, one.multiply_adds, one.memory) == (two.parameters, two.multiply_adds, two.memory)
        assert one.remark == two.remark == ""
        shape = one.output_shape
        assert two.output_shape == ((shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape)


def test_remarks_are_about_height_and_width() -> None:
    pool = nn.MaxPool2d(2, data_format="channels_last")
    assert nn.summary(pool, (1, 8, 8, 1)).remarks == ()
    remark = "2x2 windows at stride 2 do not tile 9x8: the last row is never seen"
    assert nn.summary(pool, (1, 9, 8, 3)).layers[0].remark == remark
    up = nn.ConvTranspose2d(4, 6, 3, 2, data_format="channels_last")
    found = nn.summary(up, (1, 5, 7, 4))
    assert found.multiply_adds == 5 * 7 * 4 * 6 * 9 and found.remarks == ()


def test_changes_in_place(rng: np.random.Generator) -> None:
    layer = nn.Dropout2d(0.5, inplace=True, data_format="channels_last")
    x = nnet.tensor(rng.standard_normal((8, 3, 3, 8)).astype(np.float32))
    before = x.numpy().copy()
    y = layer(x).numpy()
    dropped = (y == 0).all((1, 2))
    assert dropped.any() and not dropped.all()
    assert np.array_equal(y, np.where(dropped[:, None, None], 0, 2 * before))
    assert np.array_equal(x.numpy(), y)


def test_layers_pickled_without_a_format_are_channels_first(rng: np.random.Generator) -> None:
    layer = nn.MaxPool2d(2)
    del layer.__dict__["data_format"]
    assert layer(nnet.tensor(rng.standard_normal((1, 2, 4, 4)))).shape == (1, 2, 2, 2)
