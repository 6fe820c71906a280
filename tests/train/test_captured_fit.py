"""A training whose steps are captured is that of steps that are not.

Only the statistics of batch norms are summed in another order there: behind the convolutions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import amp, nn, optim, train
from numbanet.cpu.replay import Recording


def network() -> nn.Module:
    nnet.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(8 * 16, 4),
    )  # fmt: skip


def batches(count: int = 7) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = [8] * (count - 1) + [5]
    return [(rng.standard_normal((n, 1, 6, 6), np.float32), rng.integers(0, 4, n)) for n in sizes]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    found: list[Recording] = []
    run = Recording.run
    monkeypatch.setattr(Recording, "run", lambda recording: (found.append(recording), run(recording))[1])
    return found


def trained(captured: bool, loader: Any, **options: Any) -> tuple[Any, dict[str, np.ndarray], optim.Optimizer]:
    model = network()
    nnet.manual_seed(5)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.StepLR(optimizer, 3)
    history = train.fit(
        model, optimizer, loader, loader, epochs=3, schedule=schedule, schedule_each="step", progress="off",
        captured=captured, **options,
    )  # fmt: skip
    return history, {name: np.array(value) for name, value in model.state_dict().items()}, optimizer


def close(state: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1}])
def test_the_weights_and_the_history_are_the_same(options: dict[str, Any], replays: list[Recording]) -> None:
    wanted, expected, _ = trained(False, batches(), **options)
    assert not replays
    found, state, _ = trained(True, batches(), **options)
    assert len(replays) > 10
    close(state, expected)
    for ours, theirs in zip(found, wanted):
        assert ours.train_accuracy == theirs.train_accuracy
        assert (ours.train_loss, ours.test_loss) == pytest.approx((theirs.train_loss, theirs.test_loss), rel=1e-5)


def test_scaled_losses_are_run(replays: list[Recording]) -> None:
    wanted, expected, _ = trained(False, batches(), scaler=amp.GradScaler("cpu", init_scale=8.0))
    found, state, _ = trained(True, batches(), scaler=amp.GradScaler("cpu", init_scale=8.0))
    assert not replays
    assert [r.train_loss for r in found] == pytest.approx([r.train_loss for r in wanted], rel=1e-5)
    close(state, expected)


def test_a_loss_that_is_not_finite_changes_nothing(replays: list[Recording]) -> None:
    def broken(captured: bool) -> tuple[str, dict[str, np.ndarray], list[Any]]:
        loader = batches()
        loader[4][0][:] = np.inf
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)
        with pytest.raises(train.NonFiniteLoss) as caught:
            train.fit(model, optimizer, loader, epochs=1, progress="off", captured=captured)
        state = {name: np.array(value) for name, value in model.state_dict().items()}
        moments = [optimizer.state[p] for p in model.parameters()]
        return str(caught.value), state, [np.array(v) for own in moments for v in own.values()]

    message, expected, moments = broken(False)
    ours = broken(True)
    assert len(replays) > 2
    assert ours[0] == message and "step 5" in message
    close(ours[1], expected)
    for found, wanted in zip(ours[2], moments):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_captured_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="captured must be True or False"):
        train.fit(network(), optim.SGD(network().parameters(), 0.1), batches(), epochs=1, captured=1)  # type: ignore[arg-type]
