"""Guards around every buffer: bytes that must stay, and pages that end the process when they are touched."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.cpu.parallel import Places, recording

_PAGE = mmap.PAGESIZE
_GUARD = 256  # bytes on each side
_PATTERN = 0xA5
_SLOT = 64 * _PAGE  # larger blocks get guard bytes alone


class _Slot:
    """Memory between two pages that nobody may touch."""

    def __init__(self) -> None:
        try:
            self._map = mmap.mmap(-1, _SLOT + 2 * _PAGE)
        except OSError as error:  # a process has so many pieces of memory
            raise MemoryError("no memory for one more guarded buffer") from error
        whole = np.frombuffer(self._map, np.uint8)
        self.memory = np.ndarray((_SLOT,), np.uint8, whole, _PAGE)
        if sys.platform == "linux":
            libc, start = ctypes.CDLL(None, use_errno=True), whole.__array_interface__["data"][0]
            for page in (start, start + _PAGE + _SLOT):
                if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0):
                    raise MemoryError(f"no memory for one more guard page: {os.strerror(ctypes.get_errno())}")
        self.taken = False
        self._idle = sys.getrefcount(whole)
        self._whole = whole

    def free(self) -> bool:
        """Return whether no case uses it, and no array views it any more."""
        return not self.taken and sys.getrefcount(self._whole) == self._idle


class Guards:
    """Hands out guarded memory; `damage` says what was written beside it."""

    def __init__(self, at_end: bool, pages: bool):
        self._at_end, self._pages = at_end, pages
        self._blocks: list[tuple[np.ndarray, int, int]] = []
        self._slots: list[_Slot] = []

    def buffer(self, size: int, alignment: int = 1) -> np.ndarray:
        """Return so many bytes, all 0xFF (a NaN, or -1), that end or begin at a guard page where they are few."""
        if self._pages and size + 2 * _GUARD <= _SLOT:
            slot = next((slot for slot in _SLOTS if slot.free()), None)
            if slot is None:
                slot = _Slot()
                _SLOTS.append(slot)
            slot.taken = True
            self._slots.append(slot)
            whole = slot.memory
            start = (_SLOT - size) // alignment * alignment if self._at_end else 0
        else:
            whole = np.empty(size + 2 * _GUARD + alignment, np.uint8)
            address = whole.__array_interface__["data"][0]
            start = _GUARD + -(address + _GUARD) % alignment
        before, after = max(start - _GUARD, 0), min(start + size + _GUARD, len(whole))
        whole[before:start] = whole[start + size : after] = _PATTERN
        whole[start : start + size] = 0xFF
        self._blocks.append((whole, start, size))
        return np.ndarray((size,), np.uint8, whole, start)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any = None) -> np.ndarray:
        """Return what `numbanet.memory.empty` returns, guarded and poisoned."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if memory.in_arena() or size > 1 << 26 or dtype.hasobject:
            return unguarded_empty(shape, dtype, like)
        try:
            return np.ndarray(shape, dtype, self.buffer(size, 64 if size >= 1 << 18 else 16))
        except ValueError:  # no elements, but other dimensions that no address reaches
            raise MemoryError(f"an array of shape {shape} has no place in memory") from None

    def damage(self) -> str | None:
        """Return where a guard byte was changed, or None; and let the blocks go."""
        found = None
        for whole, start, size in self._blocks:
            before, after = whole[max(start - _GUARD, 0) : start], whole[start + size : start + size + _GUARD]
            if (before != _PATTERN).any() or (after != _PATTERN).any():
                found = f"a write outside a buffer of {size} bytes"
        self.release()
        return found

    def release(self) -> None:
        """Let the blocks go: what no array views any more may be handed out again."""
        for slot in self._slots:
            slot.taken = False
        self._blocks.clear()
        self._slots.clear()


_SLOTS: list[_Slot] = []
unguarded_empty = memory.empty


@contextmanager
def limited(extra: int = 3 << 29) -> Iterator[None]:
    """Within a ``with`` block, let the process take so many bytes more: what asks for all the memory gets an error."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * _PAGE
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def guarded(at_end: bool = True, pages: bool = True) -> Iterator[Guards]:
    """Within a ``with`` block, all that numbanet allocates for results and scratch is guarded."""
    guards = Guards(at_end, pages)
    memory.empty = guards.empty
    try:
        with recording(Places()):  # who takes note of launches sees all of a call, and all memory that it takes
            yield guards
    finally:
        memory.empty = unguarded_empty
        guards.release()
