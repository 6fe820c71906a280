"""A driver and a cuda.core without a GPU: device memory lies on the host, and a launch interprets PTX.

What `numbanet.cuda.gpu` hands to the driver (addresses, packed arguments, attributes, streams) is taken apart as the
driver would, so a wrong slot or a wrong size gives wrong numbers.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import driver as real

from numbanet.cuda.compile import Capability
from numbanet.cuda.tensor_map import Box, Pixels, TensorMap
from numbanet.device_array import DeviceArray, Memory
from tests.cuda.ptx.executor import interpret, program
from tests.cuda.ptx.machine import DTYPES
from tests.cuda.ptx.tensor import refusal

OUT_OF_MEMORY = 2
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


class FakeDriver:
    """The functions of cuda.bindings.driver that are used, and the modules of cuda.core."""

    def __init__(self, capability: Capability = (8, 0), total: int = 1 << 30):
        self.capability, self.total = capability, total
        self.blocks: dict[int, np.ndarray] = {}
        self.calls: list[str] = []
        self.attributes: dict[str, int] = {}
        self._handles = itertools.count(77)
        self.meanwhile: Callable[[], None] = lambda: None  # what another thread does while a graph is built
        self.maps: list[tuple[int, Box | Pixels]] = []
        for name in (
            "cuuint32_t", "cuuint64_t", "CUtensorMapDataType", "CUtensorMapInterleave", "CUtensorMapSwizzle",
            "CUtensorMapL2promotion", "CUtensorMapFloatOOBfill",
        ):  # fmt: skip
            setattr(self, name, getattr(real, name))
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
        self.CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="ordinal")
        self.core = SimpleNamespace(
            Device=self._device, DeviceMemoryResource=lambda ordinal: SimpleNamespace(
                allocate=self._allocate, handle="pool"
            ), ObjectCode=SimpleNamespace(from_cubin=self._load),
        )  # fmt: skip

    # cuda.core --------------------------------------------------------------------------------------------------------

    def _device(self, ordinal: int) -> Any:
        return SimpleNamespace(
            compute_capability=self.capability, create_stream=self._stream,
            set_current=lambda: self.calls.append(f"current {ordinal}"), name="Fake",
        )  # fmt: skip

    def _allocate(self, size: int, stream: Any) -> Any:
        assert stream.handle == 77
        if size + sum(block.nbytes for block in self.blocks.values()) > self.total:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: the API call failed")
        room = np.full(size + 256, 0xFB, np.uint8)
        block = room[-room.ctypes.data % 256 :][:size]  # aligned as on a GPU
        self.blocks[block.ctypes.data] = block
        self.calls.append(f"allocate {size}")
        return _Buffer(self, block.ctypes.data)

    def _load(self, code: bytes) -> Any:
        return SimpleNamespace(get_kernel=lambda entry: SimpleNamespace(handle=(entry, code.decode())))

    def _stream(self) -> Any:
        handle = next(self._handles)
        return SimpleNamespace(
            handle=handle, sync=lambda: self.calls.append("sync"), create_graph_builder=lambda: _Builder(self, handle)
        )

    # cuda.bindings.driver ---------------------------------------------------------------------------------------------

    def cuGetErrorName(self, status: int) -> tuple[int, bytes]:
        return 0, b"CUDA_ERROR_INVALID_VALUE"

    def cuGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, b"invalid argument"

    def cuEventCreate(self, flags: int) -> tuple[int, str]:
        self.calls.append(f"event {flags}")
        return 0, "event"

    def cuEventRecord(self, event: str, stream: int) -> tuple[int]:
        self.calls.append(f"record {event} {stream}")
        return (0,)

    def cuStreamWaitEvent(self, stream: int, event: str, flags: int) -> tuple[int]:
        self.calls.append(f"wait {stream} {event} {flags}")
        return (0,)

    def cuEventDestroy(self, event: str) -> tuple[int]:
        self.calls.append(f"destroy {event}")
        return (0,)

    def cuPointerGetAttribute(self, attribute: str, address: int) -> tuple[int, int | None]:
        assert attribute == "ordinal"
        return (1, None) if self._block(address) is None else (0, 0)

    def cuKernelSetAttribute(self, attribute: str, value: int, handle: Any, ordinal: int) -> tuple[int]:
        self.attributes[handle[0]] = value
        return (0,)

    def cuMemPoolTrimTo(self, pool: str, keep: int) -> tuple[int]:
        self.calls.append("trim")
        return (0,)

    def cuMemGetInfo(self) -> tuple[int, int, int]:
        return 0, self.total - sum(block.nbytes for block in self.blocks.values()), self.total

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        self._view(target, size)[:] = np.frombuffer((ctypes.c_uint8 * size).from_address(source), np.uint8)
        return (0,)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        np.frombuffer((ctypes.c_uint8 * size).from_address(target), np.uint8)[:] = self._view(source, size)
        return (0,)

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
        assert (by, bz, stream, extra) == (1, 1, 77, 0)
        if shared > 48 << 10 and self.attributes.get(handle[0], 0) < shared:
            return (1,)
        entry, text = handle
        self.calls.append(entry)
        kinds = [kind for kind, _ in program(text).parameters]
        addresses = (ctypes.c_void_p * len(kinds)).from_address(places)
        arguments = []
        for kind, address in zip(kinds, addresses):
            size = DTYPES[kind].itemsize
            value = np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8).view(DTYPES[kind])[0]
            arguments.append(self._array(int(value)) if size == 8 and DTYPES[kind].kind in "iu" else value)
        interpret(text, (x, y, z), bx, arguments, shared)
        return (0,)

    def _block(self, address: int) -> int | None:
        return next((start for start, block in self.blocks.items() if start <= address < start + block.nbytes), None)

    def _view(self, address: int, size: int) -> np.ndarray:
        start = self._block(address)
        assert start is not None and address - start + size <= self.blocks[start].nbytes, "outside of device memory"
        return self.blocks[start][address - start : address - start + size]

    def _array(self, value: int) -> Any:
        """Return a pointer as the interpreter takes it, and any other number as it is."""
        start = self._block(value)
        if start is None:
            return value
        block = self.blocks[start]
        words = block[value - start :][:128]
        if len(words) == 128 and value % 64 == 0 and words.view(np.uint64)[0] == _MAP:
            address, form = self.maps[words.view(np.uint64)[1]]
            return TensorMap(self._array(address), form)
        return DeviceArray(Memory(start, block.nbytes, block), value, (1,), (1,), np.dtype(np.uint8))


def _ints(values: Any) -> tuple[Any, ...]:
    return tuple(map(int, values))


def _accepted(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Let the real binding look at the arguments' types; where there is a driver, it is left alone after that."""
    try:
        function(*arguments)
    except RuntimeError as error:
        assert "driver" in str(error), error


