"""Interpolation of images: sizes, argument checks, and the tables of weights that say what it computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from numbanet.problem.base import Problem, choice, integer

_DIMENSIONS = {
    "nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "linear": (3,), "bilinear": (4,), "bicubic": (4,),
    "trilinear": (5,), "area": (3, 4, 5),
}  # fmt: skip
MODES = tuple(_DIMENSIONS)
_LARGEST = 2.0**40  # beyond it no result has a place in memory
_SMALL = 128  # height + width up to which torch's "nearest" ignores the scales of axes that stay, or double
# The derivative of the cubic kernel at 1, torch's choices (Keys, 1981, has -0.5): plain, and with antialias.
_CUBIC, _WIDE_CUBIC = -0.75, -0.5


class Table(NamedTuple):
    """For each output of an axis the inputs that it sums: ``sources[starts[i]:starts[i + 1]]``."""

    starts: np.ndarray
    sources: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class ResampleProblem(Problem):
    """y[n, p, q, c] = sum of rows.weight * columns.weight * x[n, rows.sources, columns.sources, c], NHWC memory.

    Attributes
    ----------
    n, h, w, c, p, q : int
        Sizes of x and y.
    mode : {"nearest", "nearest-exact", "bilinear", "bicubic"}
    align_corners : bool
        Whether the centres of the corner pixels stay where they are, or the outer borders of the image.
    scales : tuple of (float or None)
        Size of a pixel of y in pixels of x, down and across; None for the quotient of the sizes.
    antialias : bool
        Whether the kernel becomes as wide as the pixels of y, where they are wider than those of x.
    fixed_point : bool
        Whether the weights are rounded as those of bytes are; an axis that keeps its size is left alone then.
    """

    operation: ClassVar[str] = "resample"
    n: int
    h: int
    w: int
    c: int
    p: int
    q: int
    mode: str
    align_corners: bool
    scales: tuple[float | None, float | None]
    antialias: bool = False
    fixed_point: bool = False

    def _table(self, size: int, count: int, scale: float | None) -> Table:
        if self.fixed_point and size == count:
            return axis_table(size, count, "nearest", False, None)
        table = (wide_table if self.antialias else axis_table)(size, count, self.mode, self.align_corners, scale)
        return byte_table(table, size) if self.fixed_point else table

    @property
    def tables(self) -> tuple[Table, Table]:
        """What the rows and columns of y (backward: of the gradient of x) sum."""
        rows, columns = self._table(self.h, self.p, self.scales[0]), self._table(self.w, self.q, self.scales[1])
        if self.which == "forward":
            return rows, columns
        return transposed(rows, self.h), transposed(columns, self.w)


@lru_cache(maxsize=1024)
def axis_table(size: int, count: int, mode: str, align_corners: bool, scale: float | None) -> Table:
    """Return the table of an axis of `size` inputs and `count` outputs: PyTorch's rules."""
    at = np.arange(count)
    if mode.startswith("nearest"):
        # In float32, as torch: elsewhere the rounding would choose another pixel now and then.
        step = np.float32(size / count if scale is None else scale)
        places = np.float32(at + 0.5) * step if mode == "nearest-exact" else np.float32(at) * step
        index = np.minimum(np.floor(places).astype(np.int64), size - 1)
        return Table(np.arange(count + 1), index, np.ones(count))
    if size == count and mode == "bilinear":  # whatever the scale, as torch
        source: np.ndarray = at.astype(np.float64)
    elif align_corners:
        source = at * ((size - 1) / (count - 1) if count > 1 else 0.0)
    else:
        source = (at + 0.5) * (size / count if scale is None else scale) - 0.5
    if mode == "bilinear":
        source = np.maximum(source, 0)
        first = np.minimum(source.astype(np.int64), size - 1)
        t = np.clip(source - first, 0, 1)
        index, weight = np.stack([first, np.minimum(first + 1, size - 1)], 1), np.stack([1 - t, t], 1)
    else:
        first = np.floor(source).astype(np.int64)
        t = source - first
        index = np.clip(first[:, None] + np.arange(-1, 3), 0, size - 1)
        weight = _cubic(np.stack([t + 1, t, 1 - t, 2 - t], 1), _CUBIC)
    taps = index.shape[1]
    return Table(np.arange(0, taps * count + 1, taps), index.reshape(-1), weight.reshape(-1))


