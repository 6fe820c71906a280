"""Large blocks of memory are recycled: fresh pages cost more than the kernels that fill them.

A fresh 64 MB buffer takes 7.6 ms of page faults; one that was used before takes 2.3 ms to fill. A block goes back to
the pool when the last array that views it is gone. The pool is a heap that holds about as much as was in use at once:
the passes of a training step need blocks of different sizes at different times, and the next step finds all of them
again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.heap import Heap
from numbanet.locks import new_lock

SMALL = 1 << 18  # bytes; below it malloc recycles well enough
_HUGE = 1 << 26  # bytes; larger blocks are apart, where the many that come and go do not cut up their places

lock = new_lock()
pools = Heap(), Heap()  # up to _HUGE, and beyond
releases: list[Callable[[], None]] = []  # of the pools of GPUs


class Lease(np.ndarray):
    """Holds an extent of a heap while arrays view it; NumPy keeps it alive as the base of those arrays."""

    heap: Heap | None = None
    extent: tuple[int, int]
    offset: int

    def __del__(self) -> None:
        # One step, and no lock: a finaliser may run in the middle of `Heap.take`, and be interrupted by Ctrl-C.
        if self.heap is not None:
            self.heap.returned.append(self.extent)


def lease(heap: Heap, size: int) -> Lease:
    """Return so many bytes at least."""
    stretch, offset, start, size = heap.take(size)
    found = Lease((size,), np.uint8, stretch, offset)
    found.extent, found.offset, found.heap = (start, size), offset, heap
    return found


def recycled(shape: tuple[int, ...], dtype: np.dtype, size: int) -> np.ndarray:
    """Return an array of `size` bytes of the pool."""
    pool = pools[size > _HUGE]
    try:
        with lock:
            block = lease(pool, size)
    except MemoryError:
        release()
        with lock:
            block = lease(pool, size)
    return np.ndarray(shape, dtype, block)


def blank(shape: int | tuple[int, ...], dtype: Any, value: float | None = None) -> np.ndarray:
    """Return a new array of NumPy's own memory, of one value or uninitialised; MemoryError where no address reaches."""
    try:
        out = np.empty(shape, dtype)
    except ValueError:  # of no elements, it may be, but of dimensions beyond 64 bits
        lengths = (shape,) if isinstance(shape, int) else shape
        if min(lengths) < 0 or math.prod(max(1, n) for n in lengths) <= sys.maxsize // np.dtype(dtype).itemsize:
            raise
        raise MemoryError(f"an array of shape {shape} has no place in memory") from None
    if value is not None:
        out.fill(value)
    return out


def held() -> tuple[int, int]:
    """Return the bytes of large blocks in use, and those that the pool holds in all."""
    with lock:
        for pool in pools:
            pool.collect()
        return sum(pool.in_use for pool in pools), sum(pool.touched for pool in pools)


def release(gpus: bool = True) -> None:
    """Give the idle memory back to the system, that of GPUs too unless `gpus` is False."""
    with lock:
        for pool in pools:
            pool.release()
    for give_back in releases if gpus else ():
        give_back()
