"""The ceilings of this machine, measured with kernels of our own: fused multiply-adds and memory copies a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import interleave
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import fma, integers, lanes, load, numpy_lanes, splat, store

_ACCUMULATORS = 14  # enough chains to hide the latency of a multiply-add; with two operands they fill 16 registers
_STEPS = 5_000  # a short run: on a busy machine some of them pass undisturbed
_TASKS = 16
_COPY_BYTES = 1 << 26  # of each array: well beyond any cache


@kernel
def multiply_add(task: Index, ints: I64, x: T, y: T):
    (steps,) = integers(ints, 1)
    a, b = load(x, 0), load(x, lanes(x))
    v0 = v1 = v2 = v3 = v4 = v5 = v6 = v7 = v8 = v9 = v10 = v11 = v12 = v13 = splat(x, 0.0)
    for _ in range(steps):
        v0, v1, v2, v3 = fma(v0, a, b), fma(v1, a, b), fma(v2, a, b), fma(v3, a, b)
        v4, v5, v6, v7 = fma(v4, a, b), fma(v5, a, b), fma(v6, a, b), fma(v7, a, b)
        v8, v9, v10, v11 = fma(v8, a, b), fma(v9, a, b), fma(v10, a, b), fma(v11, a, b)
        v12, v13 = fma(v12, a, b), fma(v13, a, b)
    total = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7 + v8 + v9 + v10 + v11 + v12 + v13
    store(y, task * lanes(y), total)


@kernel
def copy(task: Index, ints: I64, x: T, y: T):
    (vectors,) = integers(ints, 1)
    first = task * vectors * lanes(x)
    for j in range(vectors):
        store(y, first + j * lanes(x), load(x, first + j * lanes(x)))


def flops_per_second(seconds: float = 0.3, dtype: str = "float32") -> float:
    """Return the most multiply-adds a second, times two, with as many threads as kernels use now."""
    width = numpy_lanes(dtype)
    x, y = np.full(2 * width, 0.5, dtype), np.empty(_TASKS * width, dtype)

    def run() -> None:
        launch(multiply_add, _TASKS, (x, y), (_STEPS,), dtype)

    return 2 * _ACCUMULATORS * width * _STEPS * _TASKS / _best(run, seconds)


def bytes_per_second(seconds: float = 0.3, dtype: str = "float32") -> float:
    """Return the bytes a second, read and written, of a copy that no cache holds, likewise."""
    size = _COPY_BYTES // np.dtype(dtype).itemsize
    x, y = np.zeros(size, dtype), np.zeros(size, dtype)
    vectors = size // (_TASKS * numpy_lanes(dtype))

    def run() -> None:
        launch(copy, _TASKS, (x, y), (vectors,), dtype)

    return 2 * _COPY_BYTES / _best(run, seconds)


def _best(run: Callable[[], None], seconds: float) -> float:
    run()
    return min(interleave({"run": run}, seconds)["run"])
