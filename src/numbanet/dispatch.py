"""Choose a kernel for a problem: the ranked candidates of each (operation, pass, device), override, explanation.

A frozen problem meets the list of its operation, pass and device. Among the candidates that support it the lowest cost
runs, or the one that `numbanet.tune` measured to be fastest; ties go to the earlier one. The choice is remembered by
problem, device, precision, override, and how often measurements changed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

import numpy as np

from numbanet import measured, memory, settings
from numbanet.candidate import Arrays, Candidate
from numbanet.cuda import launch as cuda
from numbanet.device_array import DeviceArray
from numbanet.locks import new_lock
from numbanet.prepared import PreparedWeight
from numbanet.problem import Problem
from numbanet.problem.base import FLOATS
from numbanet.watch import doubt

# Where the kernels of an operation live: module names below numbanet.cpu (its twins: numbanet.cuda), and the module of
# numbanet.reference with its definition. Modules are imported when an operation is first used.
_FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "conv2d": (
        (
            "conv_winograd",
            "conv_winograd_weight",
            "conv_direct",
            "conv_weight",
            "conv_band",
            "conv_band_input",
            "conv_band_weight",
            "conv_depthwise",
            "conv_depthwise_band_weight",
            "conv_depthwise_weight",
            "conv_pointwise",
            "conv_grouped",
            "conv_grouped_weight",
            "conv_tma",
            "conv_tma_weight",
            "conv_mma",
            "conv_naive",
        ),
        "conv",
    ),
    "matmul": (("matmul_few", "matmul_outer", "matmul", "matmul_tma", "matmul_mma", "matmul_naive"), "matmul"),
    "max_pool2d": (("pool_max", "pool_max_backward"), "pool"),
    "avg_pool2d": (("pool_average",), "pool"),
    "adaptive_avg_pool2d": (("pool_average",), "pool"),
    "batch_norm": (("norm", "norm_backward"), "norm"),
    "local_response_norm": (("response",), "response"),
    "resample": (("resample",), "resample"),
    "group_norm": (("layer_norm", "group_norm"), "group_norm"),
    "adaptive_max_pool2d": (("pool_adaptive",), "pool_adaptive"),
    "extremum": (("extremum",), "extremum"),
    "fold": (("unfold",), "unfold"),
    "activation": (("activation",), "activation"),
    "softmax": (("softmax",), "softmax"),
    "cross_entropy": (("loss",), "loss"),
    "multi_margin_loss": (("margin",), "margin"),
    "nll_loss": (("loss",), "loss"),
    "mse_loss": (("mse",), "loss"),
    "dropout": (("dropout",), "dropout"),
    "elementwise": (("elementwise",), "elementwise"),
    "pointwise": (("pointwise",), "pointwise"),
    "reduce": (("reduce",), "reduce"),
    "copy": (("copy",), "shape"),
    "convert": (("copy",), "shape"),
    "pad": (("pad",), "shape"),
    "index_add": (("index",), "shape"),
    "optimizer_step": (("optim",), "optim"),
    "vector_norm": (("optim",), "optim"),
    "clip": (("optim",), "optim"),
}

# Their kernels compute with floats; integers are for their definitions.
_FLOATS_ONLY = frozenset({"conv2d", "matmul", "max_pool2d", "avg_pool2d", "fold"})

_BYTE = np.dtype(np.uint8)

OVERRIDE: ContextVar[frozenset[str]] = ContextVar("numbanet_override", default=frozenset())
_tuning = 0  # grows with every change of what is measured, and of `_wrap`
_wrap: Callable[[Problem, list[Candidate], Candidate], Candidate] | None = None
_warned: set[tuple[str, str]] = set()
_warned_lock = new_lock()


def _list(device: str, operation: str, which: str) -> list[Candidate]:
    modules, reference = _FAMILIES[operation]
    found: list[Candidate] = []
    if device == "cuda" and not cuda.has_compiler():
        return found  # nothing that could compile them
    for name in modules:
        try:
            module = importlib.import_module(f"numbanet.{device}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"numbanet.{device}.{name}":
                raise
            continue  # a twin that this device does not have
        found += module.CANDIDATES.get((operation, which), [])
    if device == "cpu":
        found += importlib.import_module(f"numbanet.reference.{reference}").CANDIDATES[operation, which]
    return found


@cache
def candidates(device: str, operation: str, which: str) -> tuple[Candidate, ...]:
    """Return the candidates of an operation's pass on a device, in their order."""
    return tuple(_list(device, operation, which))


def operations() -> tuple[str, ...]:
    """Return the names of all operations."""
    return tuple(_FAMILIES)


