"""Batches of a data set: shuffled, augmented, and made ahead of time by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet import settings
from numbanet.cuda import launch
from numbanet.data.augment import Augmentation, Batch, augmented
from numbanet.data.dataset import Dataset
from numbanet.problem.base import integer
from numbanet.tensor import Tensor

Made = tuple[NDArray[np.float32], NDArray[np.int64]]
Key = tuple[int, int]


@dataclass
class _Position:
    """Where an iteration is: batch `batch` of epoch `epoch` comes next. All of the epoch's chance lies in `key`."""

    epoch: int = 0
    batch: int = 0
    key: Key | None = None  # None: the epoch has not begun


class DataLoader:
    """Iterates over a data set in batches; each iteration is one epoch.

    An epoch draws two integers from `generator`, and nothing else does. They key a counter-based generator, from which
    the order of the epoch and the random numbers of each batch follow: a batch is the same whichever thread makes it.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
    shuffle : bool
        Visit the images in a new random order in each epoch. Needs `generator`.
    generator : numpy.random.Generator, optional
        The only source of chance.
    augment : an augmentation or a sequence of them
        Called as `augmentation(images, rng)` on each batch, in order: see `numbanet.data.augment`.
    drop_last : bool
        Leave out a last batch that is not full.
    workers : int
        Threads that make batches, each on one core; 0 makes each batch when it is asked for, on all.
    prefetch : int
        Batches that are made ahead of the one in use.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
        Yield Tensors on this device. To a GPU the threads bring batches ahead, through page-locked memory and while it
        computes: it does what ``pin_memory`` and ``non_blocking`` do in PyTorch.

    Yields
    ------
    images : ndarray or Tensor of float32, shape (n, C, H, W)
        Channels-last in memory. What is uint8 after augmentation is divided by 255; floats are left as they are.
    labels : ndarray or Tensor of int64, shape (n,)

    Raises
    ------
    TypeError
        If an argument is of another type.
    RuntimeError
        If the device can't be used.
    ValueError
        If a number is out of range, there is no such device, or `shuffle` has no generator. What an augmentation raises
        reaches the caller.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        generator: np.random.Generator | None = None,
        augment: Augmentation | Sequence[Augmentation] = (),
        drop_last: bool = False,
        workers: int = 1,
        prefetch: int = 2,
        device: str | int | None = None,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"dataset must be a numbanet.data.Dataset, got {type(dataset).__name__}: "
                "numbanet.data.Dataset(images, labels) makes one of arrays"
            )
        if generator is not None and not isinstance(generator, np.random.Generator):
            raise TypeError(f"generator must be a numpy.random.Generator, got {type(generator).__name__}")
        if shuffle and generator is None:
            raise ValueError("shuffle=True needs a generator, such as generator=numpy.random.default_rng(seed)")
        self.dataset = dataset
        self.batch_size = integer("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.generator = generator
        self.augment: tuple[Augmentation, ...] = (augment,) if callable(augment) else tuple(augment)
        self.drop_last = drop_last
        self.workers = integer("workers", workers, 0)
        self.prefetch = integer("prefetch", prefetch, 1)
        self.device = None if device is None else settings.resolve_device(device)
        self._staging: Any = None  # of a GPU, from the first epoch on
        self._pixels = np.ascontiguousarray(dataset.images.transpose(0, 2, 3, 1))
        self._position = _Position()
        self._resumed = False

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def epoch(self) -> int:
        """The number of the epoch that is running, or that comes next."""
        return self._position.epoch

    def __iter__(self) -> Iterator[Any]:
        if not self._resumed or self._position.key is None:
            begun = self._position.key is not None  # an epoch that was left early does not come again
            self._position = _Position(self._position.epoch + begun, 0, self._draw_key())
        self._resumed = False
        return self._iterate(self._position)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is, as plain numbers: in the loop, the batch after the one in use comes next."""
        return {
            "samples": len(self.dataset),
            "batch_size": self.batch_size,
            "epoch": self._position.epoch,
            "batch": self._position.batch,
            "key": None if self._position.key is None else list(self._position.key),
            "generator": None if self.generator is None else _plain(self.generator.bit_generator.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken: the next iteration yields the batches that were still to come, bit for bit.

        Raises
        ------
        ValueError
            If the data set, the batch size or the kind of generator is another one, or a number makes no sense.
        TypeError
            If `state` is not one of a loader.
        """
        for name, value in (("samples", len(self.dataset)), ("batch_size", self.batch_size)):
            if state[name] != value:
                raise ValueError(f"state is of a loader with {name} {state[name]}, this one has {value}")
        if (state["generator"] is None) != (self.generator is None):
            raise ValueError("state and loader must both have a generator, or both have none")
        epoch, batch = integer("epoch", state["epoch"], 0), integer("batch", state["batch"], 0)
        if batch > len(self):
            raise ValueError(f"batch must be at most {len(self)}, got {batch}")
        key = None if state["key"] is None else tuple(integer("key", number, 0, 1 << 64) for number in state["key"])
        if key is not None and len(key) != 2:
            raise ValueError(f"key must be two integers, got {key}")
        if self.generator is not None:
            self.generator.bit_generator.state = state["generator"]
        self._position = _Position(epoch, batch, key)  # type: ignore[arg-type]
        self._resumed = True

    def _draw_key(self) -> Key:
        if self.generator is None:
            return 0, 0
        first, second = self.generator.integers(2**64, size=2, dtype=np.uint64).tolist()
        return first, second

    def _iterate(self, position: _Position) -> Generator[Any, None, None]:
        assert position.key is not None
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = _counter_generator(position.key, 0).permutation(order)
        if self._staging is None and self.device not in (None, "cpu"):
            self._staging = launch.numbered(int(self.device.partition(":")[2] or 0)).staging()
        numbers = range(position.batch, len(self))
        make = self._make_here if self.workers == 0 else self._make_ahead
        with closing(make(order, position.key, numbers)) as batches:
            for batch in batches:
                position.batch += 1
                yield self._handed_out(batch)
                del batch  # its memory is free for the next one as soon as the caller has let go of it
        position.epoch, position.batch, position.key = position.epoch + 1, 0, None

    def _make_here(self, order: NDArray[np.int64], key: Key, numbers: range) -> Generator[Made, None, None]:
        return (self._make(order, key, number) for number in numbers)

    def _make_ahead(self, order: NDArray[np.int64], key: Key, numbers: range) -> Generator[Made, None, None]:
        """Yield the batches in order, while the threads make those that follow; leaving ends the threads."""
        first: Any = None
        if self.augment:
            from numbanet.cpu import parallel

            first = parallel.helper()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="numbanet-data", initializer=first)
        pending: deque[Future[Made]] = deque()
        try:
            for number in numbers:
                pending.append(pool.submit(self._make, order, key, number))
                if len(pending) > self.prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _sent(self, batch: Made) -> Any:
        """Let a batch start for its device."""
        return batch if self._staging is None else tuple([self._staging.start(part) for part in batch])

    def _handed_out(self, batch: Any) -> Any:
        if self.device is None:
            return batch
        return tuple([Tensor(part if self._staging is None else part.take()) for part in batch])

    def _make(self, order: NDArray[np.int64], key: Key, number: int) -> Any:
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        rng = None if self.generator is None else _counter_generator(key, number + 1)
        images = augmented(Batch(self._pixels.transpose(0, 3, 1, 2), chosen), self.augment, rng)
        if images.dtype == np.uint8:
            images = images / np.float32(255)
        nhwc = np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.float32)
        return self._sent((nhwc.transpose(0, 3, 1, 2), self.dataset.labels[chosen]))


def _counter_generator(key: Key, stream: int) -> np.random.Generator:
    """Stream number `stream` of the epoch `key`; its counter has 2**192 steps before the next stream begins."""
    counter = np.array([0, 0, 0, stream], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=np.array(key, np.uint64)))


def _plain(state: Any) -> Any:
    """The state of a bit generator with lists for arrays, so that it can be written as JSON."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state
