"""Augmentations: small callables that take a batch and random numbers, and return a batch.

Each is called as `augmentation(images, rng)` with `images` of shape (N, C, H, W), uint8 or float, in any memory order,
which it must not change, and `rng` the batch's own `numpy.random.Generator` (None if the loader was given none). A
`DataLoader` applies them in order; any function of that form will do. They work on whole batches, in NHWC memory.

Batches on a GPU stay there: the arrays of tensors that were moved come out as they would on the CPU.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from numbanet.device_array import DeviceArray
from numbanet.problem.base import choice, integer, pair
from numbanet.problem.pointwise import number

Augmentation = Callable[[NDArray, "np.random.Generator | None"], NDArray]
Fill = Literal["zero", "reflect"]
FILLS = ("zero", "reflect")


def _to_nhwc(images: NDArray) -> NDArray:
    return images.transpose(0, 2, 3, 1)


def _to_nchw(images: NDArray) -> NDArray:
    return images.transpose(0, 3, 1, 2)


def _drawing(rng: np.random.Generator | None, augmentation: object) -> np.random.Generator:
    if rng is None:
        raise ValueError(f"{augmentation} draws random numbers: give the DataLoader a generator")
    return rng


def _random_crop(images: NDArray, size: tuple[int, int], padding: int, fill: Fill, rng: np.random.Generator) -> NDArray:
    if type(images) is DeviceArray:
        from numbanet.cuda import augment

        count, (rows, columns) = len(images), (n + 2 * padding - s + 1 for n, s in zip(images.shape[2:], size))
        top, left = rng.integers(rows, size=count), rng.integers(columns, size=count)
        return augment.windows(images, size, top, left, np.zeros(count), padding, fill)  # type: ignore[return-value]
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    pixel = images.itemsize * math.prod(max(1, n) for n in images.shape[:2])  # NumPy refuses such sizes of nothing, too
    if math.prod(max(1, n + 2 * padding) for n in images.shape[2:]) > sys.maxsize // pixel:
        raise MemoryError(f"images with {padding} pixels on each side have no place in memory")
    padded = np.pad(_to_nhwc(images), margins, mode="constant" if fill == "zero" else "reflect")
    windows = sliding_window_view(padded, size, axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    count, rows, columns = windows.shape[:3]
    top, left = rng.integers(rows, size=count), rng.integers(columns, size=count)
    return _to_nchw(windows[np.arange(count), top, left])


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirrors each image left to right with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= number("p", self.p) <= 1:
            raise ValueError(f"p must lie in [0, 1], got {self.p}")

    def __call__(self, images: NDArray, rng: np.random.Generator | None) -> NDArray:
        chosen = _drawing(rng, self).random(len(images)) < self.p
        if type(images) is DeviceArray:
            from numbanet.cuda import augment

            nothing = np.zeros(len(images))
            return augment.windows(images, images.shape[2:], nothing, nothing, chosen)  # type: ignore[return-value]
        flipped = _to_nhwc(images).copy()
        flipped[chosen] = flipped[chosen][:, :, ::-1]
        return _to_nchw(flipped)


@dataclass(frozen=True)
class RandomShift:
    """Moves each image by up to `pixels` in each direction; `fill` says what comes in: "zero" or "reflect"."""

    pixels: int
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        integer("pixels", self.pixels, 0)
        choice("fill", self.fill, FILLS)

    def __call__(self, images: NDArray, rng: np.random.Generator | None) -> NDArray:
        return _random_crop(images, images.shape[2:], self.pixels, self.fill, _drawing(rng, self))


@dataclass(frozen=True)
class RandomCrop:
    """Pads each image by `padding` on all sides, and cuts `size` (an int or a pair of height and width) out of it."""

    size: int | tuple[int, int]
    padding: int = 0
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        pair("size", self.size, 1)
        integer("padding", self.padding, 0)
        choice("fill", self.fill, FILLS)

    def __call__(self, images: NDArray, rng: np.random.Generator | None) -> NDArray:
        size = pair("size", self.size)
        if any(s > n + 2 * self.padding for s, n in zip(size, images.shape[2:])):
            raise ValueError(f"size {size} does not fit into images of {images.shape[2:]} padded by {self.padding}")
        return _random_crop(images, size, self.padding, self.fill, _drawing(rng, self))


@dataclass(frozen=True)
class Normalize:
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

    def __call__(self, images: NDArray, rng: np.random.Generator | None) -> NDArray:
        if images.shape[1] != len(self.mean):
            raise ValueError(f"mean and std are for {len(self.mean)} channels, the images have {images.shape[1]}")
        scale = 255 if images.dtype == np.uint8 else 1
        factor = np.float32(1 / (scale * np.asarray(self.std, np.float64)))
        offset = np.float32(np.asarray(self.mean, np.float64) / self.std)
        if type(images) is DeviceArray:
            from numbanet.cuda import augment

            return augment.scaled(images, factor, offset)  # type: ignore[return-value]
        return _to_nchw(np.multiply(_to_nhwc(images), factor, order="C") - offset)


@dataclass(frozen=True)
class Cutout:
    """Blanks one square of `size` pixels in each image, centred anywhere in it (DeVries and Taylor, 2017).

    The square is cut off at the border and filled with zeros: after `Normalize`, that is the mean colour.
    """

    size: int

    def __post_init__(self) -> None:
        integer("size", self.size, 1)

    def __call__(self, images: NDArray, rng: np.random.Generator | None) -> NDArray:
        rng = _drawing(rng, self)
        if 0 in images.shape[2:]:  # there is nowhere to centre it
            return images.copy()
        tops, lefts = (rng.integers(length, size=(len(images), 1)) - self.size // 2 for length in images.shape[2:])
        if type(images) is DeviceArray:
            from numbanet.cuda import augment

            return augment.blanked(images, self.size, tops, lefts)  # type: ignore[return-value]
        rows, columns = (self._span(first, length) for first, length in zip((tops, lefts), images.shape[2:]))
        blanked = _to_nhwc(images).copy()
        blanked[rows[:, :, None] & columns[:, None, :]] = 0
        return _to_nchw(blanked)

    def _span(self, first: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
        position = np.arange(length)
        return (position >= first) & (position < first + self.size)
