"""DLPack with NumPy: memory is shared, kept alive and not written to where it is read-only."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import interchange, nn

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
# DLPack 1.0: before it, NumPy takes memory as read-only, and hands out none that is, and no booleans.
versioned = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy before 2.1 does not know DLPack 1.0"
)
DTYPES = ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64"]


class Array(np.ndarray):
    """An array that can be watched."""


class Foreign:
    """An object of an older library, which knows no versions, or of a device that numbanet does not have."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class OnGpu:
    """An object that says that it lies on a GPU."""

    def __init__(self) -> None:
        self.__cuda_array_interface__ = {"shape": (2,), "typestr": "<f4", "data": (256, False), "version": 3}


@versioned
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_shared_both_ways(dtype: str) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)[::2, ::-2].T
    x = nnet.from_dlpack(array)
    back = np.from_dlpack(x)
    for found in (x.data, back):
        assert found.dtype == dtype and found.shape == array.shape and found.strides == array.strides
        assert np.shares_memory(found, array) and np.array_equal(found, array)
    array[0, 0] = back[1, 1] = 1
    assert x.data[0, 0] == 1 and array[1, 1] == 1 and x.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert np.from_dlpack(nnet.from_dlpack(np.ones(shape, np.float32))).shape == shape


def test_memory_lives_as_long_as_it_is_used() -> None:
    array = np.ones(1000).view(Array)
    alive = weakref.ref(array)
    x = nnet.from_dlpack(array)
    half = x[500:]
    del array, x
    gc.collect()
    assert alive() is not None and half.data.sum() == 500
    out = np.from_dlpack(half)
    del half
    gc.collect()
    assert alive() is not None and out.sum() == 500
    del out
    gc.collect()
    assert alive() is None


@versioned
def test_read_only_memory_stays_so() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    x = nnet.from_dlpack(array)
    assert not x.data.flags.writeable and not np.from_dlpack(x).flags.writeable
    with pytest.raises(BufferError, match="read-only, can't be handed out with max_version None: "):
        x.__dlpack__()
    assert nnet.from_dlpack(array, copy=True).data.flags.writeable


@versioned
def test_a_copy_is_one() -> None:
    array = np.zeros(3, np.float32)
    for copied in (nnet.from_dlpack(array, copy=True).data, np.from_dlpack(nnet.from_dlpack(array), copy=True)):
        assert not np.shares_memory(copied, array)
    assert np.shares_memory(nnet.from_dlpack(array, copy=False, device="cpu").data, array)


@versioned
def test_objects_of_before_versions_and_capsules() -> None:
    array = np.arange(4.0)
    x = nnet.from_dlpack(Foreign(array))
    x += 1
    assert array.tolist() == [1, 2, 3, 4]
    capsule = array.__dlpack__(max_version=(1, 0))
    assert np.shares_memory(nnet.from_dlpack(capsule).data, array)
    with pytest.raises(ValueError, match="x must be a DLPack capsule that nobody took yet, got <capsule"):
        nnet.from_dlpack(capsule)


@versioned
def test_a_parameter_takes_notice() -> None:
    layer = nn.Linear(3, 2)
    with nnet.no_grad():
        x = nnet.tensor(np.ones((1, 3), np.float32))
        before = layer(x).numpy().copy()
        np.from_dlpack(layer.weight.detach())[...] += 1
        assert np.allclose(layer(x).numpy(), before + 3)


@versioned
def test_what_is_refused() -> None:
    x = nnet.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="x must have __dlpack__ or __cuda_array_interface__, got list"):
        nnet.from_dlpack([1.0])
    metal = np.ones(2).__dlpack__(max_version=(1, 0))
    interchange._device_field(metal)[0] = 8
    with pytest.raises(ValueError, match="x must lie on the CPU or on a GPU of CUDA, got a device of DLPack's kind 8"):
        nnet.from_dlpack(metal)
    with pytest.raises(TypeError, match="x must hold real numbers, got dtype complex128"):
        nnet.from_dlpack(np.ones(2, complex))
    with pytest.raises(BufferError, match="requires a gradient: call detach"):
        np.from_dlpack(nnet.tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="stream must be None for a tensor on the CPU, got 1"):
        x.__dlpack__(stream=1)
    with pytest.raises(BufferError, match=r"dl_device must be \(1, 0\), where the tensor is, got \(2, 0\)"):
        x.__dlpack__(dl_device=(2, 0))
    assert not hasattr(x, "__cuda_array_interface__")


def test_an_array_on_a_gpu_where_none_works_gives_the_reason() -> None:
    if _gpu():
        pytest.skip("a GPU works here")
    for call in (nnet.tensor, nnet.from_dlpack):
        with pytest.raises(RuntimeError, match=r"x \(OnGpu\) lies on a GPU, and none can be used: \w+"):
            call(OnGpu())
    with pytest.raises(RuntimeError, match=r"x \(Foreign\) lies on a GPU, and none can be used: \w+"):
        nnet.from_dlpack(Foreign(np.ones(2), (2, 0)))


def test_the_example_of_the_page_runs() -> None:
    (code,) = re.findall(r"^## Arrays of other libraries\n.*?^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    assert names["array"][0, 0] == 7 and np.shares_memory(names["array"], names["back"])


def _gpu() -> bool:
    from numbanet.cuda import unavailable_reason

    return unavailable_reason() is None
