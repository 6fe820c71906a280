"""Networks of all kinds of layers: their captured training steps are replayed, and have the bits of those that run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.models.resnet import BasicBlock
from numbanet.tensor import Tensor


class EverySecond(nn.Module):
    """The shortcut without parameters: every second pixel, and channels of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 8)) + self.strided(x)

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(8, 16, 1, stride=2, bias=False)


NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
    "residual": lambda: [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), BasicBlock(16, 16)],
    "shortcut": lambda: [EverySecond(), nn.BatchNorm2d(16), nn.ReLU()],
    "depthwise": lambda: [
        nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6(), nn.Conv2d(24, 24, 3, 2, 1, groups=24), nn.BatchNorm2d(24),
        nn.Conv2d(24, 8, 1),
    ],
    "groups": lambda: [nn.Conv2d(8, 24, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(24, 12, 5, stride=2, groups=2)],
    "pools": lambda: [
        nn.Conv2d(8, 20, 5, padding=2), nn.GELU(), nn.MaxPool2d(2), nn.Dropout2d(0.3), nn.AvgPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d(2),
    ],
    "wide rows": lambda: [nn.Conv2d(8, 72, 3, padding=1, bias=False), nn.BatchNorm2d(72), nn.SiLU()],
    "groups and layers": lambda: [
        nn.Conv2d(8, 16, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.LayerNorm([16, 10, 10]),
        nn.InstanceNorm2d(16, affine=True),
    ],
    "transposed": lambda: [nn.ConvTranspose2d(8, 12, 3, stride=2), nn.ReLU(), nn.Dropout(0.2)],
}  # fmt: skip


def trained(name: str, captured: bool) -> tuple[list[np.ndarray], int]:
    """Return all that five steps leave, and how many were replayed."""
    nnet.manual_seed(3)
    model = nn.Sequential(*NETWORKS[name](), nn.Flatten())
    model.append(nn.Linear(model(nnet.tensor(np.zeros((4, 8, 10, 10), np.float32))).shape[1], 5))
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run: Any = nnet.capture(step)
    rng, found = np.random.default_rng(5), []
    for _ in range(5):
        x = nnet.tensor(rng.standard_normal((4, 8, 10, 10)).astype(np.float32))
        run = run if captured else nnet.capture(step)  # one that knows nothing yet runs, with its layers fused
        found.append(np.array(run(x, nnet.tensor(rng.integers(0, 5, 4))).item()))
    tensors = *model.parameters(), *model.buffers()
    return [*found, *(t.detach().cpu().numpy().copy() for t in tensors)], run.replays


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_replay_has_the_bits_of_a_run(device: str, name: str, threads: int) -> None:
    before = nnet.get_num_threads()
    nnet.set_num_threads(threads)
    try:
        (expected, none), (found, replays) = trained(name, False), trained(name, True)
    finally:
        nnet.set_num_threads(before)
    assert (none, replays) == (0, 3)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
