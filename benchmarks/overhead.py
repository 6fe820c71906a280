"""What Python takes around the kernels of a layer's call, and of its backward.

::

    python -m benchmarks.compare --sections overhead --threads 1

The images are so small that a call is little but Python. Its time is cut at every entry into machine code and every
return from it, and what lies in machine code is left out.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, report
from benchmarks.backends import Backend
from benchmarks.cases import random

TARGET = 10.0  # microseconds from a call to its kernel
MODES = ("no_grad", "tape", "backward")
TORCH = "torch:channels_last"  # the memory order of numbanet
_IMAGES = (1, 8, 6, 6)
_CALLS = 300  # of which the median counts

Build = Callable[[Backend], Callable[[Any], Any]]

LAYERS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "Conv2d": (lambda b: b.nn.Conv2d(8, 8, 3, padding=1), _IMAGES),
    "Conv2d 1x1": (lambda b: b.nn.Conv2d(8, 8, 1), _IMAGES),
    "Linear": (lambda b: b.nn.Linear(8, 8), (1, 8)),
    "BatchNorm2d eval": (lambda b: b.nn.BatchNorm2d(8).eval(), _IMAGES),
    "BatchNorm2d train": (lambda b: b.nn.BatchNorm2d(8), _IMAGES),
    "ReLU": (lambda b: b.nn.ReLU(), _IMAGES),
    "GELU": (lambda b: b.nn.GELU(), _IMAGES),
    "MaxPool2d": (lambda b: b.nn.MaxPool2d(2), _IMAGES),
    "AvgPool2d": (lambda b: b.nn.AvgPool2d(2), _IMAGES),
    "AdaptiveAvgPool2d": (lambda b: b.nn.AdaptiveAvgPool2d(1), _IMAGES),
    "Flatten": (lambda b: b.nn.Flatten(), _IMAGES),
    "Add": (lambda b: partial(operator.add, b.tensor(random(1, *_IMAGES))), _IMAGES),
}


@dataclass(frozen=True)
class Overhead:
    """Microseconds of one kind of call.

    Attributes
    ----------
    layer, mode : str
        Of `LAYERS` and `MODES`.
    before, between, after : float
        Python before the first launch, between launches, and behind the last one.
    launches : int
    call : float
        The whole call, kernels included.
    torch : float or None
        PyTorch's whole call; None where it is not installed.
    """

    layer: str
    mode: str
    before: float
    between: float
    after: float
    launches: int
    call: float
    torch: float | None

    @property
    def entry(self) -> float:
        """Python from the call to its last kernel."""
        return self.before + self.between


@contextmanager
def marking(marks: list[int]) -> Iterator[None]:
    """Within a ``with`` block, append the time of each entry into machine code, and of the return from it."""
    from numbanet.cpu import parallel

    parallel.prepare()
    state = parallel._state
    drivers = {name: getattr(state, name) for name in ("alone", "known", "together")}

    def marked(driver: Callable[..., Any], clock: Callable[[], int] = time.perf_counter_ns) -> Callable[..., Any]:
        def run(*call: Any) -> Any:
            marks.append(clock())
            result = driver(*call)
            marks.append(clock())
            return result

        return run

    for name, driver in drivers.items():
        setattr(state, name, marked(driver))
    try:
        yield
    finally:
        for name, driver in drivers.items():
            setattr(state, name, driver)


def _prepared(layer: str, mode: str, backend: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what has to be done before a call, and the call."""
    b, (build, shape) = backends.get(backend), LAYERS[layer]
    function, x = build(b), b.tensor(random(0, *shape))
    parameters = list(b.place(function).parameters()) if isinstance(function, b.nn.Module) else []
    if mode == "no_grad":
        return (lambda: None), partial(function, x)
    x.requires_grad_()
    if mode == "tape":
        return (lambda: None), partial(function, x)
    grad = b.tensor(random(2, *function(x).shape))
    results: list[Any] = []

    def renew() -> None:
        for leaf in (x, *parameters):
            leaf.grad = None
        results[:] = [function(x)]

    return renew, lambda: results[0].backward(grad)


def _whole(before: Callable[[], Any], call: Callable[[], Any], calls: int) -> float:
    """Return the median seconds of a call."""
    samples = []
    for _ in range(calls):
        before()
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return float(np.median(samples))


def _parts(before: Callable[[], Any], call: Callable[[], Any], calls: int) -> tuple[float, ...]:
    """Return the medians of Python's seconds before, between and behind the kernels, and the number of launches."""
    marks: list[int] = []
    samples = []
    with marking(marks):
        for _ in range(calls):
            before()
            marks.clear()
            start = time.perf_counter_ns()
            call()
            end = time.perf_counter_ns()
            times = [start, *marks, end]
            gaps = [later - earlier for earlier, later in zip(times[::2], times[1::2])]
            samples.append((gaps[0], sum(gaps[1:-1]), gaps[-1] if marks else 0, len(marks) // 2))
    return tuple(np.median(samples, axis=0))


def measure(layer: str, mode: str, rounds: int = 5, calls: int = _CALLS, beside: str = TORCH) -> Overhead:
    """Measure one kind of call, in turn with PyTorch's, and keep the best round of each.

    Parameters
    ----------
    layer, mode : str
        Of `LAYERS` and `MODES`.
    rounds, calls : int
        Of each round the median call counts.
    beside : str
        The other backend; it is left out where it is not installed, or an empty string.
    """
    names = ["numbanet", beside] if beside and backends.available(beside) else ["numbanet"]
    pairs = {name: _prepared(layer, mode, name) for name in names}
    parts: list[tuple[float, ...]] = []
    whole: Mapping[str, list[float]] = {name: [] for name in names}
    for name, pair in pairs.items():
        with backends.get(name).no_grad() if mode == "no_grad" else nullcontext():
            _whole(*pair, 10)  # compiles, and warms up
    for _ in range(rounds):
        for name, pair in pairs.items():
            with backends.get(name).no_grad() if mode == "no_grad" else nullcontext():
                if name == "numbanet":
                    parts.append(_parts(*pair, calls))
                whole[name].append(_whole(*pair, calls))
    *gaps, launches = min(parts, key=lambda found: sum(found[:3]))
    ours, *theirs = (1e6 * min(whole[name]) for name in names)
    return Overhead(layer, mode, *(gap / 1e3 for gap in gaps), int(launches), ours, theirs[0] if theirs else None)


TITLES = (
    ("layer", 17), ("mode", 8), ("before us", 9), ("between", 7), ("after", 6), ("Python", 6), ("launches", 8),
    ("call us", 7), ("torch us", 8), ("ratio", 6),
)  # fmt: skip


def line(found: Overhead) -> str:
    """Return a line of the table; where Python takes more than `TARGET` before the last kernel it is marked."""
    python = f"{found.entry + found.after:.1f}" + ("!" if found.mode != "backward" and found.entry > TARGET else " ")
    theirs = ("", "") if found.torch is None else (f"{found.torch:.1f}", f"{found.torch / found.call:.2f}")
    cells = (
        found.layer, found.mode, f"{found.before:.1f}", f"{found.between:.1f}", f"{found.after:.1f}", python,
        str(found.launches), f"{found.call:.1f}", *theirs,
    )  # fmt: skip
    return report.table_line(TITLES, cells)
