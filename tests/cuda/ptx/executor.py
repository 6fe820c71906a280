"""Run numbanet's CUDA kernels by interpreting their PTX: the executor of the tests."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from numbanet.cuda.compile import SCALARS, Capability, Kernel
from numbanet.cuda.launch import Grid, Launch, raise_fault
from numbanet.cuda.memory import Kept
from numbanet.cuda.tensor_map import TensorMap
from numbanet.device_array import DeviceArray, Memory, contiguous_in
from tests.cuda.ptx import access, barriers, tensor, warp, warpgroup  # noqa: F401  (they register instructions)
from tests.cuda.ptx.instructions import OPERATIONS
from tests.cuda.ptx.machine import DTYPES, Machine
from tests.cuda.ptx.memory import GlobalMemory
from tests.cuda.ptx.parse import Program, parse


class Addresses(np.ndarray):
    """A table of addresses; its content is known when a kernel runs, for then its arrays have theirs."""

    arrays: tuple[Any, ...]


def _span(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the memory from the lowest to the highest element, gaps included, and where in it the first one lies."""
    if x.flags.c_contiguous:
        return x, 0
    steps = [stride * (size - 1) for stride, size in zip(x.strides, x.shape)]
    lowest = sum(step for step in steps if step < 0)
    forwards = x[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)]
    extent = 1 + sum(map(abs, steps)) // x.itemsize if x.size else 0
    return np.lib.stride_tricks.as_strided(forwards, (extent,), (x.itemsize,)), -lowest


# What a kernel reads where a tensor map lies: it is for the copy engine alone.
_NO_BYTES = np.full(128, 0xFB, np.uint8)
_NO_BYTES.flags.writeable = False


class _Places:
    """The buffers that a kernel sees, and where in them its arrays begin."""

    def __init__(self, arrays: Sequence[Any]):
        tables = [a for a in arrays if isinstance(a, Addresses)]
        maps = [a for a in arrays if isinstance(a, TensorMap)]
        listed = [a for table in tables for a in table.arrays] + [a.array for a in maps]
        given = [a for a in (*arrays, *listed) if isinstance(a, (np.ndarray, DeviceArray))]
        self._spans = {id(a): _span(a) for a in given if isinstance(a, np.ndarray)}
        buffers = {id(a): self._spans[id(a)][0] for a in given if isinstance(a, np.ndarray)}
        buffers |= {id(a.memory.owner): _bytes(a.memory) for a in given if isinstance(a, DeviceArray)}
        buffers |= {id(a): _NO_BYTES for a in maps}
        self._numbers = {key: number for number, key in enumerate(buffers)}
        self.memory = GlobalMemory(list(buffers.values()))
        for table in tables:
            self.memory.fill(self._numbers[id(table)], [self.address(a) for a in table.arrays])
        for a in maps:
            reason = tensor.refusal(a.form, self.address(a.array))
            if reason is not None:
                raise ValueError(f"the driver makes no map of {reason}")
            self.memory.maps[self.address(a)] = a.form, self.address(a.array)

    def address(self, array: Any) -> int:
        """Return the address of an array's first element."""
        if isinstance(array, DeviceArray):
            start = array.memory
            return self.memory.address(self._numbers[id(start.owner)]) + array.pointer - start.pointer
        if isinstance(array, TensorMap):
            return self.memory.address(self._numbers[id(array)])
        return self.memory.address(self._numbers[id(array)]) + self._spans[id(array)][1]



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
        NumPy arrays of any strides (written in place), device arrays of a `HostDevice`, numbers, or None for a null
        pointer.
    dynamic_bytes : int
        Dynamic shared memory.
    """
    parsed = program(text)
    places, values = _Places(arguments), []
    memory = places.memory
    for argument, (kind, _) in zip(arguments, parsed.parameters, strict=True):
        if isinstance(argument, (np.ndarray, DeviceArray, TensorMap)):
            argument = places.address(argument)
        value = np.array(0 if argument is None else argument)
        values.append(value.astype(DTYPES[kind])[()])
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
        self.capability, self.ordinal = capability, 0
        self.launched: list[str] = []

    def run(self, kernel: Kernel, grid: Grid, arguments: Sequence[Any], dtype: str) -> None:
        """Interpret a kernel over a grid of blocks."""
        self.launched.append(kernel.name)
        given = [argument[()] if kind in (*SCALARS, "Number") and isinstance(argument, np.ndarray) else argument
                 for argument, kind in zip(arguments, kernel.parameters)]  # fmt: skip
        interpret(kernel.ptx(dtype, self.capability), grid, kernel.threads, given, kernel.shared_bytes)

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

    def fault(self) -> Any:
        """Return where kernels report what is wrong; nobody looks there."""
        return np.zeros(3, np.int64)

    def address(self, array: Any) -> int:
        """Return the address of the first element: the host's, for the alignment that a view's has on a GPU."""
        return array.pointer if isinstance(array, DeviceArray) else int(array.__array_interface__["data"][0])

    def addresses(self, arrays: Sequence[Any]) -> Addresses:
        """Return a table that `interpret` fills in."""
        table = np.zeros(len(arrays), np.int64).view(Addresses)
        table.arrays = tuple(arrays)
        return table


def _bytes(block: Memory) -> np.ndarray:
    """Return the content of a block of a `HostDevice`, or of another library's memory."""
    if isinstance(block.owner, np.ndarray) and block.owner.dtype == np.uint8 and block.ours:
        return block.owner
    return np.frombuffer((ctypes.c_uint8 * block.size).from_address(block.pointer), np.uint8)


