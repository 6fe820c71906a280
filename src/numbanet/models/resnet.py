"""Residual networks (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2015), and ResNeXt.

ResNeXt (Xie, Girshick, Dollar, Tu and He, "Aggregated residual transformations for deep neural networks", 2016) splits
the 3 x 3 convolution of each bottleneck into groups. The stride of a bottleneck is in its 3 x 3 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from numbanet import nn
from numbanet.models.weights import he_fan_out, initialise
from numbanet.nn import init
from numbanet.problem.base import integer, sizes
from numbanet.tensor import Tensor


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a shortcut around them: relu(f(x) + shortcut(x)).

    Parameters
    ----------
    in_channels, width : int
        Channels of the images, and of both convolutions.
    stride : int
        Of the first convolution.
    downsample : Module, optional
        The shortcut, where the shape changes; the identity if None.
    groups, width_per_group, dilation : int
        Of a `Bottleneck`; here only 1, 64 and 1 will do.

    Raises
    ------
    ValueError
        If one of the last three is anything else.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        width_per_group: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if (groups, width_per_group, dilation) != (1, 64, 1):
            given = f"groups={groups}, width_per_group={width_per_group}, dilation={dilation}"
            raise ValueError(f"BasicBlock has groups=1, width_per_group=64 and dilation=1 only, got {given}")
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride) from (N, in_channels, H, W)."""
        identity = input if self.downsample is None else self.downsample(input)
        x = self.relu(self.bn1(self.conv1(input)))
        return self.relu(self.bn2(self.conv2(x)) + identity)


class Bottleneck(nn.Module):
    """A 1 x 1, a 3 x 3 and a 1 x 1 convolution with batch norm, and a shortcut: relu(f(x) + shortcut(x)).

    Parameters
    ----------
    in_channels, width : int
        4 * `width` channels come out.
    stride, dilation : int
        Of the 3 x 3 convolution.
    downsample : Module, optional
        The shortcut, where the shape changes; the identity if None.
    groups, width_per_group : int
        The 3 x 3 convolution has `groups` groups of `width_per_group` channels where `width` is 64, else more.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        width_per_group: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        inner, outer = width * width_per_group // 64 * groups, width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, 4 * width, H / stride, W / stride) from (N, in_channels, H, W)."""
        identity = input if self.downsample is None else self.downsample(input)
        x = self.relu(self.bn1(self.conv1(input)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + identity)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return a 1 x 1 convolution with batch norm: the paper's shortcut B, where the shape changes."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A 7 x 7 convolution, 3 x 3 max pooling, four stages of residual blocks, a classifier.

    Parameters are named as in torchvision's ResNet. Images may have any size; the paper's have 224 x 224 pixels.

    Parameters
    ----------
    block : {BasicBlock, Bottleneck}
    layers : sequence of four int
        Blocks of each stage.
    num_classes, in_channels : int
    groups, width_per_group : int
        See `Bottleneck`.
    zero_init_residual : bool
        Let every block begin as its shortcut: the scale of its last batch norm starts at 0.
    replace_stride_with_dilation : sequence of three bool
        For the last three stages: keep the image's size, and dilate the 3 x 3 convolutions instead.
    generator : numpy.random.Generator, optional
        Draws the first values: normal, of deviation sqrt(2 / fan_out), in convolutions.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        zero_init_residual: bool = False,
        replace_stride_with_dilation: Sequence[bool] | None = (False, False, False),
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        if not callable(block) or not isinstance(getattr(block, "expansion", None), int):
            raise TypeError(f"block must be BasicBlock, Bottleneck or a class with their `expansion`, got {block!r}")
        counts = sizes("layers", layers)
        if len(counts) != 4:
            raise ValueError(f"layers must hold the numbers of blocks of four stages, got {layers}")
        groups, width_per_group = integer("groups", groups, 1), integer("width_per_group", width_per_group, 1)
        integer("groups * width_per_group", 8 * groups * width_per_group)  # of the last stage
        dilated = (False,) * 3 if replace_stride_with_dilation is None else replace_stride_with_dilation
        if not isinstance(dilated, (tuple, list, np.ndarray)) or len(dilated) != 3:
            raise ValueError(f"replace_stride_with_dilation must hold three bools, got {replace_stride_with_dilation}")
        channels, dilation = 64, 1

        def stage(width: int, blocks: int, stride: int, dilate: bool) -> nn.Sequential:
            nonlocal channels, dilation
            before, options = dilation, (groups, width_per_group)
            if dilate:
                dilation, stride = dilation * stride, 1
            outer = width * block.expansion
            shortcut = projection(channels, outer, stride) if (channels, 1) != (outer, stride) else None
            first = block(channels, width, stride, shortcut, *options, before)
            channels = outer
            return nn.Sequential(first, *(block(outer, width, 1, None, *options, dilation) for _ in range(blocks - 1)))

        with init.drawn_from(generator):
            self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.relu = nn.ReLU()
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
            self.layer1 = stage(64, counts[0], 1, False)
            self.layer2 = stage(128, counts[1], 2, dilated[0])
            self.layer3 = stage(256, counts[2], 2, dilated[1])
            self.layer4 = stage(512, counts[3], 2, dilated[2])
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(channels, num_classes)
            initialise(self, nn.Conv2d, he_fan_out)
        for module in self.modules():
            if zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                init.zeros_(getattr(module, "bn2" if isinstance(module, BasicBlock) else "bn3").weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(input))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """Build the 18-layer `ResNet`: 11,689,512 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, **options)


def resnet34(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """Build the 34-layer `ResNet`: 21,797,672 parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, **options)


def resnet50(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """Build the 50-layer `ResNet`: 25,557,032 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, **options)


def resnet101(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """Build the 101-layer `ResNet`: 44,549,160 parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)


def resnet152(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """Build the 152-layer `ResNet`: 60,192,808 parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels, **options)


def resnext50_32x4d(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """Build the 50-layer ResNeXt, 32 groups of 4 channels: 25,028,904 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, groups=32, width_per_group=4, **options)
