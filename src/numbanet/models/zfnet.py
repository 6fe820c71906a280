"""ZFNet (Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2013)."""

from __future__ import annotations

import numpy as np

from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.problem.dropout import probability
from numbanet.tensor import Tensor


class ZFNet(nn.Module):
    """AlexNet with smaller filters and strides in its first layers: 62,357,608 parameters with 1000 classes.

    The sizes are those of the paper's figure 3: 224, 110, 55, 26, 13, 6 pixels. Images may have any size from 63
    pixels on.

    Parameters
    ----------
    num_classes, in_channels : int
    dropout : float
        Probability of dropping an output of the hidden fully connected layers.
    generator : numpy.random.Generator, optional
        Draws the first values.

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
        dropout: float = 0.5,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        dropout = probability(dropout, "dropout")
        with init.drawn_from(generator):
            self.features = nn.Sequential(
                nn.Conv2d(in_channels, 96, 7, stride=2, padding=1), nn.ReLU(),
                nn.MaxPool2d(3, 2, padding=1), nn.LocalResponseNorm(5),
                nn.Conv2d(96, 256, 5, stride=2), nn.ReLU(),
                nn.MaxPool2d(3, 2, padding=1), nn.LocalResponseNorm(5),
                nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
                nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(),
                nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
                nn.MaxPool2d(3, 2),
            )  # fmt: skip
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, num_classes),
            )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.avgpool(self.features(input)).flatten(1))


def zfnet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    generator: np.random.Generator | None = None,
) -> ZFNet:
    """Build `ZFNet`."""
    return ZFNet(num_classes, in_channels, dropout=dropout, generator=generator)
