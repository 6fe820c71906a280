"""Operations that move elements: copies between memory orders, padding, indexing, and the rules of shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from numbanet.device_array import view_strides
from numbanet.problem.base import Problem, choice, integer, plain, sizes

Axis = tuple[int, int, int]
"""Size, stride in x, and stride in y of an axis of a copy."""


@dataclass(frozen=True)
class CopyProblem(Problem):
    """y = x, element by element, from any strides to any strides (counted in elements).

    `dtype` stands for all dtypes of its size: the bits are copied.
    """

    operation: ClassVar[str] = "copy"
    shape: tuple[int, ...]
    x_strides: tuple[int, ...]
    y_strides: tuple[int, ...]

    @property
    def axes(self) -> list[Axis]:
        """The axes in the order of y's memory, outermost first; those that lie alike in both arrays are one."""
        axes: list[Axis] = []
        given = zip(self.shape, self.x_strides, self.y_strides)
        for size, x_stride, y_stride in sorted((a for a in given if a[0] != 1), key=lambda axis: -abs(axis[2])):
            if axes and axes[-1][1] == size * x_stride and axes[-1][2] == size * y_stride:
                axes[-1] = (axes[-1][0] * size, x_stride, y_stride)
            else:
                axes.append((size, x_stride, y_stride))
        return axes


@dataclass(frozen=True)
class ConvertProblem(Problem):
    """y = x in the other floating dtype; x has `dtype`, and both are one run of `size` elements."""

    operation: ClassVar[str] = "convert"
    size: int


@dataclass(frozen=True)
class PadProblem(Problem):
    """y[i, j, ...] = x[maps[0][i], maps[1][j], ...], and a constant where a map has -1; both C-contiguous.

    Attributes
    ----------
    shape : tuple of int
        Shape of x.
    mode : {"constant", "reflect", "replicate", "circular"}
    widths : tuple of (int, int)
        Elements added before and after, for each axis; negative ones are taken away.
    """

    operation: ClassVar[str] = "pad"
    host: ClassVar[tuple[int, ...]] = (1,)
    shape: tuple[int, ...]
    mode: str
    widths: tuple[tuple[int, int], ...]

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """Shape of y."""
        return tuple(n + a + b for n, (a, b) in zip(self.shape, self.widths))

    @property
    def maps(self) -> tuple[np.ndarray, ...]:
        """For each axis, the index in x of each index in y, or -1 for the constant."""
        return tuple(pad_map(n, a, b, self.mode) for n, (a, b) in zip(self.shape, self.widths))


@dataclass(frozen=True)
class IndexAddProblem(Problem):
    """dx = 0, then ``dx[positions[k], :] += grad[k, :]`` for k in order; dx is (rows, inner), grad (count, inner)."""

    operation: ClassVar[str] = "index_add"
    rows: int
    count: int
    inner: int


