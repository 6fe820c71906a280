"""Steps in which NumPy works something out of values: replays work it out anew, or the steps run each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.tensor import Tensor
from tests.capturing.common import host

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Scaled(nn.Module):
    """A linear layer whose scores a buffer of another dtype scales."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6, generator=np.random.default_rng(1))
        self.register_buffer("scale", nnet.tensor(np.ones(6, dtype)))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


def masked(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """The padding of targets, -1, counts nothing; the first batches have none."""
    known = target != -1
    return F.mse_loss(model(x) * known, target * known)


def chosen(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(F.where((target != -1).clone(), model(x), target), target)


def guarded(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    scores = model(x)
    return F.mse_loss(scores * (scores.detach().abs() < 50), target)


def plain(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(model(x), target)


def trained(loss_of: Loss, dtype: Any, captured: bool) -> tuple[list[float], list[np.ndarray], int]:
    """Return losses, what is learned, and how many steps were replayed; from the fourth step on the data are others."""
    model = Scaled(dtype)
    optimizer, rng = optim.SGD(model.parameters(), lr=0.01), np.random.default_rng(2)

    def step(x: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, target)
        loss.backward()
        optimizer.step()
        return loss

    run, losses = nnet.capture(step), []
    for number in range(6):
        x, target = (rng.standard_normal((4, 6)).astype(np.float32) for _ in range(2))
        if number >= 3:
            target[:, :2], x[0] = -1, 1e3
            model.scale.copy_(nnet.tensor(np.full(6, 3, dtype)))
        run = run if captured else nnet.capture(step)
        losses.append(run(nnet.tensor(x), nnet.tensor(target)).item())
    return losses, [host(p).copy() for p in model.parameters()], run.replays


@pytest.mark.parametrize(
    ("loss_of", "dtype", "replays"),
    [
        (plain, np.float32, 4), (plain, np.int64, 4), (plain, np.float64, 0), (masked, np.float32, 4),
        (chosen, np.float32, 0), (guarded, np.float32, 4),
    ],
)  # fmt: skip
def test_what_numpy_makes_of_values_is_made_each_time(
    loss_of: Loss, dtype: Any, replays: int, device: str
) -> None:
    (losses, learned, _), (found, ours, count) = trained(loss_of, dtype, False), trained(loss_of, dtype, True)
    assert count == (4 if device == "cuda" else replays)  # there, kernels convert and copy: nothing is NumPy's
    assert found == losses
    for a, b in zip(ours, learned, strict=True):
        np.testing.assert_array_equal(a, b)
