"""Captured training steps: layers run fused, and learn the same."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.tensor import Tensor
from tests.capturing.common import RNG, host, images, plan_of


class Training:
    """A training step, plain or captured."""

    def __init__(self) -> None:
        generator = np.random.default_rng(3)
        self.model = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, generator=generator), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            Residual(generator), nn.Flatten(), nn.Dropout(0.25), nn.Linear(1600, 5, generator=generator),
        )  # fmt: skip
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        return loss


class Residual(nn.Module):
    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(16, 16, 3, padding=1, generator=generator), nn.BatchNorm2d(16)
        self.b, self.norm_b = nn.Conv2d(16, 16, 3, padding=1, generator=generator), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm_a(self.a(x)))
        y = self.norm_b(self.b(y))
        y += x
        return F.relu(y)


def test_a_captured_training_step_learns_the_same(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = Training(), Training()
    step = nnet.capture(fused.step)
    seen: list[str] = []
    original = nnet.dispatch.run
    for number in range(6):
        x, labels = images(8), nnet.tensor(RNG.integers(0, 5, 8))
        nnet.manual_seed(number)
        expected = plain.step(x, labels).item()
        nnet.manual_seed(number)
        with monkeypatch.context() as patch:
            patch.setattr(
                nnet.dispatch, "run", lambda problem, *rest: (seen.append(problem.operation), original(problem, *rest))
            )
            loss = step(x, labels).item()
        assert loss == pytest.approx(expected, rel=1e-4)
    assert "activation" not in seen, "each ReLU is part of a batch norm"
    assert seen.count("batch_norm") == 3 * 6, "three forward, three backward: run, recorded, tried, then replayed"
    for (name, ours), theirs in zip(fused.model.named_parameters(), plain.model.parameters()):
        np.testing.assert_allclose(host(ours), host(theirs), rtol=1e-3, atol=1e-4, err_msg=name)
    for ours, theirs in zip(fused.model.buffers(), plain.model.buffers()):
        np.testing.assert_allclose(host(ours), host(theirs), rtol=1e-4, atol=1e-6)


class ReadTwice(nn.Module):
    """The result of a batch norm is read after its ReLU, and before."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z = F.relu(y)
        a = z * y
        w = self.norm(a)
        b = w * 1.0
        return F.relu(w) + b


def test_a_recording_that_no_longer_fits_goes_before_the_step_is_run() -> None:
    """Else there is memory for two of them, and its gradients, while the step is recorded anew."""
    training = Training()
    alive: list[bool] = []

    def function(x: Tensor, labels: Tensor) -> Tensor:
        alive.append(plan is not None and plan() is not None)
        return training.step(x, labels)

    x, labels, plan = images(8), nnet.tensor(RNG.integers(0, 5, 8)), None
    captured = nnet.capture(function)
    for _ in range(4):
        captured(x, labels)
    plan = weakref.ref(plan_of(captured))
    training.model[5].p = 0.5
    captured(x, labels)
    assert alive == [False] * 4 and captured.replays == 2 and plan() is None


def test_running_averages_follow_each_batch_once(device: str) -> None:
    plain, fused, x = ReadTwice(), ReadTwice(), images()
    captured = nnet.capture(fused)
    for _ in range(3):
        expected, y = plain(x), captured(x)
        np.testing.assert_allclose(host(y), host(expected), rtol=1e-4, atol=1e-5)
        expected.sum().backward()
        y.sum().backward()
    for ours, theirs in zip(fused.buffers(), plain.buffers()):
        np.testing.assert_allclose(host(ours), host(theirs), rtol=1e-5)
    for ours, theirs in zip(fused.parameters(), plain.parameters()):
        np.testing.assert_allclose(host(ours.grad), host(theirs.grad), rtol=1e-3, atol=1e-3)


def test_gradients_survive_a_look_under_no_grad(device: str) -> None:
    model = nn.BatchNorm2d(8)

    def function(x: Tensor) -> Tensor:
        y = model(x)
        with nnet.no_grad():
            assert np.isfinite(host(y)).all()
        return y.sum()

    x = images().requires_grad_()
    nnet.capture(function)(x).backward()
    assert x.grad is not None and model.bias.grad is not None
    np.testing.assert_allclose(host(model.bias.grad), 200.0)
