"""Host arrays brought to a GPU while it computes: through page-locked memory, on a stream of their own.

The GPU reads page-locked memory when it comes to the copy, long after the call has returned. So events say what may
happen when: the host writes to a buffer of its own again once the copy out of it is done; the copying stream writes to
memory of the GPU again once all is done that the computing stream was given before the last array on it went; and who
takes an array makes the computing stream wait for its copy.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from numbanet.cuda.memory import rounded
from numbanet.device_array import DeviceArray, Memory, contiguous_in
from numbanet.locks import new_lock

if TYPE_CHECKING:
    from numbanet.cuda.gpu import Gpu

_NO_TIMES = 2  # CU_EVENT_DISABLE_TIMING: the event only orders
_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: page-locked for every GPU
_SLOTS = 2  # page-locked buffers of a size: one is written to while another is copied


class Event:
    """A point in what a stream is given."""

    def __init__(self, gpu: Gpu):
        self._gpu, self._driver = gpu, gpu.driver
        gpu.entered()
        self._handle = gpu.check(self._driver.cuEventCreate(_NO_TIMES))

    def record(self, stream: int) -> Event:
        """Be the point that a stream of this GPU, by its handle, has been given until now."""
        self._gpu.entered()
        self._gpu.check(self._driver.cuEventRecord(self._handle, stream))
        return self

    def hold(self, stream: int) -> None:
        """Let a stream, of any GPU, wait for the point."""
        self._gpu.check(self._driver.cuStreamWaitEvent(stream, self._handle, 0))

    def wait(self) -> None:
        """Let Python wait for the point."""
        self._gpu.check(self._driver.cuEventSynchronize(self._handle))

    def __del__(self) -> None:
        if hasattr(self, "_handle") and not sys.is_finalizing():
            self._driver.cuEventDestroy(self._handle)  # the driver keeps it for as long as a stream waits


class Locked:
    """A page-locked buffer, and when the copy out of it is done."""

    def __init__(self, gpu: Gpu, size: int):
        self._driver = gpu.driver
        gpu.entered()
        self.address = int(gpu.check(self._driver.cuMemHostAlloc(size, _PORTABLE)))
        self.bytes = np.frombuffer((ctypes.c_uint8 * size).from_address(self.address), np.uint8)
        self.copied: Event | None = None

    def __del__(self) -> None:
        if hasattr(self, "address") and not sys.is_finalizing():
            if self.copied is not None:
                self.copied.wait()
            self._driver.cuMemFreeHost(self.address)


class _Room(Memory):
    """Memory of the GPU that is in use until the last array on it goes."""

    __slots__ = ("staging",)

    def __init__(self, block: Memory, staging: Staging):
        super().__init__(block.pointer, block.size, block, device=block.device)
        self.staging = staging

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.staging.give_back(self.owner)


class Coming:
    """An array on its way to the GPU."""

    def __init__(self, array: DeviceArray, arrived: Event, stream: int):
        self._array, self._arrived, self._stream = array, arrived, stream

    def take(self) -> DeviceArray:
        """Return the array, for which what is computed from now on waits."""
        self._arrived.hold(self._stream)
        return self._array


class Staging:
    """Copies to one GPU, from any thread.

    Parameters
    ----------
    gpu : Gpu
    """

    def __init__(self, gpu: Gpu):
        self._gpu = gpu
        gpu.entered()
        self._stream = gpu.device.create_stream()
        self._lock = new_lock()
        self._locked: dict[int, deque[Locked]] = {}
        self._made: dict[int, int] = {}  # page-locked buffers of each size
        self._rooms: dict[int, deque[tuple[Memory, Event]]] = {}  # free ones of each size, and when

    def start(self, values: np.ndarray) -> Coming:
        """Start to copy a host array, whose axes keep their order in memory; it may change when this returns."""
        order = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        dense = values.transpose(order)
        size = rounded(values.nbytes)
        source, (block, free) = self._buffer(size), self._room(size)
        if source.copied is not None:
            source.copied.wait()
        np.copyto(source.bytes[: values.nbytes].view(values.dtype).reshape(dense.shape), dense)
        gpu = self._gpu
        gpu.entered()
        free.hold(self._stream.handle)
        gpu.check(gpu.driver.cuMemcpyHtoDAsync(block.pointer, source.address, size, self._stream.handle))
        source.copied = Event(gpu).record(self._stream.handle)
        with self._lock:
            self._locked.setdefault(size, deque()).append(source)
        array = contiguous_in(_Room(block, self), dense.shape, dense.dtype)
        back = array.transpose([order.index(axis) for axis in range(values.ndim)])
        return Coming(back, source.copied, gpu.stream_handle())

    def _buffer(self, size: int) -> Locked:
        """Return the page-locked buffer that was used least recently, or a new one."""
        with self._lock:
            idle = self._locked.get(size)
            if idle and self._made[size] >= _SLOTS:
                return idle.popleft()
            self._made[size] = self._made.get(size, 0) + 1
        return Locked(self._gpu, size)

    def _room(self, size: int) -> tuple[Memory, Event]:
        """Return memory of the GPU, and when it may be written to."""
        with suppress(KeyError, IndexError):  # no lock: a room may come back at any moment, even of this thread
            return self._rooms[size].popleft()
        self._gpu.entered()
        block = self._gpu.pool.take(size)
        return block, Event(self._gpu).record(self._gpu.stream_handle())

    def give_back(self, block: Memory) -> None:
        """Take memory whose last array has gone."""
        self._rooms.setdefault(block.size, deque()).append((block, Event(self._gpu).record(self._gpu.stream_handle())))

    def __del__(self) -> None:
        if hasattr(self, "_rooms") and not sys.is_finalizing():
            self._gpu.order(self._stream.handle, self._gpu.stream_handle())  # the pool hands the memory on
