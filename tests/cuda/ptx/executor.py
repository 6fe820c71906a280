"""Run numbanet's CUDA kernels by interpreting their PTX: the executor of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cuda.compile import Capability, Kernel
from numbanet.cuda.launch import Grid
from numbanet.device_array import DeviceArray, Memory, row_major
from tests.cuda.ptx import warp, warpgroup  # noqa: F401  (they register what warps and warpgroups do)
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
        NumPy arrays (written in place), device arrays of a `HostDevice`, numbers, or None for a null pointer.
    dynamic_bytes : int
        Dynamic shared memory.
    """
    parsed = program(text)
    buffers: list[np.ndarray] = []
    numbers: dict[int, int] = {}
    for argument in arguments:
        buffer = argument.memory.owner if isinstance(argument, DeviceArray) else argument
        if isinstance(buffer, np.ndarray) and id(buffer) not in numbers:
            numbers[id(buffer)] = len(buffers)
            buffers.append(buffer)
    memory = GlobalMemory(buffers)
    values = []
    for argument, (kind, _) in zip(arguments, parsed.parameters, strict=True):
        if isinstance(argument, DeviceArray):
            start = argument.memory
            argument = memory.address(numbers[id(start.owner)]) + argument.pointer - start.pointer
        elif isinstance(argument, np.ndarray):
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

    def address(self, array: Any) -> int:
        """Return the address of the first element: NumPy's own, for the alignment that a view's has on a GPU."""
        return array.pointer if isinstance(array, DeviceArray) else int(array.__array_interface__["data"][0])


class HostDevice(Interpreter):
    """The executor of a pretended device: its arrays are `DeviceArray`s, whose memory lies on the host.

    A kernel sees the whole block of memory in which an array lies.
    """

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return a device array of NaN (or of 0xFB bytes)."""
        return self._array(super().empty(shape, dtype))

    def _array(self, values: np.ndarray) -> DeviceArray:
        buffer = values.reshape(-1).view(np.uint8)
        block = Memory(buffer.ctypes.data, buffer.nbytes, buffer)
        strides = row_major(values.shape, values.itemsize)
        return DeviceArray(block, block.pointer, values.shape, strides, values.dtype)

    def upload(self, values: np.ndarray) -> Any:
        """Return a copy on the device."""
        order = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        copied = self._array(np.array(values.transpose(order), order="C"))
        return copied.transpose([order.index(axis) for axis in range(values.ndim)])

    def download(self, array: Any) -> np.ndarray:
        """Return a copy on the host."""
        if not array.size:
            return np.empty(array.shape, array.dtype)
        start = array.pointer - array.memory.pointer
        first = array.memory.owner[start : start + array.itemsize].view(array.dtype)
        return np.lib.stride_tricks.as_strided(first, array.shape, array.strides).copy("K")

    def stream_handle(self) -> int:
        """Return the handle of the legacy default stream."""
        return 1
