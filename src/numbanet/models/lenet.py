"""LeNet-5."""

from __future__ import annotations

import numpy as np

from numbanet import nn
from numbanet.problem.base import integer, pair


def lenet5(
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int | tuple[int, int] = 28,
    *,
    generator: np.random.Generator | None = None,
) -> nn.Sequential:
    """Build LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998) as it is trained today.

    Convolutions of six and sixteen 5 x 5 filters, each followed by 2 x 2 pooling, and fully connected layers of 120, 84
    and `num_classes`. As usual now, ReLU and max pooling stand for tanh and learned subsampling, the second convolution
    sees all six maps, and the first one pads 28 x 28 images to the 32 x 32 of the paper: 61,706 parameters.

    Parameters
    ----------
    num_classes : int
    in_channels : int
    image_size : int or (int, int)
        Height and width, at least 12.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """
    num_classes = integer("num_classes", num_classes, 0)
    height, width = pair("image_size", image_size, 12)
    rows, columns = ((size // 2 - 4) // 2 for size in (height, width))
    count = integer("16 * image_size", 16 * rows * columns)
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2, generator=generator),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, generator=generator),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(count, 120, generator=generator),
        nn.ReLU(),
        nn.Linear(120, 84, generator=generator),
        nn.ReLU(),
        nn.Linear(84, num_classes, generator=generator),
    )
