"""The All-Convolutional Net (Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity", 2014)."""

from __future__ import annotations

import numpy as np

from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer

# Model All-CNN-C of the paper's tables 1 and 2: filters, their size, stride (2 stands for a pooling), padding.
_LAYERS = (
    (96, 3, 1, 1), (96, 3, 1, 1), (96, 3, 2, 1),
    (192, 3, 1, 1), (192, 3, 1, 1), (192, 3, 2, 1),
    (192, 3, 1, 0), (192, 1, 1, 0),
)  # fmt: skip


def all_cnn(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    dropout: bool = True,
    generator: np.random.Generator | None = None,
) -> nn.Sequential:
    """Build All-CNN-C for images of the size of CIFAR's: nine convolutions with ReLU, 1,369,738 parameters.

    The scores are averages over the image of the last convolution's. Images may have any size from 9 pixels on.

    Parameters
    ----------
    num_classes, in_channels : int
    dropout : bool
        Drop 20 % of the image, and half of what each convolution of stride 2 yields, as in the paper.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """
    layers: list[nn.Module] = [nn.Dropout(0.2)] if dropout else []
    c, num_classes = in_channels, integer("num_classes", num_classes, 1)
    with init.drawn_from(generator):
        for filters, size, stride, padding in _LAYERS:
            layers += [nn.Conv2d(c, filters, size, stride, padding), nn.ReLU()]
            layers += [nn.Dropout(0.5)] if dropout and stride == 2 else []
            c = filters
        layers += [nn.Conv2d(c, num_classes, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
