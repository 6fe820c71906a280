"""The models against definitions in torch that hold the same weights (torchvision's: test_torchvision)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import numbanet as nnet
from benchmarks import backends, nets
from numbanet import models, nn
from tests.parity import reference_models as reference


def zfnet() -> models.ZFNet:
    """ZFNet without dropout, with hidden layers of 8."""
    with nn.init.skipped():
        model = models.zfnet(10, dropout=0.0)
    for place, (taken, given) in {0: (9216, 8), 3: (8, 8), 6: (8, 10)}.items():
        model.classifier[place] = nn.Linear(taken, given)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # the others hold what was in memory
    return model


def timed(name: str) -> Any:
    """One of the networks that are timed, which are written for both libraries."""
    return nets.NETS[name].build(backends.get("torch"))


# What makes ours, what makes torch's, the shape of an image.
CASES: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "unet": (lambda: models.unet(width=2), lambda: reference.UNet(2), (1, 188, 188)),
    "unet-padded": (lambda: models.unet(width=2, padding=1), lambda: reference.UNet(2, 1), (1, 32, 48)),
    "zfnet": (zfnet, lambda: reference.ZFNet(8, 10), (3, 64, 64)),
    "all_cnn": (lambda: models.all_cnn(dropout=False), reference.all_cnn, (3, 16, 16)),
    "autoencoder": (lambda: models.autoencoder((12, 9, 7, 3)), lambda: reference.Autoencoder((12, 9, 7, 3)), (12,)),
    "resnet20": (models.resnet20, reference.ResNetCifar, (3, 32, 32)),
    "resnet20-B": (lambda: models.resnet20(shortcut="B"), lambda: reference.ResNetCifar("B"), (3, 32, 32)),
    "resnet56": (lambda: models.get("resnet56"), lambda: reference.ResNetCifar("A", 9), (3, 32, 32)),
    "lenet5": (models.lenet5, lambda: timed("lenet5"), (1, 28, 28)),
    "convnetjs": (models.convnetjs, lambda: timed("convnetjs"), (3, 32, 32)),
    "digits": (models.digits, lambda: timed("digits"), (1, 8, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_gradients_and_statistics(name: str) -> None:
    make, make_twin, shape = CASES[name]
    torch.manual_seed(0)
    ours, theirs = make().double(), make_twin().double()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, *shape))
    scores, expected = ours(nnet.tensor(x)), theirs(torch.tensor(x))
    assert scores.shape == tuple(expected.shape)
    # Every score counts, each with a factor of its own.
    factors = rng.standard_normal(scores.shape)
    loss, other = (scores * nnet.tensor(factors)).sum(), (expected * torch.tensor(factors)).sum()
    np.testing.assert_allclose(scores.data, expected.detach(), rtol=0, atol=1e-10 * expected.abs().max().item())
    loss.backward()
    other.backward()
    for (key, parameter), (_, other) in zip(ours.named_parameters(), theirs.named_parameters()):
        scale = other.grad.abs().max().item()
        np.testing.assert_allclose(parameter.grad.data, other.grad.numpy(), rtol=0, atol=1e-8 * scale, err_msg=key)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-10, atol=1e-12, err_msg=key)
    ours.eval(), theirs.eval()
    with nnet.no_grad(), torch.no_grad():
        scores, other = ours(nnet.tensor(x)).data, theirs(torch.tensor(x)).numpy()
    np.testing.assert_allclose(scores, other, rtol=1e-8, atol=1e-10)
