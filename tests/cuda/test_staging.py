"""Batches reach the GPU while it computes: none is read before it has landed, no buffer is overwritten in use."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

import numbanet as nnet
from numbanet.cuda import launch
from numbanet.cuda.compile import Kernel
from numbanet.cuda.gpu import Gpu
from numbanet.cuda.staging import Coming, Event, Staging
from numbanet.data import DataLoader, Dataset
from tests.cuda.fake import FakeDriver
from tests.cuda.ptx.executor import HostDevice

COUNT = 11
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 4, 5), np.uint8)
DATASET = Dataset(PIXELS, np.arange(COUNT), tuple(map(str, range(COUNT))))


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def gpu(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    found = Gpu(0, driver.core, driver)
    with launch.executor(found):
        yield found


def loader(seed: int = 0, **changes: object) -> DataLoader:
    options = {"batch_size": 4, "shuffle": True, "generator": np.random.default_rng(seed), "device": "cuda"}
    return DataLoader(DATASET, **(options | changes))  # type: ignore[arg-type]


def expected(epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    plain = loader(device=None)
    return [batch for _ in range(epochs) for batch in plain]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_those_of_the_host(gpu: Gpu, workers: int) -> None:
    batches, wanted = loader(workers=workers), expected(2)
    found = []
    for _ in range(2):
        for images, labels in batches:
            assert images.device == labels.device == "cuda" and images.dtype == np.float32
            assert images.data.transpose(0, 2, 3, 1).flags.c_contiguous
            found.append(((images * 2.0).sum((1, 2, 3)), labels + 0))  # nobody waits for the results yet
    for (total, labels), (images, numbers) in zip(found, wanted, strict=True):
        assert labels.tolist() == numbers.tolist()
        assert total.tolist() == pytest.approx((2 * images).sum((1, 2, 3), dtype=np.float64), rel=1e-5)


def test_a_loop_uses_few_buffers(gpu: Gpu, driver: FakeDriver) -> None:
    batches = loader(prefetch=1, drop_last=True)
    for _ in range(6):
        for images, labels in batches:
            (images.sum() + labels.sum()).item()
    assert sum(call.startswith("lock") for call in driver.calls) <= 4, "two of images, two of labels"
    assert len(driver.blocks) < 16


def broken(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Leave out one of the three things that put copies and computing in order."""
    if what == "take":
        monkeypatch.setattr(Coming, "take", lambda self: self._array)
    elif what == "host":
        monkeypatch.setattr(Event, "wait", lambda self: None)
    elif what == "device":
        hold = Event.hold
        copying = range(78, 100)  # the computing stream is the first
        monkeypatch.setattr(Event, "hold", lambda self, stream: None if stream in copying else hold(self, stream))


@pytest.mark.parametrize(
    ("what", "first"),
    [("", "copying"), ("", "computing"), ("take", "computing"), ("host", "copying"), ("device", "copying")],
)
def test_what_puts_copies_in_order_is_needed(gpu: Gpu, what: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, what)
    staging, found = Staging(gpu), []
    for value in range(6):
        values = np.full((4, 64), value, np.float32)
        coming = staging.start(values)
        values[:] = -1
        found.append(coming.take().copy())
        del coming
    # One stream goes as far as nothing holds it back, before the other begins.
    gpu.driver.streams[staging._stream.handle if first == "copying" else gpu.stream_handle()].sync()
    seen = [array.to_host()[0, 0] for array in found]
    assert (seen == list(range(6))) == (not what)


def test_leaving_early_and_coming_back(gpu: Gpu) -> None:
    batches, plain = loader(workers=2), loader(device=None)
    for one in (batches, plain):
        for images, labels in one:
            del images, labels
            break
    found = [(images.cpu().numpy(), labels.cpu().numpy()) for images, labels in batches]
    for (images, labels), (ours, numbers) in zip(plain, found, strict=True):
        assert np.array_equal(images, ours) and np.array_equal(labels, numbers)


