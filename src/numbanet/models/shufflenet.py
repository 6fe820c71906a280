"""ShuffleNet v2 (Ma, Zhang, Zheng and Sun, "Practical guidelines for efficient CNN architecture design", 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.tensor import Tensor

_STAGES = ((116, 4), (232, 8), (464, 4))  # channels and units of stages 2, 3 and 4 at width 1.0: the paper's table 5


def _branch(in_channels: int, channels: int, stride: int, squeeze: bool) -> nn.Sequential:
    """Return [1 x 1 with ReLU], 3 x 3 depthwise, 1 x 1 with ReLU; batch norm after each."""
    middle = channels if squeeze else in_channels
    first = [nn.Conv2d(in_channels, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()] if squeeze else []
    return nn.Sequential(
        *first,
        nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False), nn.BatchNorm2d(middle),
        nn.Conv2d(middle, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
    )  # fmt: skip


class Unit(nn.Module):
    """Half of the channels pass (or, with stride 2, all pass both branches); then both halves are shuffled.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : int
        1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = out_channels // 2
        self.branch1 = _branch(in_channels, half, stride, squeeze=False) if stride > 1 else nn.Sequential()
        self.branch2 = _branch(in_channels if stride > 1 else half, half, stride, squeeze=True)

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, H / stride, W / stride) from (N, in_channels, H, W)."""
        if self.stride > 1:
            left, right = self.branch1(input), self.branch2(input)
        else:
            half = input.shape[1] // 2
            left, right = input[:, :half], self.branch2(input[:, half:])
        return F.channel_shuffle(F.cat((left, right), 1), 2)


class ShuffleNetV2(nn.Module):
    """A convolution, 3 x 3 max pooling, three stages of units, a 1 x 1 convolution, a classifier.

    Parameters are named as in torchvision's ShuffleNetV2. Images may have any size; the paper's have 224 x 224 pixels.

    Parameters
    ----------
    num_classes, in_channels : int
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, *, generator: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        with init.drawn_from(generator):
            first = nn.Conv2d(in_channels, 24, 3, 2, padding=1, bias=False)
            self.conv1 = nn.Sequential(first, nn.BatchNorm2d(24), nn.ReLU())
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
            c = 24
            for number, (width, units) in enumerate(_STAGES, 2):
                stage = [Unit(c, width, 2), *(Unit(width, width, 1) for _ in range(units - 1))]
                setattr(self, f"stage{number}", nn.Sequential(*stage))
                c = width
            self.conv5 = nn.Sequential(nn.Conv2d(c, 1024, 1, bias=False), nn.BatchNorm2d(1024), nn.ReLU())
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(1024, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.maxpool(self.conv1(input))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(self.avgpool(x).flatten(1))


def shufflenet_v2_x1_0(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ShuffleNetV2:
    """Build `ShuffleNetV2` of width 1.0: 2,278,604 parameters."""
    return ShuffleNetV2(num_classes, in_channels, **options)
