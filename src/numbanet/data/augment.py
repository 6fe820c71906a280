"""Augmentations: small callables that take a batch and random numbers, and return a batch.

Each is called as `augmentation(images, rng)` with `images` of shape (N, C, H, W), uint8 or float, in any memory order,
which it must not change, and `rng` the batch's own `numpy.random.Generator` (None if the loader was given none). A
`DataLoader` applies them in order; any function of that form will do. Those here work on whole batches, in NHWC memory.
They draw their random numbers one after the other, and what several in a row do to the pixels is done in one pass.

Batches on a GPU stay there: the arrays of tensors that were moved come out as they would on the CPU.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from numbanet.device_array import DeviceArray
from numbanet.problem.augment import FILLS, Changes, Fill
from numbanet.problem.base import choice, integer, pair
from numbanet.problem.pointwise import number
from numbanet.reference import augment as reference

Augmentation = Callable[[NDArray, "np.random.Generator | None"], NDArray]


class Batch:
    """Images, and the changes that they still await; before a change that can't join those, they are made.

    Parameters
    ----------
    images : ndarray, shape (M, C, H, W)
    chosen : ndarray of int64, shape (N,), optional
        Which of the images are the batch; all of them if it is not given.
    """

    def __init__(self, images: NDArray, chosen: NDArray[np.int64] | None = None) -> None:
        count = len(images) if chosen is None else len(chosen)
        self._images, self._chosen = images, chosen
        self.dtype, self.shape = images.dtype, (count, *images.shape[1:])
        self._changes: Changes | None = None
        self._kinds: set[str] = set()

    def _next(self, kind: str, *earlier: str) -> Changes:
        """Return the changes to which one is to be added that none but the `earlier` kinds may precede."""
        if not self._kinds <= {*earlier}:
            Batch.__init__(self, self.made())
        if self._changes is None:
            self._changes = Changes(self.shape)
        self._kinds.add(kind)
        return self._changes

    def crop(self, size: tuple[int, int], tops: NDArray, lefts: NDArray, padding: int, fill: Fill) -> None:
        """Cut a window out of each padded image; of one that is mirrored already, the mirrored window."""
        changes = self._next("crop", "flip")
        changes.moved, changes.size, changes.padding, changes.fill = True, size, padding, fill
        beyond = self.shape[3] + 2 * padding - size[1]
        changes.tops, changes.lefts = tops, np.where(changes.flips, beyond - lefts, lefts)
        self.shape = (*self.shape[:2], *size)

    def flip(self, chosen: NDArray[np.bool_]) -> None:
        """Mirror the chosen images left to right."""
        changes = self._next("flip", "flip", "crop", "scale")
        changes.moved, changes.flips = True, changes.flips ^ chosen

    def scale(self, factor: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
        """Multiply by numbers of the channels, and subtract others."""
        self._next("scale", "flip", "crop").scale = factor, offset
        self.dtype = np.result_type(self.dtype, np.float32)

    def blank(self, side: int, tops: NDArray, lefts: NDArray) -> None:
        """Write zeros in a square of each image."""
        self._next("blank", "flip", "crop", "scale").square = side, tops, lefts

    def made(self) -> NDArray:
        """Return the images after all changes."""
        images, changes = self._images, self._changes
        if type(images) is DeviceArray and changes is not None:
            from numbanet.cuda import augment as on_gpu

            return changes.one_by_one(on_gpu, images)
        if changes is not None:
            from numbanet.cpu import augment

            if augment.supports(images, changes):
                return augment.changed(images, changes, self._chosen)
        if self._chosen is not None:
            images = images.transpose(0, 2, 3, 1)[self._chosen].transpose(0, 3, 1, 2)
        return images if changes is None else changes.one_by_one(reference, images)


class _Step:
    """An augmentation that says what it will do: its ``note(batch, rng)`` draws numbers and tells the batch."""

    def note(self, batch: Batch, rng: np.random.Generator | None) -> None:
        raise NotImplementedError

    def __call__(self, images: NDArray, rng: np.random.Generator | None) -> NDArray:
        batch = Batch(images)
        self.note(batch, rng)
        return batch.made()


def augmented(batch: Batch, augmentations: Sequence[Augmentation], rng: np.random.Generator | None) -> NDArray:
    """Return a batch after augmentations, in their order.

    Raises
    ------
    ValueError
        If one gives something else than a batch of as many images.
    """
    for augmentation in augmentations:
        if isinstance(augmentation, _Step) and type(augmentation).__call__ is _Step.__call__:
            augmentation.note(batch, rng)
            continue
        images, count = augmentation(batch.made(), rng), batch.shape[0]
        if images.ndim != 4 or len(images) != count:
            raise ValueError(f"{augmentation} gave shape {images.shape}, expected ({count}, C, H, W)")
        batch = Batch(images)
    return batch.made()


def _drawing(rng: np.random.Generator | None, augmentation: object) -> np.random.Generator:
    if rng is None:
        raise ValueError(f"{augmentation} draws random numbers: give the DataLoader a generator")
    return rng


def _random_crop(batch: Batch, size: tuple[int, int], padding: int, fill: Fill, rng: np.random.Generator) -> None:
    count, _, *sides = batch.shape
    pixel = batch.dtype.itemsize * math.prod(max(1, n) for n in batch.shape[:2])  # NumPy refuses sizes of nothing, too
    if math.prod(max(1, n + 2 * padding) for n in sides) > sys.maxsize // pixel:
        raise MemoryError(f"images with {padding} pixels on each side have no place in memory")
    rows, columns = (n + 2 * padding - s + 1 for n, s in zip(sides, size))
    top, left = rng.integers(rows, size=count), rng.integers(columns, size=count)
    batch.crop(size, top, left, padding, fill)


@dataclass(frozen=True)
class RandomHorizontalFlip(_Step):
    """Mirrors each image left to right with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= number("p", self.p) <= 1:
            raise ValueError(f"p must lie in [0, 1], got {self.p}")

    def note(self, batch: Batch, rng: np.random.Generator | None) -> None:
        batch.flip(_drawing(rng, self).random(batch.shape[0]) < self.p)


