"""Training steps that a graph would not do as they are: they run each time."""

from __future__ import annotations

from typing import Any

import numpy as np

import numbanet as nnet
from numbanet import nn
from numbanet.tensor import Tensor
from tests.capturing.test_doubts import (  # noqa: F401 - what is imported is tested here
    test_a_step_that_is_replaced_later_is_called,
    test_what_a_graph_would_miss_is_run,
    test_what_optimizers_and_layers_do_in_python_is_run,
)
from tests.capturing.trainer import both, compared, usual
from tests.cuda.fake import FakeDriver


def test_another_tensor_in_a_step_is_followed(driver: FakeDriver) -> None:
    """An average of the weights: the function runs, and the average is right."""
    averages = {place: nnet.tensor(np.zeros(6, np.float32), device=place) for place in ("cpu", "cuda")}

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        with nnet.no_grad():
            averages[x.device].mul_(0.5).add_(model[0].weight.detach() * 0.5)  # type: ignore[index, union-attr]
        return loss

    assert compared(driver, *both(driver, step=step), steps=4)[2:] == [0, 0]
    assert np.allclose(averages["cuda"].cpu().numpy(), averages["cpu"].numpy(), rtol=1e-4)


def test_kept_tensors_stay(driver: FakeDriver) -> None:
    kept: dict[str, list[Tensor]] = {"cpu": [], "cuda": []}

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        kept[x.device].append(model(x).detach())
        return usual(model, optimizer, x, y)

    compared(driver, *both(driver, step=step), steps=4)
    for ours, theirs in zip(kept["cuda"], kept["cpu"], strict=True):
        np.testing.assert_allclose(ours.cpu().numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)
