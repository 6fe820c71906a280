"""Every example runs, and shows what it says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import numbanet as nnet
from numbanet.data import Dataset

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, **arguments):
    return load(name).main(**arguments)


def test_beautiful_digits():
    assert run("beautiful_digits", epochs=4) > 0.96


def test_residual_block():
    assert run("residual_block", epochs=1)


def test_choose_a_kernel(capsys):
    errors = run("choose_a_kernel")
    assert errors["cpu.direct"] < errors["cpu.winograd"] < 3e-5
    assert "-> cpu.winograd" in capsys.readouterr().out


def test_write_a_kernel():
    y, gradient = run("write_a_kernel")
    x = np.maximum(np.linspace(-2, 2, 9), 0)
    np.testing.assert_allclose(y.detach().numpy(), x**2)
    np.testing.assert_allclose(gradient.numpy(), 2 * x)


def random_images(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    return Dataset(images, rng.integers(0, 10, count), tuple("abcdefghij"))


@pytest.mark.parametrize("steps", [7, 12])
def test_cifar10_fast_goes_on_where_it_was_cut_short(tmp_path, steps):
    fast = load("cifar10_fast")

    class Stopped(fast.Training):
        def step(self, images, labels):
            if self.progress["step"] == steps:
                raise InterruptedError
            return super().step(images, labels)

    sets, options = (random_images(81), random_images(30)), {"epochs": 3.6, "batch": 16, "widths": (8, 16, 16)}
    through = fast.Training(*sets, tmp_path / "through", **options)
    through.run()
    with pytest.raises(InterruptedError):
        Stopped(*sets, tmp_path / "parts", **options).run()
    parts = fast.Training(*sets, tmp_path / "parts", **options)
    assert parts.progress["step"] == steps // 5 * 5
    parts.run()
    assert [row["epoch"] for row in parts.rows] == [1.0, 2.0, 3.0, 3.6]
    clocks = {"seconds", "cpu_seconds"}
    for ours, theirs in zip(parts.rows, through.rows):
        assert {k: v for k, v in ours.items() if k not in clocks} == {k: theirs[k] for k in theirs if k not in clocks}
    for name, value in through.model.state_dict().items():
        assert value.tobytes() == parts.model.state_dict()[name].tobytes(), name
    assert json.loads((tmp_path / "parts" / "log.json").read_text())["rows"] == parts.rows
    with pytest.raises(ValueError, match="holds a training with"):
        fast.Training(*sets, tmp_path / "parts", **{**options, "epochs": 4})


def test_cifar10_fast_whitens():
    fast = load("cifar10_fast")
    rng = np.random.default_rng(0)
    images = np.repeat(rng.integers(0, 256, (50, 1, 8, 8)), 3, 1) // 2 + rng.integers(0, 128, (50, 3, 8, 8))
    images = images.astype(np.uint8)
    filters = fast.whitening_filters(images, eps=0)
    np.testing.assert_array_equal(filters[12:], -filters[:12])
    y = nnet.ops.conv2d(fast.normalize(images, None), filters[:12].astype(np.float32))
    rows = np.moveaxis(y, 1, -1).reshape(-1, 12)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(12), atol=1e-3)


def test_no_example_is_missing():
    tested = {"beautiful_digits", "residual_block", "choose_a_kernel", "write_a_kernel", "cifar10_fast"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_examples_are_short():
    longest = {"cifar10_fast": 199}
    assert all(len(path.read_text().splitlines()) <= longest.get(path.stem, 60) for path in EXAMPLES.glob("*.py"))
