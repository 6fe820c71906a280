"""ResNet-20 in training against a definition in torch: equal weights and batches, losses compared step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import numbanet as nnet
from numbanet import functional as F
from numbanet import models, optim
from tests.parity.reference_models import ResNetCifar


def batches(steps: int, size: int, dtype: type) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise on a flat colour for each class, so that there is something to learn."""
    rng = np.random.default_rng(1)
    colours = rng.standard_normal((10, 3, 1, 1))
    labels = rng.integers(0, 10, (steps, size))
    return [((colours[y] + rng.standard_normal((size, 3, 32, 32))).astype(dtype), y) for y in labels]


def losses(steps: int, size: int, dtype: type, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of both networks before each step of SGD with momentum and weight decay."""
    torch.manual_seed(0)
    # In its other format, PyTorch's float32 losses are up to 1e-4 off those of float64 on a CPU with AVX2.
    number = torch.float64 if dtype is np.float64 else torch.float32
    theirs = ResNetCifar().to(number, memory_format=torch.channels_last)
    ours = models.resnet20().to(np.dtype(dtype))
    ours.load_state_dict(theirs.state_dict())
    options = {"lr": lr, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}
    optimizers = optim.SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
    found = []
    for images, labels in batches(steps, size, dtype):
        pair = (
            F.cross_entropy(ours(nnet.tensor(images)), nnet.tensor(labels)),
            torch.nn.functional.cross_entropy(
                theirs(torch.tensor(images).contiguous(memory_format=torch.channels_last)), torch.tensor(labels)
            ),
        )
        for loss, optimizer in zip(pair, optimizers):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append([loss.item() for loss in pair])
    ours_by_step, theirs_by_step = np.array(found).T
    return ours_by_step, theirs_by_step


@pytest.mark.parametrize(
    ("steps", "size", "dtype", "lr", "rtol"), [(20, 8, np.float64, 0.01, 1e-8), (10, 64, np.float32, 1e-3, 1e-4)]
)
def test_losses_step_by_step(steps: int, size: int, dtype: type, lr: float, rtol: float) -> None:
    ours, theirs = losses(steps, size, dtype, lr)
    assert len(ours) == steps and ours[-1] < 0.9 * ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=rtol)
