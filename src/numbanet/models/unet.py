"""U-Net (Ronneberger, Fischer and Brox, "Convolutional networks for biomedical image segmentation", 2015)."""

from __future__ import annotations

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.tensor import Tensor

_DEPTH = 4  # poolings on the way down


class UNet(nn.Module):
    """Down in four steps that double the channels, up in four that halve them, with what was there on the way down.

    As in the paper, convolutions do not pad: 572 x 572 pixels become scores for the 388 x 388 in the middle, and what
    comes from the way down is cropped. 31,030,658 parameters with one channel in and two classes.

    Parameters
    ----------
    num_classes, in_channels : int
    width : int
        Channels of the first step; 64 in the paper.
    padding : int
        Of the 3 x 3 convolutions: with 1 the scores have the size of the image, which must be a multiple of 16.
    generator : numpy.random.Generator, optional
        Draws the first values: normal, of deviation sqrt(2 / fan_in).

    Raises
    ------
    TypeError, ValueError
        If a number is out of range; in a call, if the image is too small.
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 1,
        *,
        width: int = 64,
        padding: int = 0,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 1)
        width = integer("width", width, 1)
        integer("width", width << _DEPTH)  # of the last step down
        widths = [width << step for step in range(_DEPTH + 1)]
        up = widths[::-1]
        with init.drawn_from(generator):
            self.down = nn.ModuleList(_double(c, k, padding) for c, k in zip([in_channels, *widths], widths))
            self.pool = nn.MaxPool2d(2)
            self.up = nn.ModuleList(nn.ConvTranspose2d(c, k, 2, 2) for c, k in zip(up, up[1:]))
            self.merge = nn.ModuleList(_double(c, k, padding) for c, k in zip(up, up[1:]))
            self.head = nn.Conv2d(width, num_classes, 1)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    init.kaiming_normal_(module.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes, P, Q) of images (N, in_channels, H, W), P = H - 184 where H is 16 k - 4."""
        passed: list[Tensor] = []
        x = self.down[0](input)
        for step in list(self.down)[1:]:
            passed.append(x)
            x = step(self.pool(x))
        for up, merge in zip(self.up, self.merge):
            x = up(x)
            x = merge(F.cat((_middle(passed.pop(), x.shape[-2:]), x), -3))
        return self.head(x)


def _double(in_channels: int, out_channels: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=padding), nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=padding), nn.ReLU(),
    )  # fmt: skip


def _middle(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the middle of an image, of a height and width."""
    top, left = ((have - want) // 2 for have, want in zip(image.shape[-2:], size))
    return image[..., top : top + size[0], left : left + size[1]]


def unet(
    num_classes: int = 2,
    in_channels: int = 1,
    *,
    width: int = 64,
    padding: int = 0,
    generator: np.random.Generator | None = None,
) -> UNet:
    """Build a `UNet`."""
    return UNet(num_classes, in_channels, width=width, padding=padding, generator=generator)
