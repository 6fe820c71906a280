"""Say where the libraries differ in a case."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path

import numpy as np

import numbanet as nnet
from tests.parity.grid.cases import Case
from tests.parity.grid.running import Outcome

REFUSALS = (ValueError, TypeError, RuntimeError, IndexError)
SOURCES = Path(nnet.__file__).parent
PRECISION = {"float32": 1e-5, "float64": 1e-10}
BINDING = re.compile(
    r"\(\) (got an unexpected keyword argument|missing \d+ required|takes .* positional argument|got multiple values)"
    r"|unsupported operand type\(s\) for |not supported between instances of "
)
"""What Python says itself where arguments do not fit a signature, or operands have no operator."""


def deliberate(error: Exception) -> bool:
    """Whether a refusal was raised by a check of ours, or by Python because the call does not fit a signature."""
    if not isinstance(error, REFUSALS):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    if Path(last.filename).is_relative_to(SOURCES):
        line = linecache.getline(last.filename, last.lineno)
        if line.lstrip().startswith("raise"):
            return True
    return isinstance(error, TypeError) and BINDING.search(str(error)) is not None


def difference(case: Case) -> str:
    """Return how the libraries differ, in words; nothing where they agree."""
    return unlike(case.ours, case.theirs, case.entry.tolerance)


def unlike(mine: Outcome, other: Outcome, tolerance: float) -> str:
    """Return how an outcome of numbanet differs from one of PyTorch, in words; nothing where they agree."""
    if (mine.error is None) != (other.error is None):
        return f"ours {mine.error or 'answers'!r}; torch {other.error or 'answers'!r}"
    if mine.error is not None:
        return "" if deliberate(mine.error) else f"ours refuses by accident: {mine.error!r}"
    if mine.recorded != other.recorded:
        return f"results require gradients: ours {mine.recorded}, torch {other.recorded}"
    tolerance *= max((PRECISION.get(dtype, 0.0) for dtype in other.dtypes), default=0.0)
    for what, ours, theirs in (("result", mine.results, other.results), ("gradient", mine.gradients, other.gradients)):
        if len(ours) != len(theirs):
            return f"ours has {len(ours)} {what}s, torch {len(theirs)}"
        for number, (a, b) in enumerate(zip(ours, theirs)):
            text = _unlike(a, b, tolerance)
            if text:
                return f"{what} {number}: {text}"
    return ""


def _unlike(a: np.ndarray | None, b: np.ndarray | None, tolerance: float) -> str:
    if a is None or b is None:
        return "" if a is b else f"ours {'none' if a is None else 'there'}, torch {'none' if b is None else 'there'}"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"ours {a.dtype}{list(a.shape)}, torch {b.dtype}{list(b.shape)}"
    if a.dtype.kind != "f":
        return "" if np.array_equal(a, b) else f"ours {a.ravel()[:6]}, torch {b.ravel()[:6]}"
    limit = tolerance * max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0.0))
    near = np.isclose(a, b, rtol=0, atol=limit, equal_nan=True)
    if near.all():
        return ""
    place = tuple(int(k) for k in np.argwhere(~near)[0])
    return f"at {place} ours {a[place]}, torch {b[place]} ({(~near).sum()} of {a.size} differ)"
