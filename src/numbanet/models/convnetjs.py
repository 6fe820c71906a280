"""The CIFAR-10 network of the ConvNetJS demonstration."""

from __future__ import annotations

import numpy as np

from numbanet import nn
from numbanet.models.builder import convnet


def convnetjs(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | tuple[int, int] = 32,
    *,
    generator: np.random.Generator | None = None,
) -> nn.Sequential:
    """Build the CIFAR-10 network of Karpathy's ConvNetJS demonstration: 22,466 parameters.

    Three times a convolution of 5 x 5 filters (16, 20 and 20; stride 1, pad 2), ReLU and 2 x 2 max pooling; then a
    fully connected layer to the scores. The softmax is part of the loss.

    Parameters
    ----------
    num_classes : int
    in_channels : int
    image_size : int or (int, int)
        Height and width, at least 8.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """
    return convnet(num_classes, in_channels, image_size, channels=(16, 20, 20), kernel_size=5, generator=generator)
