"""The executor of a real GPU: its stream, its memory, its loaded kernels.

Memory, streams and modules are those of cuda.core. A launch goes to the driver directly: the arguments are packed into
a buffer whose layout was settled when the kernel was loaded. A general launch function, which looks at the type of
every argument, takes several times as long.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import settings
from numbanet.cuda.ahead import capability
from numbanet.cuda.graph import Graph
from numbanet.cuda.launch import Grid, Launch, raise_fault
from numbanet.cuda.memory import Kept, Pool
from numbanet.cuda.staging import Event, Locked, Staging
from numbanet.cuda.tensor_map import Box, Pixels, TensorMap, encode
from numbanet.device_array import DeviceArray, Memory, contiguous_in
from numbanet.watch import Live

_STATIC_SHARED = 48 << 10  # bytes of shared memory that a kernel has without being asked for
_MAPS = 4096  # of tensors that are kept: a training step has a few for each layer
_SLOT = 8  # bytes that every argument gets
_FORMATS = {"int32": "i4x", "int64": "q", "float32": "f4x", "float64": "d", "uint16": "H6x"}  # of scalars


_thread = threading.local()  # which GPU each thread used last

Buffer = tuple[Any, Any, int]
"""Memory of arguments, what keeps the list of their addresses, and the address of that list."""


class Loaded:
    """A kernel on a GPU, and how its arguments are packed."""

    def __init__(self, handle: Any, code: Any, kinds: Sequence[str]):
        self.handle, self._code = handle, code  # the code must live as long as the handle
        self.pointers = tuple(kind.endswith("*") for kind in kinds)
        formats = ["Q" if pointer else _FORMATS[kind] for kind, pointer in zip(kinds, self.pointers)]
        self._pack = struct.Struct("=" + "".join(formats)).pack_into
        self._single = [kind == "float32" for kind in kinds]
        self._count, self.free = len(kinds), list[Buffer]()

    def take(self) -> Buffer:
        """Return a buffer for arguments.

        It is given back by appending it to `free`. Whoever launches has one of his own: so another thread, or a signal
        handler that computes in the middle of a launch, does not write over his arguments.
        """
        try:
            return self.free.pop()
        except IndexError:
            values = (ctypes.c_uint64 * self._count)()
            start = ctypes.addressof(values)
            places = (ctypes.c_void_p * self._count)(*[start + _SLOT * i for i in range(self._count)])
            return values, places, ctypes.addressof(places)

    def write(self, gpu: Gpu, buffer: Buffer, arguments: Sequence[Any]) -> None:
        """Write the arguments of a launch to a buffer."""
        given = [
            (_address(gpu, argument) if pointer else argument) for argument, pointer in zip(arguments, self.pointers)
        ]
        try:
            self._pack(buffer[0], 0, *given)
        except OverflowError:  # in float32 the number is infinite
            with np.errstate(over="ignore"):
                given = [np.float32(v) if single else v for v, single in zip(given, self._single)]
            self._pack(buffer[0], 0, *given)


class Gpu:
    """One GPU.

    Parameters
    ----------
    ordinal : int
        Its number.
    core, driver : module
        cuda.core and cuda.bindings.driver.

    Attributes
    ----------
    capability : tuple
        What kernels are compiled for: (9, 0, "a") on Hopper, whose own instructions need the letter.
    pool : Pool
    driver : module
    device : cuda.core.Device
    events : deque
        Handles of events that nobody uses.
    """

    def __init__(self, ordinal: int, core: Any, driver: Any):
        self._core, self.driver, self.ordinal = core, driver, ordinal
        self.device = core.Device(ordinal)
        self._process = os.getpid()
        self._enter()
        major, minor = self.device.compute_capability
        self.capability = capability(major, minor)
        self.stream = self.device.create_stream()
        self._handle = self.stream.handle
        self._source = core.DeviceMemoryResource(ordinal)
        self.pool = Pool(self, ordinal)
        self._kernels: dict[tuple[Any, str], Loaded] = {}
        self._constants = Kept()
        self._fault: tuple[Locked, DeviceArray] | None = None  # once something was indexed
        self._map = lru_cache(maxsize=_MAPS)(self._encode)
        self.events: deque[int] = deque()
        self._left: deque[Callable[[], Any]] = deque()

    def _enter(self) -> None:
        """Make this the thread's GPU, as the driver wants it."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "this process was forked from one that used the GPU, and CUDA does not survive that: fork first, or "
                "start processes with multiprocessing's method 'spawn'"
            )
        self.device.set_current()
        _thread.gpu = self

    def entered(self) -> None:
        """Make this the GPU of a thread that used another one last, or none yet."""
        if getattr(_thread, "gpu", None) is not self or os.getpid() != self._process:
            self._enter()

    def leave(self, action: Callable[[], Any]) -> None:
        """Leave something to be done to who uses this GPU next: finalisers shall not call the driver."""
        self._left.append(action)

    def tidy(self) -> None:
        """Do what finalisers have left."""
        self.entered()
        while self._left:
            try:
                action = self._left.popleft()
            except IndexError:  # another thread was faster
                return
            action()

    def check(self, result: tuple[Any, ...]) -> Any:
        """Return what a call of the driver returned, or raise what it says."""
        status, *values = result
        if status != 0:
            _, name = self.driver.cuGetErrorName(status)
            _, text = self.driver.cuGetErrorString(status)
            words = [word.decode() if isinstance(word, bytes) else str(word) for word in (name, text)]
            raise RuntimeError(f"CUDA: {words[0]}: {words[1]}")
        return values[0] if len(values) == 1 else tuple(values)

    # ------------------------------------------------------------------------------------------------ kernels

    def _load(self, kernel: Any, dtype: str) -> Loaded:
        code = self._core.ObjectCode.from_cubin(kernel.cubin(dtype, self.capability))
        found = code.get_kernel(kernel.entry)
        if kernel.shared_bytes > _STATIC_SHARED:
            attribute = self.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self.check(self.driver.cuKernelSetAttribute(attribute, kernel.shared_bytes, found.handle, self.ordinal))
        loaded = self._kernels[kernel, dtype] = Loaded(found.handle, (code, found), kernel.kinds(dtype))
        settings.log(f"GPU {self.ordinal}: loaded {kernel.name} for {dtype}")
        return loaded

    def loaded(self, kernel: Any, dtype: str) -> Loaded:
        """Return a kernel as it is on this GPU, which must be that of the thread."""
        return self._kernels.get((kernel, dtype)) or self._load(kernel, dtype)

    def run(self, kernel: Any, grid: Grid, arguments: Sequence[Any], dtype: str) -> None:
        """Launch a kernel on the stream; Python does not wait for it."""
        self.entered()
        loaded = self.loaded(kernel, dtype)
        buffer = loaded.take()
        loaded.write(self, buffer, arguments)
        x, y, z = grid
        (status,) = self.driver.cuLaunchKernel(
            loaded.handle, x, y, z, kernel.threads, 1, 1, kernel.shared_bytes, self._handle, buffer[2], 0
        )
        loaded.free.append(buffer)
        if status != 0:
            self._failed(kernel, grid, status)

    def replay(self, launches: Sequence[Launch], graph: Any) -> Graph:
        """Repeat launches as a CUDA graph, which is built the first time."""
        self.entered()
        graph = Graph(self, launches) if graph is None else graph
        graph.launch()
        return graph

    def held(self, argument: Any) -> Any:
        """Return what a kernel gets for a pointer, as something to keep: an array of the host is copied."""
        if isinstance(argument, Live):
            raise TypeError("numbers that a replay renews must be arguments themselves: see numbanet.cuda.launch.each")
        if isinstance(argument, np.ndarray):
            return self._small(argument)
        return self.encoded(argument) if type(argument) is TensorMap else argument

    def _failed(self, kernel: Any, grid: Grid, status: Any) -> None:
        try:
            self.check((status,))
        except RuntimeError as error:
            raise RuntimeError(f"launch of {kernel.name} over {grid} blocks: {error}") from None

    # ------------------------------------------------------------------------------------------------ memory

    def allocate(self, size: int) -> tuple[int, Any]:
        """Return an address and what keeps it allocated."""
        try:
            buffer = self._source.allocate(size, stream=self.stream)
        except Exception as error:  # cuda.core has an exception of its own, which keeps the driver's word as text
            if "OUT_OF_MEMORY" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return int(buffer.handle), buffer

    def release(self) -> None:
        """Give idle memory back to the system."""
        self.tidy()
        self.pool.release()

    def trim(self) -> None:
        """Give freed memory back to the system."""
        self.entered()
        self.stream.sync()
        self.check(self.driver.cuMemPoolTrimTo(self._source.handle, 0))

    def available(self) -> tuple[int, int]:
        """Return the free and the total bytes."""
        return self.check(self.driver.cuMemGetInfo())

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Return a C-contiguous array with arbitrary content."""
        self.tidy()
        return contiguous_in(self.pool.take(math.prod(shape) * np.dtype(dtype).itemsize), shape, dtype)

    def upload(self, values: np.ndarray) -> DeviceArray:
        """Return a copy of a host array; when this returns, the host array may change."""
        return self._copied(values, self.pool.take)

    def _copied(self, values: np.ndarray, take: Callable[[int], Memory]) -> DeviceArray:
        order = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        dense = np.ascontiguousarray(values.transpose(order)).reshape([values.shape[a] for a in order])
        self.tidy()
        made = contiguous_in(take(dense.nbytes), dense.shape, dense.dtype)
        if dense.nbytes:
            self.check(self.driver.cuMemcpyHtoDAsync(made.pointer, dense.ctypes.data, dense.nbytes, self._handle))
            self.stream.sync()  # the driver may read the array at once, or later: that it does so at once is no promise
        return made.transpose([order.index(axis) for axis in range(values.ndim)])

    def staging(self) -> Staging:
        """Return what brings host arrays to this GPU while it computes."""
        return Staging(self)

    def download(self, array: DeviceArray) -> np.ndarray:
        """Return a copy on the host, once all that was started is done."""
        self.entered()
        axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        dense = array.transpose(axes)
        if not dense.flags.c_contiguous:
            dense = dense.copy("C")
        host = np.empty(dense.shape, dense.dtype)
        if host.nbytes:
            self.check(self.driver.cuMemcpyDtoHAsync(host.ctypes.data, dense.pointer, host.nbytes, self._handle))
            self.sync()
        return host.transpose([axes.index(axis) for axis in range(array.ndim)])

    def constant(self, table: np.ndarray) -> DeviceArray:
        """Return a read-only copy of a host array, made once for as long as the host array lives."""

        def make(values: np.ndarray) -> DeviceArray:
            made = self._copied(values, self.pool.take_constant)
            made.flags.writeable = False
            return made

        return self._constants.get(table, make)

    def _small(self, values: np.ndarray) -> DeviceArray:
        """Return a copy of a few numbers, made once for each content."""
        return self.constant(_interned(values.tobytes(), values.shape, values.dtype))

    def encoded(self, tensor: TensorMap) -> DeviceArray:
        """Return the map of a tensor, made once for each address and form."""
        return self._map(_address(self, tensor.array), tensor.form)

    def _encode(self, address: int, form: Box | Pixels) -> DeviceArray:
        result = encode(self.driver, address, form)
        return self._small(np.array([int(word) for word in self.check(result).opaque], np.uint64))

    def address(self, array: Any) -> int:
        """Return where the first element of an array lies on the GPU."""
        return _address(self, array)

    def addresses(self, arrays: Sequence[Any]) -> DeviceArray:
        """Return a table of the addresses of many arrays."""
        return self._small(np.array([_address(self, array) for array in arrays], np.int64))

    def stream_handle(self) -> int:
        """Return the handle of the stream on which kernels run."""
        return int(self._handle)

    def order(self, first: int, then: int) -> None:
        """Make a stream wait for what another was given until now; both by their handles."""
        if first == then:
            return
        Event(self).record(first).hold(then)

    def send(self, array: DeviceArray, other: Gpu) -> DeviceArray:
        """Return a copy on another GPU, whose stream waits for it; Python does not."""
        axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        dense = array.transpose(axes)
        if not dense.flags.c_contiguous:
            dense = dense.copy("C")
        made = other.empty(dense.shape, dense.dtype.name)
        if dense.nbytes:
            other.order(other.stream_handle(), self.stream_handle())  # who had the memory before is done with it
            self.entered()
            self.check(self.driver.cuMemcpyAsync(made.pointer, dense.pointer, dense.nbytes, self._handle))
            self.order(self.stream_handle(), other.stream_handle())
        return made.transpose([axes.index(axis) for axis in range(array.ndim)])

    def ordinal_of(self, address: int) -> int:
        """Return the number of the GPU on which an address lies."""
        self.entered()
        attribute = self.driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        return int(self.check(self.driver.cuPointerGetAttribute(attribute, address)))

    def sync(self) -> None:
        """Wait for all that was started; IndexError if an index was out of bounds."""
        self.stream.sync()
        self.tidy()
        if self._fault is not None:
            raise_fault(self._fault[0].bytes.view(np.int64))

    def fault(self) -> DeviceArray:
        """Return memory of the host, which kernels reach, too: see `Executor.fault`."""
        if self._fault is None:
            locked = Locked(self, 3 * 8)
            locked.bytes[:] = 0
            block = Memory(locked.address, 3 * 8, locked, ours=False, device=self.ordinal)
            self._fault = locked, contiguous_in(block, (3,), "int64")
        return self._fault[1]


def _address(gpu: Gpu, array: Any) -> int:
    if type(array) is DeviceArray:
        if array.memory.device != gpu.ordinal:
            raise ValueError(
                f"all arrays must be on one device, got one on {array.device!r} and others on GPU {gpu.ordinal}: "
                "nothing moves by itself, use .to(device)"
            )
        return array.pointer
    if type(array) is TensorMap:
        return gpu.encoded(array).pointer
    return 0 if array is None else gpu._small(array).pointer


@lru_cache(maxsize=4096)
def _interned(content: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape)
