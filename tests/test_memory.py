"""Recycled memory never has two owners; layouts of arrays."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import threading
from typing import Any

import numpy as np
import pytest

from numbanet import blocks, memory

LARGE = memory.SMALL // 8 + 1  # float64 elements of an array that is recycled


@pytest.fixture(autouse=True)
def fresh_pool() -> Any:
    memory.release()
    yield
    memory.release()


def address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]


def test_large_arrays_are_recycled_and_aligned() -> None:
    first = memory.empty((LARGE,), "float64")
    where = address(first)
    assert where % 64 == 0 and first.flags.c_contiguous and first.flags.writeable
    del first
    assert address(memory.empty((LARGE,), "float64")) == where
    assert address(memory.empty((LARGE + 1,), "float64")) == where, "nearby sizes share blocks"


def test_a_view_keeps_the_block() -> None:
    whole = memory.empty((2, LARGE), "float64")
    view = whole[1, ::-3].view()
    view.fill(5.0)
    del whole
    gc.collect()
    for _ in range(3):
        memory.empty((2, LARGE), "float64").fill(0.0)
    assert (view == 5.0).all()


def test_live_arrays_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    alive: list[tuple[int, np.ndarray]] = []
    for number in range(300):
        x = memory.empty((int(rng.integers(LARGE, 2 * LARGE)),), "float64")
        x.fill(number)
        alive.append((number, x))
        if len(alive) > 8:
            alive.pop(int(rng.integers(len(alive))))
        for expected, y in alive:
            assert y[0] == y[-1] == expected
    for (_, x), (_, y) in itertools.combinations(alive, 2):
        assert not np.shares_memory(x, y)


def test_threads_share_the_pool() -> None:
    errors: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        kept: list[tuple[float, np.ndarray]] = []
        for _ in range(150):
            value = rng.random()
            x = memory.empty((int(rng.integers(LARGE, LARGE + 20000)),), "float64")
            x[::512] = value
            kept.append((value, x))
            if len(kept) > 3:
                old, y = kept.pop(0)
                if not (y[::512] == old).all():
                    errors.append("two owners")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    in_use, held = memory.held()
    assert in_use == 0 and held <= 8 * 5 * memory._rounded(8 * (LARGE + 20000))


def test_a_finaliser_changes_nothing_in_the_middle() -> None:
    x = memory.empty((LARGE,), "float64")
    pool = blocks.pools[0]
    with blocks.lock:  # as if the collector ran in the middle of `empty`
        where = address(x)
        del x
        gc.collect()
    assert pool.in_use and not pool._free, "the pool was changed in the middle"
    assert address(memory.empty((LARGE,), "float64")) == where, "recycled by the next call"


def test_the_pool_holds_what_was_in_use_at_once() -> None:
    for _ in range(3):
        small = [memory.empty((LARGE,), "float64") for _ in range(8)]
        small.clear()
        large = [memory.empty((4 * LARGE,), "float64") for _ in range(2)]  # in the places of the small ones
        large.clear()
    in_use, held = memory.held()
    assert in_use == 0 and held <= 8 * memory._rounded(8 * LARGE)
    kept = memory.empty((LARGE,), "float64")
    memory.release()
    assert memory.held() == (kept.nbytes // 4096 * 4096 + 4096,) * 2, "idle memory goes though some is in use"


def test_no_memory_left(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.empty((LARGE,), "float64")
    assert memory.held()[1]
    large, real, failures = (1 << 24,), mmap.mmap, [OSError()] * 2  # as large as wished, and as large as it must be

    def scarce(*args: Any, **options: Any) -> mmap.mmap:
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(mmap, "mmap", scarce)
    x = memory.empty(large, "float64")
    assert x.shape == large and not failures
    assert memory.held() == (x.nbytes, x.nbytes), "the idle memory went first"
    failures.extend([OSError()] * 4)
    with pytest.raises(MemoryError):
        memory.empty((1 << 25,), "float64")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_the_lock_is_held() -> None:
    with blocks.lock:
        child = os.fork()
        if child == 0:  # the lock of the parent's thread must not bind the child
            ready = blocks.lock.acquire(timeout=5)
            os._exit(0 if ready else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (LARGE, 0)])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "bool"])
def test_empty_shapes_and_dtypes(shape: tuple[int, ...], dtype: str) -> None:
    x = memory.empty(shape, dtype)
    assert x.shape == shape and x.dtype == dtype and x.flags.c_contiguous


# ---------------------------------------------------------------------------------------------------------------------
# Layouts


def arrays() -> dict[str, np.ndarray]:
    base = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    channels_last = np.ascontiguousarray(base.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    read_only = base.copy()
    read_only.flags.writeable = False
    return {
        "plain": base,
        "channels-last": channels_last,
        "fortran": np.asfortranarray(base),
        "any order": base.transpose(2, 0, 3, 1),
        "negative": base[:, ::-1],
        "all negative": base[::-1, ::-1, ::-1, ::-1],
        "negative channels-last": channels_last[:, :, ::-1],
        "gaps": base[:, :, ::2, 1:4],
        "broadcast": np.broadcast_to(base[:, :1, :, :1], (2, 3, 4, 5)),
        "broadcast number": np.broadcast_to(np.float32(3), (2, 3, 4, 5)),
        "overlapping": np.lib.stride_tricks.sliding_window_view(np.arange(10, dtype=np.float32), 4),
        "size-1 axes": base[:1, :, :1, :],
        "odd strides of size-1 axes": np.lib.stride_tricks.as_strided(base, (1, 3, 1, 5), (4, 80, 12, 4)),
        "one pixel": channels_last[:, :, :1, :1],
        "empty": base[:0],
        "empty, negative": base[:, :0, ::-1],
        "0-d": np.array(7.0, np.float32),
        "1-d": np.arange(5, dtype=np.float32),
        "1-d, negative": np.arange(5, dtype=np.float32)[::-1],
        "read-only": read_only,
        "int64": np.arange(6).reshape(2, 3).T,
    }


NAMES = list(arrays())


@pytest.mark.parametrize("name", NAMES)
def test_dense_flat_and_empty_like(name: str) -> None:
    x = arrays()[name]
    d = memory.dense(x)
    np.testing.assert_array_equal(d, x)
    assert sorted(memory.memory_order(x)) == list(range(x.ndim))
    f = memory.flat(d)
    assert f.ndim == 1 and f.flags.c_contiguous and f.size == x.size
    assert x.size == 0 or np.shares_memory(f, d), "no copy"
    like = memory.empty_like(d)
    assert like.shape == x.shape and like.dtype == x.dtype and memory.dense(like) is like
    memory.flat(like)[...] = f
    np.testing.assert_array_equal(like, x, err_msg="the elements come in the same order")


@pytest.mark.parametrize("name", NAMES)
def test_dense_copies_only_what_has_gaps(name: str) -> None:
    x = arrays()[name]
    gaps = {"negative", "all negative", "negative channels-last", "gaps", "broadcast", "broadcast number",
            "overlapping", "1-d, negative", "odd strides of size-1 axes"}  # fmt: skip
    if name == "one pixel":  # (2, 3, 1, 1) with 60 elements from image to image
        gaps.add(name)
    if name == "size-1 axes":
        gaps.add(name)
    assert (memory.dense(x) is x) == (name not in gaps)


def test_dense_keeps_the_order_of_axes() -> None:
    x = arrays()["negative channels-last"]
    assert memory.memory_order(memory.dense(x)) == memory.memory_order(x) == (0, 2, 3, 1)
    assert memory.empty_like(x, np.uint8).strides == (60, 1, 15, 3)


@pytest.mark.parametrize("name", [n for n in NAMES if arrays()[n].shape == (2, 3, 4, 5)])
@pytest.mark.parametrize("model", ["plain", "channels-last", "fortran"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_like_layout(name: str, model: str, dtype: str) -> None:
    x, wanted = arrays()[name].astype(dtype, copy=dtype != "float32"), arrays()[model]
    y = memory.like_layout(x, wanted)
    np.testing.assert_array_equal(y, x)
    expected = memory.empty_like(wanted, dtype)
    expected[...] = x
    np.testing.assert_array_equal(memory.flat(y), memory.flat(expected))
    assert memory.memory_order(y) == memory.memory_order(wanted) and memory.dense(y) is y


def test_like_layout_copies_nothing_that_fits() -> None:
    x = arrays()["channels-last"]
    assert memory.like_layout(x, x.copy(order="K")) is x
    mask = (x > 7).copy(order="K")  # another size of element, the same order
    assert memory.like_layout(mask, x) is mask
    narrow = np.zeros((2, 3, 4, 5, 4), np.uint8)[..., 0]  # strides of a float32 array, but with gaps
    assert memory.like_layout(narrow, arrays()["plain"]) is not narrow


def test_channels_last() -> None:
    for name, x in arrays().items():
        if x.ndim == 4:
            y = memory.channels_last(x)
            np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1))
            assert y.flags.c_contiguous
            assert np.shares_memory(x, y) == (name == "channels-last")
    x = memory.empty_channels_last((2, 3, 4, 5), "float64")
    assert x.shape == (2, 3, 4, 5) and x.strides == (480, 8, 120, 24)


def test_layouts_by_brute_force() -> None:
    base = np.arange(4 * 3 * 2).reshape(4, 3, 2)
    steps = [slice(None), slice(None, None, -1), slice(None, None, 2), slice(0, 1), slice(0, 0)]
    for axes in itertools.permutations(range(3)):
        for index in itertools.product(steps, repeat=3):
            x = base.transpose(axes)[index]
            d = memory.dense(x)
            np.testing.assert_array_equal(d, x)
            like = memory.empty_like(x)
            memory.flat(like)[...] = memory.flat(d)
            np.testing.assert_array_equal(like, x)
            model = base.transpose(axes)[: x.shape[0], : x.shape[1], : x.shape[2]].copy(order="K")
            np.testing.assert_array_equal(memory.like_layout(x, model), x)


def test_arrays_of_objects_come_from_numpy():
    made = memory.empty((100_000,), object)  # recycled bytes would be taken for addresses
    assert made[0] is None and made[-1] is None
    with memory.arena():
        assert memory.empty((10,), object)[9] is None
