"""Arrays for results and scratch, on any device, and how arrays lie in memory.

Memory comes from an arena where one is in use (`numbanet.arenas`); else that of large arrays is recycled
(`numbanet.blocks`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from sys import getrefcount
from typing import Any, NamedTuple

import numpy as np

from numbanet.arenas import ARENA as ARENA
from numbanet.arenas import Arena as Arena
from numbanet.arenas import Noted as Noted
from numbanet.arenas import arena as arena
from numbanet.arenas import in_arena as in_arena
from numbanet.arenas import lasting as lasting
from numbanet.arenas import leased as leased
from numbanet.arenas import pinned as pinned
from numbanet.arenas import planned as planned
from numbanet.arenas import planned_on_device as planned_on_device
from numbanet.arenas import planner as planner
from numbanet.blocks import SMALL as SMALL
from numbanet.blocks import Lease
from numbanet.blocks import blank as blank
from numbanet.blocks import held as held
from numbanet.blocks import recycled as recycled
from numbanet.blocks import release as release
from numbanet.blocks import releases as releases
from numbanet.device_array import DeviceArray, alone

_MANY = 1 << 16  # elements; fewer NumPy copies well enough


_named = lru_cache(maxsize=64)(np.dtype)


def empty(shape: tuple[int, ...], dtype: Any, like: Any = None) -> np.ndarray:
    """Return an uninitialised C-contiguous array; if it is large, its memory is recycled and starts a cache line.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    like : array, optional
        The result lives on the device of this array; on the CPU if None.

    Raises
    ------
    MemoryError
        If the system, or the GPU, has no memory left, after the idle blocks were given back.
    """
    if not isinstance(dtype, np.dtype):
        dtype = _named(dtype) if type(dtype) is str else np.dtype(dtype)
    if type(like) is DeviceArray:
        return _on_device(shape, dtype, like)
    size, arena = math.prod(shape) * dtype.itemsize, ARENA.get()
    if arena is None and 0 < size < SMALL:
        return np.empty(shape, dtype)  # `blank` in less time: no dimension is too large here
    if arena is not None and not dtype.hasobject:
        return arena.array(shape, dtype, size)
    return blank(shape, dtype) if size < SMALL or dtype.hasobject else recycled(shape, dtype, size)


def _on_device(shape: tuple[int, ...], dtype: np.dtype, like: DeviceArray) -> Any:
    from numbanet.cuda import launch  # with all that compiles kernels: for those who have an array there already

    with launch.beside(like):
        return launch.empty(shape, dtype.name)


def vector(shape: int | tuple[int, ...], dtype: Any, like: Any) -> np.ndarray:
    """Return an uninitialised array of a few numbers on the device of another array."""
    if type(like) is DeviceArray:
        return _on_device(shape if isinstance(shape, tuple) else (shape,), np.dtype(dtype), like)
    if ARENA.get() is not None:
        return empty(shape if isinstance(shape, tuple) else (shape,), dtype)
    return np.empty(shape, dtype)


def zeros(shape: int | tuple[int, ...], dtype: Any, like: Any) -> np.ndarray:
    """Return an array of zeros on the device of another array."""
    if type(like) is DeviceArray:
        found = vector(shape, dtype, like)
        found.fill(0)
        return found
    return np.zeros(shape, dtype)


def assign(target: Any, values: Any) -> None:
    """Write values, of whatever device, to an array: for those whose purpose it is to bring them there."""
    if type(target) is DeviceArray and isinstance(values, np.ndarray) and values.ndim:
        from numbanet.cuda import launch

        values = launch.of(target).upload(values)
    target[...] = values if type(target) is DeviceArray else on_host(values)


def ones(shape: tuple[int, ...], dtype: Any, like: Any) -> np.ndarray:
    """Return an array of ones on the device of another array."""
    if type(like) is DeviceArray:
        found = vector(shape, dtype, like)
        found.fill(1)
        return found
    return np.ones(shape, dtype)


def on_host(x: Any) -> Any:
    """Return an array of any device as a NumPy array, for Python to read."""
    return x.to_host() if type(x) is DeviceArray else x


def number(x: Any, like: Any) -> Any:
    """Return an array of no dimension on the device of another array; any other array as it is."""
    if type(like) is DeviceArray and type(x) is np.ndarray and not x.ndim:
        from numbanet.cuda import launch

        with launch.beside(like):
            return launch.number(x)
    return x


def placed(values: Any, like: Any) -> Any:
    """Return a constant of the engine on the device of another array; it must live on, and stay as it is."""
    if type(like) is DeviceArray and type(values) is np.ndarray:
        from numbanet.cuda import launch

        return launch.of(like).constant(values)
    return values


def empty_channels_last(shape: tuple[int, ...], dtype: Any, like: Any = None) -> np.ndarray:
    """Return an uninitialised array of shape (N, C, H, W) whose memory is in the order (N, H, W, C)."""
    n, c, h, w = shape
    return empty((n, h, w, c), dtype, like).transpose(0, 3, 1, 2)


def strided(x: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Return a read-only view with other strides (in bytes) from the first element on: elements may appear twice."""
    if type(x) is DeviceArray:
        return DeviceArray(x.memory, x.pointer, shape, strides, x.dtype, writeable=False)
    view = restrided(x, shape, strides)
    view.flags.writeable = False
    return view


def span(x: np.ndarray) -> int:
    """Return how many bytes lie between the ends of an array, of a column of a matrix for instance."""
    return _span(x.shape, x.strides, x.itemsize)


