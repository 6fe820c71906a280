"""Captured training steps: a replay does what the step does, and every change that matters is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.optim import lr_scheduler
from numbanet.tensor import Tensor
from tests.capturing.trainer import REPLAYED, Replayer, Trainer, adam, both, compared, numbers, sgd, usual, whole


def test_a_replay_has_the_bits_of_the_step(driver: Replayer) -> None:
    """Losses, parameters, averages, moments and gradients; with random draws, and a schedule between the steps."""
    found, replays = [], []
    for eager in (True, False):
        nnet.manual_seed(7)
        trainer = Trainer(driver.place, whole, lambda parameters: optim.Adam(parameters, lr=0.05, weight_decay=1e-2))
        schedule, losses = lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.3), []
        for number in range(5):
            if eager:
                trainer.run = nnet.capture(trainer.plain)  # which knows nothing yet: it runs, with its layers fused
            driver.calls.clear()
            losses.append(trainer.step(number).item())
            replays.append(driver.calls.count("graph"))
            schedule.step()
        found.append((losses, trainer.state(), nnet.random.get_state().tolist()))
    (losses, state, draws), (ours, other, theirs) = found
    assert replays == [0] * 5 + REPLAYED
    assert ours == losses and theirs == draws and other.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(other[name], state[name], err_msg=name)
    assert state["step 0"] == other["step 0"] == 5 and other["2.num_batches_tracked"] == 5


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "Nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "AMSGrad": lambda p: optim.Adam(p, lr=0.05, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.05),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.05, momentum=0.5, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.5),
    "Adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "two groups": lambda p: (lambda w, b: optim.SGD([{"params": [w]}, {"params": [b], "lr": 0.3}], lr=0.1))(*p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str, driver: Replayer) -> None:
    assert compared(driver, *both(driver, optimizer=OPTIMIZERS[name]), steps=4) == REPLAYED[:4]


def options(**values: Any) -> Callable[[Trainer, int], None]:
    """Return a change of an optimizer's options before the fourth step."""

    def change(trainer: Trainer, number: int) -> None:
        if number == 3:
            trainer.optimizer.param_groups[0].update(values)

    return change


@pytest.mark.parametrize(
    ("optimizer", "change"),
    [
        (sgd, options(lr=0.7)), (sgd, options(momentum=0.1, weight_decay=0.3, dampening=0.5)),
        (sgd, options(maximize=True)), (adam, options(betas=(0.5, 0.6), eps=0.1, weight_decay=0.2)),
        (adam, options(decoupled_weight_decay=True, weight_decay=0.2)),
    ],
)  # fmt: skip
def test_changed_numbers_reach_the_graph(optimizer: Any, change: Any, driver: Replayer) -> None:
    assert compared(driver, *both(driver, optimizer=optimizer), change=change) == REPLAYED


def reloaded(trainer: Trainer, number: int) -> None:
    if number == 3:
        trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())


def replaced(trainer: Trainer, number: int) -> None:
    if number == 3:
        weight = trainer.model[0].weight  # type: ignore[index]
        weight.data = weight.data.copy()


def frozen(trainer: Trainer, number: int) -> None:
    if number == 3:
        trainer.model[0].bias.requires_grad_(False)  # type: ignore[index, union-attr]


def parted(trainer: Trainer, number: int) -> None:
    """Let a state be further than the others: Adam's steps differ."""
    if number == 3:
        trainer.optimizer.state[trainer.model[0].bias]["step"] += 7  # type: ignore[index]


def doubled(trainer: Trainer, number: int) -> None:
    if number == 3:
        trainer.model[0].register_forward_hook(lambda module, args, y: y * 2.0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("optimizer", "change", "graphs"),
    [
        (sgd, options(nesterov=True), [0, 0, 2, 0, 0, 2]),
        (sgd, options(momentum=0.0), [0, 0, 2, 0, 0, 2]),
        (lambda p: optim.SGD(p, lr=0.1), options(momentum=0.9), [0, 0, 2, 0, 0, 2]),
        (adam, reloaded, [0, 0, 2, 0, 0, 2]), (adam, replaced, [0, 0, 2, 0, 0, 2]), (adam, frozen, [0, 0, 2, 0, 0, 2]),
        (adam, parted, [0, 0, 2, 0, 0, 2]), (adam, doubled, [0, 0, 2, 0, 0, 0]),
    ],
    ids=["nesterov", "no momentum", "momentum", "reloaded", "replaced", "frozen", "parted", "hook"],
)  # fmt: skip
def test_other_kernels_or_arrays_are_recorded_anew(
    optimizer: Any, change: Any, graphs: list[int], driver: Replayer
) -> None:
    assert compared(driver, *both(driver, optimizer=optimizer), steps=6, change=change) == graphs


