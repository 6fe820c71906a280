"""Training steps on a GPU that are not captured bring nothing there but their batch, and wait for nothing but that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from numbanet import nn, optim
from numbanet.optim import lr_scheduler
from tests.capturing.trainer import Affine, Trainer, adam, sgd
from tests.cuda.fake import FakeDriver


def dropping() -> nn.Module:
    return nn.Sequential(Affine(), nn.Dropout(0.4))


@pytest.mark.parametrize("optimizer", [adam, sgd])
def test_changing_numbers_are_no_uploads(optimizer: Callable[[Any], optim.Optimizer], driver: FakeDriver) -> None:
    """Learning rates, step counts and random draws differ in each step: they are arguments of kernels."""
    trainer, counts = Trainer("cuda", dropping, optimizer), []
    schedule = lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.9)
    for number in range(16):
        operands = trainer.tensors(number)
        driver.calls.clear()
        trainer.plain(*operands)
        counts.append([sum(call.startswith(what) for call in driver.calls) for what in ("upload", "allocate", "sync")])
        schedule.step()
    assert counts[0][0] > 0, "the first steps bring tables, and addresses until arrays have their places"
    assert counts[10:] == [[0, 0, 0]] * 6