class _Buffer:
    def __init__(self, driver: FakeDriver, address: int):
        self.handle, self._driver = address, driver

    def __del__(self) -> None:
        del self._driver.blocks[self.handle]
        self._driver.calls.append("free")


class _Builder:
    """A graph: what was launched while it was built is launched again."""

    def __init__(self, driver: FakeDriver, stream: int):
        self._driver, self._stream, self._launches = driver, stream, list[tuple[Any, ...]]()

    def begin_building(self) -> _Builder:
        self._real = self._driver.cuLaunchKernel

        def note(handle: Any, *rest: Any) -> tuple[int]:
            *sizes, stream, places, extra = rest
            if stream != self._stream:
                return self._real(handle, *rest)
            meanwhile, self._driver.meanwhile = self._driver.meanwhile, lambda: None
            meanwhile()
            count = len(program(handle[1]).parameters)
            addresses = (ctypes.c_void_p * count).from_address(places)
            values = (ctypes.c_uint64 * count)(*[ctypes.c_uint64.from_address(a).value for a in addresses])
            own = (ctypes.c_void_p * count)(*[ctypes.addressof(values) + 8 * i for i in range(count)])
            self._launches.append((values, own, handle, *sizes, ctypes.addressof(own), extra))
            return (0,)

        self._driver.cuLaunchKernel = note  # type: ignore[method-assign]
        return self

    def end_building(self) -> _Builder:
        self._driver.cuLaunchKernel = self._real  # type: ignore[method-assign]
        return self

    def complete(self) -> _Builder:
        return self

    def close(self) -> None:
        pass

    def launch(self, stream: Any) -> None:
        self._driver.calls.append("graph")
        for _, _, *arguments, places, extra in self._launches:
            self._driver.cuLaunchKernel(*arguments, stream.handle, places, extra)
