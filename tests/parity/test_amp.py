"""Loss scaling against torch.amp.GradScaler, call by call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import numbanet as nnet
from numbanet.amp import GradScaler
from numbanet.tensor import Tensor

SHAPES: list[tuple[int, ...]] = [(), (33,), (8, 3, 3, 5)]
HUGE = {5: np.inf, 9: -np.inf, 10: np.nan, 16: np.inf}  # a gradient of these steps


def sides(dtype: str, options: dict[str, Any], lr: float) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    ours = [nnet.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    optimizers = nnet.optim.SGD(ours, lr=lr, momentum=0.9), torch.optim.SGD(theirs, lr=lr, momentum=0.9)
    return ours, theirs, *optimizers, GradScaler("cpu", **options), torch.amp.GradScaler("cpu", **options)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [
    {"growth_interval": 3}, {"init_scale": 3.3, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 2},
    {"growth_interval": 0}, {"init_scale": 2.0**127, "growth_interval": 1}, {"enabled": False},
], ids=str)  # fmt: skip
def test_steps(dtype: str, options: dict[str, Any], unscaled: bool) -> None:
    ours, theirs, optimizer, their_optimizer, scaler, their_scaler = sides(dtype, options, 1e-3)
    rng = np.random.default_rng(1)
    for step in range(20):
        assert scaler.scale(Tensor(np.float32(2))).item() == their_scaler.scale(torch.tensor(2.0)).item()
        for p, q in zip(ours, theirs):
            gradient = np.asarray(100 * rng.standard_normal(p.shape), dtype)
            if step in HUGE and p.ndim == 1:
                gradient[7] = HUGE[step]
            p.grad, q.grad = Tensor(gradient.copy()), torch.tensor(gradient)
        if unscaled:
            scaler.unscale_(optimizer)
            their_scaler.unscale_(their_optimizer)
            for p, q in zip(ours, theirs):
                np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-7, atol=1.2e-38)
        scaler.step(optimizer)
        their_scaler.step(their_optimizer)
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=2e-6, atol=2e-6)
        scaler.update()
        their_scaler.update()
        assert scaler.state_dict() == their_scaler.state_dict() and scaler.get_scale() == their_scaler.get_scale()


def test_two_optimizers_share_a_scale() -> None:
    ours, theirs, optimizer, their_optimizer, scaler, their_scaler = sides("float32", {"growth_interval": 2}, 0.1)
    second, their_second = nnet.optim.SGD(ours[:1], lr=1), torch.optim.SGD(theirs[:1], lr=1)
    for huge in (False, True, False, False):
        for p, q in zip(ours, theirs):
            p.grad, q.grad = Tensor(np.ones(p.shape, np.float32)), torch.ones(q.shape)
        if huge:
            ours[2].grad.data[0, 0, 0, 0], theirs[2].grad[0, 0, 0, 0] = np.inf, np.inf
        for made, pair in ((scaler, (optimizer, second)), (their_scaler, (their_optimizer, their_second))):
            made.scale((nnet if made is scaler else torch).tensor(1.0))
            for one in pair:
                made.step(one)
            made.update()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-6)
        assert scaler.state_dict() == their_scaler.state_dict()


def test_states_are_exchanged() -> None:
    options = {"init_scale": 3.3, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 2}
    *_, scaler, their_scaler = sides("float32", options, 0.1)
    others = GradScaler("cpu"), torch.amp.GradScaler("cpu")
    others[0].load_state_dict(their_scaler.state_dict())
    others[1].load_state_dict(scaler.state_dict())
    assert np.float32(others[0].state_dict()["scale"]) == np.float32(others[1].state_dict()["scale"])
    assert {**others[0].state_dict(), "scale": 0} == {**others[1].state_dict(), "scale": 0}


def test_the_names_are_torchs() -> None:
    public = {name for name in vars(torch.amp.GradScaler) if not name.startswith("_")}
    assert public <= set(vars(GradScaler))


@pytest.mark.parametrize("call", [
    lambda made, o, t: made.step(o), lambda made, o, t: made.unscale_(o), lambda made, o, t: made.update(),
    lambda made, o, t: (made.scale(t), made.step(o)), lambda made, o, t: (made.scale(t), made.update()),
    lambda made, o, t: made.scale(3), lambda made, o, t: made.load_state_dict({}),
    lambda made, o, t: (made.scale(t), made.update(new_scale="3")), lambda made, o, t: type(made)("cpu", 1.0, 1.0),
    lambda made, o, t: type(made)("cpu", 1.0, 2.0, 1.0),
])  # fmt: skip
def test_both_refuse(call: Any) -> None:
    _, _, optimizer, their_optimizer, scaler, their_scaler = sides("float32", {}, 0.1)
    with pytest.raises((AssertionError, RuntimeError, ValueError, AttributeError)):
        call(their_scaler, their_optimizer, torch.tensor(1.0))
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        call(scaler, optimizer, nnet.tensor(1.0))
