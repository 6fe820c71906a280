"""The models against twins in torch that hold the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tnn

import numbanet as nnet
from numbanet import functional as F
from numbanet import models, nn


class Block(tnn.Module):
    """The block of a residual network for CIFAR; option A pads with zeros, option B projects."""

    def __init__(self, c: int, k: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = tnn.Conv2d(c, k, 3, stride, 1, bias=False)
        self.bn1 = tnn.BatchNorm2d(k)
        self.conv2 = tnn.Conv2d(k, k, 3, 1, 1, bias=False)
        self.bn2 = tnn.BatchNorm2d(k)
        self.grow = k - c
        if stride != 1 and shortcut == "B":
            self.downsample = tnn.Sequential(tnn.Conv2d(c, k, 1, stride, bias=False), tnn.BatchNorm2d(k))

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.grow:
            x = tnn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.grow))
        return torch.relu(y + x)


class ResNetCifar(tnn.Module):
    def __init__(self, shortcut: str, blocks_a_stage: int = 3) -> None:
        super().__init__()
        self.conv1 = tnn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = tnn.BatchNorm2d(16)
        sizes = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for number, (c, k, stride) in enumerate(sizes, 1):
            blocks = [Block(c, k, stride, shortcut), *(Block(k, k, 1, shortcut) for _ in range(blocks_a_stage - 1))]
            setattr(self, f"layer{number}", tnn.Sequential(*blocks))
        self.fc = tnn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def twin(model: nn.Sequential) -> tnn.Sequential:
    """The same layers, read from their text, which is torch's."""
    return tnn.Sequential(*(eval(f"tnn.{layer!r}") for layer in model))


class Autoencoder(tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (12, 9, 7, 3)
        down = [layer for a, b in zip(sizes, sizes[1:]) for layer in (tnn.Linear(a, b), tnn.Sigmoid())]
        up = [layer for a, b in zip(sizes[::-1], sizes[-2::-1]) for layer in (tnn.Linear(a, b), tnn.Sigmoid())]
        self.encoder, self.decoder = tnn.Sequential(*down[:-1]), tnn.Sequential(*up)

    def forward(self, x: Any) -> Any:
        return self.decoder(self.encoder(x))


class UNet(tnn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

        def double(c: int, k: int) -> tnn.Sequential:
            return tnn.Sequential(tnn.Conv2d(c, k, 3), tnn.ReLU(), tnn.Conv2d(k, k, 3), tnn.ReLU())

        w = [width * 2**step for step in range(5)]
        self.down = tnn.ModuleList([double(c, k) for c, k in zip([1, *w], w)])
        self.up = tnn.ModuleList([tnn.ConvTranspose2d(2 * k, k, 2, 2) for k in w[3::-1]])
        self.merge = tnn.ModuleList([double(2 * k, k) for k in w[3::-1]])
        self.head = tnn.Conv2d(width, 2, 1)

    def forward(self, x: Any) -> Any:
        a = self.down[0](x)
        b = self.down[1](tnn.functional.max_pool2d(a, 2))
        c = self.down[2](tnn.functional.max_pool2d(b, 2))
        d = self.down[3](tnn.functional.max_pool2d(c, 2))
        x = self.down[4](tnn.functional.max_pool2d(d, 2))
        for up, merge, left in zip(self.up, self.merge, (d, c, b, a)):
            x = up(x)
            cut = (left.shape[2] - x.shape[2]) // 2
            x = merge(torch.cat((left[:, :, cut:-cut, cut:-cut], x), 1))
        return self.head(x)


def zfnet_features() -> nn.Sequential:
    with nn.init.skipped():
        layers = models.zfnet().features
    for parameter in layers.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(*layers, nn.Flatten())


CASES = {
    "unet": (
        lambda: nn.Sequential(models.unet(width=2), nn.Flatten()),
        lambda m: tnn.Sequential(UNet(2), tnn.Flatten()),
        (1, 188, 188),
    ),
    "zfnet": (zfnet_features, twin, (3, 64, 64)),
    "all_cnn": (lambda: models.all_cnn(dropout=False), twin, (3, 16, 16)),
    "autoencoder": (lambda: models.autoencoder((12, 9, 7, 3)), lambda m: Autoencoder(), (12,)),
    "resnet20": (lambda: models.resnet20(), lambda m: ResNetCifar("A"), (3, 32, 32)),
    "resnet20-B": (lambda: models.resnet20(shortcut="B"), lambda m: ResNetCifar("B"), (3, 32, 32)),
    "resnet56": (lambda: models.get("resnet56"), lambda m: ResNetCifar("A", 9), (3, 32, 32)),
    "lenet5": (models.lenet5, twin, (1, 28, 28)),
    "convnetjs": (models.convnetjs, twin, (3, 32, 32)),
    "digits": (models.digits, twin, (1, 8, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_gradients_and_statistics(name: str) -> None:
    make, make_twin, shape = CASES[name]
    ours = make().double()
    theirs = make_twin(ours).double()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((4, *shape)), rng.integers(0, 10, 4)
    loss = F.cross_entropy(ours(nnet.tensor(x)), nnet.tensor(labels))
    expected = tnn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    loss.backward()
    expected.backward()
    for (key, parameter), (_, other) in zip(ours.named_parameters(), theirs.named_parameters()):
        scale = other.grad.abs().max().item()
        np.testing.assert_allclose(parameter.grad.data, other.grad.numpy(), rtol=0, atol=1e-8 * scale, err_msg=key)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-10, atol=1e-12, err_msg=key)
    ours.eval(), theirs.eval()
    with nnet.no_grad(), torch.no_grad():
        scores, other = ours(nnet.tensor(x)).data, theirs(torch.tensor(x)).numpy()
    np.testing.assert_allclose(scores, other, rtol=1e-8, atol=1e-10)