def check_names(names: tuple[str, ...]) -> None:
    """Raise ValueError for a candidate name that no list has."""
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be those of kernels, got {names}")
    missing = set(names)
    known: set[str] = set()
    for device in ("cpu", "cuda"):
        for operation in _FAMILIES:
            if not missing:
                return
            for which in passes(operation):
                known.update(candidate.name for candidate in candidates(device, operation, which))
            missing -= known
    if missing:
        raise ValueError(f"names: no kernel is called {min(missing)!r}; known: {', '.join(sorted(known))}")


def passes(operation: str) -> tuple[str, ...]:
    """Return the passes of an operation, such as ``("forward", "backward_input", "backward_weight")``."""
    reference = importlib.import_module(f"numbanet.reference.{_FAMILIES[operation][1]}")
    return tuple(which for name, which in reference.CANDIDATES if name == operation)


@contextmanager
def use(*names: str) -> Iterator[None]:
    """Within a ``with`` block, run the named kernels wherever a list has them (for tests and comparisons).

    Parameters
    ----------
    *names : str
        Candidate names such as ``"cpu.direct"`` or ``"reference"``, as `explain` prints them.

    Raises
    ------
    ValueError
        At entry, if no list of kernels has a candidate of that name; when an operation runs, if every named candidate
        of its list refuses the problem.
    """
    check_names(names)
    token = OVERRIDE.set(frozenset(names))
    try:
        yield
    finally:
        OVERRIDE.reset(token)


def conditions() -> tuple[str, frozenset[str], int]:
    """Return what a choice depends on beside the problem and the device: precision, override, what was measured.

    Where that changes for all threads, `settings.changed` is told; else, a context variable.
    """
    return settings.get_precision(), OVERRIDE.get(), _tuning


def measuring() -> bool:
    """Return whether choices are `wrapped`: what wraps them wants to see each call."""
    return _wrap is not None


def verdicts(problem: Problem, device: str) -> list[tuple[Candidate, str | None]]:
    """Return each candidate of the problem's list with None, or the reason why it refuses."""
    return [(c, c.supports(problem)) for c in candidates(device, problem.operation, problem.which)]


def renew() -> None:
    """Forget all choices: what is measured has changed."""
    global _tuning
    _tuning += 1
    settings.changed()


@contextmanager
def wrapped(wrap: Callable[[Problem, list[Candidate], Candidate], Candidate]) -> Iterator[None]:
    """Within a ``with`` block, run what ``wrap(problem, candidates that fit, chosen one)`` returns, in all threads."""
    global _wrap
    _wrap = wrap
    renew()
    try:
        yield
    finally:
        _wrap = None
        renew()


@lru_cache(maxsize=4096)
def _choose(
    problem: Problem, device: str, capability: tuple[Any, ...], precision: str, override: frozenset[str], tuning: int
) -> tuple[Candidate, int]:
    """Return the candidate that runs, and the bytes of its workspace."""
    judged = verdicts(problem, device)
    if device == "cpu" and problem.operation in _FLOATS_ONLY and problem.dtype not in FLOATS:
        return judged[-1][0], judged[-1][0].workspace_bytes(problem)
    named = [(c, reason) for c, reason in judged if c.name in override]
    fit = [c for c, reason in named or judged if reason is None]
    if not fit:
        reasons = "; ".join(f"{c.name}: {reason}" for c, reason in named or judged) or "the list is empty"
        raise ValueError(f"no {device} kernel takes {problem}: {reasons}")
    fastest = None if named else measured.fastest(problem, device, precision)
    chosen = next((c for c in fit if c.name == fastest), None) or min(fit, key=lambda c: c.cost(problem))
    settings.log(f"{problem.operation} {problem.which} on {device}: {chosen.name} for {problem}")
    chosen = chosen if _wrap is None else _wrap(problem, fit, chosen)
    return chosen, chosen.workspace_bytes(problem)


def _choice(problem: Problem, device: str) -> tuple[Candidate, int]:
    return _choose(problem, device, cuda.capability() if device == "cuda" else (), *conditions())


def choose(problem: Problem, device: str = "cpu") -> Candidate:
    """Return the candidate that runs for a problem now.

    Raises
    ------
    ValueError
        If no candidate, or none of those that `use` names, takes the problem; the message lists the reasons.
    """
    return _choice(problem, device)[0]


