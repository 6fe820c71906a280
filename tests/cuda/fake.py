"""A driver and a cuda.core without a GPU: device memory lies on the host, and a launch interprets PTX.

What `numbanet.cuda.gpu` hands to the driver (addresses, packed arguments, attributes, streams) is taken apart as the
driver would, so a wrong slot or a wrong size gives wrong numbers. Nothing happens before somebody waits for it: a
stream is a list of what is to be done, and what no event puts in order has not been done; memory of the host is read
then, too, and not when a copy is asked for. Of a graph, what no dependency puts in order is done the last first.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import driver as real

from numbanet.cuda.compile import Capability
from numbanet.cuda.tensor_map import Box, Pixels
from tests.cuda.ptx.executor import program
from tests.cuda.ptx.instructions import OPERATIONS
from tests.cuda.ptx.machine import DTYPES, Machine
from tests.cuda.ptx.memory import Fault, GlobalMemory
from tests.cuda.ptx.tensor import refusal

OUT_OF_MEMORY = 2
NOT_READY = 600
INVALID = (1,)
_MAP = 0x7E4508AA9  # the first of a map's 16 words here; the second is its number
_ELEMENTS = {
    real.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT16: "uint16",
    real.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_TFLOAT32: "tf32",
}
_LAYOUT = (
    real.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE, real.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
    real.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
    real.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
)  # fmt: skip


class Stream:
    """What a stream has still to do, in order."""

    def __init__(self, driver: FakeDriver, ordinal: int):
        self.handle, self.ordinal, self._driver = next(driver.handles), ordinal, driver
        self.todo: list[Callable[[], None]] = []
        self.started = self.done = 0
        driver.streams[self.handle] = self

    def add(self, action: Callable[[], None]) -> int:
        """Append what is to be done; return how many have been so far."""
        with self._driver.lock:
            self.todo.append(action)
            self.started += 1
            return self.started

    def reach(self, number: int) -> None:
        """Do what stands before a number, and what that waits for."""
        with self._driver.lock:
            while self.done < number:
                action = self.todo.pop(0)
                self.done += 1
                action()

    def sync(self) -> None:
        """Do all."""
        self._driver.calls.append("sync")
        self.reach(self.started)


@dataclass
class _Node:
    """A launch in a graph: what it comes after, and what the driver read of its parameters."""

    after: tuple[int, ...]
    launch: tuple[Any, ...]


class FakeDriver:
    """The functions of cuda.bindings.driver that are used, and the modules of cuda.core."""

    place = "cuda"

    def __init__(self, capability: Capability = (8, 0), total: int = 1 << 30):
        self.capability, self.total = capability, total
        self.blocks: dict[int, np.ndarray] = {}
        self.places: dict[int, int] = {}  # the GPU of each block
        self.locked: dict[int, np.ndarray] = {}  # page-locked memory of the host
        self.freed: list[np.ndarray] = []  # what was: kept, as copies may still read it
        self.calls: list[str] = []
        self.attributes: dict[str, int] = {}
        self.handles = itertools.count(77)
        self.lock = threading.RLock()  # a GPU does one thing after the other, whichever thread waits for it
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, tuple[Stream, int] | None] = {}
        self.current: int | None = None  # the GPU that this thread works with
        self.meanwhile: Callable[[], None] = lambda: None  # what another thread does while a graph is built
        self.graphs: dict[int, dict[int, _Node]] = {}  # and the executable ones
        self.codes: dict[int, tuple[str, str]] = {}  # of loaded kernels: entry point, and PTX
        self.maps: list[tuple[int, Box | Pixels]] = []
        for name in (
            "cuuint32_t", "cuuint64_t", "CUtensorMapDataType", "CUtensorMapInterleave", "CUtensorMapSwizzle",
            "CUtensorMapL2promotion", "CUtensorMapFloatOOBfill", "CUDA_KERNEL_NODE_PARAMS",
        ):  # fmt: skip
            setattr(self, name, getattr(real, name))
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
        self.CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="ordinal")
        self.core = SimpleNamespace(
            Device=self._device, DeviceMemoryResource=lambda ordinal: SimpleNamespace(
                allocate=lambda size, stream: self._allocate(ordinal, size, stream), handle="pool"
            ), ObjectCode=SimpleNamespace(from_cubin=self._load),
        )  # fmt: skip

    # cuda.core --------------------------------------------------------------------------------------------------------

    def _device(self, ordinal: int) -> Any:
        return SimpleNamespace(
            compute_capability=self.capability, create_stream=lambda: Stream(self, ordinal),
            set_current=lambda: self._enter(ordinal), name="Fake",
        )  # fmt: skip

    def _enter(self, ordinal: int) -> None:
        self.calls.append(f"current {ordinal}")
        self.current = ordinal

    def _allocate(self, ordinal: int, size: int, stream: Stream) -> Any:
        assert stream.ordinal == ordinal == self.current
        with self.lock:
            if size + self._used(ordinal) > self.total:
                raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: the API call failed")
            room = np.full(size + 256, 0xFB, np.uint8)
            block = room[-room.ctypes.data % 256 :][:size]
            self.blocks[block.ctypes.data], self.places[block.ctypes.data] = block, ordinal
        self.calls.append(f"allocate {size}")
        return _Buffer(self, block.ctypes.data, stream)

    def _used(self, ordinal: int | None) -> int:
        return sum(block.nbytes for start, block in self.blocks.items() if self.places[start] == ordinal)

    def _load(self, code: bytes) -> Any:
        def found(entry: str) -> Any:
            self.codes[handle := next(self.handles)] = entry, code.decode()
            return SimpleNamespace(handle=real.CUkernel(handle))

        return SimpleNamespace(get_kernel=found)

    # cuda.bindings.driver ---------------------------------------------------------------------------------------------

    def cuGetErrorName(self, status: int) -> tuple[int, bytes]:
        return 0, b"CUDA_ERROR_INVALID_VALUE"

    def cuGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, b"invalid argument"

    def cuEventCreate(self, flags: int) -> tuple[int, int]:
        self.calls.append(f"event {flags}")
        self.events[event := next(self.handles)] = None
        return 0, event

    def cuEventRecord(self, event: int, stream: int) -> tuple[int]:
        self.calls.append(f"record {stream}")
        if stream in self.streams:  # another library's has nothing to do
            assert self.streams[stream].ordinal == self.current
            with self.lock:
                self.events[event] = self.streams[stream], self.streams[stream].started
        return (0,)

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[int]:
        self.calls.append(f"wait {stream}")
        reached = self.events[event]
        if reached is not None and stream in self.streams:
            self.streams[stream].add(lambda: reached[0].reach(reached[1]))
        return (0,)

    def cuEventSynchronize(self, event: int) -> tuple[int]:
        reached = self.events[event]
        if reached is not None:
            reached[0].reach(reached[1])
        return (0,)

    def cuEventQuery(self, event: int) -> tuple[int]:
        reached = self.events[event]
        return (0,) if reached is None or reached[0].done >= reached[1] else (NOT_READY,)

    def cuPointerGetAttribute(self, attribute: str, address: int) -> tuple[int, int | None]:
        assert attribute == "ordinal"
        start = self._block(address)
        return (1, None) if start is None else (0, self.places[start])

    def cuKernelSetAttribute(self, attribute: str, value: int, handle: Any, ordinal: int) -> tuple[int]:
        self.attributes[self.codes[int(handle)][0]] = value
        return (0,)

    def cuMemPoolTrimTo(self, pool: str, keep: int) -> tuple[int]:
        self.calls.append("trim")
        return (0,)

    def cuMemGetInfo(self) -> tuple[int, int, int]:
        return 0, self.total - self._used(self.current), self.total

    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[int, int]:
        block = np.full(size, 0xFB, np.uint8)
        self.locked[block.ctypes.data] = block
        self.calls.append(f"lock {size}")
        return 0, block.ctypes.data

    def cuMemFreeHost(self, address: int) -> tuple[int]:
        self.calls.append("unlock")
        self.freed.append(self.locked.pop(address))
        self.freed[-1][:] = 0xFB  # a copy that has not been done finds it
        return (0,)

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        host = np.frombuffer((ctypes.c_uint8 * size).from_address(source), np.uint8)
        self.calls.append(f"upload {size}")
        self._on(stream).add(lambda: self._write(target, host))
        return (0,)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        host = np.frombuffer((ctypes.c_uint8 * size).from_address(target), np.uint8)

        def read() -> None:
            host[:] = self._view(source, size)

        self._on(stream).add(read)
        return (0,)

    def cuMemcpyAsync(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        self._on(stream).add(lambda: self._write(target, self._view(source, size)))
        return (0,)

    def _write(self, target: int, values: np.ndarray) -> None:
        self._view(target, values.nbytes)[:] = values

    def _on(self, handle: int) -> Stream:
        """Return a stream, which must be of the GPU that the thread works with."""
        found = self.streams[handle]
        assert found.ordinal == self.current
        return found

    def cuTensorMapEncodeTiled(self, *arguments: Any) -> tuple[Any, ...]:
        _accepted(real.cuTensorMapEncodeTiled, arguments)
        kind, rank, address, sizes, strides, box, steps, *layout = arguments
        assert (rank, *map(int, steps), *layout) == (3, 1, 1, 1, *_LAYOUT)
        return self._map(address, Box(_ELEMENTS[kind], _ints(sizes), _ints(strides), _ints(box)))

    def cuTensorMapEncodeIm2col(self, *arguments: Any) -> tuple[Any, ...]:
        _accepted(real.cuTensorMapEncodeIm2col, arguments)
        kind, rank, address, sizes, strides, lower, upper, channels, pixels, steps, *layout = arguments
        form = Pixels(_ELEMENTS[kind], _ints(sizes), _ints(lower), _ints(upper), _ints(steps)[1:3], pixels)
        assert (rank, int(steps[0]), int(steps[3]), *layout) == (4, 1, 1, *_LAYOUT)
        assert (_ints(strides), channels) == (form.strides, {"uint16": 64, "tf32": 32}[form.element])
        return self._map(address, form)

    def _map(self, address: int, form: Box | Pixels) -> tuple[Any, ...]:
        self.calls.append("map")
        if refusal(form, address) is not None:
            return 1, None
        self.maps.append((address, form))
        return 0, SimpleNamespace(opaque=[real.cuuint64_t(_MAP), real.cuuint64_t(len(self.maps) - 1)] + [0] * 14)

    def cuLaunchKernel(
        self, handle: Any, x: int, y: int, z: int, bx: int, by: int, bz: int, shared: int, stream: int, places: int,
        extra: int,
    ) -> tuple[int]:  # fmt: skip
        assert (by, bz, extra) == (1, 1, 0)
        launch = self._read(handle, (x, y, z), bx, shared, places)
        return INVALID if launch is None else self._start(stream, [launch])

    def _read(self, handle: Any, grid: Any, threads: int, shared: int, places: int) -> tuple[Any, ...] | None:
        """Return a launch, its arguments as they are now; None if it asks for more shared memory than it may."""
        entry, text = self.codes[int(handle)]
        if shared > 48 << 10 and self.attributes.get(entry, 0) < shared:
            return None
        kinds = [kind for kind, _ in program(text).parameters]
        values = [ctypes.c_uint64.from_address(a).value for a in (ctypes.c_void_p * len(kinds)).from_address(places)]
        return entry, text, grid, threads, kinds, values, shared

    def _start(self, stream: int, launches: list[tuple[Any, ...]]) -> tuple[int]:
        found = self._on(stream)
        for entry, *rest in launches:
            self.calls.append(entry)
            found.add(partial(self._run, *rest, found.ordinal))
        return (0,)

    def cuGraphCreate(self, flags: int) -> tuple[int, int]:
        self.graphs[graph := next(self.handles)] = {}
        return 0, graph

    def cuGraphAddKernelNode(self, graph: int, after: list[int], count: int, parameters: Any) -> tuple[int, int | None]:
        assert count == len(after) and set(after) <= self.graphs[graph].keys()
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        launch = self._read_node(parameters)
        if launch is None:
            return 1, None
        self.graphs[graph][node := next(self.handles)] = _Node(tuple(after), launch)
        return 0, node

    def _read_node(self, p: Any) -> tuple[Any, ...] | None:
        assert (p.blockDimY, p.blockDimZ, int(p.func), int(p.ctx), p.extra) == (1, 1, 0, 0, 0)
        grid = p.gridDimX, p.gridDimY, p.gridDimZ
        return self._read(p.kern, grid, p.blockDimX, p.sharedMemBytes, p.kernelParams)

    def cuGraphInstantiate(self, graph: int, flags: int) -> tuple[int, int]:
        nodes = self.graphs[graph].items()
        self.graphs[executable := next(self.handles)] = {number: replace(node) for number, node in nodes}
        return 0, executable

    def cuGraphExecKernelNodeSetParams(self, executable: int, node: int, parameters: Any) -> tuple[int]:
        launch = self._read_node(parameters)
        if launch is None:
            return INVALID
        self.graphs[executable][node].launch = launch
        return (0,)

    def cuGraphLaunch(self, executable: int, stream: int) -> tuple[int]:
        left, launches = dict(self.graphs[executable]), list[Any]()
        while left:
            free = next(number for number in reversed(left) if left.keys().isdisjoint(left[number].after))
            launches.append(left.pop(free).launch)
        self.calls.append("graph")
        return self._start(stream, launches)

    def cuGraphExecDestroy(self, executable: int) -> tuple[int]:
        del self.graphs[executable]
        return (0,)

    cuGraphDestroy = cuGraphExecDestroy

    def _run(
        self, text: str, grid: Any, threads: int, kinds: list[str], values: list[int], shared: int, ordinal: int
    ) -> None:
        arguments = [np.array([v], np.uint64).view(np.uint8)[: DTYPES[k].itemsize].view(DTYPES[k])[0]
                     for k, v in zip(kinds, values)]  # fmt: skip
        ours = {start: self.blocks[start] for start, place in self.places.items() if place == ordinal}
        memory = _DeviceMemory(self.maps, ours | self.locked)
        Machine(program(text), grid, threads, arguments, memory, shared).run(OPERATIONS)
        memory.write_back()

    def _block(self, address: int) -> int | None:
        return next((start for start, block in self.blocks.items() if start <= address < start + block.nbytes), None)

    def _view(self, address: int, size: int) -> np.ndarray:
        start = self._block(address)
        assert start is not None and address - start + size <= self.blocks[start].nbytes, "outside of device memory"
        return self.blocks[start][address - start : address - start + size]


def _ints(values: Any) -> tuple[Any, ...]:
    return tuple(map(int, values))


def _accepted(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Let the real binding look at the arguments' types; where there is a driver, it is left alone after that."""
    try:
        function(*arguments)
    except RuntimeError as error:
        assert "driver" in str(error), error


