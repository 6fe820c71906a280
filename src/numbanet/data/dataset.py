"""A labelled set of images in memory, and what is computed once over all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PIXEL_DTYPES = (np.uint8, np.float32)
_NHW = (0, 2, 3)
_MAX_CLASSES = 1 << 20  # that get a name unasked


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, their labels, and the names of the classes.

    Attributes
    ----------
    images : ndarray of uint8 or float32, shape (N, C, H, W)
        Read-only. Bytes stand for 0..1 and are divided by 255 where they are used; floats are taken as they are.
        Memory may be in any order; the readers of this package give channels-last. A Tensor is taken too.
    labels : ndarray of int64, shape (N,)
        Read-only; an index into `classes` for each image. A Tensor is taken too.
    classes : tuple of str
        Their names; ``"0"``, ``"1"``, ... up to the largest label if none is given.

    Raises
    ------
    TypeError
        If `images` is neither uint8 nor float32, or `labels` are not integers.
    ValueError
        If the shapes do not fit each other, or a label has no class.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        try:
            classes = tuple(self.classes)
        except TypeError:
            raise TypeError(f"classes must be a sequence of names, got {self.classes!r}") from None
        if images.dtype not in PIXEL_DTYPES:
            remedy = ": convert them, with np.asarray(images, np.float32)" if images.dtype.kind in "biuf" else ""
            raise TypeError(f"images must be uint8 or float32, got {images.dtype}{remedy}")
        if images.ndim != 4:
            grey = ": images[:, None] of grey ones" if images.ndim == 3 else ""
            raise ValueError(f"images must have shape (N, C, H, W), got {images.shape}{grey}")
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"labels must be integers, got {labels.dtype}")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels must have shape {images.shape[:1]}, one for each image, got {labels.shape}")
        if labels.size and labels.min() < 0:
            raise ValueError(f"labels must not be negative, got {labels.min()}")
        if not classes and labels.size:
            count = int(labels.max()) + 1
            if count > _MAX_CLASSES:
                raise ValueError(f"labels must lie below {_MAX_CLASSES} where no classes are named, got {count - 1}")
            classes = tuple(map(str, range(count)))
        object.__setattr__(self, "classes", classes)
        if labels.size and labels.max() >= len(self.classes):
            raise ValueError(
                f"labels must lie in 0..{len(self.classes) - 1}, one of {len(self.classes)} classes, "
                f"got {labels.min()}..{labels.max()}"
            )
        object.__setattr__(self, "images", _read_only(images))
        object.__setattr__(self, "labels", _read_only(labels.astype(np.int64, copy=False)))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: NDArray[np.integer] | slice) -> Dataset:
        """The images that `indices` (an index or boolean array, or a slice) picks, with the same classes."""
        return Dataset(self.images[indices], self.labels[indices], self.classes)


def _read_only(array: NDArray) -> NDArray:
    view = array.view()
    view.flags.writeable = False
    return view


def channel_statistics(images: Dataset | NDArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, bytes scaled to [0, 1]: the arguments of `Normalize`.

    Parameters
    ----------
    images : Dataset or ndarray of uint8 or float32, shape (N, C, H, W)

    Returns
    -------
    mean, std : tuple of float, one for each channel
        Of bytes, computed exactly from a histogram of the 256 values. The deviation is that of the population.

    Raises
    ------
    TypeError
        If `images` is neither uint8 nor float32.
    ValueError
        If there is no pixel, or `images` has not four dimensions.
    """
    pixels = images.images if isinstance(images, Dataset) else np.asarray(images)
    if pixels.dtype not in PIXEL_DTYPES:
        raise TypeError(f"images must be uint8 or float32, got {pixels.dtype}")
    if pixels.ndim != 4 or pixels.size == 0:
        raise ValueError(f"images must have shape (N, C, H, W) with at least one pixel, got {pixels.shape}")
    total = pixels.size // pixels.shape[1]
    if pixels.dtype == np.float32:
        mean = sum(block.sum(_NHW, np.float64) for block in _blocks(pixels)) / total
        centre = mean[:, None, None]
        variance = sum(np.square(block - centre).sum(_NHW) for block in _blocks(pixels)) / total
    else:
        counts = np.zeros((pixels.shape[1], 256), np.int64)
        for block in _blocks(pixels):
            for channel, count in enumerate(counts):
                count += np.bincount(block[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = (counts * values).sum(1) / total
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / total
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


def _blocks(pixels: NDArray) -> Iterator[NDArray]:
    """Yield the images by the thousand: statistics widen them to 8 bytes a pixel."""
    return (pixels[start : start + 1024] for start in range(0, len(pixels), 1024))
