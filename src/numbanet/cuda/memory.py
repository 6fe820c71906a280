"""The pool of a GPU's memory: blocks that are free again serve the next array of their size.

An allocation is ordered on the GPU's one stream, as all kernels are. So a block may be handed on as soon as Python has
let go of it: who used it before comes first in the stream.

Of the idle blocks of a size the one at the lowest address is taken, and constants have blocks of their own: so a loop
that takes and gives back as in the round before finds its arrays where they were, and with them all that was made for
their addresses (tables, tensor maps). Constants are written on the same stream: their blocks are handed on as safely.
"""

from __future__ import annotations

import gc
import heapq
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from numbanet.device_array import Memory

_SMALL = 512  # bytes: the least, and what sizes below 1 MiB are rounded up to


class Source(Protocol):
    """Where the pool gets memory from."""

    def allocate(self, size: int) -> tuple[int, Any]:
        """Return an address and what keeps it allocated; MemoryError if there is no memory left."""

    def trim(self) -> None:
        """Give what was freed back to the system, once all that was started is done."""

    def available(self) -> tuple[int, int]:
        """Return the free and the total bytes of the GPU."""


class _Block(Memory):
    """Memory of a pool, to which it returns when the last array is gone."""

    __slots__ = ("give_back",)

    def __init__(self, pointer: int, size: int, owner: Any, device: int, give_back: Callable[[int, int], None]):
        super().__init__(pointer, size, owner, device=device)
        self.give_back = give_back

    def __del__(self) -> None:
        self.give_back(self.pointer, self.size)


def rounded(size: int) -> int:
    """Round up so that nearby sizes share blocks: to 512 bytes, or to an eighth of the power of two below."""
    step = max(_SMALL, 1 << max(0, size.bit_length() - 4)) if size >= 1 << 20 else _SMALL
    return -(-max(size, 1) // step) * step


class _Shelf:
    """Idle blocks by size, each size a heap of addresses, and those that were returned and are not among them yet.

    What keeps a block allocated is referred to here, too: what blocks alone refer to, the collector of cycles may
    finalise together with them, though they have given it back.
    """

    def __init__(self) -> None:
        self.idle: dict[int, list[int]] = {}
        self.owners: dict[int, Any] = {}  # by address
        self.returned: deque[tuple[int, int]] = deque()
        # Blocks must not keep a pool alive whose GPU is no longer used.
        returned = self.returned
        self.give_back: Callable[[int, int], None] = lambda pointer, size: returned.append((pointer, size))

    def clear(self) -> None:
        """Let the idle blocks go."""
        for pointers in self.idle.values():
            for pointer in pointers:
                del self.owners[pointer]
        self.idle.clear()


class Pool:
    """Blocks of one GPU.

    Parameters
    ----------
    source : Source
    device : int
        Number of the GPU.

    Attributes
    ----------
    in_use, idle, peak : int
        Bytes in arrays, bytes that wait for one, and the most that were in use at once.
    """

    def __init__(self, source: Source, device: int = 0):
        self._source, self._device = source, device
        self._lock = threading.RLock()  # a finaliser may run in the middle of `take` on the same thread
        self._arrays, self._constants = _Shelf(), _Shelf()
        self.in_use = self.idle = self.peak = 0

    def take(self, size: int) -> Memory:
        """Return a block of at least `size` bytes.

        Raises
        ------
        MemoryError
            If the GPU has none left, after the idle blocks were given back; the message tells who has it.
        """
        return self._taken(rounded(size), self._arrays)

    def take_constant(self, size: int) -> Memory:
        """Return a block for a constant; the errors are those of `take`."""
        return self._taken(rounded(size), self._constants)

    def _taken(self, wanted: int, shelf: _Shelf) -> Memory:
        with self._lock:
            self._collect()
            blocks = shelf.idle.get(wanted)
            if blocks:
                pointer = heapq.heappop(blocks)
                self.idle -= wanted
            else:
                pointer, shelf.owners[pointer] = self._allocate(wanted)
            self.in_use += wanted
            self.peak = max(self.peak, self.in_use)
        return _Block(pointer, wanted, shelf.owners[pointer], self._device, shelf.give_back)

    def _allocate(self, size: int) -> tuple[int, Any]:
        try:
            return self._source.allocate(size)
        except MemoryError:
            gc.collect()  # cycles of references hold arrays: a compiler's, for one, have those of its callers
            self.release()
        try:
            return self._source.allocate(size)
        except MemoryError:
            free, total = self._source.available()
            raise MemoryError(
                f"GPU {self._device} has no {_bytes(size)} left: numbanet's arrays have {_bytes(self.in_use)} of its "
                f"{_bytes(total)}, {_bytes(free)} are free, and the rest belongs to others; a smaller batch needs less"
            ) from None

    def _collect(self) -> None:
        for shelf in (self._arrays, self._constants):
            while shelf.returned:
                pointer, size = shelf.returned.popleft()
                self.in_use -= size
                self.idle += size
                heapq.heappush(shelf.idle.setdefault(size, []), pointer)

    def release(self) -> None:
        """Give the idle blocks back to the system."""
        with self._lock:
            self._collect()
            self._arrays.clear()
            self._constants.clear()
            self.idle, self.peak = 0, self.in_use
            self._source.trim()


def _bytes(size: int) -> str:
    """Return a number of bytes for people."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


class Kept:
    """What was made of host arrays, for as long as those live."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def get(self, key: Any, make: Callable[[Any], Any]) -> Any:
        """Return what `make` returned for an object, making it once."""
        known = self._found.get(id(key))
        if known is not None and known[0]() is key:
            return known[1]
        number, found = id(key), self._found
        made = make(key)

        def forget(gone: weakref.ref[Any]) -> None:
            if number in found and found[number][0] is gone:
                del found[number]

        found[number] = weakref.ref(key, forget), made
        return made
