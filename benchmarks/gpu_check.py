"""Check every CUDA kernel on the device that runs them now: against the definition in float64, and against itself.

Public functions are called (`gpu_calls`), and whatever problem reaches the dispatcher is solved by every kernel that
takes it, twice: from copies of the operands, into outputs that hold poison, together with the memory around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from numbanet import dispatch, settings
from numbanet.candidate import Arrays, Candidate
from numbanet.cuda import launch
from numbanet.device_array import DeviceArray

UPDATES = frozenset({"optimizer_step", "clip"})  # they read what their outputs hold
SUMS = frozenset({"conv2d", "matmul"})  # their kernels keep to what they promise
_ALLOWED = 8  # promised errors that the others may make, of 1 where the largest result is smaller


@dataclass(frozen=True)
class Verdict:
    """What was found about one kernel and one problem.

    Attributes
    ----------
    operation, which, kernel, precision : str
    problem : str
    error : float
        The largest error over the one that is allowed: above 1 is wrong.
    fault : str
        What is wrong; empty if nothing is.
    """

    operation: str
    which: str
    kernel: str
    precision: str
    problem: str
    error: float
    fault: str


Kernels = dict[tuple[str, str], list[str]]


def kernels() -> Kernels:
    """Return the names of all CUDA kernels, by operation and pass."""
    return {
        (operation, which): [candidate.name for candidate in dispatch.candidates("cuda", operation, which)]
        for operation in dispatch.operations()
        for which in dispatch.passes(operation)
    }


@dataclass
class Checker:
    """What `dispatch.wrapped` takes: the chosen kernel is replaced by one that checks all that fit, then runs it.

    Attributes
    ----------
    verdicts : list of Verdict
    """

    verdicts: list[Verdict] = field(default_factory=list)
    _seen: set[Any] = field(default_factory=set)

    def __call__(self, problem: Any, fit: list[Candidate], chosen: Candidate) -> Candidate:
        """Return the kernel that checks."""

        def run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
            if outputs and any(True for _ in _devices(outputs)):
                self._check(problem, fit, inputs, outputs)
            call(chosen, problem, inputs, outputs)

        return replace(chosen, run=run, prepare=None, workspace_bytes=lambda problem: 0)

    def missing(self) -> list[str]:
        """Return the kernels that no problem met, as ``operation pass kernel``."""
        met = {(v.operation, v.which, v.kernel) for v in self.verdicts}
        return [" ".join((*key, name)) for key, names in kernels().items() for name in names if (*key, name) not in met]

    def _check(self, problem: Any, fit: list[Candidate], inputs: Arrays, outputs: Arrays) -> None:
        precision = settings.get_precision()
        todo = [c for c in fit if (problem, c.name, precision if "mma" in c.name else "") not in self._seen]
        if not todo:
            return
        self._seen.update((problem, c.name, precision if "mma" in c.name else "") for c in todo)
        expected = reference(problem, inputs, outputs)
        for candidate in todo:
            error, fault = _judged(candidate, problem, inputs, outputs, expected)
            key = problem.operation, problem.which, candidate.name, precision if "mma" in candidate.name else "float32"
            self.verdicts.append(Verdict(*key, str(problem), error, fault))


def call(candidate: Candidate, problem: Any, inputs: Arrays, outputs: Arrays) -> None:
    """Solve a problem by a kernel."""
    if candidate.prepare is not None:
        inputs = (inputs[0], candidate.prepare(problem, inputs[1]), *inputs[2:])
    size = candidate.workspace_bytes(problem)
    candidate.run(problem, inputs, outputs, launch.empty((size,), "uint8") if size else None)


def _each(operand: Any, change: Callable[[Any], Any]) -> Any:
    """Change every array of an operand: an array, a list of arrays, or None."""
    if isinstance(operand, (list, tuple)):
        return [_each(part, change) for part in operand]
    return operand if operand is None else change(operand)


def _devices(operands: Any) -> Iterator[DeviceArray]:
    for operand in operands:
        if isinstance(operand, (list, tuple)):
            yield from _devices(operand)
        elif type(operand) is DeviceArray:
            yield operand


def _block(array: DeviceArray) -> np.ndarray:
    """Return a copy of all the memory in which an array lies, as bytes."""
    memory = array.memory
    return launch.download(DeviceArray(memory, memory.pointer, (memory.size,), (1,), np.dtype(np.uint8)))


def _seen_in(block: np.ndarray, array: DeviceArray) -> np.ndarray:
    """Return the array's elements in a copy of its memory."""
    if not array.size:
        return np.empty(array.shape, array.dtype)
    return np.ndarray(array.shape, array.dtype, block, array.pointer - array.memory.pointer, array.strides)