class HostDevice(Interpreter):
    """The executor of a pretended device: its arrays are `DeviceArray`s, whose memory lies on the host.

    A kernel sees the whole block of memory in which an array lies.
    """

    def __init__(self, capability: Capability = (8, 0), ordinal: int = 0):
        super().__init__(capability)
        self.ordinal = ordinal
        self.downloads, self._fault = 0, None
        self.ordered: list[tuple[int, int]] = []
        self._constants = Kept()

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return a device array of NaN (or of 0xFB bytes), aligned as on a GPU."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        room = np.empty(size + 256, np.uint8)
        buffer = room[-room.ctypes.data % 256 :][:size]
        if kind.kind == "f":
            buffer.view(kind).fill(np.nan)
        else:
            buffer.fill(0xFB)
        block = Memory(buffer.ctypes.data, size, buffer, device=self.ordinal)
        return contiguous_in(block, shape, kind)

    def upload(self, values: np.ndarray) -> Any:
        """Return a copy on the device."""
        order = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        dense = values.transpose(order)
        made = self.empty(dense.shape, values.dtype.name)
        made.memory.owner[:] = np.frombuffer(dense.tobytes(), np.uint8)
        return made.transpose([order.index(axis) for axis in range(values.ndim)])

    def download(self, array: Any) -> np.ndarray:
        """Return a copy on the host."""
        self.downloads += 1
        self.sync()
        if not array.size:
            return np.empty(array.shape, array.dtype)
        start = array.pointer - array.memory.pointer
        first = _bytes(array.memory)[start : start + array.itemsize].view(array.dtype)
        return np.lib.stride_tricks.as_strided(first, array.shape, array.strides).copy("K")

    def sync(self) -> None:
        """Raise what kernels have reported: all is done."""
        if self._fault is not None:
            raise_fault(self._fault.memory.owner.view(np.int64))

    def constant(self, table: np.ndarray) -> Any:
        """Return a read-only copy on the device."""

        def make(values: np.ndarray) -> Any:
            made = self.upload(values)
            made.flags.writeable = made.memory.owner.flags.writeable = False
            return made

        return self._constants.get(table, make)

    def fault(self) -> Any:
        """Return where kernels report an index that is out of bounds."""
        if self._fault is None:
            self._fault = self.upload(np.zeros(3, np.int64))
        return self._fault

    def staging(self) -> Any:
        """Return what brings arrays here, at once."""
        return SimpleNamespace(start=lambda values: SimpleNamespace(take=partial(self.upload, values.copy("K"))))

    def stream_handle(self) -> int:
        """Return the handle of the legacy default stream."""
        return 1

    def order(self, first: int, then: int) -> None:
        """Note which stream waits for which."""
        self.ordered.append((first, then))

    def ordinal_of(self, address: int) -> int:
        """Return the number of the only device."""
        return self.ordinal

    def replay(self, launches: Sequence[Launch], graph: Any) -> Any:
        """Repeat launches."""
        for kernel, grid, arguments, dtype in launches:
            self.run(kernel, grid, arguments, dtype)