@dataclass(frozen=True)
class RandomShift(_Step):
    """Moves each image by up to `pixels` in each direction; `fill` says what comes in: "zero" or "reflect"."""

    pixels: int
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        integer("pixels", self.pixels, 0)
        choice("fill", self.fill, FILLS)

    def note(self, batch: Batch, rng: np.random.Generator | None) -> None:
        _random_crop(batch, batch.shape[2:], self.pixels, self.fill, _drawing(rng, self))


@dataclass(frozen=True)
class RandomCrop(_Step):
    """Pads each image by `padding` on all sides, and cuts `size` (an int or a pair of height and width) out of it."""

    size: int | tuple[int, int]
    padding: int = 0
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        pair("size", self.size, 1)
        integer("padding", self.padding, 0)
        choice("fill", self.fill, FILLS)

    def note(self, batch: Batch, rng: np.random.Generator | None) -> None:
        size = pair("size", self.size)
        if any(s > n + 2 * self.padding for s, n in zip(size, batch.shape[2:])):
            raise ValueError(f"size {size} does not fit into images of {batch.shape[2:]} padded by {self.padding}")
        _random_crop(batch, size, self.padding, self.fill, _drawing(rng, self))


@dataclass(frozen=True)
class Normalize(_Step):
    """Subtracts `mean` and divides by `std`, one number for each channel; gives float32.

    uint8 pixels are divided by 255 first. `channel_statistics` computes both arguments from a data set.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if not isinstance(getattr(self, name), (tuple, list, np.ndarray)):
                raise TypeError(f"{name} must be a sequence of numbers, got {getattr(self, name)!r}")
            for value in getattr(self, name):
                number(name, value)
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must be as many, got {len(self.mean)} and {len(self.std)}")
        if not all(s > 0 for s in self.std):
            raise ValueError(f"std must be positive, got {tuple(self.std)}")

    def note(self, batch: Batch, rng: np.random.Generator | None) -> None:
        if batch.shape[1] != len(self.mean):
            raise ValueError(f"mean and std are for {len(self.mean)} channels, the images have {batch.shape[1]}")
        scale = 255 if batch.dtype == np.uint8 else 1
        factor = (1 / (scale * np.asarray(self.std, np.float64))).astype(np.float32)
        offset = (np.asarray(self.mean, np.float64) / self.std).astype(np.float32)
        batch.scale(factor, offset)


@dataclass(frozen=True)
class Cutout(_Step):
    """Blanks one square of `size` pixels in each image, centred anywhere in it (DeVries and Taylor, 2017).

    The square is cut off at the border and filled with zeros: after `Normalize`, that is the mean colour.
    """

    size: int

    def __post_init__(self) -> None:
        integer("size", self.size, 1)

    def note(self, batch: Batch, rng: np.random.Generator | None) -> None:
        rng = _drawing(rng, self)
        if 0 in batch.shape[2:]:  # there is nowhere to centre it
            return
        tops, lefts = (rng.integers(length, size=batch.shape[0]) - self.size // 2 for length in batch.shape[2:])
        batch.blank(self.size, tops, lefts)
