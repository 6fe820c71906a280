"""Activation functions and their derivatives: one pass over memory each."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load, load_tail, select, splat, store, store_tail

_CHUNK = 1 << 14  # elements a task: large enough to hide the launch, small enough to share evenly


@kernel
def relu(task: Index, ints: I64, x: T, y: T):
    size, chunk = integers(ints, 2)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    zero = splat(x, 0.0)
    while i < end:
        n = end - i
        if n >= lanes(x):
            v = load(x, i)
            store(y, i, select(v <= zero, zero, v))  # a comparison with NaN is false: NaN stays
        else:
            v = load_tail(x, i, n)
            store_tail(y, i, select(v <= zero, zero, v), n)
        i += lanes(x)


@kernel
def relu_backward(task: Index, ints: I64, grad: T, y: T, dx: T):
    size, chunk = integers(ints, 2)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    zero = splat(grad, 0.0)
    while i < end:
        n = end - i
        if n >= lanes(grad):
            store(dx, i, select(load(y, i) <= zero, zero, load(grad, i)))
        else:
            store_tail(dx, i, select(load_tail(y, i, n) <= zero, zero, load_tail(grad, i, n)), n)
        i += lanes(grad)


_FORWARD = {"relu": relu}
_BACKWARD = {"relu": relu_backward}


def _run(kernels: dict[str, Any]) -> Any:
    def run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        tasks = -(-problem.size // _CHUNK)
        launch(kernels[problem.function], tasks, (*inputs, *outputs), (problem.size, _CHUNK), problem.dtype)

    return run


def _supports(kernels: dict[str, Any]) -> Any:
    return lambda problem: None if problem.function in kernels else f"no kernel for {problem.function}"


CANDIDATES: CandidateLists = {
    ("activation", "forward"): [Candidate("cpu.vector", _run(_FORWARD), _supports(_FORWARD))],
    ("activation", "backward_input"): [Candidate("cpu.vector", _run(_BACKWARD), _supports(_BACKWARD))],
}
