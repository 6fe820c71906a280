"""Run the GPU's candidates through the interpreter, and compare what they write with the definition in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from numbanet import dispatch
from numbanet.cuda.launch import executor
from tests.cuda.ptx.executor import Interpreter

Operand = Any  # an array, a list of arrays, or None


def _each(operand: Operand, change: Callable[[np.ndarray], np.ndarray]) -> Operand:
    if isinstance(operand, (list, tuple)):
        return [_each(part, change) for part in operand]
    return operand if operand is None else change(operand)


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array.copy("K")


def poison(shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return an array of NaN, or of 0xFB bytes: what nobody writes shows."""
    return Interpreter().empty(tuple(shape), dtype)


def reference(problem: Any, inputs: Sequence[Operand], outputs: Sequence[Operand]) -> list[Operand]:
    """Return what the definition writes in float64."""
    exact = [_each(operand, _double) for operand in outputs]
    wide = replace(problem, dtype="float64")
    (candidate,) = [c for c in dispatch.candidates("cpu", problem.operation, problem.which) if c.name == "reference"]
    candidate.run(wide, tuple(_each(operand, _double) for operand in inputs), tuple(exact), None)
    return exact


def run(problem: Any, inputs: Sequence[Operand], outputs: Sequence[Operand], name: str = "") -> list[Operand]:
    """Return what the GPU's first candidate (or the one of a name) writes, from copies of the outputs."""
    found = [_each(operand, lambda array: array.copy("K")) for operand in outputs]
    listed = dispatch.candidates("cuda", problem.operation, problem.which)
    candidate = next(c for c in listed if c.supports(problem) is None and name in ("", c.name))
    with executor(Interpreter()):
        candidate.run(problem, tuple(inputs), tuple(found), None)
    return found


def compare(
    problem: Any, inputs: Sequence[Operand], outputs: Sequence[Operand], factor: float = 1.0, absolute: bool = False
) -> None:
    """Check every output of a problem.

    Parameters
    ----------
    problem : Problem
    inputs, outputs : sequence
        Outputs are poisoned, or hold what is updated in place.
    factor : float
        Of the tolerance of the candidate.
    absolute : bool
        Measure errors against 1 where the largest result is smaller.
    """
    expected = reference(problem, inputs, outputs)
    found = run(problem, inputs, outputs)
    bound = factor * 16 * float(np.finfo(problem.dtype).eps)
    for position, (left, right) in enumerate(zip(found, expected)):
        pairs = zip(left, right) if isinstance(left, list) else [(left, right)]
        for one, other in pairs:
            if one is not None:
                agree(one, other, bound, f"output {position}", absolute)


def agree(found: np.ndarray, expected: np.ndarray, bound: float, what: str = "", absolute: bool = False) -> None:
    """Check max|found - expected| / max|expected|; integers and what is not finite must be equal."""
    assert found.shape == expected.shape, what
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, what)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0, found), np.where(finite, 0, expected), what)
    left, right = np.where(finite, found, 0).astype(np.float64), np.where(finite, expected, 0)
    scale = np.abs(right).max(initial=1.0 if absolute else 0.0)
    error = np.abs(left - right).max(initial=0.0)
    assert error <= bound * scale, f"{what}: error {error / scale:.2e} of the largest result, at most {bound:.2e}"
