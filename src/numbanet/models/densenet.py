"""DenseNet (Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer, sizes
from numbanet.problem.dropout import probability
from numbanet.tensor import Tensor


class DenseLayer(nn.Sequential):
    """BN-ReLU-Conv(1x1)-BN-ReLU-Conv(3x3), whose result is appended to the channels of its input.

    Parameters
    ----------
    in_channels, growth, bottleneck : int
        `growth` channels come out of bottleneck * growth inner ones.
    dropout : float
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int, dropout: float) -> None:
        inner = bottleneck * growth
        layers: dict[str, nn.Module] = {
            "norm1": nn.BatchNorm2d(in_channels),
            "relu1": nn.ReLU(),
            "conv1": nn.Conv2d(in_channels, inner, 1, bias=False),
            "norm2": nn.BatchNorm2d(inner),
            "relu2": nn.ReLU(),
            "conv2": nn.Conv2d(inner, growth, 3, padding=1, bias=False),
        }
        super().__init__(layers | ({"drop": nn.Dropout(dropout)} if dropout else {}))

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, in_channels + growth, H, W) from (N, in_channels, H, W)."""
        return F.cat((input, super().forward(input)), 1)


class DenseNet(nn.Module):
    """Blocks of layers each of which sees the results of all before it; between blocks the image is halved.

    Parameters are named as in torchvision's DenseNet. Images may have any size from 29 pixels on; the paper's have 224.

    Parameters
    ----------
    growth_rate : int
        Channels that each layer appends: k in the paper.
    block_config : sequence of int
        Layers of each block.
    num_init_features : int
        Filters of the first convolution.
    bn_size : int
        The 1 x 1 convolutions have bn_size * growth_rate filters.
    drop_rate : float
        Probability of dropping, after each layer.
    num_classes, in_channels : int
    generator : numpy.random.Generator, optional
        Draws the first values: normal, of deviation sqrt(2 / fan_in), in convolutions.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        channels = integer("num_init_features", num_init_features, 1)
        growth_rate, bn_size = integer("growth_rate", growth_rate, 1), integer("bn_size", bn_size, 1)
        integer("bn_size * growth_rate", bn_size * growth_rate)
        drop_rate = probability(drop_rate, "drop_rate")
        counts = sizes("block_config", block_config)
        with init.drawn_from(generator):
            layers: dict[str, nn.Module] = {
                "conv0": nn.Conv2d(in_channels, channels, 7, 2, padding=3, bias=False),
                "norm0": nn.BatchNorm2d(channels),
                "relu0": nn.ReLU(),
                "pool0": nn.MaxPool2d(3, 2, padding=1),
            }
            for number, count in enumerate(counts, 1):
                if number > 1:
                    layers[f"transition{number - 1}"] = _transition(channels, channels // 2)
                    channels //= 2
                block: dict[str, nn.Module] = {}
                for layer in range(1, count + 1):
                    block[f"denselayer{layer}"] = DenseLayer(channels, growth_rate, bn_size, drop_rate)
                    channels += growth_rate
                layers[f"denseblock{number}"] = nn.Sequential(block)
            layers["norm5"] = nn.BatchNorm2d(channels)
            self.features = nn.Sequential(layers)
            self.classifier = nn.Linear(channels, num_classes)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    init.kaiming_normal_(module.weight)
                elif isinstance(module, nn.Linear) and module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        x = F.relu(self.features(input))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _transition(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        {
            "norm": nn.BatchNorm2d(in_channels),
            "relu": nn.ReLU(),
            "conv": nn.Conv2d(in_channels, out_channels, 1, bias=False),
            "pool": nn.AvgPool2d(2),
        }
    )


def densenet121(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> DenseNet:
    """Build the 121-layer `DenseNet`: 7,978,856 parameters."""
    return DenseNet(num_classes=num_classes, in_channels=in_channels, **options)
