"""What happens to the images of a batch in one pass: random numbers were drawn, and nothing was computed yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Fill = Literal["zero", "reflect"]
FILLS = ("zero", "reflect")


@dataclass
class Changes:
    """A window of each image, mirrored or not; then a number for each channel scales it; then a square is blanked.

    Attributes
    ----------
    shape : (int, int, int, int)
        Of the images, (N, C, H, W).
    size : (int, int)
        Height and width of the windows.
    tops, lefts : ndarray of int64, shape (N,)
        Where the windows begin in the padded images.
    flips : ndarray of bool, shape (N,)
        Which windows are mirrored left to right.
    padding : int
        Pixels on all sides of the images.
    fill : {"zero", "reflect"}
        What the padding shows.
    moved : bool
        Whether there is a window at all; without, the five before are those of whole images.
    scale : (ndarray, ndarray) of float32, shape (C,), or None
        The pixels become ``pixels * factor - offset``.
    square : (int, ndarray, ndarray) or None
        Side of the squares, and for each image where its first row and first column lie in the window, or outside.
    """

    shape: tuple[int, ...]
    size: tuple[int, int] = field(init=False)
    tops: Any = field(init=False)
    lefts: Any = field(init=False)
    flips: Any = field(init=False)
    padding: int = 0
    fill: Fill = "zero"
    moved: bool = False
    scale: tuple[np.ndarray, np.ndarray] | None = None
    square: tuple[int, Any, Any] | None = None

    def __post_init__(self) -> None:
        self.size = (self.shape[2], self.shape[3])
        self.tops = self.lefts = np.zeros(self.shape[0], np.int64)
        self.flips = np.zeros(self.shape[0], np.bool_)

    def one_by_one(self, engine: Any, images: Any) -> Any:
        """Return the images after these changes, by ``windows``, ``scaled`` and ``blanked`` of a module."""
        if self.moved:
            places = self.tops, self.lefts, self.flips
            images = engine.windows(images, self.size, *places, self.padding, self.fill)
        if self.scale is not None:
            images = engine.scaled(images, *self.scale)
        if self.square is not None:
            images = engine.blanked(images, *self.square)
        return images
