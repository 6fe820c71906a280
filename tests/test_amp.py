"""Loss scaling: what happens to scale, gradients and parameters, and what is refused."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import numbanet as nnet
from numbanet import optim
from numbanet.amp import GradScaler
from numbanet.nn.utils import clip_grad_norm_
from numbanet.tensor import Tensor


def parameters() -> list[Tensor]:
    return [nnet.tensor(np.ones(shape, np.float32), requires_grad=True) for shape in ((3,), (2, 2))]


def loss(given: list[Tensor], factor: float = 1.0) -> Tensor:
    return sum(((p * p).sum() * factor for p in given), nnet.tensor(np.float32(0)))  # type: ignore[return-value]


def step(scaler: GradScaler, given: list[Tensor], optimizer: optim.Optimizer, factor: float = 1.0) -> None:
    optimizer.zero_grad()
    scaler.scale(loss(given, factor)).backward()
    scaler.step(optimizer)
    scaler.update()


def test_a_step_is_that_without_a_scale() -> None:
    plain, scaled = parameters(), parameters()
    for given, scaler in ((plain, GradScaler(enabled=False)), (scaled, GradScaler(init_scale=2.0**20))):
        optimizer = optim.SGD(given, lr=0.1, momentum=0.9)
        for _ in range(3):
            step(scaler, given, optimizer)
    for p, q in zip(plain, scaled):
        np.testing.assert_array_equal(p.data, q.data)


def test_an_overflow_leaves_parameters_alone_and_halves_the_scale() -> None:
    given, scaler = parameters(), GradScaler(init_scale=2.0**100, growth_interval=3)
    optimizer = optim.Adam(given)
    for factor, scale in ((2.0**60, 2.0**99), (float("nan"), 2.0**98), (1.0, 2.0**98), (1.0, 2.0**98), (1.0, 2.0**99)):
        former = [p.data.copy() for p in given]
        step(scaler, given, optimizer, factor)
        assert scaler.get_scale() == scale
        moved = [not np.array_equal(p.data, q) for p, q in zip(given, former)]
        assert moved == [factor == 1.0] * 2
    assert optimizer.state_dict()["state"][0]["step"] == 3 and scaler.state_dict()["_growth_tracker"] == 0


def test_gradients_are_clipped_without_their_scale() -> None:
    given, scaler = parameters(), GradScaler()
    optimizer = optim.SGD(given, lr=1.0)
    scaler.scale(loss(given)).backward()
    versions = [p.grad.stamp() for p in given]  # type: ignore[union-attr]
    scaler.unscale_(optimizer)
    assert all(p.grad.stamp() != stamp for p, stamp in zip(given, versions))  # type: ignore[union-attr]
    assert clip_grad_norm_(given, 1.0).item() == pytest.approx(2 * math.sqrt(7))
    scaler.step(optimizer)
    assert all(p.data.max() == pytest.approx(1 - 1 / math.sqrt(7)) for p in given)


def test_gradients_of_any_memory_order_and_both_dtypes() -> None:
    given = [nnet.tensor(np.zeros((4, 6), dtype), requires_grad=True) for dtype in (np.float32, np.float64)]
    scaler, optimizer = GradScaler(init_scale=8.0), optim.SGD(given, lr=1.0)
    scaler.scale(nnet.tensor(1.0))
    for p in given:
        p.grad = Tensor(np.full((6, 4), 16.0, p.dtype).T)
    scaler.step(optimizer)
    assert all((p.data == -2).all() for p in given)


def test_the_scale_stays_finite() -> None:
    scaler = GradScaler(init_scale=2.0**127, growth_interval=1)
    given = [nnet.tensor(np.zeros(1, np.float32), requires_grad=True)]
    step(scaler, given, optim.SGD(given, lr=0.1))
    assert scaler.get_scale() == 2.0**127


def test_tensors_in_lists_and_tuples_are_scaled() -> None:
    one, scaler = nnet.tensor(np.float32(1)), GradScaler(init_scale=4.0)
    found = scaler.scale([one, (one, one)])
    assert isinstance(found, list) and isinstance(found[1], tuple)
    assert [found[0].item(), *(t.item() for t in found[1])] == [4, 4, 4]
    assert [t.item() for t in scaler.scale(iter([one, one]))] == [4, 4]
    for wrong in (1.0, "ab", np.ones(2), [one, None]):
        with pytest.raises(ValueError, match="outputs must be a Tensor or an iterable of Tensors"):
            scaler.scale(wrong)


def test_the_order_of_calls() -> None:
    given, scaler = parameters(), GradScaler()
    optimizer = optim.SGD(given, lr=0.1)
    for call in (lambda: scaler.unscale_(optimizer), lambda: scaler.step(optimizer), scaler.update):
        with pytest.raises(RuntimeError, match="before scale"):
            call()  # type: ignore[no-untyped-call]
    scaler.scale(loss(given))
    with pytest.raises(RuntimeError, match="found no gradient"):
        scaler.step(optimizer)
    scaler.update(4)
    scaler.scale(loss(given)).backward()
    with pytest.raises(RuntimeError, match="step.. comes first"):
        scaler.update()
    with pytest.raises(RuntimeError, match="no closure"):
        scaler.step(optimizer, closure=lambda: 1)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="unscale_.. has already been called"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="pickled between"):
        pickle.dumps(scaler)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="unscale_.. is being called after step"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="step.. has already been called"):
        scaler.step(optimizer)
    scaler.update()
    again = pickle.loads(pickle.dumps(scaler))
    assert again.state_dict() == scaler.state_dict() and again.get_scale() == 4


def test_what_a_step_returns() -> None:
    class Counting(optim.SGD):
        def step(self, *args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
            return args, kwargs

    given, scaler = parameters(), GradScaler()
    for factor, found in ((1.0, ((1,), {"b": 2})), (float("inf"), None)):
        optimizer = Counting(given, lr=0.1)
        scaler.scale(loss(given, factor)).backward()
        assert scaler.step(optimizer, 1, b=2) == found
        scaler.update()


def test_numbers_are_checked() -> None:
    for options, message in (
        ({"growth_factor": 1.0}, "growth_factor must be above 1, got 1.0"),
        ({"backoff_factor": 1}, "backoff_factor must be below 1, got 1"),
        ({"device": "tpu"}, "device must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            GradScaler(**options)  # type: ignore[arg-type]
    for name in ("init_scale", "growth_factor", "backoff_factor", "growth_interval"):
        with pytest.raises(TypeError, match=f"{name} must be"):
            GradScaler(**{name: "2"})  # type: ignore[arg-type]
    scaler = GradScaler()
    scaler.scale(nnet.tensor(1.0))
    for wrong in (nnet.tensor([1.0, 2.0]), nnet.tensor(1.0, requires_grad=True)):
        with pytest.raises(ValueError, match="new_scale must be a number or a Tensor of one element"):
            scaler.update(wrong)
    with pytest.raises(TypeError, match="new_scale must be a number"):
        scaler.update("2")  # type: ignore[arg-type]
    scaler.update(nnet.tensor([3.0]))
    assert scaler.get_scale() == 3.0


def test_a_state_comes_back_whole_or_not_at_all() -> None:
    scaler = GradScaler(init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=5)
    kept = scaler.state_dict()
    with pytest.raises(TypeError, match="_growth_tracker must be an integer"):
        scaler.load_state_dict({**GradScaler().state_dict(), "_growth_tracker": 1.5})
    with pytest.raises(KeyError, match="growth_interval"):
        scaler.load_state_dict({k: v for k, v in GradScaler().state_dict().items() if k != "growth_interval"})
    with pytest.raises(RuntimeError, match="state_dict is empty"):
        scaler.load_state_dict(GradScaler(enabled=False).state_dict())
    assert scaler.state_dict() == kept
    other = GradScaler()
    other.load_state_dict(kept)
    assert other.state_dict() == kept


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numbanet.cuda.unavailable_reason", lambda ordinal=0: "no driver")
    with pytest.warns(UserWarning, match="GradScaler scales nothing: device is 'cuda', but no driver"):
        scaler = GradScaler("cuda")
    assert not scaler.is_enabled() and scaler.get_scale() == 1.0 and scaler.state_dict() == {}
    assert GradScaler("cpu").is_enabled() and GradScaler().is_enabled()