def test_steps_of_other_shapes_leave_a_graph(driver: Replayer) -> None:
    counts = [4, 4, 4, 3, 4, 3, 4, 3]
    found = compared(driver, *both(driver), steps=len(counts), count=counts.__getitem__)
    assert found == [0, 0, 2, 0, 1, 0, 1, 2]


def test_values_may_change_between_steps(driver: Replayer) -> None:
    """A graph reads parameters where they lie: a look at the model, or new values there, don't concern it."""

    def change(trainer: Trainer, number: int) -> None:
        with nnet.no_grad():
            trainer.model(trainer.tensors(99)[0])
        if number == 4:
            trainer.model[0].weight.data[...] = 0.25  # type: ignore[index]
            trainer.model[0].weight.bump_version()  # type: ignore[index, operator]

    assert compared(driver, *both(driver), change=change) == REPLAYED


def test_weights_have_no_prepared_forms_beside_a_graph(driver: Replayer) -> None:
    """It refers to their arrays as anybody might who changes them; once it is gone, there are forms again."""
    trainer = Trainer(driver.place)
    weight: Any = trainer.model[0].weight  # type: ignore[index]
    seen = []
    for number in range(3):
        trainer.step(number)
        seen.append(weight.prepared() is not None)
    trainer.run._plans.clear()  # type: ignore[attr-defined]
    assert [*seen, weight.prepared() is not None] == [True, False, False, True]


def test_draws_go_on(driver: Replayer) -> None:
    def step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Any:
        mask = F.dropout(x.detach() * 0.0 + 1.0, 0.5)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x * mask), y)
        loss.backward()
        optimizer.step()
        return loss, mask, F.dropout2d(mask.reshape(1, 4, 6, 1) * 0.0 + 1.0, 0.5)

    here, there = both(driver, step=step)
    masks = []

    def change(trainer: Trainer, number: int) -> None:
        if number == 4:
            nnet.manual_seed(3)

    assert compared(driver, here, there, change=change) == REPLAYED
    for number in range(4):
        masks.append(str(numbers(there.step(number))[1:]))
    assert len(set(masks)) == 4, "no mask comes twice"


def test_gradients_that_are_held_are_not_overwritten(driver: Replayer) -> None:
    here, there = both(driver)
    held: dict[str, Any] = {}

    def change(trainer: Trainer, number: int) -> None:
        if trainer is there and number in (3, 5, 7):
            weight = there.model[0].weight  # type: ignore[index]
            held["held"] = {3: lambda: weight.grad, 5: lambda: weight.grad.data, 7: lambda: weight.grad.T}[number]()
            held["values"] = weight.grad.tolist()
        elif trainer is there and number in (4, 6, 8):
            gradient = held.pop("held")
            assert gradient.T.tolist() == held["values"] if number == 8 else gradient.tolist() == held["values"]
            del gradient

    assert compared(driver, here, there, steps=9, change=change) == [0, 0, 2, 0, 1, 0, 1, 0, 1]


def test_gradients_that_are_added_to_from_outside(driver: Replayer) -> None:
    """A backward beside the graph adds to the gradients that it left; the graph begins with none, as the step does."""

    def change(trainer: Trainer, number: int) -> None:
        if number in (3, 4):
            x, y = trainer.tensors(60)
            F.cross_entropy(trainer.model(x), y).backward()
        if number == 4:
            trainer.optimizer.step()

    assert compared(driver, *both(driver), change=change) == REPLAYED


def test_gradients_that_a_step_adds_to(driver: Replayer) -> None:
    """A step that begins without zero_grad is a graph where it meets no gradients, and runs where it meets some."""

    def change(trainer: Trainer, number: int) -> None:
        if number == 4:
            x, y = trainer.tensors(60)
            F.cross_entropy(trainer.model(x), y).backward()

    assert compared(driver, *both(driver, step=cleared), steps=6, change=change) == [0, 0, 2, 1, 0, 1]


def test_results_are_tensors_of_their_own(driver: Replayer) -> None:
    trainer = Trainer(driver.place)
    losses = [trainer.step(0) for _ in range(4)]
    assert len({loss.item() for loss in losses}) == 4
    for loss in losses:
        assert loss.requires_grad
        with pytest.raises(RuntimeError, match="whose tape was freed"):
            loss.backward()


def cleared(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Any:
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    norm = optim.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": loss, "norm": norm}["loss"], norm


def twice(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    return [usual(model, optimizer, x, y) for _ in range(2)]


def only_gradients(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


@pytest.mark.parametrize("step", [cleared, twice, only_gradients])
def test_other_steps(step: Any, driver: Replayer) -> None:
    assert compared(driver, *both(driver, optimizer=adam, step=step), steps=4) == REPLAYED[:4]
