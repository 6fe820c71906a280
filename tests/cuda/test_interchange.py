"""Memory of a GPU comes and goes through DLPack and ``__cuda_array_interface__``, on a pretended device.

NumPy made the capsules that come in, and reads those that go out, with the device in them changed.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda.core.utils import StridedMemoryView

import numbanet as nnet
from numbanet import interchange
from numbanet.cuda import launch
from numbanet.cuda.compile import Kernel
from numbanet.cuda.gpu import Gpu
from numbanet.device_array import DeviceArray, alone
from tests.cuda.fake import FakeDriver
from tests.cuda.ptx.executor import HostDevice


@pytest.fixture(autouse=True)
def device() -> Iterator[HostDevice]:
    found = HostDevice()
    with launch.executor(found):
        yield found


class Interface:
    """An object of another library with ``__cuda_array_interface__``, whose GPU is the host."""

    def __init__(self, array: np.ndarray, **changes: Any):
        told = array.__array_interface__
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": told["shape"], "typestr": told["typestr"], "data": told["data"], "strides": told["strides"],
            "version": 3, **changes,
        }  # fmt: skip


class OnlyInterface:
    """Another library's array, whose ``__dlpack__`` is not seen."""

    def __init__(self, array: Any):
        self._array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._array.__cuda_array_interface__


class Capsules:
    """An object of another library with DLPack: a GPU's, as far as it says."""

    def __init__(self, array: np.ndarray, ordinal: int = 0, kind: int = 2):
        self.array, self.place, self.streams = array, (kind, ordinal), list[Any]()

    def __dlpack__(self, stream: Any = None, max_version: Any = None) -> Any:
        self.streams.append(stream)
        capsule = self.array.__dlpack__(max_version=max_version)
        interchange._device_field(capsule)[:] = self.place
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place


def from_gpu(tensor: Any, **options: Any) -> np.ndarray:
    """Read the capsule of a tensor on the pretended device as one of the host."""
    capsule = tensor.__dlpack__(**options)
    field = interchange._device_field(capsule)
    assert tuple(field) == tensor.__dlpack_device__() == (2, 0)
    field[:] = 1, 0
    return np.from_dlpack(interchange._Capsule(capsule))


class OldCapsules(Capsules):
    """An object of before DLPack 1.0."""

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream)


