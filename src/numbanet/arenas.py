"""Arenas: the memory of recordings, which repeat what was computed in blocks that nothing else gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from numbanet.blocks import SMALL, Lease, blank, lease, recycled, release
from numbanet.device_array import DeviceArray, Memory, contiguous_in
from numbanet.heap import Heap

_LINE = 64


class Arena(Heap):
    """The memory of one recording, small arrays included."""

    def __init__(self) -> None:
        super().__init__(_LINE)
        self.on_device: dict[tuple[int, int], list[DeviceArray]] = {}  # idle blocks by GPU and size
        # All of them. When arrays die in a cycle of references, the collector finalises whatever they alone refer to:
        # a block, which would go back to the GPU's pool, and come back to the arena as well.
        self.device_blocks: list[DeviceArray] = []
        self.device_leases = 0

    def _fresh(self, size: int) -> int:
        if size >= SMALL:
            release(gpus=False)  # what the call before had, and this one has let go, is of no use to it
        return super()._fresh(size)

    @property
    def used(self) -> int:
        """How many blocks are in use."""
        return self.extents - len(self.returned) + self.device_leases

    def array(self, shape: tuple[int, ...], dtype: np.dtype, size: int) -> np.ndarray:
        """Return an uninitialised C-contiguous array of `size` bytes."""
        return np.ndarray(shape, dtype, lease(self, size))


class Noted(Arena):
    """Takes note of the arrays that are made, in place of a recording; their memory is that of any others.

    Attributes
    ----------
    made : list of numpy.ndarray
        In their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[np.ndarray] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype, size: int) -> np.ndarray:
        """Return an uninitialised C-contiguous array of `size` bytes."""
        self.made.append(blank(shape, dtype) if size < SMALL else recycled(shape, dtype, size))
        return self.made[-1]


ARENA: ContextVar[Arena | None] = ContextVar("numbanet_arena", default=None)
planner = ARENA.get
"""Return the arena from which all memory comes, or None."""


@contextmanager
def arena(planned: Arena | None = None) -> Iterator[Arena]:
    """Within a ``with`` block, take all memory, small arrays too, from blocks that nothing else gets: a new arena's.

    A block that is free again serves the next arrays that fit. What `pinned` keeps of it is overwritten in the order
    in which the blocks were used: repeating what was computed in the ``with`` block repeats its results.
    """
    planned = Arena() if planned is None else planned
    token = ARENA.set(planned)
    try:
        yield planned
    finally:
        ARENA.reset(token)


@contextmanager
def lasting() -> Iterator[None]:
    """Within a ``with`` block, take memory from the system or the pool, also within that of an `arena`."""
    token = ARENA.set(None)
    try:
        yield
    finally:
        ARENA.reset(token)


class _DeviceLease(Memory):
    """Holds a block of a GPU's memory while arrays view it."""

    __slots__ = ("heap",)

    def __init__(self, block: DeviceArray, arena: Arena):
        super().__init__(block.pointer, block.memory.size, block, device=block.memory.device)
        self.heap = arena

    def __del__(self) -> None:
        self.heap.device_leases -= 1
        self.heap.on_device.setdefault((self.device, self.owner.nbytes), []).append(self.owner)


def planned_on_device(shape: tuple[int, ...], dtype: str, device: int, fresh: Callable[..., Any]) -> Any:
    """Return an array on a GPU in the arena in use; None if none is. ``fresh(shape, dtype)`` makes new blocks."""
    arena = ARENA.get()
    if arena is None:
        return None
    size = -(-max(math.prod(shape) * np.dtype(dtype).itemsize, 1) // 512) * 512
    idle = arena.on_device.get((device, size))
    if not idle:
        idle = [fresh((size,), "uint8")]
        arena.device_blocks += idle
    found = _DeviceLease(idle.pop(), arena)
    arena.device_leases += 1
    return contiguous_in(found, shape, dtype)


def in_arena() -> bool:
    """Return whether memory comes from an arena: what is done to it is recorded, so NumPy shall not do it."""
    return ARENA.get() is not None


def pinned(x: np.ndarray) -> np.ndarray:
    """Return an array on the memory of x that keeps the block of its arena, but does not keep it from being reused."""
    found = leased(x)
    if found is None:
        return x
    if type(x) is DeviceArray:
        block = found.owner
        return DeviceArray(block.memory, x.pointer, x.shape, x.strides, x.dtype, x.writeable)  # type: ignore[return-value]
    distance = x.__array_interface__["data"][0] - found.extent[0]
    return np.ndarray(x.shape, x.dtype, found.base, found.offset + distance, x.strides)


def leased(x: np.ndarray) -> Any:
    """Return what holds the block of an arena in which x lies; None if it lies elsewhere."""
    owner = x
    if type(x) is DeviceArray:
        return x.memory if type(x.memory) is _DeviceLease else None
    while type(owner.base) is np.ndarray:
        owner = owner.base
    found = owner.base
    return found if type(found) is Lease and type(found.heap) is Arena else None


def planned(x: np.ndarray) -> bool:
    """Return whether x lies in the arena in use."""
    found = leased(x)
    return found is not None and found.heap is ARENA.get()
