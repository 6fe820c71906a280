"""What the tests of captured functions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn
from numbanet.capturing import Captured
from numbanet.models.resnet import BasicBlock
from numbanet.tensor import Tensor

RNG = np.random.default_rng(0)


def images(n: int = 2, c: int = 8) -> Tensor:
    return nnet.tensor(RNG.standard_normal((n, c, 10, 10), dtype=np.float32))


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), BasicBlock(16, 16), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 5),
    )  # fmt: skip
    model(images())  # statistics of its own
    return model.eval()


def host(x: Tensor) -> np.ndarray:
    """Return the numbers of a tensor, wherever it lies."""
    return x.detach().cpu().numpy()


def multiply(x: Tensor, factor: float) -> None:
    """Change the numbers of a tensor: on the CPU as NumPy would, without a word to the tensor."""
    if x.device == "cpu":
        x.data[...] *= factor
    else:
        with nnet.no_grad():
            x.mul_(factor)


def check(captured: Captured, function: Callable[..., Any], *args: Any) -> None:
    with nnet.no_grad():
        expected = host(function(*args))
        np.testing.assert_allclose(host(captured(*args)), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def replays(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> bool:
    """Return whether a call runs kernels without choosing them."""
    chosen: list[Any] = []
    original = nnet.dispatch.run
    with monkeypatch.context() as patch:
        patch.setattr(nnet.dispatch, "run", lambda p, *rest: (chosen.append(p), original(p, *rest))[1])
        call()
    return all(problem.operation == "copy" for problem in chosen)


def infer(model: nn.Module, x: Tensor) -> np.ndarray:
    with nnet.no_grad():
        return host(model(x))


def plan_of(captured: Captured) -> Any:
    (plan,) = captured._plans.values()
    return plan
