"""Within a captured step, gradients of what is used twice are added as a convolution stores its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops, optim, tape
from numbanet.models.resnet import BasicBlock, Bottleneck
from numbanet.tensor import Tensor
from tests.capturing.common import host, images


class Branches(nn.Module):
    """Several convolutions of one input, and a product of one matrix with two."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([
            nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 5, padding=2),
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 3, padding=1, groups=4),
        ])  # fmt: skip
        self.left, self.right = nn.Linear(16, 12), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        y: Any = sum(layer(x) for layer in self.branches)
        z = F.relu(y.mean((2, 3)))
        return self.left(z) * self.right(z)


def residual() -> nn.Module:
    down = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
    return nn.Sequential(BasicBlock(16, 16), BasicBlock(16, 32, 2, down), Bottleneck(32, 8), nn.Flatten())


# What stands behind a first layer, and how many gradients it adds.
CASES: dict[str, tuple[Any, int]] = {"residual": (residual, 3), "branches": (Branches, 5)}


def trained(rest: Any, captured: bool) -> tuple[list[np.ndarray], list[int]]:
    """Return what three steps make of the parameters, and the kernels that the last one launched, if it is captured."""
    nnet.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), rest())
    optimizer, rng = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), np.random.default_rng(5)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = nnet.capture(step) if captured else step
    losses = [run(nnet.tensor(rng.standard_normal((3, 8, 10, 10), np.float32))).item() for _ in range(4)]
    state = [np.array(losses), *(host(p).copy() for p in model.parameters())]
    if not captured:
        return state, []
    assert run.replays == 2
    (plan,) = run._plans.values()
    return state, [launch.call[0] for launch in plan._recording.launches]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_no_bit_differs_and_no_addition_is_launched(
    name: str, captured: bool, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest, additions = CASES[name]
    added, original = list[bool](), ops.add_conv2d_backward_input
    with monkeypatch.context() as patch:
        patch.setattr(ops, "add_conv2d_backward_input", lambda *args: (added.append(args[-1]), original(*args))[1])
        if in_place:
            patch.setattr(tape, "_LARGE", 0)
        found, launches = trained(rest, captured)
    assert added and any(added) == in_place
    for name in ("conv", "matmul"):
        module: Any = import_module(f"numbanet.functional.{name}")
        monkeypatch.setattr(module, "record", lambda *args, adds: tape.record(*args))
    expected, apart = trained(rest, captured)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if captured and not in_place:  # some kernels copy what they would overwrite
        assert len(apart) - len(launches) == additions


def test_a_gradient_that_is_kept_is_the_whole_one() -> None:
    x, layer = images(), nn.Conv2d(8, 8, 3, padding=1)

    def gradient(twice: bool) -> np.ndarray:
        y = F.relu(nnet.tensor(host(x), requires_grad=True))
        y.retain_grad()
        z = layer(y) * 2.0
        (z.sum() + (y * 3.0).sum() if twice else z.sum()).backward()
        assert y.grad is not None
        return host(y.grad)

    np.testing.assert_array_equal(gradient(True), gradient(False) + np.float32(3))
