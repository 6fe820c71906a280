"""Options that Keras's users look for, against torch with the permutations and pads written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from torch import nn as tnn

import numbanet as nnet
from numbanet import nn


def values(value: Any) -> np.ndarray:
    return value.detach().numpy()


def both(x: np.ndarray, ours: Any, theirs: Any) -> None:
    """Compare the results and the gradients of the input."""
    mine, other = nnet.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(mine), theirs(other)
    np.testing.assert_allclose(values(y), values(z), rtol=1e-10, atol=1e-12)
    grad = np.random.default_rng(1).standard_normal(tuple(z.shape))
    y.backward(nnet.tensor(grad))
    z.backward(torch.tensor(grad))
    np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-10, atol=1e-12)


def keras_pads(size: tuple[int, int], span: tuple[int, int], stride: tuple[int, int]) -> list[int]:
    """Return (left, right, top, bottom) from the definition of Keras's padding="same"."""
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, span, stride)]
    return [total // 2 if first else total - total // 2 for total in totals[::-1] for first in (True, False)]


WINDOWS = [((2, 2), (2, 2), (1, 1)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 3), (1, 1)), ((4, 3), (3, 2), (1, 1)),
           ((1, 1), (2, 2), (1, 1)), ((2, 3), (2, 1), (3, 2))]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "dilation"), WINDOWS)
@pytest.mark.parametrize("size", [(7, 8), (5, 5), (1, 6)])
def test_same_upper_of_pools(kernel: Any, stride: Any, dilation: Any, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(-5, 5, (2, 3, *size)).astype(np.float64)
    pads = keras_pads(size, tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel)), stride)
    largest = nn.MaxPool2d(kernel, stride, "same_upper", dilation)

    def theirs(t: torch.Tensor) -> torch.Tensor:
        return TF.max_pool2d(TF.pad(t, pads, value=-torch.inf), kernel, stride, 0, dilation)

    if size[0] > 1 or dilation == (1, 1):
        both(x, largest, theirs)
    else:
        with pytest.raises(ValueError, match="'same_upper' must leave each window a pixel of the image of 1 x 6"):
            largest(nnet.tensor(x))
    if dilation != (1, 1):
        return
    ones = TF.avg_pool2d(TF.pad(torch.ones(x.shape, dtype=torch.float64), pads), kernel, stride)
    for count, share in ((None, ones), (False, ones), (True, 1)):
        mean = nn.AvgPool2d(kernel, stride, "same_upper", count_include_pad=count)
        both(x, mean, lambda t, share=share: TF.avg_pool2d(TF.pad(t, pads), kernel, stride) / share)


def test_the_other_words_of_pools() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7))
    for make, function in ((nn.MaxPool2d, TF.max_pool2d), (nn.AvgPool2d, TF.avg_pool2d)):
        both(x, make(3, 2, "valid"), lambda t, f=function: f(t, 3, 2))
        value = 0.0 if make is nn.AvgPool2d else -torch.inf
        uneven = make(4, 2, ((0, 1), (1, 2)))
        both(x, uneven, lambda t, f=function, v=value: f(TF.pad(t, (1, 2, 0, 1), value=v), 4, 2))
    both(x, nn.MaxPool2d(4, 1, "same"), lambda t: TF.max_pool2d(TF.pad(t, (1, 2, 1, 2), value=-torch.inf), 4, 1))
    both(x, nn.MaxPool2d(3, 1, "same"), lambda t: TF.max_pool2d(t, 3, 1, 1))
    both(x, nn.AvgPool2d(3, 1, "same"), lambda t: TF.avg_pool2d(t, 3, 1, 1, count_include_pad=False))
    both(x, nn.MaxPool2d(2, (), 1, 3), lambda t: TF.max_pool2d(t, 2, (), 1, 3))


