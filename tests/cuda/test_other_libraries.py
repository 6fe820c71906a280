"""CuPy's and PyTorch's arrays on a GPU share memory with ours, both ways: run where one works and they are installed.

What they say in the protocols is checked without a GPU in test_protocols.py.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet.cuda import launch, unavailable_reason
from tests.cuda.test_interchange import OnlyInterface

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def _torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return SimpleNamespace(
        module=torch, make=lambda values: torch.as_tensor(values, device="cuda"), host=lambda x: x.cpu().numpy(),
        address=lambda x: x.data_ptr(), strides=lambda x: tuple(s * x.element_size() for s in x.stride()),
        from_interface=lambda x: torch.as_tensor(x, device="cuda"), stream=torch.cuda.Stream, within=torch.cuda.stream,
        wait=torch.cuda.synchronize, ones=lambda n: torch.ones((n, n), device="cuda"),
    )  # fmt: skip


def _cupy() -> Any:
    cupy = pytest.importorskip("cupy")
    return SimpleNamespace(
        module=cupy, make=cupy.asarray, host=cupy.asnumpy, address=lambda x: x.data.ptr, strides=lambda x: x.strides,
        from_interface=cupy.asarray, stream=lambda: cupy.cuda.Stream(non_blocking=True), within=lambda stream: stream,
        wait=cupy.cuda.runtime.deviceSynchronize, ones=lambda n: cupy.ones((n, n), cupy.float32),
    )  # fmt: skip


LIBRARIES = {"torch": _torch, "cupy": _cupy}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Another library, where a GPU works: what a GPU's array is called in it."""
    found = LIBRARIES[request.param]()
    reason = unavailable_reason()
    if reason is not None:
        pytest.skip(f"no GPU can be used: {reason}")
    nnet.set_device("cuda")
    yield found
    nnet.set_device(None)


def settled(library: Any) -> None:
    """Wait for both libraries: from the hand-over on, each works on a stream of its own."""
    launch.current().sync()
    library.wait()


WAYS = {"dlpack": lambda x: x, "interface": OnlyInterface}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_comes_is_shared(library: Any, way: str, dtype: str) -> None:
    values = np.arange(24).reshape(4, 6).astype(dtype)
    theirs = library.make(values)[::2, 1::2].T
    library.wait()
    x = nnet.from_dlpack(WAYS[way](theirs))
    assert x.device == "cuda" and x.dtype == dtype and x.shape == (3, 2)
    assert x.data.pointer == library.address(theirs) and x.data.strides == library.strides(theirs)
    assert np.array_equal(x.cpu().numpy(), values[::2, 1::2].T)
    theirs[0, 0] = 1
    library.wait()
    assert x.cpu().numpy()[0, 0] == 1
    x.data[2, 1] = 1
    launch.current().sync()
    assert library.host(theirs)[2, 1] == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_goes_is_shared(library: Any, way: str, dtype: str) -> None:
    values = np.arange(24).reshape(4, 6).astype(dtype)
    x = nnet.tensor(values, device="cuda")[::2, 1::2].transpose(0, 1)
    theirs = library.module.from_dlpack(x) if way == "dlpack" else library.from_interface(x)
    settled(library)
    assert library.address(theirs) == x.data.pointer and library.strides(theirs) == x.data.strides
    assert np.array_equal(library.host(theirs), values[::2, 1::2].T)
    theirs[0, 0] = 1
    library.wait()
    assert x.cpu().numpy()[0, 0] == 1
    x.data[2, 1] = 1
    launch.current().sync()
    assert library.host(theirs)[2, 1] == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1)])
def test_any_shape(library: Any, way: str, shape: tuple[int, ...]) -> None:
    theirs = library.make(np.ones(shape, np.float32))
    library.wait()
    x = nnet.from_dlpack(WAYS[way](theirs))
    assert x.shape == shape and x.cpu().numpy().sum() == np.prod(shape)
    back = library.module.from_dlpack(x) if way == "dlpack" else library.from_interface(x)
    assert tuple(back.shape) == shape and library.host(back).sum() == np.prod(shape)


@pytest.mark.parametrize("way", WAYS)
def test_the_owner_lives_as_long_as_the_memory(library: Any, way: str) -> None:
    theirs = library.make(np.arange(1 << 20, dtype=np.float32))
    library.wait()
    half = nnet.from_dlpack(WAYS[way](theirs))[1 << 19 :]
    del theirs
    gc.collect()
    others = [library.make(np.zeros(1 << 20, np.float32)) for _ in range(4)]
    library.wait()
    assert len(others) == 4 and half.cpu().numpy()[0] == 1 << 19
    ours = nnet.tensor(np.arange(1 << 20, dtype=np.float32), device="cuda")
    back = library.module.from_dlpack(ours[1 << 19 :])
    del ours
    gc.collect()
    kept = [nnet.tensor(np.zeros(1 << 20, np.float32), device="cuda") for _ in range(4)]
    settled(library)
    assert len(kept) == 4 and library.host(back)[0] == 1 << 19


def busy(library: Any) -> Any:
    """Give their current stream some milliseconds of work; return its result, whose elements are 1."""
    x = library.ones(4096)
    for _ in range(20):
        x = x @ x / 4096
    return x


def test_our_stream_waits_for_theirs(library: Any) -> None:
    """PyTorch's interface is of version 2 and names no stream: there its users wait."""
    ways = [name for name in WAYS if name == "dlpack" or "stream" in library.ones(1).__cuda_array_interface__]
    for way in ways:
        with library.within(library.stream()):
            theirs = busy(library)
            x = nnet.from_dlpack(WAYS[way](theirs))
            total = (x * 2.0).sum()
        assert total.item() == 2 * 4096**2


def test_their_stream_waits_for_ours(library: Any) -> None:
    """PyTorch reads no stream of an interface: there its users wait."""
    for way in ("dlpack", "interface") if library.module.__name__ == "cupy" else ("dlpack",):
        x = nnet.tensor(np.ones((2048, 2048), np.float32), device="cuda")
        for _ in range(20):
            x = x @ x * (1 / 2048)
        with library.within(library.stream()):
            theirs = library.module.from_dlpack(x) if way == "dlpack" else library.from_interface(x)
            total = (theirs * 2).sum()
            assert float(total) == 2 * 2048**2


def test_read_only_memory_stays_so(library: Any) -> None:
    theirs = library.make(np.zeros(3, np.float32))
    library.wait()
    told = theirs.__cuda_array_interface__
    x = nnet.from_dlpack(SimpleNamespace(owner=theirs, __cuda_array_interface__={
        **told, "data": (told["data"][0], True),
    }))  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 1
    with pytest.raises(BufferError, match="read-only"):
        x.__dlpack__()
    if library.module.__name__ == "torch":
        with pytest.raises(TypeError, match="read only"):
            library.from_interface(x)


def test_gradients_are_not_handed_over(library: Any) -> None:
    x = nnet.tensor([1.0], device="cuda", requires_grad=True)
    with pytest.raises(BufferError, match="detach"):
        library.module.from_dlpack(x)
    if library.module.__name__ == "torch":
        with pytest.raises(BufferError, match="gradient"):
            nnet.from_dlpack(library.module.ones(2, device="cuda", requires_grad=True))