class _DeviceMemory(GlobalMemory):
    """All memory of one GPU, at its own addresses: tables of addresses hold them, too."""

    def __init__(self, maps: list[tuple[int, Box | Pixels]], blocks: dict[int, np.ndarray]):
        super().__init__([blocks[start] for start in sorted(blocks)])
        self._first = np.array([0, *sorted(blocks)], np.int64)
        self._size = np.array([0, *[blocks[start].nbytes for start in sorted(blocks)]], np.int64)
        self._at = np.array([0, *self._starts], np.int64)
        for start, block in blocks.items():
            if block.nbytes >= 128 and block[:16].view(np.uint64)[0] == _MAP:
                address, form = maps[block[:16].view(np.uint64)[1]]
                self.maps[start] = form, address

    def index(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """Return where `size` bytes from each address on lie in `bytes`; check alignment and bounds."""
        if np.any(addresses % size):
            raise Fault(f"misaligned global access of {size} bytes")
        block = np.searchsorted(self._first, addresses, "right") - 1
        offset = addresses - self._first[block]
        if np.any(offset + size > self._size[block]):
            raise Fault("global access outside of all buffers")
        return self._at[block] + offset


class _Buffer:
    """Memory, freed when its stream comes to that."""

    def __init__(self, driver: FakeDriver, address: int, stream: Stream):
        self.handle, self._driver, self._stream = address, driver, stream

    def __del__(self) -> None:
        driver, address = self._driver, self.handle

        def free() -> None:
            del driver.blocks[address], driver.places[address]

        self._stream.add(free)
        driver.calls.append("free")