@pytest.mark.parametrize("wrap", [Interface, Capsules, OldCapsules, lambda x: Capsules(x, kind=13)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
def test_memory_is_shared(wrap: Any, dtype: str) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)[::2, ::-2].T
    x = nnet.from_dlpack(wrap(array))
    assert x.device == "cuda" and x.dtype == dtype and x.shape == array.shape and x.data.strides == array.strides
    assert np.array_equal(x.data.to_host(), array)
    array[0, 0] = 1
    assert x.data.to_host()[0, 0] == 1
    x.data[1, 1] = 1
    assert array[1, 1] == 1
    back = from_gpu(x)
    assert np.shares_memory(back, array) and back.strides == array.strides and np.array_equal(back, array)


@pytest.mark.parametrize("wrap", [Interface, Capsules])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_any_shape(wrap: Any, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)
    x = nnet.from_dlpack(wrap(array))
    assert x.shape == shape and x.data.to_host().sum() == array.size and from_gpu(x).shape == shape


def test_an_empty_array_needs_no_address() -> None:
    x = nnet.from_dlpack(Interface(np.ones((0, 3), np.float32), data=(0, False)))
    assert x.shape == (0, 3) and x.data.to_host().shape == (0, 3)


@pytest.mark.parametrize("wrap", [Interface, Capsules])
def test_the_owner_lives_as_long_as_the_memory(wrap: Any) -> None:
    class Array(np.ndarray):
        pass

    array = np.arange(10.0).view(Array)
    alive = weakref.ref(array)
    x = nnet.from_dlpack(wrap(array))
    half = x[5:]
    del array, x
    gc.collect()
    assert alive() is not None and half.data.to_host().tolist() == [5, 6, 7, 8, 9]
    back = from_gpu(half)
    del half
    gc.collect()
    assert alive() is not None and back.tolist() == [5, 6, 7, 8, 9]
    del back
    gc.collect()
    assert alive() is None


def test_cuda_core_reads_it_and_is_read() -> None:
    x = nnet.tensor(np.arange(6, dtype=np.float32).reshape(2, 3), device="cuda").T
    view = StridedMemoryView.from_dlpack(x, stream_ptr=-1)
    assert view.ptr == x.data.pointer and (view.device_id, view.readonly, view.dtype) == (0, False, np.float32)
    assert (view.shape, view.strides) == ((3, 2), (1, 3))  # in elements
    back = nnet.from_dlpack(view)
    assert back.data.pointer == x.data.pointer and back.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_is_handed_out_is_not_taken_over() -> None:
    x = nnet.tensor(np.ones(128, np.float32), device="cuda")
    assert alone(x.data)
    back = from_gpu(x)
    assert not alone(x.data)
    del back
    assert alone(x.data)
    assert x.__cuda_array_interface__["data"] == (x.data.pointer, False) and not alone(x.data)


def test_read_only_memory_stays_so() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    for x in (nnet.from_dlpack(Interface(array)), nnet.from_dlpack(Capsules(array))):
        assert not x.data.writeable and not from_gpu(x, max_version=(1, 0)).flags.writeable
        with pytest.raises(BufferError, match="read-only, can't be handed out with max_version None: "):
            x.__dlpack__()
        with pytest.raises(ValueError, match="read-only"):
            x.data[0] = 1
        assert x.__cuda_array_interface__["data"][1] is True


def test_tensor_copies() -> None:
    array = np.arange(3.0)
    for device in (None, "cuda", "cpu"):
        x = nnet.tensor(Interface(array), device=device, dtype=np.float32)
        assert x.device == (device or "cuda") and x.dtype == np.float32 and x.tolist() == [0, 1, 2]
    x = nnet.tensor(Interface(array))
    assert x.data.pointer != array.ctypes.data
    assert nnet.from_dlpack(Interface(array), copy=True).data.pointer != array.ctypes.data


def test_other_devices_need_a_copy() -> None:
    array = np.arange(3.0)
    assert nnet.from_dlpack(Capsules(array), device="cpu").device == "cpu"
    assert nnet.from_dlpack(array, device="cuda").device == "cuda"
    with pytest.raises(ValueError, match="copy must not be False where x is on 'cpu' and device is 'cuda'"):
        nnet.from_dlpack(array, device="cuda", copy=False)
    x = nnet.from_dlpack(Capsules(array))
    on_host = np.from_dlpack(x, device="cpu")
    assert on_host.tolist() == [0, 1, 2] and not np.shares_memory(on_host, array)
    for options in ({"dl_device": (1, 0), "copy": False}, {"dl_device": (2, 1)}):
        with pytest.raises(BufferError, match=r"dl_device must be \(2, 0\), where the tensor is, got "):
            x.__dlpack__(**options)
    assert not np.shares_memory(from_gpu(x, copy=True), array)


def test_streams_wait_for_each_other(device: HostDevice) -> None:
    array = np.arange(3.0)
    theirs = Capsules(array)
    x = nnet.from_dlpack(theirs)
    assert theirs.streams == [1] and device.ordered == []  # the owner makes our stream wait
    nnet.from_dlpack(Interface(array, stream=None))
    assert device.ordered == []
    nnet.from_dlpack(Interface(array, stream=99))
    assert device.ordered.pop() == (99, 1)
    for stream, expected in ((None, (1, 1)), (2, (1, 2)), (99, (1, 99))):
        x.__dlpack__(stream=stream)
        assert device.ordered.pop() == expected
    x.__dlpack__(stream=-1)
    assert device.ordered == []


def test_overlapping_memory_is_copied_first() -> None:
    array = np.arange(6.0)
    first, second = nnet.from_dlpack(Interface(array[:5])), nnet.from_dlpack(Interface(array[1:]))
    second.data[...] = first.data
    assert array.tolist() == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"version": 4}, ValueError, "must be of version 0 to 3, got version 4"),
        ({"mask": object()}, ValueError, "must have no mask"),
        ({"stream": 0}, ValueError, r"\['stream'\] must be 1, 2 or the handle of a stream, got 0"),
        ({"stream": "a"}, TypeError, r"\['stream'\] must be an integer or None, got 'a'"),
        ({"typestr": ">f4"}, TypeError, "x must hold real numbers in this machine's byte order, got dtype >f4"),
        ({"typestr": "<c8"}, TypeError, "x must hold real numbers in this machine's byte order, got dtype <c8"),
        ({"typestr": "~f4"}, ValueError, "must describe an array, got "),
        ({"data": (0, False)}, ValueError, "must describe an array, got .*: its address is null"),
        ({"data": 256}, ValueError, "must describe an array, got "),
        ({"data": (258, False)}, ValueError, "x must lie at multiples of its elements' 4 bytes, got address 0x102"),
        ({"strides": (6,)}, ValueError, r"x must lie at multiples of .* and strides \(6,\)"),
        ({"strides": (4, 4)}, ValueError, "must describe an array, got "),
        ({"shape": (-1,)}, ValueError, "must describe an array, got "),
        ({"shape": 3}, ValueError, "must describe an array, got "),
    ],
)
def test_interfaces_that_are_refused(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    x = Interface(np.zeros(3, np.float32), **changes)
    for call in (nnet.from_dlpack, nnet.tensor):
        with pytest.raises(error, match=text):
            call(x)


def test_what_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numbanet.cuda.probe.reason", lambda: "no GPU here")
    x = Interface(np.zeros(3))
    del x.__cuda_array_interface__["typestr"]
    with pytest.raises(ValueError, match="must have 'typestr', got the keys"):
        nnet.from_dlpack(x)
    x.__cuda_array_interface__ = [1]  # type: ignore[assignment]
    with pytest.raises(TypeError, match="must be a dict, got list"):
        nnet.from_dlpack(x)
    with pytest.raises(ValueError, match="x must lie on a GPU that can be used, got GPU 1: no GPU here"):
        nnet.from_dlpack(Capsules(np.zeros(3), ordinal=1))
    with pytest.raises(TypeError, match="x must hold real numbers .* got dtype <c16"):
        nnet.from_dlpack(Capsules(np.zeros(3, complex)))
    ours = nnet.tensor([1.0], device="cuda")
    for stream, error in ((0, ValueError), (-2, ValueError), ("a", TypeError), (True, TypeError)):
        with pytest.raises(error, match="stream must be "):
            ours.__dlpack__(stream=stream)
    ours.requires_grad_()
    with pytest.raises(BufferError, match="requires a gradient: call detach"):
        ours.__dlpack__()
    with pytest.raises(RuntimeError, match="requires a gradient: call detach"):
        _ = ours.__cuda_array_interface__


def test_the_driver_orders_streams_and_knows_whose_an_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    driver = FakeDriver()
    with launch.executor(Gpu(0, driver.core, driver)):
        ours = launch.upload(np.arange(3.0))
        theirs = Interface(np.zeros(3), data=(ours.pointer, False), stream=5)
        driver.calls.clear()
        x = nnet.from_dlpack(theirs)
        assert type(x.data) is DeviceArray and x.tolist() == [0, 1, 2]
        assert driver.calls[:3] == ["event 2", "record 5", "wait 77"]
        driver.calls.clear()
        x.__dlpack__(stream=2)
        assert driver.calls == ["record 77", "wait 2"], "by the event that nobody used any more"
        with pytest.raises(ValueError, match="x must lie on a GPU, got address 0x[0-9a-f]+: CUDA"):
            nnet.from_dlpack(Interface(np.zeros(3)))
