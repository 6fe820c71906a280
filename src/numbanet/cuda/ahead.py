"""Kernels compiled ahead for a kind of GPU, on any machine: models run on a device that compiles, and computes nothing.

Which kernels a model needs follows from its shapes and from the GPU's compute capability, so it goes through its steps
as on a GPU. Where Python asks for a value, it gets zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numbanet.cuda.launch import Grid, Launch
from numbanet.cuda.memory import Kept, rounded
from numbanet.device_array import DeviceArray, Memory, contiguous_in

Capability = tuple[Any, ...]


def capability(major: int, minor: int) -> Capability:
    """Return what kernels are compiled for on a GPU: (9, 0, "a") on Hopper, whose own instructions need the letter."""
    return (major, minor, "a") if major == 9 else (major, minor)


def parse(arch: str) -> Capability:
    """Return the capability of a word such as ``"90"`` or ``"sm_80"``.

    Raises
    ------
    ValueError
        If it is none, or older than 8.0.
    """
    digits = arch.removeprefix("sm_").removesuffix("a")
    if not digits.isdecimal() or int(digits) < 80:
        raise ValueError(f"arch must be a compute capability of 80 or more, such as 80, 90 or sm_90, got {arch!r}")
    return capability(int(digits) // 10, int(digits) % 10)


class Compiler:
    """The executor of a device that is not there.

    Parameters
    ----------
    capability : tuple
    compiled : callable
        Called with each kernel and dtype that was not asked for before.

    Attributes
    ----------
    kernels : dict
        The cubin of each kernel and dtype.
    """

    ordinal = 0

    def __init__(self, capability: Capability, compiled: Callable[[Any, str], None] = lambda kernel, dtype: None):
        self.capability, self._compiled = capability, compiled
        self.kernels: dict[tuple[Any, str], bytes] = {}
        self._constants = Kept()
        self._pointers = itertools.count(1 << 32, 1 << 32)  # nobody looks there

    def run(self, kernel: Any, grid: Grid, arguments: Sequence[Any], dtype: str) -> None:
        """Compile a kernel."""
        if (kernel, dtype) not in self.kernels:
            self.kernels[kernel, dtype] = kernel.cubin(dtype, self.capability)
            self._compiled(kernel, dtype)

    def replay(self, launches: Sequence[Launch], graph: Any) -> None:
        """Do nothing: the kernels have been compiled."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Return an array without memory."""
        size = rounded(math.prod(shape) * np.dtype(dtype).itemsize)
        return contiguous_in(Memory(next(self._pointers), size, None), shape, dtype)

    def upload(self, values: np.ndarray) -> DeviceArray:
        """Return an array without memory, its axes in the same order."""
        order = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        made = self.empty(tuple([values.shape[axis] for axis in order]), values.dtype.name)
        return made.transpose([order.index(axis) for axis in range(values.ndim)])

    def download(self, array: DeviceArray) -> np.ndarray:
        """Return zeros."""
        return np.zeros(array.shape, array.dtype)

    def sync(self) -> None:
        """Do nothing: nothing was started."""

    def constant(self, table: np.ndarray) -> DeviceArray:
        """Return an array without memory, the same for as long as the host array lives."""
        return self._constants.get(table, self.upload)

    def address(self, array: Any) -> int:
        """Return an address, aligned as on a GPU."""
        return array.pointer if isinstance(array, DeviceArray) else 0

    def addresses(self, arrays: Sequence[Any]) -> DeviceArray:
        """Return an array without memory."""
        return self.empty((len(arrays),), "int64")

    def fault(self) -> DeviceArray:
        """Return an array without memory."""
        return self.empty((3,), "int64")
