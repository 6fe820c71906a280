"""Augmentations of batches, from their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def windows(
    images: np.ndarray, size: tuple[int, int], tops: Any, lefts: Any, flips: Any, padding: int = 0, fill: str = "zero"
) -> np.ndarray:
    """Return a window of each image, at its own place in the padded image, and mirrored left to right or not."""
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images.transpose(0, 2, 3, 1), margins, mode="constant" if fill == "zero" else "reflect")
    views = sliding_window_view(padded, size, axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    cut = views[np.arange(len(images)), tops, lefts]
    cut[flips] = cut[flips][:, :, ::-1]
    return cut.transpose(0, 3, 1, 2)


def scaled(images: np.ndarray, factor: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return ``images * factor - offset``, with numbers for each channel."""
    return (np.multiply(images.transpose(0, 2, 3, 1), factor, order="C") - offset).transpose(0, 3, 1, 2)


def blanked(images: np.ndarray, side: int, tops: Any, lefts: Any) -> np.ndarray:
    """Return images with a square of zeros in each, whose corner may lie outside."""
    kept = images.transpose(0, 2, 3, 1).copy("C")
    rows, columns = (
        (np.arange(length) >= first[:, None]) & (np.arange(length) < first[:, None] + side)
        for first, length in zip((tops, lefts), images.shape[2:])
    )
    kept[rows[:, :, None] & columns[:, None, :]] = 0
    return kept.transpose(0, 3, 1, 2)