def test_what_an_augmentation_raises_reaches_the_loop(gpu: Gpu) -> None:
    calls = []

    def augment(images: np.ndarray, rng: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("second batch")
        return images

    batches = loader(augment=augment)
    with pytest.raises(ZeroDivisionError, match="second batch"):
        list(batches)
    assert len(list(batches)) == 3


def test_batches_outlive_their_loader(gpu: Gpu, driver: FakeDriver) -> None:
    kept = [images for images, _ in loader(shuffle=False, generator=None)]
    wanted = DATASET.images / np.float32(255)
    assert np.array_equal(np.concatenate([images.cpu().numpy() for images in kept]), wanted)
    del kept
    gpu.sync()
    assert not driver.locked, "page-locked memory goes back"


def test_arrays_of_many_sizes_use_few_buffers(gpu: Gpu, driver: FakeDriver) -> None:
    """As batches of images do whose size is drawn anew each time; what is let go of has been copied."""
    staging, found = Staging(gpu), []
    sizes = [int(size) for size in np.random.default_rng(0).integers(1, 60, 60) ** 2 * 16]
    for size in sizes:
        found.append(staging.start(np.full(size, size, np.float32)).take())
        assert len(driver.locked) <= 8 + sum(not idle.copied.reached() for idle in staging._idle)
        if len(found) % 7 == 0:
            gpu.sync()
    del staging
    assert all((array.to_host() == size).all() for array, size in zip(found, sizes, strict=True))
    assert not driver.locked


def test_memory_goes_back_to_the_pool(gpu: Gpu, driver: FakeDriver) -> None:
    staging = Staging(gpu)
    for size in range(1, 20):
        staging.start(np.zeros(size << 10, np.float32)).take()
    gpu.release()
    gpu.sync()
    assert gpu.pool.in_use == 0 and not driver.blocks


def test_finalisers_leave_the_driver_alone(driver: FakeDriver) -> None:
    """They run in the middle of anything: here of what this thread does on another GPU."""
    first, second = (Gpu(ordinal, driver.core, driver) for ordinal in range(2))
    staging = Staging(first)
    kept = [staging.start(np.full(64, value, np.float32)) for value in range(3)]
    kept[0].take()
    second.entered()
    driver.calls.clear()
    del kept, staging
    assert driver.calls == [] and driver.current == 1 and driver.locked
    first.sync()
    assert not driver.locked and driver.current == 0


def test_memory_whose_array_nobody_took_is_handed_on_after_the_copy(gpu: Gpu) -> None:
    staging = Staging(gpu)
    coming = staging.start(np.full(64, 1, np.float32))
    address = coming._array.pointer
    del coming
    gpu.empty((64,), "float32")  # whoever comes next finds what is to be done, and leaves the memory to the pool
    array = launch.upload(np.full(64, 2, np.float32))
    assert array.pointer == address
    gpu.stream.sync()
    gpu.driver.streams[staging._stream.handle].sync()
    assert array.to_host().tolist() == [2] * 64


def test_a_failure_loses_no_buffer(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    staging, values = Staging(gpu), np.ones(64, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(driver, "cuMemHostAlloc", lambda size, flags: (2, 0))
        with pytest.raises(RuntimeError, match="CUDA"):
            staging.start(values)
    for _ in range(5):
        staging.start(values).take()
    with monkeypatch.context() as patch:
        patch.setattr(driver, "cuMemcpyHtoDAsync", lambda *arguments: (1,))
        with pytest.raises(RuntimeError, match="CUDA"):
            staging.start(values)
    for _ in range(5):
        assert staging.start(values).take().to_host().tolist() == [1] * 64
    assert len(driver.locked) == 2 and sum(call.startswith("lock") for call in driver.calls) == 3


def test_devices_without_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = expected(1)
    with launch.executor(HostDevice()):
        for (images, labels), (ours, numbers) in zip(loader(), wanted, strict=True):
            assert images.device == "cuda" and np.array_equal(images.cpu().numpy(), ours)
            assert labels.tolist() == numbers.tolist()
    for (images, _), (ours, _) in zip(loader(device="cpu"), wanted, strict=True):
        assert isinstance(images, nnet.Tensor) and images.device == "cpu" and np.array_equal(images.numpy(), ours)
    with pytest.raises(ValueError, match="device must be one of"):
        loader(device="disk")


def test_page_locked_arrays_are_read_before_upload_returns(gpu: Gpu, driver: FakeDriver) -> None:
    _, address = driver.cuMemHostAlloc(64, 0)
    values = np.frombuffer((ctypes.c_uint8 * 64).from_address(address), np.float32)
    values[:] = 1
    uploaded, tensor = launch.upload(values), nnet.tensor(values[::2], device="cuda")
    values[:] = 2
    assert uploaded.to_host().tolist() == [1] * 16 and tensor.tolist() == [1] * 8
