"""The networks that are timed, written once for both libraries: ``b.nn`` is numbanet.nn or torch.nn.

Where `numbanet.models` has the network too, that one is timed, and this one is its twin for PyTorch: the same layers
with the same parameters in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import backends
from benchmarks.backends import Backend


def digits(b: Backend) -> Any:
    """The network of the bundled digits, for 8x8x1."""
    nn = b.nn
    return nn.Sequential(
        *_conv_norm(nn, 1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        *_conv_norm(nn, 32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def lenet5(b: Backend) -> Any:
    """LeNet-5 with ReLU and max pooling, for 28x28x1."""
    nn = b.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def convnetjs(b: Backend) -> Any:
    """The ConvNetJS CIFAR-10 net, for 32x32x3."""
    nn = b.nn
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 20, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(320, 10),
    )  # fmt: skip


def wide256(b: Backend) -> Any:
    """The 64-256-256 net, for 32x32x3: a 2x2 layer, then three blocks of two 3x3 convolutions with batch norm."""
    nn = b.nn
    layers, c = [nn.Conv2d(3, 24, 2, bias=False), nn.GELU()], 24
    for width in (64, 256, 256):
        layers += [nn.Conv2d(c, width, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU()]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
        c = width
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False))


def vgg16(b: Backend) -> Any:
    """VGG-16 for 224x224x3."""
    nn = b.nn
    layers: list[Any] = []
    c = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU(inplace=True)]
            c = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.Flatten(),
        nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 1000),
    )  # fmt: skip


def _residual(nn: Any, body: list[Any], shortcut: Any, activation: Any) -> Any:
    """Return activation(body(x) + shortcut(x))."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*body)
            self.shortcut = shortcut
            self.activation = activation

        def forward(self, x: Any) -> Any:
            return self.activation(self.body(x) + self.shortcut(x))

    return Residual()


def _every_second(b: Backend, channels: int) -> Any:
    """Return a shortcut that takes every second pixel and appends channels of zeros."""

    class EverySecond(b.nn.Module):
        def forward(self, x: Any) -> Any:
            return b.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, channels))

    return EverySecond()


def _conv_norm(nn: Any, c: int, k: int, size: int, stride: int = 1, groups: int = 1) -> list[Any]:
    return [nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(k)]


def resnet20(b: Backend) -> Any:
    """ResNet-20 for 32x32x3, without parameters in its shortcuts."""
    nn = b.nn
    layers, c = [*_conv_norm(nn, 3, 16, 3), nn.ReLU(inplace=True)], 16
    for width in (16, 32, 64):
        for _ in range(3):
            stride = 1 if c == width else 2
            body = [*_conv_norm(nn, c, width, 3, stride), nn.ReLU(inplace=True), *_conv_norm(nn, width, width, 3)]
            shortcut = nn.Sequential() if c == width else _every_second(b, width - c)
            layers.append(_residual(nn, body, shortcut, nn.ReLU(inplace=True)))
            c = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet50(b: Backend) -> Any:
    """ResNet-50 for 224x224x3 (stride in the 3x3 convolution)."""
    nn = b.nn
    layers, c = [*_conv_norm(nn, 3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            body = [
                *_conv_norm(nn, c, width, 1), nn.ReLU(inplace=True),
                *_conv_norm(nn, width, width, 3, stride), nn.ReLU(inplace=True),
                *_conv_norm(nn, width, 4 * width, 1),
            ]  # fmt: skip
            shortcut = _conv_norm(nn, c, 4 * width, 1, stride) if block == 0 else []
            layers.append(_residual(nn, body, nn.Sequential(*shortcut), nn.ReLU(inplace=True)))
            c = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def mobilenet_v2(b: Backend) -> Any:
    """MobileNet v2 for 224x224x3."""
    nn = b.nn

    def conv(c: int, k: int, size: int, stride: int = 1, groups: int = 1) -> list[Any]:
        return [*_conv_norm(nn, c, k, size, stride, groups), nn.ReLU6(inplace=True)]

    layers, c = conv(3, 32, 3, 2), 32
    settings = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expansion, width, blocks, first_stride in settings:
        for block in range(blocks):
            stride, hidden = first_stride if block == 0 else 1, c * expansion
            body = conv(c, hidden, 1) if expansion > 1 else []
            body += [*conv(hidden, hidden, 3, stride, hidden), *_conv_norm(nn, hidden, width, 1)]
            layers += [_residual(nn, body, nn.Sequential(), nn.Sequential())] if block else body
            c = width
    return nn.Sequential(
        *layers, *conv(c, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000)
    )


@dataclass(frozen=True)
class Net:
    """A network and how it is timed.

    Attributes
    ----------
    build : callable
        Makes it for a backend.
    image : (int, int, int)
        Channels, height and width of its images.
    classes : int
    batch : int
        Batch size of a training step.
    """

    build: Any
    image: tuple[int, int, int]
    classes: int
    batch: int


NETS: dict[str, Net] = {
    "digits": Net(digits, (1, 8, 8), 10, 32),
    "lenet5": Net(lenet5, (1, 28, 28), 10, 128),
    "convnetjs": Net(convnetjs, (3, 32, 32), 10, 128),
    "resnet20": Net(resnet20, (3, 32, 32), 10, 128),
    "wide256": Net(wide256, (3, 32, 32), 10, 128),
    "vgg16": Net(vgg16, (3, 224, 224), 1000, 4),
    "resnet50": Net(resnet50, (3, 224, 224), 1000, 4),
    "mobilenet_v2": Net(mobilenet_v2, (3, 224, 224), 1000, 16),
}


def numbanet_model(name: str) -> Any:
    """Return a network of numbanet: the one of `numbanet.models`, else the one of this module."""
    from numbanet import models
    from numbanet.random import manual_seed

    manual_seed(0)
    shipped = getattr(models, name, None)
    return NETS[name].build(backends.get("numbanet")) if shipped is None else shipped()


def model(name: str, backend: str) -> Any:
    """Return a network for a backend; it starts from the same parameters whatever the backend.

    Raises
    ------
    KeyError
        If `name` is none of `NETS`.
    """
    ours = numbanet_model(name)
    if backend == "numbanet":
        return ours
    b = backends.get(backend)
    theirs = NETS[name].build(b)
    b.load(theirs, dict(zip(theirs.state_dict(), map(backends.to_numpy, ours.state_dict().values()), strict=True)))
    return b.place(theirs)
