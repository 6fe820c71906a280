"""A deep autoencoder (Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.tensor import Tensor


class Autoencoder(nn.Module):
    """Fully connected layers down to a short code, and their mirror image back; sigmoids between them.

    The code itself is linear, and the pixels that come out lie between 0 and 1: 2,837,314 parameters for the paper's
    784-1000-500-250-30 on MNIST.

    Parameters
    ----------
    sizes : sequence of int
        Pixels of an image, then the outputs of each layer of the encoder; the last is the code's length.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Attributes
    ----------
    encoder, decoder : Sequential

    Raises
    ------
    TypeError, ValueError
        If `sizes` holds anything but positive integers, or fewer than two.
    """

    def __init__(
        self, sizes: Sequence[int] = (784, 1000, 500, 250, 30), *, generator: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        if not isinstance(sizes, (Sequence, np.ndarray)) or isinstance(sizes, (str, bytes)):
            raise TypeError(f"sizes must be a sequence of integers, got {sizes!r}")
        self.sizes = tuple(integer("sizes", size, 1) for size in sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes must hold the pixels of an image and one layer at least, got {sizes}")
        with init.drawn_from(generator):
            self.encoder = nn.Sequential(*_layers(self.sizes)[:-1])
            self.decoder = nn.Sequential(*_layers(self.sizes[::-1]))

    def forward(self, input: Tensor) -> Tensor:
        """Return images of the shape of `input`, (N, ...) with as many numbers an image as `sizes` begins with."""
        return self.decoder(self.encoder(input.flatten(1))).reshape(input.shape)


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for taken, given in zip(sizes, sizes[1:]) for layer in (nn.Linear(taken, given), nn.Sigmoid())]


def autoencoder(
    sizes: Sequence[int] = (784, 1000, 500, 250, 30), *, generator: np.random.Generator | None = None
) -> Autoencoder:
    """Build an `Autoencoder`."""
    return Autoencoder(sizes, generator=generator)