@pytest.mark.parametrize("kind", ["Zero", "Constant", "Reflection", "Replication", "Circular"])
@pytest.mark.parametrize("padding", [0, 2, (1, 2, 0, 3), [1, 0, -1, 2], (1, 2)], ids=str)
def test_pads(kind: str, padding: Any) -> None:
    more = (1.5,) if kind == "Constant" else ()
    name = f"{kind}Pad2d"
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7))
    ours, theirs = getattr(nn, name)(padding, *more), getattr(tnn, name)(padding, *more)
    if isinstance(padding, (int, tuple)):  # torch shows a list as a list
        assert repr(ours) == repr(theirs)
    if padding == (1, 2) and kind not in ("Zero", "Constant"):
        for layer, t in ((ours, nnet.tensor(x)), (theirs, torch.tensor(x))):
            with pytest.raises((ValueError, RuntimeError)):
                layer(t)
        return
    both(x, ours, theirs)
    if padding != (1, 2):
        last = getattr(nn, name)(padding, *more, data_format="channels_last")
        both(x.transpose(0, 2, 3, 1), last, lambda t: theirs(t.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        both(x[0].transpose(1, 2, 0), last, lambda t: theirs(t.permute(2, 0, 1)).permute(1, 2, 0))
    line = padding if isinstance(padding, int) else tuple(padding[:2])
    both(x[:, :, 0], getattr(nn, f"{kind}Pad1d")(line, *more), getattr(tnn, f"{kind}Pad1d")(line, *more))
    assert repr(getattr(nn, f"{kind}Pad1d")(line, *more)) == repr(getattr(tnn, f"{kind}Pad1d")(line, *more))


def test_channels_last_is_torch_between_two_permutations() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 7, 4))
    layers: list[Any] = [
        lambda lib, **o: lib.Conv2d(4, 5, 3, 2, 1, **o), lambda lib, **o: lib.ConvTranspose2d(4, 5, 3, 2, **o),
        lambda lib, **o: lib.BatchNorm2d(4, **o), lambda lib, **o: lib.GroupNorm(2, 4, **o),
        lambda lib, **o: lib.LocalResponseNorm(3, 0.5, **o), lambda lib, **o: lib.PixelShuffle(2, **o),
        lambda lib, **o: lib.Upsample(scale_factor=2, mode="bilinear", **o),
        lambda lib, **o: lib.AdaptiveAvgPool2d((2, 3), **o),
    ]  # fmt: skip
    for make in layers:
        ours, theirs = make(nn, data_format="channels_last").double(), make(tnn).double()
        ours.load_state_dict(theirs.state_dict())
        both(x, ours, lambda t, f=theirs: f(t.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    y, places = nn.MaxPool2d(3, 2, return_indices=True, data_format="channels_last")(nnet.tensor(x))
    z, at = tnn.MaxPool2d(3, 2, return_indices=True)(torch.tensor(x.transpose(0, 3, 1, 2)))
    assert np.array_equal(y.numpy(), z.numpy().transpose(0, 2, 3, 1))
    assert np.array_equal(places.numpy(), at.numpy().transpose(0, 2, 3, 1)) and places.dtype == np.int64


@pytest.mark.parametrize(
    "make",
    [lambda lib: lib.MaxPool2d(0), lambda lib: lib.MaxPool2d((3, 3, 3)), lambda lib: lib.MaxPool2d(2, 0),
     lambda lib: lib.MaxPool2d(2, padding=2), lambda lib: lib.MaxPool2d(2, dilation=0), lambda lib: lib.MaxPool2d(None),
     lambda lib: lib.AvgPool2d(2, padding=-1), lambda lib: lib.AvgPool2d(3, padding=2), lambda lib: lib.MaxPool2d(2.5)],
)  # fmt: skip
def test_pools_that_torch_can_not_call_can_not_be_made(make: Any) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        make(tnn)(torch.zeros(1, 1, 8, 8))
    with pytest.raises((ValueError, TypeError), match="kernel_size|stride|padding|dilation"):
        make(nn)


def transposed(t: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int], dilation: tuple[int, int]) -> Any:
    """Return Keras's Conv2DTranspose(padding="same"), which is a gradient of a convolution with padding="same"."""
    full = TF.conv_transpose2d(t, weight, None, stride, 0, 0, 1, dilation)
    pads = []
    for axis in (3, 2):
        over = full.shape[axis] - t.shape[axis] * stride[axis - 2]  # negative: rows that no filter reaches
        pads += [-(over // 2), over // 2 - over] if over > 0 else [0, -over]
    return TF.pad(full, pads)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), WINDOWS)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_same_upper_of_transposed_convolutions(kernel: Any, stride: Any, dilation: Any, data_format: str) -> None:
    rng = np.random.default_rng(0)
    options = {"dilation": dilation, "dtype": np.float64, "data_format": data_format}
    ours = nn.ConvTranspose2d(2, 3, kernel, stride, "same_upper", **options)
    weight, bias = (torch.from_numpy(p.data.copy()) for p in (ours.weight, ours.bias))
    x = rng.standard_normal((2, 2, 5, 4))

    def theirs(t: torch.Tensor) -> torch.Tensor:
        if data_format == "channels_first":
            return transposed(t, weight, stride, dilation) + bias[:, None, None]
        return transposed(t.permute(0, 3, 1, 2), weight, stride, dilation).permute(0, 2, 3, 1) + bias

    both(x if data_format == "channels_first" else x.transpose(0, 2, 3, 1), ours, theirs)
    size = (5 * stride[0], 4 * stride[1])
    t = nnet.tensor(x if data_format == "channels_first" else x.transpose(0, 2, 3, 1))
    if stride[0] > 1:
        larger = ours(t, output_size=(size[0] + 1, size[1]))
        assert larger.shape == ((2, 3, size[0] + 1, size[1]) if data_format == "channels_first" else
                                (2, size[0] + 1, size[1], 3))  # fmt: skip
    with pytest.raises(ValueError, match=f"from .{size[0]}, {size[1]}. to"):
        ours(t, output_size=(size[0] - 1, size[1]))


def test_the_other_words_of_transposed_convolutions() -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 4))
    for padding, pads in (("valid", (0, 0, 0, 0)), ("same", (1, 2, 1, 1)), (((1, 0), (2, 1)), (2, 1, 1, 0))):
        ours = nn.ConvTranspose2d(2, 3, (3, 4), 1, padding, dtype=np.float64)
        weight, bias = (torch.from_numpy(p.data.copy()) for p in (ours.weight, ours.bias))
        both(x, ours, lambda t, p=pads, w=weight, b=bias: TF.pad(TF.conv_transpose2d(t, w, b), [-n for n in p]))
    assert "padding=same_upper" in repr(nn.ConvTranspose2d(2, 3, 3, 2, "same_upper"))
    with pytest.raises(ValueError, match=r"padding='same' needs stride 1, got stride \(2, 2\)"):
        nn.ConvTranspose2d(2, 3, 3, 2, "same")
    with pytest.raises(ValueError, match="padding must be one of 'valid', 'same', 'same_upper', got 'full'"):
        nn.ConvTranspose2d(2, 3, 3, 2, "full")


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("softmax", lambda t: TF.softmax(t, 1)), ("log_softmax", lambda t: TF.log_softmax(t, 1)), ("relu6", TF.relu6),
     ("exponential", torch.exp), ("linear", lambda t: t), (None, lambda t: t), (lambda y: y * y, lambda t: t * t),
     (nn.LeakyReLU(0.2), lambda t: TF.leaky_relu(t, 0.2))],
)  # fmt: skip
def test_activations(name: Any, theirs: Any) -> None:
    rng = np.random.default_rng(0)
    layers: list[Any] = [
        (lambda lib, **o: lib.Conv2d(4, 5, 3, **o), (2, 4, 6, 5)),
        (lambda lib, **o: lib.ConvTranspose2d(4, 5, 3, **o), (2, 4, 6, 5)),
        (lambda lib, **o: lib.Conv1d(4, 5, 3, **o), (2, 4, 6)),
        (lambda lib, **o: lib.Linear(4, 5, **o), (3, 4)),
    ]  # fmt: skip
    for make, shape in layers:
        ours, plain = make(nn, activation=name).double(), make(tnn).double()
        ours.load_state_dict(plain.state_dict())
        x = rng.standard_normal(shape)
        both(x, ours, lambda t, f=plain: theirs(f(t)))
        if len(shape) == 4:
            last = make(nn, activation=name, data_format="channels_last").double()
            last.load_state_dict(plain.state_dict())
            moved = x.transpose(0, 2, 3, 1)
            both(moved, last, lambda t, f=plain: theirs(f(t.permute(0, 3, 1, 2))).permute(0, 2, 3, 1))
            both(moved[0], last, lambda t, f=plain: theirs(f(t.permute(2, 0, 1)[None]))[0].permute(1, 2, 0))
