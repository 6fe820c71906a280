"""MobileNet v2 (Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import nn
from numbanet.models.weights import he_fan_out, initialise, narrow
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.problem.dropout import probability
from numbanet.problem.pointwise import number
from numbanet.tensor import Tensor

# The paper's table 2: expansion, channels, blocks, stride of the first block.
_SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class InvertedResidual(nn.Module):
    """1 x 1 up, 3 x 3 depthwise, 1 x 1 down without activation; a shortcut where the shape stays.

    Parameters
    ----------
    in_channels, out_channels, stride, expansion : int
        The depthwise convolution has expansion * in_channels channels; without expansion the first layer is left out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        up = [_conv(in_channels, hidden, 1)] if expansion > 1 else []
        down = nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.conv = nn.Sequential(*up, _conv(hidden, hidden, 3, stride, groups=hidden), *down)

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, H / stride, W / stride) from (N, in_channels, H, W)."""
        return input + self.conv(input) if self.shortcut else self.conv(input)


class MobileNetV2(nn.Module):
    """A convolution, seven stages of inverted residuals, a 1 x 1 convolution, a classifier.

    Parameters are named as in torchvision's MobileNetV2. Images may have any size; the paper's have 224 x 224 pixels.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float
        Factor of all channels, which are then rounded to multiples of 8.
    dropout : float
        Probability of dropping an input of the classifier.
    generator : numpy.random.Generator, optional
        Draws the first values: normal, of deviation sqrt(2 / fan_out) in convolutions, 0.01 in the classifier.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        width_mult: float = 1.0,
        dropout: float = 0.2,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        width_mult = number("width_mult", width_mult, 0, above=True)
        if not width_mult < 1 << 32:
            raise ValueError(f"width_mult must be a factor of channels, such as 0.5, got {width_mult}")
        dropout = probability(dropout, "dropout")
        with init.drawn_from(generator):
            c = _width(32 * width_mult)
            layers: list[nn.Module] = [_conv(in_channels, c, 3, stride=2)]
            for expansion, channels, blocks, stride in _SETTINGS:
                width = _width(channels * width_mult)
                for block in range(blocks):
                    layers.append(InvertedResidual(c, width, 1 if block else stride, expansion))
                    c = width
            last = _width(1280 * max(1.0, width_mult))
            self.features = nn.Sequential(*layers, _conv(c, last, 1))
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
            initialise(self, nn.Conv2d, he_fan_out)
            initialise(self, nn.Linear, narrow)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.avgpool(self.features(input)).flatten(1))


def _width(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8 and at least nine tenths of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> MobileNetV2:
    """Build `MobileNetV2`: 3,504,872 parameters."""
    return MobileNetV2(num_classes, in_channels, **options)