def _on_host(array: Any) -> np.ndarray:
    return _seen_in(_block(array), array) if type(array) is DeviceArray else array.copy("K")


def _placed(block: np.ndarray, array: DeviceArray) -> DeviceArray:
    """Return an array that lies in a copy of a block as `array` does in the block."""
    there = launch.upload(block)
    start = there.pointer + array.pointer - array.memory.pointer
    return DeviceArray(there.memory, start, array.shape, array.strides, array.dtype)


def _copied(array: Any) -> Any:
    return _placed(_block(array), array) if type(array) is DeviceArray else array.copy("K")


def _poison(array: DeviceArray) -> int:
    return 0xFF if array.dtype.kind == "f" else 0xFB  # NaN, or a number that no kernel means


def _poisoned(array: DeviceArray) -> DeviceArray:
    return _placed(np.full(array.memory.size, _poison(array), np.uint8), array)


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def reference(problem: Any, inputs: Arrays, outputs: Arrays) -> tuple[list[Any], list[Any]]:
    """Return what the definition leaves in inputs and outputs, in float64: NaN where it writes nothing."""

    def empty(array: Any) -> np.ndarray:
        made = np.empty(array.shape, array.dtype)
        made.fill(np.nan if array.dtype.kind == "f" else 0)
        return made

    start = _on_host if problem.operation in UPDATES else empty
    given = [_each(operand, lambda array: _double(_on_host(array))) for operand in inputs]
    exact = [_each(operand, lambda array: _double(start(array))) for operand in outputs]
    wide = replace(problem, dtype="float64") if problem.dtype == "float32" else problem
    (definition,) = [
        c for c in dispatch.candidates("cpu", problem.operation, problem.which) if c.name == "reference"
    ]  # fmt: skip
    definition.run(wide, tuple(given), tuple(exact), None)
    return given, exact


def _results(problem: Any, outputs: list[Any]) -> list[Any]:
    """Return the outputs that are results: a loss has either values or their total; what else is saved is its own."""
    if problem.which == "forward" and problem.operation in ("cross_entropy", "nll_loss", "mse_loss"):
        return [outputs[0] if problem.reduction == "none" else outputs[-2], outputs[-1]]
    return outputs


def _judged(
    candidate: Candidate, problem: Any, inputs: Arrays, outputs: Arrays, expected: tuple[list[Any], list[Any]]
) -> tuple[float, str]:
    """Return the largest error over the allowed one, and what is wrong."""
    updates, runs = problem.operation in UPDATES, []
    for _ in range(2):
        given = [_each(operand, _copied) for operand in inputs]
        made = [_each(operand, _copied if updates else _poisoned) for operand in outputs]
        call(candidate, problem, tuple(given), tuple(made))
        runs.append((given, made))
    blocks = [[_block(array) for array in _devices((*given, *made))] for given, made in runs]
    if not all(np.array_equal(one, other) for one, other in zip(*blocks)):
        return np.inf, "two runs differ"
    given, made = runs[0]
    if not updates and not all(map(_kept_around, _devices(made))):
        return np.inf, "memory around a result was written"
    pairs = _pairs((*given, *_results(problem, made)), (*expected[0], *_results(problem, expected[1])))
    error = max((_error(candidate, problem, one, other) for one, other in pairs), default=0.0)
    return error, "" if error <= 1 else "wrong result"


def _kept_around(array: DeviceArray) -> bool:
    """Return whether the memory around a result still holds poison."""
    block = _block(array)
    _seen_in(block, array)[...] = np.frombuffer(bytes([_poison(array)] * array.itemsize), array.dtype)[0]
    return bool((block == _poison(array)).all())


def _pairs(found: Any, expected: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, (list, tuple)):
            yield from _pairs(one, other)
        elif one is not None:
            yield _on_host(one), other


def _error(candidate: Candidate, problem: Any, found: np.ndarray, expected: np.ndarray) -> float:
    """Return max|found - expected| over what is allowed; infinity where what is not a finite float differs."""
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(np.where(finite, 0, found), np.where(finite, 0, expected), equal_nan=True):
        return np.inf
    left, right = np.where(finite, found, 0).astype(np.float64), np.where(finite, expected, 0)
    gap, top = float(np.abs(left - right).max(initial=0)), float(np.abs(right).max(initial=0))
    promised = max(candidate.tolerance(problem), 16 * float(np.finfo(found.dtype).eps))
    allowed = promised * top if problem.operation in SUMS else _ALLOWED * promised * max(top, 1.0)
    if np.isnan(gap):
        return np.inf
    return gap / allowed if gap else 0.0