def run(problem: Problem, inputs: Arrays, outputs: Arrays) -> None:
    """Solve a problem: `inputs` and `outputs` are arrays (or None where the problem has no such operand).

    It runs on the device where the outputs lie. A weight, which is the second input, may be prepared: forms of it that
    exist are used again.

    Raises
    ------
    ValueError
        If no candidate takes the problem, or operands lie on different devices.
    """
    device = "cpu"
    if not outputs or type(outputs[0]) is np.ndarray:
        if DeviceArray in map(type, inputs):
            raise _mixed(problem, inputs)
    else:
        device = _device(problem, inputs, outputs)
        if device == "cuda" and cuda.elsewhere(first := next(_arrays((*outputs, *inputs)))):
            with cuda.beside(first):
                return run(problem, inputs, outputs)
    chosen, size = _choice(problem, device)
    if chosen.name == "reference":
        doubt("NumPy computed by a definition")
        if "reference" not in OVERRIDE.get() and problem.dtype in FLOATS:
            _say_reference(problem)
    if len(inputs) > 1 and type(inputs[1]) is PreparedWeight:
        if device == "cpu" and type(inputs[1].array) is DeviceArray:
            raise _mixed(problem, inputs)
        inputs = (inputs[0], inputs[1].form(chosen, problem), *inputs[2:])
    elif chosen.prepare is not None:
        inputs = (inputs[0], chosen.prepare(problem, inputs[1]), *inputs[2:])
    workspace = None
    if size:
        workspace = memory.empty((size,), _BYTE, None if device == "cpu" else next(_arrays(outputs)))
    chosen.run(problem, inputs, outputs, workspace)


def _arrays(operands: Any) -> Iterator[Any]:
    """Yield the arrays among operands, of which some are lists of arrays."""
    for x in operands:
        if isinstance(x, (tuple, list)):
            yield from _arrays(x)
        elif x is not None:
            yield x.array if type(x) is PreparedWeight else x


_OF_THE_CPU = {np.ndarray, type(None)}


def _device(problem: Problem, inputs: Arrays, outputs: Arrays) -> str:
    """Return where all operands lie."""
    operands, kinds = (*_placed(problem, inputs).values(), *outputs), set[type]()
    for x in operands:
        kinds.update(map(type, x)) if isinstance(x, (tuple, list)) else kinds.add(type(x))
    if kinds <= _OF_THE_CPU:  # lists may be those of all parameters of a network
        return "cpu"
    places = {_number(x) for x in _arrays(operands)}
    if len(places) > 1:
        raise _mixed(problem, inputs)
    if places <= {-1}:
        return "cpu"
    return "cuda"


def _number(x: Any) -> int:
    """Return the number of the GPU on which an array lies, -1 for the CPU."""
    return x.memory.device if type(x) is DeviceArray else -1


def _placed(problem: Problem, inputs: Arrays) -> dict[int, Any]:
    """Return, by position, the operands that lie on a device: all but the numbers that Python reads."""
    host = {position % len(inputs) for position in problem.host if position < len(inputs)}
    return {position: x for position, x in enumerate(inputs) if position not in host and x is not None}


def _mixed(problem: Problem, inputs: Arrays) -> ValueError:
    places = [
        f"operand {position} on {' and '.join(sorted({getattr(a, 'device', 'cpu') for a in _arrays((x,))}))}"
        for position, x in _placed(problem, inputs).items()
    ]  # fmt: skip
    return ValueError(
        f"{problem.operation}: all operands must be on one device, got {', '.join(places)}: nothing moves by itself, "
        "use .to(device)"
    )


def _say_reference(problem: Problem) -> None:
    with _warned_lock:
        first = (problem.operation, problem.which) not in _warned
        _warned.add((problem.operation, problem.which))
    if first:
        warnings.warn(f"no fast kernel takes {problem}: the slow NumPy reference runs", RuntimeWarning, stacklevel=4)


def explain_problem(problem: Problem, device: str = "cpu") -> str:
    """Return the list of candidates of a problem as text: the chosen one, costs, reasons, expected errors."""
    try:
        chosen: Any = choose(problem, device)
    except ValueError:
        chosen = None
    times = measured.seconds(problem, device, settings.get_precision())
    lines = [f"{problem.operation} {problem.which} on {device}: {problem}"]
    for candidate, reason in verdicts(problem, device):
        mark = "->" if candidate is chosen else "  "
        if reason is None:
            detail = f"cost {candidate.cost(problem):.3g}, expected error {candidate.tolerance(problem):.1e}"
            detail += f", measured {times[candidate.name] * 1e3:.3g} ms" if candidate.name in times else ""
        else:
            detail = f"refused: {reason}"
        lines.append(f"{mark} {candidate.name:<16} {detail}")
    if chosen is None:
        lines.append("   no candidate takes it")
    return "\n".join(lines)
