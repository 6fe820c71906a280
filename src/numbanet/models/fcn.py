"""FCN (Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2014) on ResNet-50."""

from __future__ import annotations

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.models.resnet import resnet50
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.tensor import Tensor


class FCNHead(nn.Sequential):
    """3 x 3 convolution to a quarter of the channels, batch norm, ReLU, dropout, 1 x 1 convolution to the classes.

    Parameters
    ----------
    in_channels, channels : int
        `channels` scores a pixel come out.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        inner = integer("in_channels", in_channels, 4) // 4
        channels = integer("channels", channels, 1)
        super().__init__(
            nn.Conv2d(in_channels, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Dropout(0.1), nn.Conv2d(inner, channels, 1),
        )  # fmt: skip


class FCN(nn.Module):
    """ResNet-50 with dilation in place of its last two strides, and a head whose scores are enlarged to the image.

    Parameters are named as in torchvision's FCN: 35,322,218 with 21 classes and the auxiliary head.

    Parameters
    ----------
    num_classes, in_channels : int
    aux_loss : bool
        Whether a second head scores what the third stage yields; its loss helps the first layers.
    generator : numpy.random.Generator, optional
        Draws the first values.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        aux_loss: bool = False,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 1)
        with init.drawn_from(generator):
            network = resnet50(in_channels=in_channels, replace_stride_with_dilation=(False, True, True))
            # Everything but the classifier.
            layers = {name: child for name, child in network.named_children() if name not in ("avgpool", "fc")}
            self.backbone = nn.Sequential(layers)
            self.classifier = FCNHead(2048, num_classes)
            self.aux_classifier = FCNHead(1024, num_classes) if aux_loss else None

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        """Return scores (N, num_classes, H, W) as ``"out"`` and, from the auxiliary head, as ``"aux"``."""
        halfway = self.backbone[:-1](input)
        scores = {"out": self.classifier(self.backbone[-1](halfway))}
        if self.aux_classifier is not None:
            scores["aux"] = self.aux_classifier(halfway)
        size = input.shape[-2:]
        return {name: F.interpolate(x, size, mode="bilinear", align_corners=False) for name, x in scores.items()}


def fcn_resnet50(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    aux_loss: bool = False,
    generator: np.random.Generator | None = None,
) -> FCN:
    """Build an `FCN`."""
    return FCN(num_classes, in_channels, aux_loss=aux_loss, generator=generator)
