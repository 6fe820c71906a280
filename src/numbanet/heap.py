"""Extents of memory: the smallest that fits is taken and cut to size, and neighbours that are free again become one.

Memory comes from the system in stretches, of which pages count only once they are written to. Blocks that are kept by
size alone lie idle while other sizes are in use; where free neighbours become one, the blocks of a training step take
hardly more than was in use at once (docs/performance-notes.md has figures).
"""

from __future__ import annotations

import mmap
import sys
from bisect import bisect_left, insort
from collections import deque

import numpy as np

_PAGE = mmap.PAGESIZE
_STRETCH = 1 << 26  # bytes of a stretch, at least; a heap doubles
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if sys.platform != "win32" else 0


class Heap:
    """Extents of stretches of memory.

    Parameters
    ----------
    unit : int
        Sizes are rounded up to a multiple of it, a power of two up to 4096; extents start at multiples.

    Attributes
    ----------
    in_use, peak : int
        Bytes that are taken, and the most that were.
    extents : int
        How many extents they are, those in `returned` included.
    touched : int
        Bytes that were ever taken, but for those given back at the end of a stretch: what a steady training step does
        not increase.
    returned : collections.deque
        Extents that are free again. Appending is all that a finaliser does, which may run in the middle of anything.

    Notes
    -----
    An extent that is free is a key of `_free`; whoever pops it has it, and nothing else is believed. So Ctrl-C in the
    middle of a change loses an extent at worst, and a signal handler in the middle may take others.
    """

    def __init__(self, unit: int = _PAGE):
        self._unit = unit
        self.in_use = self.peak = self.touched = self.extents = 0
        self.returned: deque[tuple[int, int]] = deque()
        self._free: dict[int, int] = {}  # by address, the size
        self._by_size: list[tuple[int, int]] = []  # hints: sizes and addresses of free extents, or of what were ones,
        self._starts: dict[int, int] = {}  # and by their ends where extents start
        self._tails: dict[int, int] = {}  # by where they start, the ends of what was never taken of stretches
        self._stretches: dict[int, mmap.mmap] = {}  # by address

    @property
    def idle(self) -> int:
        """Bytes that were taken once, and are free."""
        return self.touched - self.in_use

    def take(self, size: int) -> tuple[mmap.mmap, int, int, int]:
        """Return a stretch, and the offset, the address and the size of an extent of it, of so many bytes at least.

        Raises
        ------
        MemoryError
            If the system has no memory left.
        """
        size = -(-max(size, 1) // self._unit) * self._unit
        start = self._latest(size)
        if start is None:
            self.collect()
            start = self._fitting(size)
            if start is None:
                start = self._fresh(size)
            self.in_use, self.extents = self.in_use + size, self.extents + 1
            self.peak = max(self.peak, self.in_use)
        for base, stretch in list(self._stretches.items()):
            if base < start < base + len(stretch):
                return stretch, start - base, start, size
        raise AssertionError("an extent lies in no stretch")

    def _latest(self, size: int) -> int | None:
        """Return the start of the extent that was returned last, if it has this size: a cache may hold it still."""
        try:
            extent = self.returned.pop()
        except IndexError:  # there is none
            return None
        if extent[1] == size:
            return extent[0]
        self.returned.append(extent)
        return None

    def collect(self) -> None:
        """Take back the returned extents."""
        while self.returned:
            try:
                start, size = self.returned.popleft()
            except IndexError:  # a signal handler took the last one
                return
            self.in_use, self.extents = self.in_use - size, self.extents - 1
            self._put(start, size)

    def _fitting(self, size: int) -> int | None:
        """Return the start of the smallest free extent that is large enough, and leave the rest of it free."""
        while (position := bisect_left(self._by_size, (size, 0))) < len(self._by_size):
            try:
                found, start = self._by_size.pop(position)
            except IndexError:  # a signal handler took some meanwhile,
                continue
            if found < size:  # or put some in
                insort(self._by_size, (found, start))
                continue
            if self._free.get(start) == found and self._claim(start, found):
                self._starts.pop(start + found, None)
                if found > size:
                    self._put(start + size, found - size)
                return start
        return None

    def _claim(self, start: int, size: int) -> bool:
        return self._free.pop(start, None) == size

    def _put(self, start: int, size: int) -> None:
        """Make an extent free, as one with its free neighbours."""
        before = self._starts.pop(start, None)
        if before is not None and self._free.get(before) == start - before and self._claim(before, start - before):
            self._forget(before, start - before)
            start, size = before, size + start - before
        after = self._free.pop(start + size, None)
        if after is not None:
            self._forget(start + size, after)
            size += after
        self._starts[start + size] = start
        insort(self._by_size, (size, start))
        self._free[start] = size

    def _forget(self, start: int, size: int) -> None:
        position = bisect_left(self._by_size, (size, start))
        if self._by_size[position : position + 1] == [(size, start)]:
            del self._by_size[position]

    def _fresh(self, size: int) -> int:
        """Return the start of memory of which a part, or all, was never taken: what a steady step never asks for."""
        for tail, end in list(self._tails.items()):
            before = self._starts.get(tail, tail)
            known = self._free.get(before, 0) if before < tail else 0
            start = before if known == tail - before else tail
            if end - start < size or self._tails.pop(tail, None) is None:
                continue
            if start < tail and not self._claim(start, tail - start):
                start = tail
            if end - start >= size:
                if start < tail:
                    self._forget(start, tail - start)
                    self._starts.pop(tail, None)
                self._tails[start + size] = end
                self.touched += start + size - tail
                return start
            self._tails[tail] = end
        start, end = self._stretch(size)
        self._tails[start + size] = end
        self.touched += size
        return start

    def _stretch(self, size: int) -> tuple[int, int]:
        """Return where a new stretch starts and ends; if it can't be as large as wished, it is as large as it must."""
        for wished in (max(size, self.touched, _STRETCH), size):
            length = -(-wished // _PAGE) * _PAGE + _PAGE  # the first page is left out: stretches are no neighbours
            if length > sys.maxsize:
                continue
            try:
                stretch = mmap.mmap(-1, length, flags=_PRIVATE) if _PRIVATE else mmap.mmap(-1, length)
            except (OSError, OverflowError):
                continue
            if hasattr(mmap, "MADV_HUGEPAGE"):
                try:
                    stretch.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does with large arrays
                except OSError:
                    pass  # a system without them
            base = np.ndarray((1,), np.uint8, stretch).__array_interface__["data"][0]
            self._stretches[base] = stretch
            return base + _PAGE, base + length
        raise MemoryError(f"a result or its scratch memory would take {size} bytes")

    def release(self) -> None:
        """Give what is free back to the system."""
        self.collect()
        for base, stretch in list(self._stretches.items()):
            first, end = base + _PAGE, base + len(stretch)
            for start, size in list(self._free.items()):
                if not first <= start < end or not self._claim(start, size):
                    continue
                self._forget(start, size)
                self._drop_pages(stretch, start - base, size)  # while nobody can take it
                if start + size in self._tails:  # what was taken of the stretch ends earlier
                    self._starts.pop(start + size, None)
                    self._tails.pop(start + size)
                    self._tails[start] = end
                    self.touched -= size
                else:
                    self._put(start, size)
            if self._tails.pop(first, None) is not None:
                self._stretches.pop(base, None)
        self.peak = self.in_use

    @staticmethod
    def _drop_pages(stretch: mmap.mmap, offset: int, size: int) -> None:
        """Let the system have the pages that lie within an extent, where it can take them back."""
        first, end = -(-offset // _PAGE) * _PAGE, (offset + size) // _PAGE * _PAGE
        advice = getattr(mmap, "MADV_FREE" if sys.platform == "darwin" else "MADV_DONTNEED", None)
        if advice is not None and end > first:
            try:
                stretch.madvise(advice, first, end - first)
            except OSError:
                pass  # locked pages stay
