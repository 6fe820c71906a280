"""What cases are drawn from: shapes, values, options, and memory as hostile as NumPy allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

KINDS = ("normal",) * 12 + ("integers", "integers", "zeros", "denormal", "nonfinite", "nonfinite", "large", "tiny")
NONSENSE: tuple[Any, ...] = (
    -1, 0, 1, 2, 7, -(2**31), 2**31, 2**62, 2**63, 2**70, 10**12, 0.5, -0.5, 1.0, math.nan, math.inf, -math.inf, 1e30,
    1e-30, True, False, None, "", "x", "mean", "float16", b"x", (), [], (1,), (1, 2), [2, 1], (1, 2, 3), (0, 0),
    (-1, -1), (2**40, 2**40), (1.5, 2), ("a", "b"), ((1, 1), (2, 2)), {}, {"a": 1}, set(), object, Ellipsis, 1j, 10**30,
)  # fmt: skip
DTYPES = (
    "bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64", "longdouble",
    "complex64", "complex128", ">f4", ">f8", ">i4", "object", "str", "datetime64[s]", "V4",
)  # fmt: skip


class Draw:
    """The source of one case; its `dtype` and the kind of its values are the same for all arrays of the case."""

    def __init__(self, random: Random):
        self.random = random
        self.dtype = np.dtype(self.pick(*["float32"] * 3, "float64"))
        self.kind = self.pick(*KINDS)
        self.numbers = np.random.Generator(np.random.PCG64(random.getrandbits(32)))

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.random.random() < probability

    def pick(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[self.random.randrange(len(options))]

    def integer(self, low: int, high: int) -> int:
        """Return an integer, both ends included."""
        return self.random.randint(low, high)

    def number(self, low: float, high: float) -> float:
        """Return a float."""
        return self.random.uniform(low, high)

    def size(self, least: int = 1) -> int:
        """Return the size of a dimension: mostly small, now and then above a vector, a tile, a block."""
        return max(least, self.pick(1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 33) if self.chance(0.97) else self.integer(34, 70))

    def shape(self, low: int = 0, high: int = 4, empty: float = 0.05) -> tuple[int, ...]:
        """Return a shape, now and then without elements, rarely of many."""
        ndim = self.integer(low, high)
        if ndim == 1 and self.chance(0.1):
            return (self.pick(1023, 4097, 65_537),)
        shape = [self.size() for _ in range(ndim)]
        while math.prod(shape) > 20_000:
            shape[shape.index(max(shape))] //= 4
        if ndim and self.chance(empty):
            shape[self.integer(0, ndim - 1)] = 0
        return tuple(shape)

    def images(self, c: int | None = None, least: int = 1) -> tuple[int, ...]:
        """Return the shape of images, with a batch or without."""
        n = 0 if self.chance(0.04) else self.integer(1, 3)
        c = self.size() if c is None else c
        h, w = self.integer(least, least + 9), self.integer(least, least + 9)
        return (c, h, w) if self.chance(0.1) else (n, c, h, w)

    def floats(self, shape: Sequence[int], low: float | None = None, high: float = 1.0) -> np.ndarray:
        """Return values of the case's dtype and kind, or uniform ones between two bounds."""
        shape = tuple(shape)
        if low is not None:
            return self.numbers.uniform(low, high, shape).astype(self.dtype)
        if len(shape) and self.chance(0.03):  # neighbours that share memory
            line = self._values((math.prod(shape[:-1]) + shape[-1],))
            return np.lib.stride_tricks.sliding_window_view(line, max(shape[-1], 1))[: math.prod(shape[:-1])][
                :, : shape[-1]
            ].reshape(shape)
        if len(shape) and self.chance(0.04):  # an axis of stride zero
            axis = self.integer(0, len(shape) - 1)
            return np.broadcast_to(self._values([1 if i == axis else n for i, n in enumerate(shape)]), shape)
        return self._values(shape)

    def _values(self, shape: Sequence[int]) -> np.ndarray:
        values = self.numbers.standard_normal(shape)
        if self.kind == "integers":
            values = np.round(values * 3)
        elif self.kind == "zeros":
            values = np.zeros(shape)
        elif self.kind == "denormal":
            values = values * (1e-40 if self.dtype == np.float32 else 1e-310)
        elif self.kind == "large":
            values = values * (1e17 if self.dtype == np.float32 else 1e150)
        elif self.kind == "tiny":
            values = values * (1e-25 if self.dtype == np.float32 else 1e-200)
        elif self.kind == "nonfinite":
            holes = self.numbers.random(shape) < 0.1
            values = np.where(holes, self.numbers.choice([np.nan, np.inf, -np.inf], shape), values)
        return np.asarray(values, self.dtype)

    def integers(self, shape: Sequence[int], low: int, high: int, dtype: Any = np.int64) -> np.ndarray:
        """Return integers, both ends included."""
        return self.numbers.integers(low, high + 1, tuple(shape)).astype(dtype)

    def optional(self, make: Callable[[], Any]) -> Any:
        """Return None, or what the function makes."""
        return make() if self.chance(0.6) else None

    def dim(self, ndim: int) -> int:
        """Return the number of a dimension, negative or not."""
        return self.integer(-max(ndim, 1), max(ndim, 1) - 1)

    def dims(self, ndim: int) -> Any:
        """Return what a reduction takes as `dim`."""
        if self.chance(0.2):
            return None
        if self.chance(0.5) or not ndim:
            return self.dim(ndim)
        chosen = self.random.sample(range(ndim), self.integer(1, ndim))
        return tuple(d if self.chance(0.5) else d - ndim for d in chosen)

    def pair(self, low: int, high: int) -> Any:
        """Return an integer, or a pair of them."""
        if self.chance(0.5):
            return self.integer(low, high)
        return self.pick(tuple, list)((self.integer(low, high), self.integer(low, high)))


