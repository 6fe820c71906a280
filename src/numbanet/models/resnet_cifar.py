"""Residual networks for images of the size of CIFAR's (He, Zhang, Ren and Sun, 2015, section 4.2)."""

from __future__ import annotations

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.models.resnet import BasicBlock, projection
from numbanet.models.weights import he_fan_out, initialise
from numbanet.nn import init
from numbanet.problem.base import choice, integer
from numbanet.tensor import Tensor


class ZeroPadShortcut(nn.Module):
    """Take every second pixel in both directions, and append channels of zeros: the paper's option A.

    Parameters
    ----------
    in_channels, out_channels : int
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, ceil(H / 2), ceil(W / 2)) from (N, in_channels, H, W)."""
        return F.pad(input[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.out_channels - self.in_channels))

    def extra_repr(self) -> str:
        """Return the numbers of channels."""
        return f"{self.in_channels}, {self.out_channels}"


class ResNetCifar(nn.Module):
    """A residual network of 6n + 2 layers: a convolution, three stages of n blocks (16, 32, 64 channels), a classifier.

    Parameters are named as in torchvision's ResNet (``conv1``, ``bn1``, ``layer1.0.conv1``, ..., ``fc``). Images may
    have any size; the paper's have 32 x 32 pixels. Convolutions start from normal numbers of deviation
    sqrt(2 / fan_out).

    Parameters
    ----------
    depth : int
        6n + 2: 20, 32, 44, 56 or 110 in the paper.
    num_classes : int
    in_channels : int
    shortcut : {"A", "B"}
        What leads around a block that halves the image: every second pixel and zeros in the new channels (A, the
        paper's choice for CIFAR: no parameters), or a 1 x 1 convolution with batch norm (B).
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If `depth` is not 6n + 2, or another argument makes no sense.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: str = "A",
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        blocks, rest = divmod(integer("depth", depth, 8) - 2, 6)
        if rest:
            raise ValueError(f"depth must be 6n + 2, such as 20, 32, 44, 56 or 110, got {depth}")
        choice("shortcut", shortcut, ("A", "B"))
        with init.drawn_from(generator):
            self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            self.relu = nn.ReLU()
            self.layer1 = _stage(16, 16, 1, blocks, shortcut)
            self.layer2 = _stage(16, 32, 2, blocks, shortcut)
            self.layer3 = _stage(32, 64, 2, blocks, shortcut)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(64, num_classes)
            initialise(self, nn.Conv2d, he_fan_out)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.relu(self.bn1(self.conv1(input)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: str) -> nn.Sequential:
    around: nn.Module | None = None
    if stride != 1:
        around = (ZeroPadShortcut(in_channels, out_channels) if shortcut == "A"
                  else projection(in_channels, out_channels, stride))  # fmt: skip
    first = BasicBlock(in_channels, out_channels, stride, around)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)))


def resnet20(
    num_classes: int = 10, in_channels: int = 3, shortcut: str = "A", generator: np.random.Generator | None = None
) -> ResNetCifar:
    """Build the 20-layer `ResNetCifar`: 269,722 parameters with ten classes."""
    return ResNetCifar(20, num_classes, in_channels, shortcut, generator)


def resnet56(
    num_classes: int = 10, in_channels: int = 3, shortcut: str = "A", generator: np.random.Generator | None = None
) -> ResNetCifar:
    """Build the 56-layer `ResNetCifar`: 853,018 parameters with ten classes."""
    return ResNetCifar(56, num_classes, in_channels, shortcut, generator)
