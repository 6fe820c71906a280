"""DeviceArray has NumPy's views, and its copies, conversions and fills give what NumPy's give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from numbanet.cuda.launch import Launch, executor, recording, upload
from numbanet.device_array import DeviceArray, Memory, view_strides
from tests.cuda.ptx.executor import HostDevice

CONVERSIONS = [
    ("bool", "int64"), ("float32", "bool"), ("uint8", "float32"), ("int8", "int32"), ("float64", "int64"),
    ("float32", "float64"), ("uint64", "float64"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def interpreted() -> Iterator[None]:
    with executor(HostDevice()):
        yield


def of(x: np.ndarray) -> DeviceArray:
    """A device array that pretends to lie where a NumPy array does; nobody reads its elements."""
    return DeviceArray(Memory(0, 0, None), x.__array_interface__["data"][0], x.shape, x.strides, x.dtype)


def same_view(found: DeviceArray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    if expected.size:
        assert found.pointer == expected.__array_interface__["data"][0]
        assert [s for s, n in zip(found.strides, found.shape) if n > 1] == [
            s for s, n in zip(expected.strides, expected.shape) if n > 1
        ]


def arrays(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        shape = rng.choice([1, 2, 3, 4, 6], rng.integers(1, 5))
        base = np.zeros(shape * 2)
        steps = rng.choice([-2, -1, 1, 2], len(shape))
        yield base[tuple(slice(None, None, step) for step in steps)].transpose(rng.permutation(len(shape)))


def test_views_are_those_of_numpy(rng: np.random.Generator) -> None:
    for x in arrays(rng, 300):
        index: list[object] = []
        for size in x.shape:
            kind = rng.integers(4)
            bounds = [None if rng.integers(3) == 0 else int(rng.integers(-size - 1, size + 2)) for _ in range(2)]
            index.append([int(rng.integers(-size, size)), slice(None), slice(*bounds), slice(*bounds, -2)][kind])
        index.insert(int(rng.integers(len(index) + 1)), None)
        same_view(of(x)[tuple(index)], x[(*index, ...)])
        same_view(of(x)[..., None, 0], x[..., None, 0])
        same_view(of(x).T, x.T)
        order = rng.permutation(x.ndim)
        same_view(of(x).transpose(order), x.transpose(order))
        same_view(of(x).swapaxes(0, -1), x.swapaxes(0, -1))
        same_view(of(x).squeeze(), x.squeeze())
        same_view(np.expand_dims(of(x), (0, -1)), np.expand_dims(x, (0, -1)))
        wide = (2, *x.shape)
        same_view(np.broadcast_to(of(x), wide), np.broadcast_to(x, wide))
        assert of(x).flags.c_contiguous == x.flags.c_contiguous


def test_reshapes_are_views_where_those_of_numpy_are(rng: np.random.Generator) -> None:
    viewed = 0
    for x in arrays(rng, 300):
        sizes = list(x.shape)
        while len(sizes) > 1 and rng.integers(3):
            at = int(rng.integers(len(sizes) - 1))
            sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
        sizes.insert(int(rng.integers(len(sizes) + 1)), 1)
        expected = x.reshape(sizes)
        strides = view_strides(x.shape, x.strides, tuple(sizes))
        assert (strides is not None) == np.shares_memory(x, expected)
        if strides is not None:
            viewed += 1
            same_view(of(x).reshape(sizes), expected)
    assert 50 < viewed < 290


@pytest.mark.parametrize("index", ["x[4]", "x[-5]", "x[0, 0, 0]"])
def test_an_index_out_of_bounds(index: str) -> None:
    x = of(np.zeros((4, 3)))
    with pytest.raises(IndexError):
        eval(index, {"x": x})


def test_copies_of_any_strides(rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 4, 5)).astype(np.float32)
    view, expected = upload(a).transpose(2, 0, 1)[::-1, 1:, ::2], a.transpose(2, 0, 1)[::-1, 1:, ::2]
    assert np.array_equal(upload(a.T).to_host(), a.T) and upload(a.T).strides == a.T.strides
    for copied in (view, view.copy(), view.copy("C"), view.reshape(-1, 2).reshape(view.shape)):
        assert np.array_equal(copied.to_host(), expected)
    assert view.copy("C").flags.c_contiguous
    target = upload(np.zeros((5, 2, 3), np.float32))
    target[:, :, ::2] = view
    target[0] = -1
    assert np.array_equal(target.to_host()[1:, :, ::2], expected[1:]) and (target.to_host()[0] == -1).all()
    target[1:] = upload(np.float32([1, 2, 3]))
    assert (target.to_host()[1:] == [1, 2, 3]).all()
    target.fill(np.nan)
    assert np.isnan(target.to_host()).all()


def test_no_kernel_reads_what_it_writes() -> None:
    x, launches = upload(np.arange(600)), list[Launch]()
    with recording(launches):
        x[1:] = x[:-1]
        x[::2] = x[:1]
    assert x.to_host().tolist() == [0 if i % 2 == 0 else i - 1 for i in range(600)]
    for _, _, arguments, _ in launches:
        source, target = (a for a in arguments[-2:])
        assert source.memory.pointer != target.memory.pointer
    launches.clear()
    with recording(launches):
        x[...] = x
    assert len(launches) == 1


@pytest.mark.parametrize("pair", CONVERSIONS, ids="-".join)
def test_conversions(pair: tuple[str, str], rng: np.random.Generator) -> None:
    source, target = pair
    values = rng.integers(0, 100, (4, 6)).astype(source)[:, ::2]
    found = upload(values).astype(target).to_host()
    assert found.dtype == target and np.array_equal(found, values.astype(target))


def test_what_numpy_must_not_do_by_itself() -> None:
    x = upload(np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"\.cpu\(\)"):
        np.asarray(x)
    with pytest.raises(TypeError, match="numpy.concatenate takes no array on the GPU"):
        np.concatenate([x, x])
    with pytest.raises(TypeError):
        np.add(x, 1)
    with pytest.raises(TypeError, match=r"\.to\('cuda'\)"):
        x[...] = np.ones(3, np.float32)
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