@lru_cache(maxsize=1024)
def wide_table(size: int, count: int, mode: str, align_corners: bool, scale: float | None) -> Table:
    """Return the table of an axis with antialias: the kernel spans pixels of the output where these are the wider."""
    if align_corners:
        step = (size - 1) / (count - 1) if count > 1 else 0.0
    else:
        step = size / count if scale is None else scale
    width = max(step, 1.0)
    reach = width * (1 if mode == "bilinear" else 2)
    centre = step * (np.arange(count) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    taps = np.minimum((centre + reach + 0.5).astype(np.int64), size) - first
    starts = np.concatenate([[0], np.cumsum(taps)])
    sources = np.arange(starts[-1]) - np.repeat(starts[:-1] - first, taps)
    distance = np.abs(sources + 0.5 - np.repeat(centre, taps)) / width
    weight = np.maximum(1 - distance, 0) if mode == "bilinear" else _cubic(distance, _WIDE_CUBIC)
    return Table(starts, sources, weight / np.repeat(np.add.reduceat(weight, starts[:-1]), taps))


def byte_table(table: Table, size: int) -> Table:
    """Return a table of `size` inputs with its weights in fixed point: PyTorch's rule for uint8.

    They are multiples of 2^-bits, with as many bits as let the largest one fit in 15. What an output takes more than
    once, at a border, is one weight, the sum; the largest is that of all the sums on the way there.
    """
    count = len(table.starts) - 1
    outputs = np.repeat(np.arange(count), np.diff(table.starts))
    places, first, taps = np.unique(outputs * size + table.sources, return_index=True, return_inverse=True)
    turns = np.arange(len(taps)) - first[taps]
    weight, largest = np.zeros(len(places)), 0.0
    for turn in range(turns.max() + 1):
        now = turns == turn
        weight[taps[now]] += table.weight[now]
        largest = max(largest, weight.max())
    outputs, sources = np.divmod(places, size)
    bits = next(bits for bits in range(23) if bits == 22 or int(largest * 2.0 ** (bits + 1) + 0.5) >= 1 << 15)
    whole = np.trunc(weight * 2.0**bits + np.copysign(0.5, weight))
    return Table(np.searchsorted(outputs, np.arange(count + 1)), sources, whole / 2.0**bits)


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """Return the cubic kernel of Keys at distances d >= 0; a is its derivative at 1."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    return np.where(d < 1, near, np.where(d < 2, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a, 0))


def transposed(table: Table, size: int) -> Table:
    """Return the table that takes gradients back to the `size` inputs, outputs in ascending order."""
    outputs = np.repeat(np.arange(len(table.starts) - 1), np.diff(table.starts))
    order = np.argsort(table.sources, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(table.sources, minlength=size))])
    return Table(starts, outputs[order], table.weight[order])


def _pair(name: str, value: Any, axes: int, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if isinstance(value, (tuple, list)):
        if len(value) != axes:
            raise ValueError(f"{name} must have {axes} numbers for this input, got {value!r}")
        found = tuple(value)
    else:
        found = (value,) * axes
    if any(isinstance(v, (bool, np.bool_)) or not isinstance(v, kinds) for v in found):
        raise TypeError(f"{name} must be a number, or one for each axis, got {value!r}")
    return found


@dataclass(frozen=True)
class Resizing:
    """What the arguments of `interpolate` mean: the new sizes, the scales to compute with, and the flags."""

    sizes: tuple[int, ...]
    scales: tuple[float | None, ...]
    align_corners: bool
    antialias: bool


def resizing(
    shape: Sequence[int],
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Resizing:
    """Check the arguments of an interpolation of (N, C, W), (N, C, H, W) or (N, C, D, H, W).

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or is not supported; the message names it and what was expected.
    """
    axes = len(shape) - 2
    choice("mode", mode, MODES)
    if len(shape) not in _DIMENSIONS[mode]:
        words = " or ".join(map(str, _DIMENSIONS[mode]))
        raise ValueError(f"input must have {words} dimensions with mode={mode!r}, got shape {tuple(shape)}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias must be False unless mode is 'bilinear' or 'bicubic', got mode={mode!r}")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"align_corners must be None with mode={mode!r}, got {align_corners!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"one of size and scale_factor must be given, got {size!r} and {scale_factor!r}")
    if recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor must not be True where size is given")
    scales: tuple[float | None, ...] = (None,) * axes
    if size is not None:
        sizes = tuple(integer("size", s) for s in _pair("size", size, axes, (int, np.integer)))
    else:
        factors = _pair("scale_factor", scale_factor, axes, (int, float, np.integer, np.floating))
        if not all(0 < f < _LARGEST for f in factors):
            raise ValueError(f"scale_factor must be above 0 and below 2^40, got {scale_factor!r}")
        sizes = tuple(math.floor(n * float(f)) for n, f in zip(shape[2:], factors))
        if not recompute_scale_factor and mode != "area":
            scales = tuple(1 / float(f) for f in factors)
    if mode == "nearest" and axes == 2 and sum(sizes) <= _SMALL:
        scales = tuple(None if p in (n, 2 * n) else scale for n, p, scale in zip(shape[2:], sizes, scales))
    if min(*sizes, *shape[1:]) < 1:
        raise ValueError(f"input and result must have channels and pixels, got {tuple(shape)} to {sizes}")
    return Resizing(sizes, scales, bool(align_corners), bool(antialias))
