"""Captured training steps, and errors in the middle."""

from __future__ import annotations

from typing import Any

import pytest

import numbanet as nnet
from numbanet import nn
from numbanet.tensor import Tensor
from tests.capturing.trainer import (
    REPLAYED,
    Replayer,
    Trainer,
    adam,
    both,
    compared,
    usual,
)


def test_an_error_in_a_step_leaves_the_next_ones_right(driver: Replayer) -> None:
    broken = {"now": False}

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        loss = usual(model, optimizer, x, y)
        if broken["now"]:
            raise KeyError("stop")
        return loss

    here, there = both(driver, optimizer=adam, step=step)

    def change(trainer: Trainer, number: int) -> None:
        if number in (1, 3):  # while it is recorded, and once it is: a graph knows nothing of it
            broken["now"] = True
            run = trainer.run if number == 1 else trainer.plain
            with pytest.raises(KeyError):
                run(*trainer.tensors(50))
            broken["now"] = False

    assert compared(driver, here, there, change=change) == REPLAYED


def test_options_that_make_no_sense_are_told_as_ever(driver: Replayer) -> None:
    here, there = both(driver, optimizer=adam)
    for trainer in (here, there):
        for number in range(3):
            trainer.step(number)
        trainer.optimizer.param_groups[0]["betas"] = (0.9, "much")
        draws = nnet.random.get_state().tolist()
        with pytest.raises(TypeError, match="betas"):
            trainer.step(3)
        assert nnet.random.get_state().tolist() == draws
        trainer.optimizer.param_groups[0]["betas"] = (0.9, 0.99)
    assert here.state().keys() == there.state().keys() and there.state()["step 0"] == 3
    assert compared(driver, here, there, steps=4) == REPLAYED[:4]
