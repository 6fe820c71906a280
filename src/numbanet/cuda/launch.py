"""Run kernels on a device: the only place that knows how arguments reach a GPU.

`launch` hands a kernel, its grid and its arguments to the current executor. The GPU's executor loads the cubin and
launches through cuda.core with flat arguments; the tests' executor interprets the PTX on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from numbanet.cuda.compile import Kernel

Grid = tuple[int, int, int]


class Executor(Protocol):
    """What runs kernels and owns the memory that they see."""

    def run(self, kernel: Kernel, grid: Grid, arguments: Sequence[Any], dtype: str) -> None:
        """Run a kernel over a grid of blocks."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return a C-contiguous array of the device with arbitrary content."""

    def constant(self, table: np.ndarray) -> Any:
        """Return a read-only copy of a host array on the device, made once for as long as the host array lives."""


_executor: ContextVar[Executor | None] = ContextVar("numbanet_cuda_executor", default=None)


@contextmanager
def executor(value: Executor) -> Iterator[None]:
    """Within a ``with`` block, run kernels by this executor."""
    token = _executor.set(value)
    try:
        yield
    finally:
        _executor.reset(token)


def current() -> Executor:
    """Return the executor that runs kernels now.

    Raises
    ------
    RuntimeError
        If no GPU can be used; the message says why.
    """
    chosen = _executor.get()
    if chosen is None:
        from numbanet.cuda import unavailable_reason

        raise RuntimeError(f"no CUDA kernel can run: {unavailable_reason()}")
    return chosen


def launch(kernel: Kernel, grid: Sequence[int], arguments: Sequence[Any], dtype: str = "float32") -> None:
    """Run a kernel over a grid of blocks.

    Parameters
    ----------
    kernel : Kernel
    grid : sequence of int
        Blocks along x, y and z (missing ones are 1). An empty grid runs nothing.
    arguments : sequence
        One for each parameter of the kernel, in its order: a number for a scalar, a C-contiguous device array, or None
        (a null pointer) for a pointer.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        What the kernel's ``T`` stands for.
    """
    if len(arguments) != len(kernel.parameters):
        raise TypeError(f"kernel {kernel.name} takes {len(kernel.parameters)} arguments, got {len(arguments)}")
    x, y, z = (*grid, 1, 1)[:3]
    if x and y and z:
        current().run(kernel, (x, y, z), arguments, dtype)


def empty(shape: tuple[int, ...], dtype: str) -> Any:
    """Return a C-contiguous device array with arbitrary content."""
    return current().empty(shape, dtype)


def constant(table: np.ndarray) -> Any:
    """Return a read-only copy of a host array on the device, made once for as long as the host array lives."""
    return current().constant(table)
