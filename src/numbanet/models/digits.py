"""A small network for the bundled 8 x 8 digits."""

from __future__ import annotations

import numpy as np

from numbanet import nn
from numbanet.models.builder import convnet


def digits(
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int | tuple[int, int] = 8,
    *,
    generator: np.random.Generator | None = None,
) -> nn.Sequential:
    """Build the network for the bundled digits: 21,482 parameters.

    Twice a 3 x 3 convolution (32 and 64 filters) with batch norm, ReLU and 2 x 2 max pooling; then a fully connected
    layer to the scores. Twenty epochs of AdamW (batches of 32, one cycle of learning rates up to 0.003, no
    augmentation) classify 99 % of the test digits correctly.

    Parameters
    ----------
    num_classes : int
    in_channels : int
    image_size : int or (int, int)
        Height and width, at least 4.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """
    return convnet(num_classes, in_channels, image_size, channels=(32, 64), batch_norm=True, generator=generator)
