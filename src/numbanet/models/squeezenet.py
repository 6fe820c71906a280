"""SqueezeNet (Iandola et al., "AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016)."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.models.weights import initialise, narrow
from numbanet.nn import init
from numbanet.problem.base import choice, integer
from numbanet.problem.dropout import probability
from numbanet.tensor import Tensor

# Of each fire module: filters of the squeeze convolution, and of each of the two expand convolutions; "M" is a pooling.
_FEATURES: dict[str, tuple[Any, ...]] = {
    "1_0": ("M", (16, 64), (16, 64), (32, 128), "M", (32, 128), (48, 192), (48, 192), (64, 256), "M", (64, 256)),
    "1_1": ("M", (16, 64), (16, 64), "M", (32, 128), (32, 128), "M", (48, 192), (48, 192), (64, 256), (64, 256)),
}
_FIRST = {"1_0": (96, 7), "1_1": (64, 3)}  # filters and their size


class Fire(nn.Module):
    """A few 1 x 1 filters squeeze the channels; as many 1 x 1 as 3 x 3 filters expand them again.

    Parameters
    ----------
    in_channels, squeeze, expand : int
        2 * `expand` channels come out.
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, 2 * expand, H, W) from (N, in_channels, H, W)."""
        x = self.relu(self.squeeze(input))
        return F.cat((self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))), 1)


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules and a 1 x 1 convolution to the scores, which are averaged over the image.

    Parameters are named as in torchvision's SqueezeNet. Images may have any size from 33 pixels on; 224 is usual.

    Parameters
    ----------
    version : {"1_0", "1_1"}
        That of the paper, or one with 2.4 times less work.
    num_classes, in_channels : int
    dropout : float
        Probability of dropping an input of the last convolution.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.
    """

    def __init__(
        self,
        version: str = "1_0",
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        dropout: float = 0.5,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 1)
        dropout = probability(dropout, "dropout")
        channels, size = _FIRST[choice("version", version, tuple(_FIRST))]
        with init.drawn_from(generator):
            layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, size, stride=2), nn.ReLU()]
            for entry in _FEATURES[version]:
                if entry == "M":
                    layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                else:
                    layers.append(Fire(channels, *entry))
                    channels = 2 * entry[1]
            self.features = nn.Sequential(*layers)
            last = nn.Conv2d(channels, num_classes, 1)
            self.classifier = nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            initialise(self, nn.Conv2d, init.kaiming_uniform_)
            narrow(last.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.features(input)).flatten(1)


def squeezenet1_0(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> SqueezeNet:
    """Build `SqueezeNet` 1.0: 1,248,424 parameters."""
    return SqueezeNet("1_0", num_classes, in_channels, **options)


def squeezenet1_1(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> SqueezeNet:
    """Build `SqueezeNet` 1.1: 1,235,496 parameters."""
    return SqueezeNet("1_1", num_classes, in_channels, **options)
