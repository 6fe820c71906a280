"""The networks that torchvision does not have, written in torch after their papers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """The block of a residual network for CIFAR; option A pads with zeros, option B projects."""

    def __init__(self, c: int, k: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, k, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(k)
        self.conv2 = nn.Conv2d(k, k, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(k)
        self.grow = k - c
        if stride != 1 and shortcut == "B":
            self.downsample = nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.grow:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.grow))
        return torch.relu(y + x)


class ResNetCifar(nn.Module):
    """He, Zhang, Ren and Sun, 2015, section 4.2: 6n + 2 layers, of 16, 32 and 64 filters."""

    def __init__(self, shortcut: str = "A", blocks_a_stage: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        sizes = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for number, (c, k, stride) in enumerate(sizes, 1):
            blocks = [Block(c, k, stride, shortcut), *(Block(k, k, 1, shortcut) for _ in range(blocks_a_stage - 1))]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Autoencoder(nn.Module):
    """Hinton and Salakhutdinov, 2006: logistic units, but for a linear code; the decoder mirrors the encoder."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        down = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.Sigmoid())]
        up = [layer for a, b in zip(sizes[::-1], sizes[-2::-1]) for layer in (nn.Linear(a, b), nn.Sigmoid())]
        self.encoder, self.decoder = nn.Sequential(*down[:-1]), nn.Sequential(*up)

    def forward(self, x: Any) -> Any:
        return self.decoder(self.encoder(x))


class UNet(nn.Module):
    """Ronneberger, Fischer and Brox, 2015, figure 1."""

    def __init__(self, width: int, padding: int = 0) -> None:
        super().__init__()

        def double(c: int, k: int) -> nn.Sequential:
            first, second = nn.Conv2d(c, k, 3, padding=padding), nn.Conv2d(k, k, 3, padding=padding)
            return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

        w = [width * 2**step for step in range(5)]
        self.down = nn.ModuleList([double(c, k) for c, k in zip([1, *w], w)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * k, k, 2, 2) for k in w[3::-1]])
        self.merge = nn.ModuleList([double(2 * k, k) for k in w[3::-1]])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Any) -> Any:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        d = self.down[3](F.max_pool2d(c, 2))
        x = self.down[4](F.max_pool2d(d, 2))
        for up, merge, left in zip(self.up, self.merge, (d, c, b, a)):
            x = up(x)
            cut = (left.shape[2] - x.shape[2]) // 2
            x = merge(torch.cat((left[:, :, cut : cut + x.shape[2], cut : cut + x.shape[3]], x), 1))
        return self.head(x)


class ZFNet(nn.Module):
    """Zeiler and Fergus, 2013, figure 3; `hidden` is 4096 there."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        convolutions = [(3, 96, 7, 2, 1), (96, 256, 5, 2, 0), (256, 384, 3, 1, 1), (384, 384, 3, 1, 1)]
        layers: list[nn.Module] = []
        for number, (c, k, size, stride, padding) in enumerate([*convolutions, (384, 256, 3, 1, 1)], 1):
            layers += [nn.Conv2d(c, k, size, stride, padding), nn.ReLU()]
            if number <= 2:
                layers += [nn.MaxPool2d(3, 2, 1), nn.LocalResponseNorm(5)]
        self.features = nn.Sequential(*layers, nn.MaxPool2d(3, 2))
        # At the places where dropout stands between them, which is off here.
        self.classifier = nn.ModuleDict(
            {"0": nn.Linear(9216, hidden), "3": nn.Linear(hidden, hidden), "6": nn.Linear(hidden, classes)}
        )

    def forward(self, x: Any) -> Any:
        x = F.adaptive_avg_pool2d(self.features(x), 6).flatten(1)
        for place in "03":
            x = torch.relu(self.classifier[place](x))
        return self.classifier["6"](x)


def all_cnn() -> nn.Sequential:
    """Springenberg, Dosovitskiy, Brox and Riedmiller, 2014, All-CNN-C of tables 1 and 2, without dropout."""
    r = nn.ReLU
    return nn.Sequential(
        nn.Conv2d(3, 96, 3, padding=1), r(), nn.Conv2d(96, 96, 3, padding=1), r(),
        nn.Conv2d(96, 96, 3, stride=2, padding=1), r(),
        nn.Conv2d(96, 192, 3, padding=1), r(), nn.Conv2d(192, 192, 3, padding=1), r(),
        nn.Conv2d(192, 192, 3, stride=2, padding=1), r(),
        nn.Conv2d(192, 192, 3), r(), nn.Conv2d(192, 192, 1), r(), nn.Conv2d(192, 10, 1), r(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
