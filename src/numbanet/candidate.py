"""What a kernel tells the dispatcher about itself: the same type for every device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = tuple[Any, ...]


def _always(problem: Any) -> str | None:
    return None


def _nothing(problem: Any) -> int:
    return 0


def _unit(problem: Any) -> float:
    return 1.0


def _itself(problem: Any) -> Hashable:
    return problem


def rounding(problem: Any) -> float:
    """Return the expected relative error of a sum in the problem's dtype: a small multiple of its resolution."""
    return 16.0 * float(np.finfo(problem.dtype).eps)


@dataclass(frozen=True)
class Candidate:
    """One way to solve a problem.

    Attributes
    ----------
    name : str
        Unique within its list, such as ``"cpu.direct"``.
    run : callable
        ``run(problem, inputs, outputs, workspace)`` computes; it writes every element of the outputs.
    supports : callable
        ``supports(problem)`` returns None, or the reason why the candidate refuses.
    cost : callable
        ``cost(problem)``: estimated time in any unit that the candidates of one list share. It never reads the number
        of threads, so the choice, and with it every bit of the result, does not depend on it.
    workspace_bytes : callable
        ``workspace_bytes(problem)``: bytes of scratch memory that `run` is handed; it belongs to the call. (Packed
        operands and partial results, whose size depends on the machine, a kernel takes from `memory.empty` itself.)
    tolerance : callable
        ``tolerance(problem)``: expected max|error| / max|result| against exact arithmetic.
    prepare : callable or None
        ``prepare(problem, weight)`` packs or transforms the weight, the second input, and `run` takes what it returns
        in its place. None: `run` takes the weight as it is.
    form : callable
        ``form(problem)``: what of a problem `prepare` looks at. Problems with equal forms share a prepared weight.
    """

    name: str
    run: Callable[[Any, Arrays, Arrays, np.ndarray | None], None]
    supports: Callable[[Any], str | None] = _always
    cost: Callable[[Any], float] = _unit
    workspace_bytes: Callable[[Any], int] = _nothing
    tolerance: Callable[[Any], float] = rounding
    prepare: Callable[[Any, np.ndarray], Any] | None = None
    form: Callable[[Any], Hashable] = _itself


CandidateLists = dict[tuple[str, str], list[Candidate]]
"""``{(operation, pass): [candidates, best first]}``: what each kernel module exports as ``CANDIDATES``."""