def pad_map(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """Return the index of x that each index of the padded axis shows; -1 stands for the constant."""
    at = np.arange(-before, size + after)
    if mode == "constant":
        return np.where((at >= 0) & (at < size), at, -1)
    if mode == "replicate":
        return np.clip(at, 0, size - 1)
    if mode == "reflect":
        return np.where(at < 0, -at, np.where(at < size, at, 2 * (size - 1) - at))
    # Negative widths take elements away first; what is kept repeats.
    first, kept = max(0, -before), size + min(0, before) + min(0, after)
    return first + (at - first) % max(kept, 1)


_SUPPORTED = {2: (2, 3), 4: (3, 4), 6: (4, 5)}  # modes but constant: length of pad -> numbers of dimensions


def pad_problem(
    which: str, x_shape: Sequence[int], dtype: str, pad: Sequence[int], mode: str = "constant"
) -> PadProblem:
    """Check the arguments of a padding and return its problem.

    Parameters
    ----------
    which : {"forward", "backward_input"}
    x_shape : sequence of int
    dtype : {"float32", "float64"}
    pad : sequence of int
        (before, after) of the last axis, then of the one before it, and so on.
    mode : {"constant", "reflect", "replicate", "circular"}

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad must be a tuple of integers, got {pad!r}")
    choice("mode", mode, ("constant", "reflect", "replicate", "circular"))
    return _pad_problem(which, sizes("input", x_shape), dtype, plain("pad", pad), mode)


@lru_cache(maxsize=4096, typed=True)
def _pad_problem(which: str, shape: tuple[int, ...], dtype: str, pad: tuple[Any, ...], mode: str) -> PadProblem:
    numbers = [integer("pad", value) for value in pad]
    if len(numbers) % 2 or len(numbers) > 2 * len(shape):
        raise ValueError(f"pad must hold one pair for each of at most {len(shape)} axes of input, got {pad}")
    if mode != "constant" and len(shape) not in _SUPPORTED.get(len(numbers), ()):
        raise ValueError(
            f"pad must hold 2 numbers for a 2-D or 3-D input, 4 for 3-D or 4-D, 6 for 4-D or 5-D with mode={mode!r}, "
            f"got {pad} for input of shape {shape}"
        )
    if mode in ("reflect", "replicate") and not all(shape[-len(numbers) // 2 - (len(numbers) // 2 < len(shape)) :]):
        raise ValueError(f"input must have channels and elements with mode={mode!r}, got shape {shape}")
    pairs = list(zip(numbers[::2], numbers[1::2]))[::-1]
    widths = ((0, 0),) * (len(shape) - len(pairs)) + tuple(pairs)
    for axis in range(len(shape) - len(pairs), len(shape)):
        _check_widths(shape[axis], widths[axis], mode, f"pad {widths[axis]} of axis {axis} of input of shape {shape}")
    return PadProblem(which, dtype, shape, mode, widths)


def _check_widths(size: int, widths: tuple[int, int], mode: str, what: str) -> None:
    left = size + sum(widths)
    kept = size + sum(min(0, width) for width in widths)
    if left < 0 or (mode == "constant" and (min(widths) < -size or kept < 0)):
        raise ValueError(f"{what} takes away more than there is")
    if mode == "reflect" and max(widths) >= size:
        raise ValueError(f"{what} must be smaller than the axis with mode='reflect'")
    if mode == "circular" and max(widths) > size:
        raise ValueError(f"{what} must not exceed the axis with mode='circular'")
    if mode in ("replicate", "circular") and left and (size if mode == "replicate" else kept) < 1:
        raise ValueError(f"{what} leaves no element to repeat with mode={mode!r}")


def dimension(name: str, value: Any, ndim: int) -> int:
    """Return a dimension's number counted from 0; negative ones count from the end.

    Raises
    ------
    TypeError, ValueError
        If it is not an integer, or there is no such dimension.
    """
    number, limit = integer(name, value), max(ndim, 1)
    if not -limit <= number < limit:
        raise ValueError(f"{name} must be between {-limit} and {limit - 1}, got {number}")
    return number % limit


def dimensions(name: str, values: Sequence[Any], ndim: int) -> tuple[int, ...]:
    """Return different dimensions counted from 0; see `dimension`."""
    if not isinstance(values, (tuple, list, range)):
        raise TypeError(f"{name} must be a sequence of dimensions, got {values!r}")
    found = tuple(dimension(name, value, ndim) for value in values)
    if len(set(found)) != len(found):
        raise ValueError(f"{name} must not name a dimension twice, got {tuple(values)}")
    return found


def reshaped(shape: tuple[int, ...], wanted: Sequence[Any], name: str = "shape") -> tuple[int, ...]:
    """Return `wanted` with its -1, if it has one, replaced by the size that makes the number of elements fit.

    Raises
    ------
    TypeError, ValueError
        If the sizes are not integers, or do not fit.
    """
    if not isinstance(wanted, (tuple, list)):
        raise TypeError(f"{name} must be a sequence of sizes, got {wanted!r}")
    sizes = [integer(name, size, -1) for size in wanted]
    total, known = math.prod(shape), math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1:
        raise ValueError(f"{name} must have at most one -1, got {tuple(sizes)}")
    if -1 in sizes:
        if known == 0 or total % known:
            raise ValueError(f"{name} {tuple(sizes)} does not fit the {total} elements of shape {shape}")
        sizes[sizes.index(-1)] = total // known
    elif known != total:
        raise ValueError(f"{name} {tuple(sizes)} does not fit the {total} elements of shape {shape}")
    return tuple(sizes)


@lru_cache(maxsize=4096)
def viewable(shape: tuple[int, ...], strides: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether an array can take another shape without a copy.

    Axes that lie in memory as one run may be cut anew; the target must respect the borders of those runs.
    """
    return view_strides(shape, strides, target) is not None
