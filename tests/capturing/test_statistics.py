"""Within a captured training step, convolutions give the batch norms behind them their statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.cpu.norm import moments as separate
from numbanet.tensor import Tensor
from tests.capturing.common import host, images


def launched(step: Any) -> list[int]:
    """Return the addresses of the kernels that a recording repeats."""
    (plan,) = step._plans.values()
    return [launch.call[0] for launch in plan._recording.launches]


class Kinds(nn.Module):
    """Convolutions of several kinds, each with a batch norm."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        generator = np.random.default_rng(4)
        options: list[dict[str, Any]] = [
            {"padding": 1}, {"padding": 1, "groups": 8}, {"padding": 1, "groups": 2, "bias": False}, {"stride": 2},
        ]  # fmt: skip
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, generator=generator, **given) for given in options])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in options])
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms):
            y = layer(x)
            z = y + 0 if self.again else None  # reads the convolution before the batch norm does
            x = F.relu(norm(y))
            x = x if z is None else x + z
        return x


def trained(model: Kinds, x: list[Tensor], captured: bool) -> tuple[list[Any], Any]:
    optimizer, labels = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nnet.tensor(np.arange(5))

    def step(x: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(1), labels)
        loss.backward()
        optimizer.step()
        return loss

    run = nnet.capture(step) if captured else step
    losses = [run(each, labels).item() for each in x]
    return [np.array(losses), *(host(t).copy() for t in (*model.parameters(), *model.buffers()))], run


@pytest.mark.parametrize("again", [False, True])
def test_the_results_are_those_of_a_pass_of_its_own(again: bool, device: str) -> None:
    x = [images(5) for _ in range(4)]
    expected, _ = trained(Kinds(again), x, False)
    found, step = trained(Kinds(again), x, True)
    assert step.replays == 2
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    if device == "cuda":  # there, they take a pass
        return
    passes = launched(step).count(separate.entry("float32")[0])
    assert passes == (4 if again else 0), "no pass reads the result for its mean and variance"


def test_a_weight_changed_between_layer_and_norm_is_seen_as_it_was(device: str) -> None:
    conv, norm = nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)

    def function(x: Tensor) -> Tensor:
        y = conv(x)
        with nnet.no_grad():
            conv.weight.mul_(0.5)
        return norm(y)

    x, before = images(3), conv.weight.detach().clone()
    found = host(nnet.capture(function)(x))
    with nnet.no_grad():
        conv.weight.copy_(before)
    np.testing.assert_allclose(found, host(function(x)), rtol=1e-4, atol=1e-5)


def test_an_addition_joins_the_norm_and_not_the_convolution_beside_it() -> None:
    left, right, norm = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4)
    x, counts = images(3), []
    for swapped in (False, True):

        def step(x: Tensor, swapped: bool = swapped) -> Tensor:
            a, b = left(x), norm(right(x))
            y = F.relu(b + a if swapped else a + b)
            y.mean().backward()
            return y.detach()

        run = nnet.capture(step)
        for _ in range(3):
            left.zero_grad(), right.zero_grad(), norm.zero_grad()
            run(x)
        assert run.replays == 1
        counts.append(len(launched(run)))
    assert counts[0] == counts[1]