def _span(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> int:
    return sum(abs((size - 1) * step) for size, step in zip(shape, strides)) + itemsize


def laid_out(shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros with these strides; pages of them that nobody touches take no memory."""
    before = sum(max(0, (1 - size) * step) for size, step in zip(shape, strides))  # the first element
    return np.ndarray(shape, dtype, np.zeros(_span(shape, strides, dtype.itemsize), np.uint8), before, strides)


def restrided(x: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """Return a view of an array on the CPU with other strides (in bytes) from the first element on."""
    lease = leased(x)
    if lease is None:
        return np.lib.stride_tricks.as_strided(x, shape, strides)
    # The base of NumPy's own view is no array, which would hide the arena from `leased`.
    return np.ndarray(shape, x.dtype, lease, _distance(x, lease), strides)


def _distance(x: np.ndarray, block: np.ndarray) -> int:
    """Return how many bytes behind the start of a block an array lies."""
    return x.__array_interface__["data"][0] - block.__array_interface__["data"][0]


def fill(out: np.ndarray, x: np.ndarray) -> None:
    """Copy x to out, an array of its shape. A recording repeats launches only; and kernels copy many elements fast."""
    from numbanet.watch import watched  # which imports this module

    many = x.size >= _MANY and x.dtype == out.dtype and isinstance(x, np.ndarray) and isinstance(out, np.ndarray)
    if many or watched():
        from numbanet.ops.shape import copy_into, to_dtype  # likewise

        copy_into(out, to_dtype(x, out.dtype) if x.dtype != out.dtype else x)
    else:
        out[...] = x


def row_major(x: np.ndarray) -> np.ndarray:
    """Return x as a C-contiguous array, copied only if it must be."""
    if x.flags.c_contiguous:
        return x
    out = empty(x.shape, x.dtype, x)
    fill(out, x)
    return out


def channels_last(x: np.ndarray) -> np.ndarray:
    """Return x of shape (N, C, H, W) as a C-contiguous array of shape (N, H, W, C), copied only if it must be."""
    return row_major(x.transpose(0, 2, 3, 1))


class _Layout(NamedTuple):
    """How an array lies in memory."""

    order: tuple[int, ...]
    inverse: tuple[int, ...]
    sizes: tuple[int, ...]
    """The shape in that order."""
    dense: bool


@lru_cache(maxsize=4096)
def _layout_of(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> _Layout:
    # Axes of size 1 have arbitrary strides: sort them outermost, where they change nothing.
    keys = [(-abs(s) if n > 1 else -math.inf, axis) for axis, (s, n) in enumerate(zip(strides, shape))]
    order = tuple(axis for _, axis in sorted(keys))
    inverse = tuple(order.index(axis) for axis in range(len(shape)))
    expected, gaps = itemsize, False
    for axis in reversed(order):
        gaps |= shape[axis] > 1 and strides[axis] != expected
        expected *= shape[axis]
    return _Layout(order, inverse, tuple(shape[axis] for axis in order), not gaps or 0 in shape)


def _layout(x: np.ndarray) -> _Layout:
    return _layout_of(x.shape, x.strides, x.itemsize)


def memory_order(x: np.ndarray) -> tuple[int, ...]:
    """Return the order of axes, outermost first, in which x lies in memory."""
    return _layout(x).order


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Return whether the elements of an array of the CPU with these strides fill a block of memory without gaps."""
    return _layout_of(shape, strides, itemsize).dense


def dense(x: np.ndarray) -> np.ndarray:
    """Return x, or a copy of it, whose elements fill a block of memory without gaps, in the same order of axes."""
    if x.flags.c_contiguous or _layout(x).dense:
        return x
    out = empty_like(x)
    fill(out, x)
    return out


def flat(x: np.ndarray) -> np.ndarray:
    """Return the elements of a dense array as one dimension, in the order of memory, without a copy."""
    return x.ravel("K")


def empty_like(x: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return an uninitialised dense array with the shape and the order of axes of x."""
    dtype = x.dtype if dtype is None else dtype
    if x.flags.c_contiguous:
        return empty(x.shape, dtype, x)
    _, inverse, sizes, _ = _layout(x)
    return empty(sizes, dtype, x).transpose(inverse)


def same_order(x: np.ndarray, model: np.ndarray) -> bool:
    """Return whether x is dense and its axes lie in memory in the order of those of `model`, which has its shape."""
    ours = _layout(x)
    return ours.dense and (x.strides == model.strides or ours.order == _layout(model).order)


def like_layout(x: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return x, copied if need be, dense and with its axes in memory in the same order as those of `model`."""
    if x.flags.c_contiguous and model.flags.c_contiguous:
        return x
    ours, wanted = _layout(x), _layout(model)
    if ours.dense and ours.order == wanted.order:
        return x
    out = empty_like(model, x.dtype)
    fill(out, x)
    return out


def owned(x: np.ndarray) -> bool:
    """Return whether NumPy arrays alone reach the memory of x: it is not a mapped file, or another object's buffer."""
    if type(x) is DeviceArray:
        return x.memory.ours
    while type(x.base) is np.ndarray:
        x = x.base
    return x.base is None or type(x.base) is Lease


_box = [np.empty(0)]
_ALONE = getrefcount(_box[0])  # one reference from the list, and what the count itself takes


def _rounded(size: int) -> int:
    """Round up so that nearby sizes share blocks: to an eighth of the power of two below."""
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


def alone_in(holder: list[Any], position: int) -> bool:
    """Return whether the list alone refers to its array, and the array alone to its memory: it may become another's."""
    if getrefcount(holder[position]) != _ALONE:
        return False
    array = holder[position]
    if type(array) is DeviceArray:
        return alone(array)
    base = array.base
    if base is None:
        return type(array) is np.ndarray and array.flags.writeable
    del base
    if getrefcount(array.base) != _ALONE or not owned(array) or not array.flags.writeable:
        return False
    return array.base.nbytes <= _rounded(array.nbytes)  # and is not a small part of much memory
