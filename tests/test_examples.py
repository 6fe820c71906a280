"""Every example runs, and shows what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, **arguments):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(**arguments)


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


def test_no_example_is_missing():
    tested = {"beautiful_digits", "residual_block", "choose_a_kernel", "write_a_kernel"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) <= 60 for path in EXAMPLES.glob("*.py"))
