"""What CuPy and PyTorch say and ask in the protocols, said and asked by stand-ins on a pretended device.

Both libraries are here as they are, and as they were before they knew DLPack 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import interchange
from numbanet.cuda import launch
from tests.cuda.ptx.executor import HostDevice
from tests.cuda.test_interchange import OnlyInterface

CUDA, MANAGED = 2, 13
LEGACY, THEIRS = 1, 0xABC0  # handles of streams


@pytest.fixture(autouse=True)
def device() -> Iterator[HostDevice]:
    found = HostDevice()
    with launch.executor(found):
        yield found


class Producer:
    """An array of another library; `waits` lists the streams that it made wait for its current one."""

    versioned, kind = True, CUDA

    def __init__(self, array: np.ndarray, current: int = 0):
        self.array, self.current, self.waits = array, current, list[int]()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def _capsule(self, max_version: Any) -> Any:
        versioned = self.versioned and max_version is not None and max_version[0] >= 1
        capsule = self.array.__dlpack__(max_version=(1, 0) if versioned else None)
        interchange._device_field(capsule)[:] = self.kind, 0
        return capsule

    def _order(self, stream: int, own: int) -> None:
        if stream not in (-1, own):
            self.waits.append(stream)

    def _told(self, version: int, **more: Any) -> dict[str, Any]:
        told = self.array.__array_interface__
        return {
            "shape": told["shape"], "typestr": told["typestr"], "version": version, "strides": told["strides"],
            "data": (told["data"][0] if self.array.size else 0, False), **more,
        }  # fmt: skip


class Cupy(Producer):
    """CuPy."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._told(3, descr=self.array.dtype.descr, stream=self.current or LEGACY)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        stream = LEGACY if stream is None else stream
        if not isinstance(stream, int) or stream < -1 or stream == 0:
            raise ValueError("On CUDA, the valid stream for the DLPack protocol is -1, 1, 2, or any larger value")
        self._order(stream, self.current or LEGACY)
        return self._capsule(max_version)


class ManagedCupy(Cupy):
    """Memory of cudaMallocManaged."""

    kind = MANAGED


class OldCupy(Cupy):
    """CuPy before DLPack 1.0."""

    versioned = False

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


