"""Plain convolutional networks from their pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import nn
from numbanet.problem.base import integer, pair, sizes
from numbanet.problem.dropout import probability


def convnet(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | tuple[int, int] = 32,
    *,
    channels: Sequence[int] = (32, 64, 128),
    convs: int = 1,
    kernel_size: int = 3,
    pool: bool = True,
    hidden: Sequence[int] = (),
    batch_norm: bool = False,
    dropout: float = 0.0,
    softmax: bool = False,
    generator: np.random.Generator | None = None,
) -> nn.Sequential:
    """Build [(CONV-RELU)*N - POOL?]*M - (FC-RELU)*K - FC - SOFTMAX?.

    Convolutions have stride 1 and keep the size of the image; each pooling halves it (2 x 2 windows, stride 2).

    Parameters
    ----------
    num_classes : int
        Scores that come out for each image.
    in_channels : int
    image_size : int or (int, int)
        Height and width of the images.
    channels : sequence of int
        Filters of each stage's convolutions: M numbers.
    convs : int
        N, the convolutions of a stage.
    kernel_size : int
        Odd size of the filters.
    pool : bool
        Whether each stage ends with a pooling.
    hidden : sequence of int
        Sizes of the hidden fully connected layers: K numbers.
    batch_norm : bool
        Normalise between each convolution (then without bias) and its ReLU.
    dropout : float
        Probability of dropping an input of each fully connected layer.
    softmax : bool
        End with probabilities. Leave it out for training: the cross-entropy takes scores.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Returns
    -------
    Sequential
        From images (N, in_channels, height, width) to (N, num_classes).

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or the image is too small for the poolings.
    """
    height, width = pair("image_size", image_size, 1)
    if integer("kernel_size", kernel_size, 1) % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that convolutions keep the image's size, got {kernel_size}")
    num_classes = integer("num_classes", num_classes, 0)
    widths = tuple(integer("channels", k, 1) for k in sizes("channels", channels))
    inner, dropout = sizes("hidden", hidden), probability(dropout, "dropout")
    stages = len(widths) if pool else 0
    if min(height, width) >> stages == 0:
        raise ValueError(f"image_size must be at least {1 << stages} for {stages} poolings, got {image_size}")
    layers: list[nn.Module] = []
    count = integer("in_channels", in_channels, 1)
    for filters in widths:
        for _ in range(integer("convs", convs, 0)):
            layers += _convolution(count, filters, kernel_size, batch_norm, generator)
            count = filters
        layers += [nn.MaxPool2d(2)] if pool else []
    layers.append(nn.Flatten())
    count = integer("channels * image_size", count * (height >> stages) * (width >> stages))
    for size in (*inner, num_classes):
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [nn.Linear(count, size, generator=generator), nn.ReLU()]
        count = size
    layers[-1:] = [nn.Softmax(1)] if softmax else []  # in place of the last ReLU
    return nn.Sequential(*layers)


def _convolution(in_channels: int, out_channels: int, size: int, batch_norm: bool, generator: Any) -> list[nn.Module]:
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=not batch_norm, generator=generator)
    return [layer, nn.BatchNorm2d(out_channels), nn.ReLU()] if batch_norm else [layer, nn.ReLU()]
