"""The GPU's executor hands the driver what it wants: checked with a driver that interprets what it gets."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest

from numbanet import memory
from numbanet.cuda import launch
from numbanet.cuda.compile import F32, Double, Int, Kernel, Long, Real, kernel
from numbanet.cuda.gpu import Gpu
from numbanet.cuda.memory import Pool, rounded
from numbanet.cuda.ptx import cuda, types
from tests.cuda.fake import FakeDriver


@kernel(threads=32)
def mixed(count: Int, big: Long, half: Real, fine: Double, x: F32, nothing: F32, y: F32):
    """Take every kind of argument."""
    i = types.int32(cuda.threadIdx.x)
    if i < count:
        y[i] = x[i] * half + types.float32(fine) + types.float32(big >> 40)


@kernel(threads=32, shared_bytes=100 << 10)
def greedy(y: F32):
    """Ask for more shared memory than a kernel has without being asked for."""
    y[types.int32(cuda.threadIdx.x)] = types.float32(cuda.threadIdx.x)


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def gpu(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    found = Gpu(0, driver.core, driver)
    with launch.executor(found):
        yield found


def test_arguments_of_every_kind(gpu: Gpu) -> None:
    x = np.arange(32, dtype=np.float32)
    y = launch.empty((32,), "float32")
    launch.launch(mixed, (1,), (32, 3 << 40, 0.5, 0.25, launch.upload(x), None, y))
    assert np.array_equal(y.to_host(), x * np.float32(0.5) + np.float32(3.25))


def test_numbers_beyond_float32_are_infinite(gpu: Gpu) -> None:
    """As a slope, a limit or a learning rate may be."""
    x, y = launch.upload(np.float32([1, -2, 0])), launch.empty((32,), "float32")
    for half, sign in ((1e300, 1), (np.array(-1e300), -1), (3.4028235e38, 0)):
        launch.launch(mixed, (1,), (3, 0, half, 0.25, x, None, y))
        found = y.to_host()[:3].tolist()
        assert np.isnan(found[2]) == bool(sign) and (not sign or found[:2] == [sign * np.inf, -sign * np.inf])
    assert found[0] == pytest.approx(3.4028235e38, rel=1e-6)


def test_numbers_of_the_host_are_copied_once(gpu: Gpu, driver: FakeDriver) -> None:
    y = launch.empty((32,), "float32")
    for _ in range(3):
        launch.launch(mixed, (1,), (4, 0, 1.0, 0.0, np.float32([1, 2, 3, 4]), None, y))
    assert y.to_host()[:4].tolist() == [1, 2, 3, 4]
    assert len([call for call in driver.calls if call.startswith("allocate")]) == 2


def test_constants_live_as_long_as_their_table(gpu: Gpu) -> None:
    table = np.arange(5)
    first = launch.constant(table)
    assert launch.constant(table) is first and not first.flags.writeable
    before = gpu.pool.in_use
    del table, first
    launch.empty((1,), "int8")  # collects
    assert gpu.pool.in_use <= before


def test_constants_that_come_and_go_take_no_more_memory(gpu: Gpu, driver: FakeDriver) -> None:
    """As numbers by which a loss is scaled do; and arrays take none of their blocks."""
    kept = launch.empty((1,), "int8")
    address = kept.pointer
    del kept
    for number in range(20):
        found = launch.constant(np.array([number]))
        assert found.pointer != address and found.to_host().tolist() == [number]
        del found
        assert launch.empty((1,), "int8").pointer == address
    assert len(driver.blocks) <= 4


def test_much_shared_memory_is_asked_for(gpu: Gpu, driver: FakeDriver) -> None:
    y = launch.empty((32,), "float32")
    launch.launch(greedy, (1,), (y,))
    assert driver.attributes == {greedy.entry: 100 << 10}
    assert np.array_equal(y.to_host(), np.arange(32))


def test_an_error_of_a_launch_names_the_kernel(gpu: Gpu, driver: FakeDriver) -> None:
    y = launch.empty((32,), "float32")
    launch.launch(greedy, (1,), (y,))
    driver.attributes.clear()
    with pytest.raises(RuntimeError, match=r"launch of test_gpu.greedy over \(1, 1, 1\) blocks: CUDA: .*INVALID_VALUE"):
        launch.launch(greedy, (1,), (y,))


def test_copies_keep_the_order_of_axes(gpu: Gpu, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4)).transpose(2, 0, 1)
    there = launch.upload(x)
    assert there.strides == x.strides and np.array_equal(there.to_host(), x) and there.to_host().strides == x.strides
    assert np.array_equal(there[::2, :, 1:].to_host(), x[::2, :, 1:])


def test_memory_is_used_again(gpu: Gpu, driver: FakeDriver) -> None:
    pointers = set()
    for _ in range(5):
        pointers.add(launch.empty((1000,), "float32").pointer)
    assert len(pointers) == 1
    assert rounded(1) == 512 and rounded(513) == 1024 and rounded((1 << 20) + 1) == (1 << 20) + (1 << 17)
    kept = launch.empty((1000,), "float32")
    other = launch.empty((1000,), "float32")
    assert kept.pointer != other.pointer
    view = other[10:]
    pointer = other.pointer
    del other
    assert launch.empty((1000,), "float32").pointer != pointer  # a view keeps the block
    del view
    gpu.pool.release()
    assert "free" in driver.calls and "trim" in driver.calls


def test_out_of_memory_frees_the_pool_first_and_names_sizes() -> None:
    driver = FakeDriver(total=10 << 20)
    gpu = Gpu(0, driver.core, driver)
    with launch.executor(gpu):
        held = launch.empty((3 << 20,), "uint8")
        launch.empty((5 << 20,), "uint8")
        whole = launch.empty((6 << 20,), "uint8")  # only where the five are given back
        del whole
        with pytest.raises(MemoryError, match=r"no 8.0 MiB left: numbanet's arrays have 3.0 MiB of its 10.0 MiB"):
            launch.empty((8 << 20,), "uint8")
        assert launch.empty((6 << 20,), "uint8").size == 6 << 20 and held.size


def in_a_cycle(array: object) -> None:
    """Let a cycle of references have an array, and nobody else."""
    held = [array]
    held.append(held)


def test_blocks_in_cycles_go_back_once(gpu: Gpu) -> None:
    """The collector finalises all that a cycle alone refers to: a block of an arena, and that of the pool below it."""
    with memory.arena() as arena:
        in_a_cycle(launch.empty((32,), "float32"))
        gc.collect()
        assert arena.used == 0
        first = launch.empty((32,), "float32")
    others = [launch.empty((128,), "float32") for _ in range(3)]
    assert first.pointer not in [other.pointer for other in others]
    in_a_cycle(others.pop())
    gc.collect()
    again = [launch.empty((128,), "float32") for _ in range(3)]
    for number, array in enumerate((*others, *again)):
        array[...] = number
    assert [array.to_host()[0] for array in (*others, *again)] == [0, 1, 2, 3, 4]


def test_memory_in_cycles_is_collected_before_there_is_none_left() -> None:
    driver = FakeDriver(total=10 << 20)
    gpu = Gpu(0, driver.core, driver)
    gc.disable()
    try:
        with launch.executor(gpu):
            in_a_cycle(launch.empty((6 << 20,), "uint8"))
            assert launch.empty((8 << 20,), "uint8").size == 8 << 20
    finally:
        gc.enable()


def test_other_threads_enter_the_context(gpu: Gpu, driver: FakeDriver) -> None:
    import threading

    x = launch.upload(np.ones(3, np.float32))
    for count, task in enumerate((lambda: gpu.empty((3,), "float32"), lambda: gpu.download(x)), 2):
        thread = threading.Thread(target=task)
        thread.start()
        thread.join()
        assert driver.calls.count("current 0") == count


def test_a_forked_process_is_told(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked .*spawn"):
        launch.empty((3,), "float32")


def test_a_pool_counts() -> None:
    class Source:
        def allocate(self, size: int) -> tuple[int, object]:
            return 4096, object()

    pool = Pool(Source())  # type: ignore[arg-type]
    block = pool.take(100)
    assert (pool.in_use, pool.idle, pool.peak) == (512, 0, 512)
    del block
    pool._collect()
    assert (pool.in_use, pool.idle, pool.peak) == (0, 512, 512)


def test_a_recording_becomes_a_graph(gpu: Gpu, driver: FakeDriver) -> None:
    x, y = launch.upload(np.zeros(32, np.float32)), launch.empty((32,), "float32")
    launches: list[launch.Launch] = []
    with memory.arena() as arena, launch.recording(launches):
        for factor in (1.0, 2.0):
            between = launch.empty((32,), "float32")
            launch.launch(mixed, (1,), (32, 0, 2.0, factor, x, None, between))
            launch.launch(mixed, (1,), (4, 0, 1.0, 0.0, np.float32([1, 2, 3, 4]), None, between))
            launch.launch(mixed, (1,), (32, 0, 1.0, 0.0, between, None, y))
            del between
        assert arena.used == 0 and len(arena.on_device) == 1  # the second takes the block of the first
    recording = launch.Recording(launches)
    for value in (3, 5):
        x[...] = value
        before = len(driver.calls)
        recording.run()
        calls = driver.calls[before:]
        assert calls.count("graph") == 1 and calls.count(mixed.entry) == 6
        assert y.to_host().tolist() == [1, 2, 3, 4, *[2 * value + 2] * 28]


def test_a_graph_holds_nothing_of_other_threads(gpu: Gpu, driver: FakeDriver) -> None:
    x, y, other = (launch.upload(np.full(32, v, np.float32)) for v in (1, 0, 0))

    def meanwhile() -> None:
        launch.launch(mixed, (1,), (32, 0, 3.0, 0.0, x, None, other))

    recording = launch.Recording([(mixed, (1, 1, 1), (32, 0, 2.0, 0.0, x, None, y), "float32")])
    driver.meanwhile = meanwhile
    recording.run()
    assert other.to_host().tolist() == [3] * 32 and y.to_host().tolist() == [2] * 32
    other[...] = 0
    recording.run()
    assert other.to_host().tolist() == [0] * 32