class Torch(Producer):
    """PyTorch: what its interface says is of version 2, without a stream."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._told(2)

    def __dlpack__(
        self, *, stream: Any = -1, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        if stream is not None and type(stream) is not int:
            raise TypeError("stream must be ``int`` or ``none``")
        if stream == 2:
            raise BufferError("per-thread default stream is not supported.")
        self._order(LEGACY if stream is None else stream, self.current or LEGACY)
        return self._capsule(max_version)


class OldTorch(Torch):
    """PyTorch before DLPack 1.0."""

    versioned = False

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


PRODUCERS = [Cupy, ManagedCupy, OldCupy, Torch, OldTorch]


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("wrap", [lambda x: x, OnlyInterface], ids=["dlpack", "interface"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_memory_is_shared(producer: type[Producer], wrap: Any, dtype: str) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)[::2, 1::2].T
    x = nnet.from_dlpack(wrap(producer(array)))
    assert x.device == "cuda" and x.dtype == dtype and x.data.pointer == array.ctypes.data
    assert x.data.strides == array.strides and np.array_equal(x.cpu().numpy(), array)
    array[0, 0] = x.data[2, 1] = 1
    assert x.data.to_host()[0, 0] == 1 and array[2, 1] == 1


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("wrap", [lambda x: x, OnlyInterface], ids=["dlpack", "interface"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1)])
def test_any_shape(producer: type[Producer], wrap: Any, shape: tuple[int, ...]) -> None:
    x = nnet.from_dlpack(wrap(producer(np.ones(shape, np.float32))))
    assert x.shape == shape and x.cpu().numpy().sum() == np.prod(shape)


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("current", [0, THEIRS])
def test_the_owner_makes_our_stream_wait(producer: type[Producer], current: int, device: HostDevice) -> None:
    theirs = producer(np.ones(3, np.float32), current)
    nnet.from_dlpack(theirs)
    ours = device.stream_handle()
    assert theirs.waits == ([ours] if current else []) and device.ordered == []


@pytest.mark.parametrize(("producer", "current", "expected"), [
    (Cupy, 0, [(LEGACY, LEGACY)]), (Cupy, THEIRS, [(THEIRS, LEGACY)]), (Torch, THEIRS, []),
])  # fmt: skip
def test_our_stream_waits_for_one_that_is_named(
    producer: type[Producer], current: int, expected: list[tuple[int, int]], device: HostDevice
) -> None:
    nnet.from_dlpack(OnlyInterface(producer(np.ones(3, np.float32), current)))
    assert device.ordered == expected


def taken_by_torch(x: Any, current: int = 0) -> Any:
    """Ask for a capsule as torch.from_dlpack does."""
    options: dict[str, Any] = {"max_version": (1, 0)}
    if x.__dlpack_device__()[0] == CUDA:
        options["stream"] = current or LEGACY
    return x.__dlpack__(**options)


def taken_by_cupy(x: Any, current: int = 0) -> Any:
    """Ask for a capsule as cupy.from_dlpack does."""
    assert x.__dlpack_device__()[0] in (CUDA, MANAGED)
    return x.__dlpack__(stream=current or LEGACY, max_version=(1, 0), copy=None)


def taken_by_old_cupy(x: Any, current: int = 0) -> Any:
    assert x.__dlpack_device__()[0] == CUDA
    return x.__dlpack__(stream=current or LEGACY)


@pytest.mark.parametrize("taken", [taken_by_torch, taken_by_cupy, taken_by_old_cupy])
@pytest.mark.parametrize("current", [0, THEIRS])
def test_their_stream_waits_for_ours(taken: Any, current: int, device: HostDevice) -> None:
    x = nnet.tensor(np.arange(6, dtype=np.float32).reshape(2, 3), device="cuda").transpose(0, 1)
    device.ordered.clear()
    capsule = taken(x, current)
    assert device.ordered == [(device.stream_handle(), current or LEGACY)]
    field = interchange._device_field(capsule)
    assert tuple(field) == (CUDA, 0)
    field[:] = 1, 0
    seen = np.from_dlpack(interchange._Capsule(capsule))
    assert seen.ctypes.data == x.data.pointer and seen.strides == x.data.strides and seen.tolist() == x.tolist()


def test_what_an_interface_says() -> None:
    """CuPy and Numba read the stream; PyTorch reads strides, and refuses memory that is read-only."""
    x = nnet.tensor(np.zeros((2, 3), np.float32), device="cuda")
    told = x.transpose(0, 1).__cuda_array_interface__
    assert told == {
        "shape": (3, 2), "typestr": "<f4", "strides": (4, 12), "version": 3, "data": (x.data.pointer, False),
        "stream": LEGACY,
    }  # fmt: skip
    assert nnet.tensor(np.zeros((0, 3)), device="cuda").__cuda_array_interface__["data"] == (0, False)


@pytest.mark.parametrize("wrap", [lambda x: x, OnlyInterface], ids=["dlpack", "interface"])
def test_read_only_memory_stays_so(wrap: Any) -> None:
    class ReadOnly(Cupy):
        def _told(self, version: int, **more: Any) -> dict[str, Any]:
            told = super()._told(version, **more)
            return {**told, "data": (told["data"][0], True)}

    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    x = nnet.from_dlpack(wrap(ReadOnly(array)))
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 1
    assert x.__cuda_array_interface__["data"][1] is True
    with pytest.raises(BufferError, match="read-only"):
        taken_by_old_cupy(x)
    taken_by_torch(x)  # whose capsule says so