def hostile(values: np.ndarray, draw: Draw, buffer: Callable[[int], np.ndarray], writable: bool = False) -> np.ndarray:
    """Return an array with the same values whose memory comes from `buffer`, laid out in one of many ways.

    What is `writable` has the machine's byte order, and shares no element.
    """
    if not writable and not values.flags.c_contiguous and values.size and draw.chance(0.6):
        return values  # it is drawn so: it overlaps itself, or has strides of zero
    if values.dtype.kind not in "biufc" or values.size > 1 << 22:
        return values
    axes = list(range(values.ndim))
    if draw.chance(0.4):
        draw.random.shuffle(axes)
    steps = [draw.pick(1, 1, 1, 1, 2, 3, -1, -2) if draw.chance(0.3) else 1 for _ in axes]
    dtype, shift, size = values.dtype, 0, values.itemsize
    if draw.chance(0.1) and size > 1 and not writable:
        dtype = dtype.newbyteorder(">")
    if draw.chance(0.1):
        shift = draw.integer(1, 3)  # misaligned
    if draw.chance(0.05):
        size += draw.pick(1, 2, 4)  # a field of a packed record: strides that are no multiple of an element
    extents = [max((values.shape[a] - 1) * abs(s) + 1, 0) for a, s in zip(axes, steps)]
    strides, total = [0] * values.ndim, size
    for axis, step, extent in reversed(list(zip(axes, steps, extents))):
        strides[axis] = step * total
        total *= extent
    memory = buffer(total + shift)
    start = shift + sum(-strides[a] * (values.shape[a] - 1) for a in axes if strides[a] < 0 and values.shape[a])
    if not total:
        start = shift
    if size > values.itemsize and total:  # the last record may end beyond the last element
        memory = memory[: total + shift]
    view = np.ndarray(values.shape, dtype, memory, start, strides)
    view[...] = values
    if draw.chance(0.2) and not writable:
        view.flags.writeable = False
    return view
