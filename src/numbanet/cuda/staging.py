"""Host arrays brought to a GPU while it computes: through page-locked memory, on a stream of their own.

The GPU reads page-locked memory when it comes to the copy, long after the call has returned. So events say what may
happen when: the host writes to a buffer of its own again once the copy out of it is done; the copying stream writes to
memory of the pool once all is done that the computing stream was given before; and who takes an array makes the
computing stream wait for its copy, so that the memory can go back to the pool like any other.

Finalisers run in the middle of anything, on any thread, which may work with another GPU: they call no driver, but leave
to the GPU what is to be done.
"""

from __future__ import annotations

import ctypes
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from numbanet.cuda.memory import rounded
from numbanet.device_array import DeviceArray
from numbanet.locks import new_lock

if TYPE_CHECKING:
    from numbanet.cuda.gpu import Gpu

_NO_TIMES = 2  # CU_EVENT_DISABLE_TIMING: the event only orders
_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: page-locked for every GPU
_SLOTS = 2  # page-locked buffers of about one size: one is written to while another is copied
_IDLE = 8  # page-locked buffers that wait for an array: of images and labels, of whole and of last batches


class Event:
    """A point in what a stream is given."""

    def __init__(self, gpu: Gpu):
        self._gpu, self._driver = gpu, gpu.driver
        try:
            self._handle = gpu.events.pop()
        except IndexError:
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

    def reached(self) -> bool:
        """Return whether the point has been passed."""
        return self._driver.cuEventQuery(self._handle)[0] == 0

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._gpu.events.append(self._handle)  # streams that wait do so for the point as it was


class Locked:
    """A page-locked buffer, and when the copy out of it is done."""

    def __init__(self, gpu: Gpu, size: int):
        self._gpu, self.size = gpu, size
        gpu.entered()
        self.address = int(gpu.check(gpu.driver.cuMemHostAlloc(size, _PORTABLE)))
        self.bytes = np.frombuffer((ctypes.c_uint8 * size).from_address(self.address), np.uint8)
        self.copied: Event | None = None

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._gpu.leave(partial(_free, self._gpu, self.address, self.copied))


def _free(gpu: Gpu, address: int, copied: Event | None) -> None:
    if copied is not None:
        copied.wait()
    gpu.check(gpu.driver.cuMemFreeHost(address))


class Coming:
    """An array on its way to a GPU."""

    def __init__(self, gpu: Gpu, array: DeviceArray, arrived: Event):
        self._gpu, self._array, self._arrived, self._taken = gpu, array, arrived, False

    def take(self) -> DeviceArray:
        """Return the array, for which what is computed from now on waits."""
        self._taken = True
        return _landed(self._gpu, self._array, self._arrived)

    def __del__(self) -> None:
        if not self._taken:  # who gets its memory next shall wait, too
            self._gpu.leave(partial(_landed, self._gpu, self._array, self._arrived))


def _landed(gpu: Gpu, array: DeviceArray, arrived: Event) -> DeviceArray:
    gpu.entered()
    arrived.hold(gpu.stream_handle())
    return array


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
        self._idle: deque[Locked] = deque()  # the least recently used first

    def start(self, values: np.ndarray) -> Coming:
        """Start to copy a host array, whose axes keep their order in memory; it may change when this returns."""
        gpu, copying = self._gpu, self._stream.handle
        gpu.tidy()
        order = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        dense = values.transpose(order)
        array = gpu.empty(dense.shape, dense.dtype.name)
        gpu.order(gpu.stream_handle(), copying)  # who had the memory before may still use it
        size = rounded(values.nbytes)
        source = self._buffer(size)
        if source.copied is not None:
            source.copied.wait()
        np.copyto(source.bytes[: values.nbytes].view(values.dtype).reshape(dense.shape), dense)
        gpu.entered()
        gpu.check(gpu.driver.cuMemcpyHtoDAsync(array.pointer, source.address, size, copying))
        source.copied = Event(gpu).record(copying)
        self._keep(source)
        return Coming(gpu, array.transpose([order.index(axis) for axis in range(values.ndim)]), source.copied)

    def _buffer(self, size: int) -> Locked:
        """Return the page-locked buffer that was used least recently of those that suit, or a new one."""
        with self._lock:
            suitable = [idle for idle in self._idle if size <= idle.size <= 2 * size]
            if len(suitable) >= _SLOTS:
                self._idle.remove(suitable[0])
                return suitable[0]
        return Locked(self._gpu, size)

    def _keep(self, source: Locked) -> None:
        """Keep a buffer for the arrays to come, and let go of those that were not used for long."""
        with self._lock:
            self._idle.append(source)
            while len(self._idle) > _IDLE and self._idle[0].copied.reached():
                self._idle.popleft()
