"""GoogLeNet (Szegedy et al., "Going deeper with convolutions", 2014) with batch norm, as it is trained today."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.nn import init
from numbanet.problem.base import integer
from numbanet.problem.dropout import probability
from numbanet.tensor import Tensor

# Columns of the paper's table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5 (3x3 filters, as torchvision's checkpoint has
# them); pool projection.
_INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue


class GoogLeNetOutputs(NamedTuple):
    """Scores (N, num_classes) of the classifier and of both auxiliary heads, the later one first."""

    logits: Tensor
    aux_logits2: Tensor | None
    aux_logits1: Tensor | None


class ConvNorm(nn.Module):
    """A convolution with batch norm and ReLU; arguments as for Conv2d."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        """Return relu(bn(conv(input)))."""
        return self.relu(self.bn(self.conv(input)))


class Inception(nn.Module):
    """Four branches side by side: 1 x 1; 1 x 1 and 3 x 3, twice; pooling and 1 x 1.

    Parameters
    ----------
    in_channels : int
    one, reduce3, three, reduce5, five, pooled : int
        Filters, as in the columns of the paper's table.
    """

    def __init__(
        self, in_channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = ConvNorm(in_channels, one, 1)
        self.branch2 = nn.Sequential(ConvNorm(in_channels, reduce3, 1), ConvNorm(reduce3, three, 3, padding=1))
        self.branch3 = nn.Sequential(ConvNorm(in_channels, reduce5, 1), ConvNorm(reduce5, five, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), ConvNorm(in_channels, pooled, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, one + three + five + pooled, H, W) from (N, in_channels, H, W)."""
        return F.cat([branch(input) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier halfway, whose loss gives the first layers gradients.

    Parameters
    ----------
    in_channels, num_classes : int
    dropout : float
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (N, num_classes)."""
        x = self.conv(F.adaptive_avg_pool2d(input, 4)).flatten(1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """Nine inception modules behind three convolutions: 6,624,904 parameters, 13,004,888 with the auxiliary heads.

    Parameters are named as in torchvision's GoogLeNet. Images may have any size from 15 pixels on; the paper's have
    224 x 224.

    Parameters
    ----------
    num_classes, in_channels : int
    aux_logits : bool
        Whether there are auxiliary heads. In training mode the result is then a `GoogLeNetOutputs`; the paper adds 0.3
        of the loss of each auxiliary head to the loss.
    transform_input : bool
        Take images that were normalised with ImageNet's mean and deviation, and give them mean and deviation 0.5: what
        torchvision's checkpoint was trained on.
    dropout, dropout_aux : float
        Probability of dropping before the classifier, and before those of the auxiliary heads.
    generator : numpy.random.Generator, optional
        Draws the first values: normal, of deviation 0.01.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 0)
        dropout = probability(dropout, "dropout")
        dropout_aux = probability(dropout_aux, "dropout_aux")
        self.aux_logits, self.transform_input = aux_logits, transform_input
        pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        with init.drawn_from(generator):
            self.conv1, self.maxpool1 = ConvNorm(in_channels, 64, 7, 2, 3), pool()
            self.conv2, self.conv3, self.maxpool2 = ConvNorm(64, 64, 1), ConvNorm(64, 192, 3, padding=1), pool()
            channels = 192
            for name, (one, reduce3, three, reduce5, five, pooled) in _INCEPTIONS.items():
                inception = Inception(channels, one, reduce3, three, reduce5, five, pooled)
                setattr(self, f"inception{name}", inception)
                channels = one + three + five + pooled
            self.maxpool3, self.maxpool4 = pool(), nn.MaxPool2d(2)
            self.aux1 = AuxiliaryHead(512, num_classes, dropout_aux) if aux_logits else None
            self.aux2 = AuxiliaryHead(528, num_classes, dropout_aux) if aux_logits else None
            self.avgpool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout)
            self.fc = nn.Linear(channels, num_classes)
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    init.trunc_normal_(module.weight, std=0.01)

    def forward(self, input: Tensor) -> Any:
        """Return scores (N, num_classes); in training mode, with auxiliary heads, a `GoogLeNetOutputs`."""
        x = _renormalised(input) if self.transform_input else input
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        early = self.inception4a(x)
        late = self.inception4d(self.inception4c(self.inception4b(early)))
        x = self.maxpool4(self.inception4e(late))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.aux1 is None or self.aux2 is None or not self.training:
            return logits
        return GoogLeNetOutputs(logits, self.aux2(late), self.aux1(early))


def _renormalised(images: Tensor) -> Tensor:
    """Undo ImageNet's mean and deviation, and apply 0.5 and 0.5."""
    mean, deviation = (np.array(v, images.dtype).reshape(1, 3, 1, 1) for v in (_MEAN, _DEVIATION))
    factor, shift = (Tensor(values).to(images.device) for values in (deviation / 0.5, (mean - 0.5) / 0.5))
    return images * factor + shift


def googlenet(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> GoogLeNet:
    """Build `GoogLeNet`."""
    return GoogLeNet(num_classes, in_channels, **options)
