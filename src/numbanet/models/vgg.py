"""VGG (Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014).

The rows are columns A, B, D and E of the paper's table 1: how many 3 x 3 convolutions stand before each pooling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import nn
from numbanet.models.weights import he_fan_out, initialise, narrow
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.problem.dropout import probability
from numbanet.tensor import Tensor

_WIDTHS = (64, 128, 256, 512, 512)
_CONVS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """3 x 3 convolutions with ReLU in five stages, 2 x 2 max pooling after each, then three fully connected layers.

    Parameters are named as in torchvision's VGG. Images may have any size from 32 pixels on; the paper's have 224.

    Parameters
    ----------
    depth : {11, 13, 16, 19}
        Layers with weights.
    num_classes, in_channels : int
    batch_norm : bool
        Normalise between each convolution and its ReLU.
    dropout : float
        Probability of dropping an output of the hidden fully connected layers.
    generator : numpy.random.Generator, optional
        Draws the first values: normal, of deviation sqrt(2 / fan_out) in convolutions and 0.01 in linear layers.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        batch_norm: bool = False,
        dropout: float = 0.5,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        dropout = probability(dropout, "dropout")
        if integer("depth", depth) not in _CONVS:
            raise ValueError(f"depth must be one of {', '.join(map(str, _CONVS))}, got {depth}")
        with init.drawn_from(generator):
            layers: list[nn.Module] = []
            for width, convs in zip(_WIDTHS, _CONVS[depth]):
                for _ in range(convs):
                    layers += [nn.Conv2d(in_channels, width, 3, padding=1)]
                    layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
                    in_channels = width
                layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, num_classes),
            )  # fmt: skip
            initialise(self, nn.Conv2d, he_fan_out)
            initialise(self, nn.Linear, narrow)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.avgpool(self.features(input)).flatten(1))


def vgg11(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 11-layer `VGG`: 132,863,336 parameters."""
    return VGG(11, num_classes, in_channels, **options)


def vgg13(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 13-layer `VGG`: 133,047,848 parameters."""
    return VGG(13, num_classes, in_channels, **options)


def vgg16(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 16-layer `VGG`: 138,357,544 parameters."""
    return VGG(16, num_classes, in_channels, **options)


def vgg19(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 19-layer `VGG`: 143,667,240 parameters."""
    return VGG(19, num_classes, in_channels, **options)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 11-layer `VGG` with batch norm."""
    return VGG(11, num_classes, in_channels, batch_norm=True, **options)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 13-layer `VGG` with batch norm."""
    return VGG(13, num_classes, in_channels, batch_norm=True, **options)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 16-layer `VGG` with batch norm."""
    return VGG(16, num_classes, in_channels, batch_norm=True, **options)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """Build the 19-layer `VGG` with batch norm."""
    return VGG(19, num_classes, in_channels, batch_norm=True, **options)
