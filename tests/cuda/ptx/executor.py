"""Run numbanet's CUDA kernels by interpreting their PTX: the executor of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cuda.compile import Capability, Kernel
from numbanet.cuda.launch import Grid
from tests.cuda.ptx import warp  # noqa: F401  (registers the operations of warps)
from tests.cuda.ptx.instructions import OPERATIONS
from tests.cuda.ptx.machine import DTYPES, Machine
from tests.cuda.ptx.memory import GlobalMemory
from tests.cuda.ptx.parse import Program, parse

_NONE = np.zeros(0, np.uint8)


@lru_cache(maxsize=256)
def program(text: str) -> Program:
    """Return the parsed program of a PTX text."""
    return parse(text)


def interpret(text: str, grid: Grid, threads: int, arguments: Sequence[Any], dynamic_bytes: int = 0) -> int:
    """Run PTX on NumPy arrays; return the number of steps.

    Parameters
    ----------
    text : str
    grid : tuple of int
    threads : int
    arguments : sequence
        NumPy arrays (written in place), numbers, or None for a null pointer.
    dynamic_bytes : int
        Dynamic shared memory.
    """
    parsed = program(text)
    buffers: list[np.ndarray] = []
    numbers: dict[int, int] = {}
    for argument in arguments:
        if isinstance(argument, np.ndarray) and id(argument) not in numbers:
            numbers[id(argument)] = len(buffers)
            buffers.append(argument)
    memory = GlobalMemory(buffers)
    values = []
    for argument, (kind, _) in zip(arguments, parsed.parameters, strict=True):
        if isinstance(argument, np.ndarray):
            argument = memory.address(numbers[id(argument)])
        dtype = DTYPES[kind]
        value = np.array(0 if argument is None else argument)
        values.append(value.astype(dtype)[()])
    steps = Machine(parsed, grid, threads, values, memory, dynamic_bytes).run(OPERATIONS)
    memory.write_back()
    return steps


class Interpreter:
    """The executor: device arrays are NumPy arrays.

    Parameters
    ----------
    capability : tuple
        Compute capability that kernels are compiled for.
    """

    def __init__(self, capability: Capability = (8, 0)):
        self.capability = capability
        self.launched: list[str] = []

    def run(self, kernel: Kernel, grid: Grid, arguments: Sequence[Any], dtype: str) -> None:
        """Interpret a kernel over a grid of blocks."""
        self.launched.append(kernel.name)
        interpret(kernel.ptx(dtype, self.capability), grid, kernel.threads, arguments, kernel.shared_bytes)

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return an array of NaN (or of 0xFB bytes): nothing may rely on its content."""
        array = np.empty(shape, dtype)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        else:
            array.reshape(-1).view(np.uint8).fill(0xFB)
        return array

    def constant(self, table: np.ndarray) -> np.ndarray:
        """Return the array, read-only."""
        view = table.view()
        view.flags.writeable = False
        return view
