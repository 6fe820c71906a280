"""Optimizers, schedules and clipping against torch, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import numbanet as nnet
from numbanet.nn.utils import clip_grad_norm_, clip_grad_value_
from numbanet.tensor import Tensor

RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "maximize": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "maximize": True}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3,
                 "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [(), (33,), (5, 7), (8, 3, 3, 5), (17000,)]


def pairs(dtype: str) -> tuple[list[Tensor], list[torch.nn.Parameter]]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    arrays[3] = np.ascontiguousarray(arrays[3].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return [nnet.tensor(a, requires_grad=True) for a in arrays], theirs


def give_gradients(ours: list[Tensor], theirs: list[torch.nn.Parameter], rng: np.random.Generator) -> None:
    for p, q in zip(ours, theirs):
        gradient = rng.standard_normal(p.shape).astype(p.dtype)
        p.grad, q.grad = Tensor(gradient), torch.tensor(gradient)


def close(ours: np.ndarray, theirs: torch.Tensor) -> bool:
    # The steps are of the size of lr, so cancellation matters to the rules that divide by small roots.
    tolerance = 2e-5 if ours.dtype == np.float32 else 1e-12
    return bool(np.allclose(ours, theirs.detach().numpy(), rtol=tolerance, atol=tolerance))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, options", RULES)
def test_twenty_steps(name: str, options: dict[str, Any], dtype: str) -> None:
    ours, theirs = pairs(dtype)
    a, b = getattr(nnet.optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    rng = np.random.default_rng(1)
    for number in range(20):
        give_gradients(ours, theirs, rng)
        a.step()
        b.step()
        for p, q in zip(ours, theirs):
            assert close(p.data, q), (number, p.shape)
    mine, other = a.state_dict()["state"], b.state_dict()["state"]
    for index, values in other.items():
        for key, value in values.items():
            if key == "step":
                assert mine[index].get(key, int(value)) == int(value)
            elif value is not None:
                assert close(mine[index][key], value), (index, key)


@pytest.mark.parametrize("name, options", RULES)
def test_takes_torchs_state(name: str, options: dict[str, Any]) -> None:
    ours, theirs = pairs("float64")
    a, b = getattr(nnet.optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    rng = np.random.default_rng(1)
    for _ in range(3):
        give_gradients(ours, theirs, rng)
        b.step()
    for p, q in zip(ours, theirs):
        p.data[...] = q.detach().numpy()
    a.load_state_dict(b.state_dict())
    give_gradients(ours, theirs, rng)
    a.step()
    b.step()
    assert all(close(p.data, q) for p, q in zip(ours, theirs))


def test_defaults_are_torchs() -> None:
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"):
        ours = getattr(nnet.optim, name)([nnet.tensor([1.0])]).defaults
        theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
        assert ours == {key: theirs[key] for key in ours}
        assert set(theirs) - set(ours) <= {"foreach", "fused", "capturable", "differentiable"}


SCHEDULES: list[Callable[[Any, Any], Any]] = [
    lambda m, o: m.LambdaLR(o, lambda t: 0.9**t),
    lambda m, o: m.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (t + 1)]),
    lambda m, o: m.StepLR(o, 3),
    lambda m, o: m.StepLR(o, 4, gamma=0.5),
    lambda m, o: m.MultiStepLR(o, [3, 8, 8, 20], 0.3),
    lambda m, o: m.CosineAnnealingLR(o, 7),
    lambda m, o: m.CosineAnnealingLR(o, 5, eta_min=0.01),
    lambda m, o: m.CosineAnnealingLR(o, 1),
    lambda m, o: m.LinearLR(o),
    lambda m, o: m.LinearLR(o, 0.1, 0.7, 9),
    lambda m, o: m.OneCycleLR(o, 1.0, 40),
    lambda m, o: m.OneCycleLR(o, [1.0, 0.5], epochs=5, steps_per_epoch=8, pct_start=0.4, anneal_strategy="linear"),
    lambda m, o: m.OneCycleLR(o, 1.0, 40, three_phase=True, base_momentum=0.5, max_momentum=[0.9, 0.8], div_factor=10),
    lambda m, o: m.OneCycleLR(o, 1.0, 40, cycle_momentum=False, final_div_factor=10),
    lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, 1.0, 5), m.CosineAnnealingLR(o, 12, 0.01)], [5]),
    lambda m, o: m.SequentialLR(o, [m.StepLR(o, 2), m.LinearLR(o, 0.5, 1.0, 3), m.MultiStepLR(o, [0, 2])], [4, 15]),
    lambda m, o: m.SequentialLR(o, [m.LambdaLR(o, lambda t: 0.9**t), m.LambdaLR(o, lambda t: 0.5**t)], [0]),
    lambda m, o: (m.LinearLR(o, 0.2, 1.0, 4), m.StepLR(o, 5)),
]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("number", range(len(SCHEDULES)))
def test_schedule_step_by_step(number: int, kind: str) -> None:
    def make(optimizers: Any, modules: Any, tensor: Callable[[], Any]) -> tuple[Any, list[Any]]:
        groups = [{"params": [tensor()]}, {"params": [tensor()], "lr": 0.05}]
        optimizer = getattr(optimizers, kind)(groups, lr=0.4)
        made = SCHEDULES[number](modules, optimizer)
        return optimizer, list(made) if isinstance(made, tuple) else [made]

    ours, mine = make(nnet.optim, nnet.optim.lr_scheduler, lambda: nnet.tensor([1.0]))
    theirs, other = make(torch.optim, torch.optim.lr_scheduler, lambda: torch.zeros(1))
    for step in range(40):
        for g, h in zip(ours.param_groups, theirs.param_groups):
            for key in ("lr", "momentum", "betas"):
                if key in h:
                    assert g[key] == pytest.approx(h[key], rel=1e-13, abs=1e-18), (step, key)
        assert mine[-1].get_last_lr() == pytest.approx(other[-1].get_last_lr(), rel=1e-13, abs=1e-18)
        for optimizer in (ours, theirs):
            optimizer.step()
        for schedule in (*mine, *other):
            schedule.step()


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, 0.5, 0.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    ours, theirs = pairs("float64")
    give_gradients(ours, theirs, np.random.default_rng(3))
    total = clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-12)


def test_clip_grad_value() -> None:
    ours, theirs = pairs("float32")
    give_gradients(ours, theirs, np.random.default_rng(3))
    clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for p, q in zip(ours, theirs):
        np.testing.assert_array_equal(p.grad.data, q.grad.numpy())
