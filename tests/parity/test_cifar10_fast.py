"""The CIFAR-10 example against its twin in PyTorch: the same losses, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cifar10_torch import TorchTraining, compare, fast
from numbanet.creation import tensor
from numbanet.data import Dataset


def dataset(count: int) -> Dataset:
    """Noise on a flat colour for each class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count)
    colours = rng.integers(60, 190, (10, 3, 1, 1))
    images = colours[labels] + rng.integers(-60, 60, (count, 3, 32, 32))
    return Dataset(images.astype(np.uint8), labels, tuple("abcdefghij"))


def test_losses_follow_those_of_torch(tmp_path):
    sets = dataset(480), dataset(20)
    options = {"epochs": 1, "batch": 48, "widths": (16, 32, 32)}
    ours, theirs = (kind(*sets, tmp_path, **options) for kind in (fast.Training, TorchTraining))
    losses = np.array([[t.step(*map(tensor, batch)) for t in (ours, theirs)] for batch in ours.loader])
    assert len(losses) == ours.steps == 10
    assert losses[-1, 0] < 0.95 * losses[0, 0]
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-4)
    for name, value in theirs.model.state_dict().items():
        np.testing.assert_allclose(ours.model.state_dict()[name], value, rtol=0, atol=2e-3 * float(abs(value).max()))
    assert fast.evaluate(ours.model, sets[1]) == pytest.approx(fast.evaluate(theirs.model, sets[1]), abs=0.06)


def test_times_go_on_into_the_next_epoch(tmp_path, capsys):
    """A run of 96 steps once ended after the 47 of its first epoch, with medians of zeros."""
    options = {"epochs": 3, "batch": 16, "widths": (16, 16, 16)}
    compare(*(kind(*[dataset(48)] * 2, tmp_path, **options) for kind in (fast.Training, TorchTraining)), steps=5)
    *steps, median, epoch = capsys.readouterr().out.splitlines()
    assert len(steps) == 5 and median.startswith("median of 5") and " 0.000 s" not in median and "nan" not in median
    assert epoch.startswith("an epoch of 3 steps")
