"""What a replay would miss is run each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import amp, nn
from numbanet import functional as F
from numbanet.tensor import Tensor
from tests.capturing.common import RNG, check, host, images, infer, plan_of


def test_what_a_replay_would_miss_is_not_replayed(device: str) -> None:
    model = nn.Conv2d(8, 4, 3)

    def by_numpy(x: Tensor) -> Tensor:
        return nnet.tensor(np.sin(host(model(x))))

    def dropped(x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)

    def by_value(x: Tensor) -> Tensor:
        return x * float(x.sum())

    for function in (by_numpy, by_value):
        captured = nnet.capture(function)
        for _ in range(4):
            check(captured, function, images())
    captured, x = nnet.capture(dropped), images()
    with nnet.no_grad():
        drawn = [host(captured(x)) for _ in range(5)]
    assert len({y.tobytes() for y in drawn}) == 5


def test_numbers_that_objects_hold_are_not_replayed(device: str) -> None:
    class Setting:
        gain = 2.0

    scaler, setting = amp.GradScaler(device, init_scale=8.0), Setting()
    scaled, configured = (lambda x: scaler.scale(x + 1)), (lambda x, s: x * s.gain)
    by_scale, by_setting = nnet.capture(scaled), nnet.capture(configured)
    for i in range(4):
        check(by_scale, scaled, images())
        check(by_setting, configured, images(), setting)
        scaler.update(2.0**i)
        setting.gain = 3.0 + i


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_zero_and_minus_zero_are_two_numbers(device: str, kind: Callable[[float], float]) -> None:
    captured = nnet.capture(lambda x, number: x * float(number))
    x = nnet.tensor(np.ones(3, np.float32))
    with nnet.no_grad():
        signs = [np.signbit(host(captured(x, kind(number)))).all() for number in (0.0, -0.0) * 3]
    assert signs == [False, True] * 3


@dataclass(frozen=True)
class _Scale:
    factor: float


@pytest.mark.parametrize(
    "operands, scaled",
    [
        ((frozenset({1}), frozenset({True})), lambda x, chosen: x * len(str(chosen))),
        ((_Scale(0.0), _Scale(-0.0)), lambda x, scale: x * scale.factor),
        (({1: 2.0}, {True: 2.0}), lambda x, table: x * len(str(table))),
    ],
    ids=["frozenset", "dataclass", "key"],
)
def test_equal_operands_may_mean_something_else(device: str, operands: tuple[Any, ...], scaled: Any) -> None:
    captured, x = nnet.capture(scaled), nnet.tensor(np.ones(3, np.float32))
    with nnet.no_grad():
        for operand in operands * 4:
            found, expected = host(captured(x, operand)), host(scaled(x, operand))
            assert found.tobytes() == expected.tobytes()


def test_bound_methods_depend_on_their_object(device: str) -> None:
    class Scale:
        factor = 2.0

        def times(self, x: Tensor) -> Tensor:
            return x * self.factor

    scale, apply = Scale(), (lambda x, method: method(x))
    captured = nnet.capture(apply)
    for i in range(5):
        check(captured, apply, images(), scale.times)
        scale.factor += i


def test_counts_and_draws_of_an_inference_are_not_replayed(device: str) -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * (5 if self.calls > 5 else 1)

    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (5 if random.random() < 0.3 else 1)

    x = nnet.tensor(np.ones(3, np.float32))
    for kind in (Counting, Drawing):
        plain, watched = kind().eval(), kind().eval()
        captured, found = nnet.capture(watched), []
        for call in (plain, captured):
            random.seed(3)
            with nnet.no_grad():
                found.append([host(call(x))[0] for _ in range(12)])
        assert found[0] == found[1] and captured.replays == 0


def test_modules_in_training_mode_are_run(device: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5))
    captured, x = nnet.capture(model), images()
    with nnet.no_grad():
        drawn = [host(captured(x)) for _ in range(4)]
    assert len({y.tobytes() for y in drawn}) == 4
    assert model[0].num_batches_tracked.item() == 4


def test_tensors_that_are_not_watched_are_not_replayed(device: str) -> None:
    w = nnet.tensor(RNG.standard_normal((4, 8, 3, 3), dtype=np.float32))
    shift, array = nnet.tensor(1.0), np.ones((2, 8, 10, 10), np.float32)
    convolve, add = (lambda x: F.conv2d(x, w)), (lambda x: x + shift)
    join = [lambda x: x + array] if device == "cpu" else []  # a GPU takes no array of the host
    layer = nn.Conv2d(8, 8, 3, padding=1).eval()
    shortcut = nnet.tensor(array)
    for function in (convolve, add, *join, lambda x: layer(x) + shortcut):
        captured = nnet.capture(function)
        for _ in range(4):
            check(captured, function, images())
            w.data = (w * 2).data
            shift.data = (shift + 1).data
            shortcut.data = (shortcut * 3).data
            array += 1


def test_values_that_python_reads_are_not_replayed(device: str) -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1).eval()
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: conv(x) + nnet.tensor(np.sort(host(x).ravel())[-1:]),
        lambda x: conv(x) * float(x.sum()),
        lambda x: conv(x) if x.sum() > 0 else -conv(x),
        lambda x: x[x.argmax(0)[0, 0, 0].item() :],
    ]
    if device == "cpu":  # the arrays of a GPU don't compute
        functions += [
            lambda x: conv(x) if x.data.max() > 0.5 else -conv(x),
            lambda x: conv(x) * 2.0 if conv(x).relu().data.any() else conv(x),
        ]
    for function in functions:
        captured = nnet.capture(function)
        for x in (np.zeros, np.ones, np.zeros, np.ones):
            check(captured, function, nnet.tensor(x((2, 8, 10, 10), np.float32)))
        for _ in range(3):
            check(captured, function, images())
            check(captured, function, -images())


def test_large_sums_are_not_replayed(device: str) -> None:
    """They are looked at, and done anew where a part of them overflowed: the recording was of one that did not."""
    total = nnet.capture(lambda x: x.sum(0))
    rows = np.zeros((16384, 64), np.float32)
    rows[:8], rows[-8:] = 3e38, -3e38
    with nnet.no_grad():
        for _ in range(3):
            total(nnet.tensor(np.ones_like(rows)))
        assert total(nnet.tensor(rows)).tolist() == [0.0] * 64


def test_integer_operands_are_not_replayed(device: str) -> None:
    table = nn.Parameter(nnet.tensor(RNG.standard_normal((7, 3), dtype=np.float32)))
    captured = nnet.capture(lambda i: table[i] * 2.0)
    with nnet.no_grad():
        for value in (3, 3, 3, 5):
            np.testing.assert_array_equal(host(captured(nnet.tensor([value]))), host(table)[[value]] * 2)


def test_random_draws_are_not_replayed(device: str) -> None:
    captured, x = nnet.capture(lambda x: F.dropout(x, training=True)), images()
    with nnet.no_grad():
        for _ in range(3):
            captured(nnet.tensor(np.zeros(x.shape, np.float32)))
        assert len({host(captured(x)).tobytes() for _ in range(4)}) == 4


def test_what_a_function_changes_or_keeps_stays_right(device: str) -> None:
    conv, average = nn.Conv2d(8, 8, 3, padding=1).eval(), nnet.tensor(0.0)
    kept: list[Tensor] = []

    def averaging(x: Tensor) -> Tensor:
        average.mul_(0.5)
        average.add_(x.mean() * 0.5)
        return conv(x)

    def keeping(x: Tensor) -> Tensor:
        y = conv(x)
        kept.append(y)
        return F.relu(y)

    def viewing(x: Tensor) -> Tensor:
        kept.append(x[:, 0])
        return conv(x)

    captured, expected = nnet.capture(averaging), 0.0
    with nnet.no_grad():
        for _ in range(5):
            x = images()
            captured(x)
            expected = expected * 0.5 + host(x).mean() * 0.5
            assert average.item() == pytest.approx(expected, abs=1e-6)
        given = [images() for _ in range(5)]
        captured = nnet.capture(keeping)
        for x in given:
            captured(x)
        assert len(kept) == 5
        for x, y in zip(given, kept):
            np.testing.assert_allclose(host(y), infer(conv, x), rtol=1e-4, atol=1e-5)
        kept.clear()
        captured = nnet.capture(viewing)
        for x in given:
            captured(x)
        assert len(kept) == 5
        for x, y in zip(given, kept):
            np.testing.assert_array_equal(host(y), host(x)[:, 0])


def test_operands_are_changed_in_place(device: str) -> None:
    conv = nn.Conv2d(8, 8, 3).eval()
    captured = nnet.capture(lambda x: conv(x.mul_(2)))
    with nnet.no_grad():
        for _ in range(4):
            x = images()
            twice = x.clone() * 2.0
            np.testing.assert_allclose(host(captured(x)), infer(conv, twice), rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(host(x), host(twice))


def test_tables_of_arrays_are_not_replayed(device: str) -> None:
    def halve(t: Tensor) -> Tensor:
        y = t * 2.0
        nnet.ops.scale_([y.data], 0.5)
        y.bump_version()
        return y + 1.0

    captured = nnet.capture(halve)
    for _ in range(4):
        check(captured, halve, images())
    assert not plan_of(captured).recorded
