"""Captured training steps on a GPU: a graph does what the step does."""

from __future__ import annotations

from typing import Any

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.tensor import Tensor
from tests.capturing.test_steps import (  # noqa: F401 - what is imported is tested here
    test_a_replay_has_the_bits_of_the_step,
    test_changed_numbers_reach_the_graph,
    test_draws_go_on,
    test_every_optimizer,
    test_gradients_that_a_step_adds_to,
    test_gradients_that_are_added_to_from_outside,
    test_gradients_that_are_held_are_not_overwritten,
    test_other_kernels_or_arrays_are_recorded_anew,
    test_other_steps,
    test_results_are_tensors_of_their_own,
    test_steps_of_other_shapes_leave_a_graph,
    test_values_may_change_between_steps,
    test_weights_have_no_prepared_forms_beside_a_graph,
)
from tests.capturing.trainer import REPLAYED, Trainer, both, compared, whole
from tests.cuda.fake import FakeDriver


def test_a_replay_is_one_graph_and_few_copies(driver: FakeDriver) -> None:
    trainer = Trainer(driver.place, whole)
    for number in range(3):
        trainer.step(number)
    operands = trainer.tensors(3)
    driver.calls.clear()
    trainer.run(*operands)
    done = [call for call in driver.calls if not call.startswith(("current", "allocate", "free"))]
    assert done.count("graph") == 1
    outside = [call for call in done[: done.index("graph")] if call.startswith("numbanet")]
    assert len(outside) == 2 and all("copy" in call for call in outside), "samples and labels"
    assert sum("optim_step" in call for call in done) == sum("cross_entropy" in call for call in done) / 2 == 1


def test_gradients_that_other_libraries_hold(driver: FakeDriver) -> None:
    """An array of theirs keeps the step from being replayed; an address alone is that of the next gradient, too."""
    trainer = Trainer(driver.place)
    for number in range(3):
        trainer.step(number)
    weight = trainer.model[0].weight  # type: ignore[index]
    held, before = nnet.from_dlpack(weight.grad), weight.grad.tolist()  # type: ignore[arg-type, union-attr]
    driver.calls.clear()
    trainer.step(3)
    assert "graph" not in driver.calls and held.tolist() == before != weight.grad.tolist()  # type: ignore[union-attr]
    del held
    trainer.step(4)
    assert "graph" in driver.calls
    address, before = address_of(weight.grad), weight.grad.tolist()  # type: ignore[union-attr]
    trainer.step(5)
    assert address_of(weight.grad) == address and weight.grad.tolist() != before  # type: ignore[union-attr]
    assert driver.calls.count("graph") == 2


def address_of(tensor: Any) -> int:
    return tensor.__cuda_array_interface__["data"][0]


def test_a_teacher_that_changes_is_seen(driver: FakeDriver) -> None:
    """Under no_grad, within a step, weights are prepared and batch norms folded: once, and anew when they change."""
    teachers = {}
    for place in ("cpu", "cuda"):
        teachers[place] = whole().eval().to(place)

    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        with nnet.no_grad():
            target = F.softmax(teachers[x.device](x), 1)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    def change(trainer: Trainer, number: int) -> None:
        if number == 3:
            nn.init.constant_(teachers[trainer.place][1].bias, 2.0)
            nn.init.constant_(teachers[trainer.place][6].weight, 0.3)

    assert compared(driver, *both(driver, step=step), steps=6, change=change) == [0, 0, 2, 0, 0, 2]


def by_position(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    """The loss reads scores at positions that lie on the GPU."""
    optimizer.zero_grad()
    scores = F.log_softmax(model(x), 1)
    loss = -(scores.transpose(0, 1)[y][:, 0]).sum()
    loss.backward()
    optimizer.step()
    return loss


def test_positions_on_the_gpu_are_read_anew(driver: FakeDriver) -> None:
    assert compared(driver, *both(driver, step=by_position), steps=4) == REPLAYED[:4]
