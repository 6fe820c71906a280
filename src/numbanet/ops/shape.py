"""Operations that move elements, on arrays: copies between memory orders, joining, padding, conversion, indexing.

What NumPy can do with a view (permute, slices, new axes) needs no function here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.device_array import DeviceArray
from numbanet.host import by_numpy
from numbanet.ops.clip import fill_
from numbanet.problem.base import FLOATS, array, as_dtype, float_array, same_dtype, sizes
from numbanet.problem.pointwise import number
from numbanet.problem.promotion import promote
from numbanet.problem.shape import (
    ConvertProblem,
    CopyProblem,
    IndexAddProblem,
    PadProblem,
    dimension,
    pad_problem,
    reshaped,
    viewable,
)
from numbanet.reference import shape as definition
from numbanet.watch import again, constant, doubt, watched

_STAND_INS: dict[int, Any] = {4: np.float32, 8: np.float64}  # a copy moves bits: any dtype of these sizes will do


_SMALL = 1 << 12  # elements; NumPy has copied fewer before a kernel is launched


def copy_into(y: np.ndarray, x: np.ndarray) -> None:
    """Copy x to y, an array of the same shape and dtype but of any strides, not overlapping with it."""
    stand_in = _STAND_INS.get(x.itemsize)
    if x.dtype.hasobject:
        doubt("objects were copied")
        y[...] = x
        return
    if type(x) is DeviceArray and type(y) is DeviceArray:
        if stand_in is None or not x.size:
            y[...] = x
            return
    elif (x.size < _SMALL and not watched()) or stand_in is None or not x.dtype.isnative or not x.size:
        _by_numpy(y, x)
        return
    size = x.itemsize
    if any(stride % size for stride in (*x.strides, *y.strides)):  # a field of packed records
        _by_numpy(y, x)
        return
    problem = CopyProblem(
        "forward",
        "float32" if size == 4 else "float64",
        x.shape,
        tuple(s // size for s in x.strides),
        tuple(s // size for s in y.strides),
    )
    dispatch.run(problem, (_first(x).view(stand_in),), (_first(y).view(stand_in),))


def _by_numpy(y: np.ndarray, x: np.ndarray) -> None:
    if memory.in_arena() and x.size:
        doubt("NumPy copied")
    y[...] = x


def _first(x: np.ndarray) -> np.ndarray:
    """Return the one element at which all indices are zero, as a contiguous array: where kernels start to count."""
    return x[(slice(0, 1),) * x.ndim].reshape(1) if x.ndim else x.reshape(1)


def clone(x: np.ndarray) -> np.ndarray:
    """Return a copy that lies without gaps in memory, its axes in the same order as those of x.

    Raises
    ------
    TypeError
        If x is no array.
    """
    x = array("x", x)
    y = memory.empty_like(x)
    copy_into(y, x)
    return y


def contiguous(x: np.ndarray) -> np.ndarray:
    """Return x in row-major order, copied only if it must be.

    Raises
    ------
    TypeError
        If x is no array.
    """
    if type(x) is not np.ndarray:
        x = array("x", x)
    if x.flags.c_contiguous:
        return x
    y = memory.empty(x.shape, x.dtype, x)
    copy_into(y, x)
    return y


def channels_last(x: np.ndarray) -> np.ndarray:
    """Return x of shape (N, C, H, W) as a C-contiguous array of shape (N, H, W, C), copied only if it must be."""
    moved = x.transpose(0, 2, 3, 1)
    return moved if moved.flags.c_contiguous else contiguous(moved)


def copy_like(x: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return x, copied if need be, with its axes in memory in the order of those of `model`, which has its shape."""
    if memory.memory_order(x) == memory.memory_order(model):
        return x
    y = memory.empty_like(model, x.dtype)
    copy_into(y, x)
    return y


def count(x: np.ndarray) -> None:
    """Add one to every element of an array of integers, in place."""
    if type(x) is DeviceArray:
        from numbanet.cuda.whole import elementwise

        x[...] = elementwise("add", (x, memory.number(np.array(1, x.dtype), x)))
    else:
        _add_one(x)
        if watched():
            again(_Count(x))


def _add_one(x: np.ndarray) -> None:
    if x.ndim:
        x += 1
    else:  # the same in a tenth of the time
        x[()] = x.item() + 1


class _Count:
    """One that Python adds to an array, and adds again before a replay."""

    what = "a number was counted"

    def __init__(self, x: np.ndarray):
        self._x = x

    def go_on(self) -> bool:
        _add_one(self._x)
        return True

    def save(self) -> Callable[[], None]:
        before = self._x.copy()

        def restore() -> None:
            self._x[...] = before

        return restore

    def arrays(self) -> list[Any]:
        return [self._x]


def device_of(x: np.ndarray) -> str:
    """Return where an array lies: ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` (and so on)."""
    return x.device if type(x) is DeviceArray else "cpu"


def to_device(x: np.ndarray, device: str) -> np.ndarray:
    """Return x on a device, as `device_of` names it, its axes in memory in the same order; x itself if it is there."""
    if device == "cpu":
        return memory.on_host(x)
    if type(x) is DeviceArray and x.device == device:
        return x
    from numbanet.cuda import launch

    there = launch.numbered(int(device.partition(":")[2] or 0))
    return launch.of(x).send(x, there) if type(x) is DeviceArray else there.upload(x)


def reshape(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the elements of x, in row-major order of its shape, in another shape.

    Parameters
    ----------
    x : numpy.ndarray
        Any dtype, any strides.
    shape : sequence of int
        One size may be -1: it is what makes the number of elements fit.

    Returns
    -------
    numpy.ndarray
        A view where the memory of x allows one, else a copy.

    Raises
    ------
    TypeError, ValueError
        If the sizes do not fit.
    """
    x = array("x", x)
    return with_sizes(x, reshaped(x.shape, shape))


def with_sizes(x: np.ndarray, target: tuple[int, ...]) -> np.ndarray:
    """Return `reshape` to sizes that are known to fit."""
    if viewable(x.shape, x.strides, target):
        return x.reshape(target)
    return contiguous(x).reshape(target)


def cat(arrays: Sequence[np.ndarray], dim: int = 0) -> np.ndarray:
    """Join arrays along a dimension.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray
        Equal shapes but for `dim`; arrays of shape (0,) are skipped, as in PyTorch.
    dim : int

    Returns
    -------
    numpy.ndarray
        In the dtype that holds all of theirs, its axes in memory in the order of those of the first array.

    Raises
    ------
    TypeError, ValueError
        If there are no arrays, or their shapes do not fit.
    """
    if not isinstance(arrays, (tuple, list)) or not len(arrays):
        raise ValueError(f"tensors must be a sequence of at least one tensor, got {type(arrays).__name__}")
    arrays = [array("tensors", x) for x in arrays]
    for part in arrays:
        if not _known(part.dtype):
            raise TypeError(f"tensors must hold booleans, integers, float32 or float64, got {part.dtype}")
    dtype = arrays[0].dtype.newbyteorder("=")
    for part in arrays[1:]:
        dtype = promote(dtype, part.dtype)
    parts = [a for a in arrays if a.shape != (0,)] or [arrays[0]]
    first = parts[0]
    if first.ndim == 0:
        raise ValueError("tensors must have at least one dimension to be joined, got a 0-dimensional one")
    axis = dimension("dim", dim, first.ndim)
    rest = first.shape[:axis] + first.shape[axis + 1 :]
    for part in parts:
        if part.ndim != first.ndim or part.shape[:axis] + part.shape[axis + 1 :] != rest:
            raise ValueError(
                f"tensors must have equal shapes but for dimension {axis}, got {first.shape} and {part.shape}"
            )
    total = sum(part.shape[axis] for part in parts)
    order = memory.memory_order(first)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    y = memory.empty(tuple([shape[a] for a in order]), dtype, first)
    y = y.transpose([order.index(a) for a in range(first.ndim)])
    start = 0
    for part in parts:
        stop = start + part.shape[axis]
        copy_into(y[(slice(None),) * axis + (slice(start, stop),)], to_dtype(part, dtype))
        start = stop
    return y


def _known(dtype: np.dtype) -> bool:
    return dtype.kind in "biu" or dtype.name in FLOATS


def converted(x: np.ndarray | DeviceArray, dtype: np.dtype) -> np.ndarray:
    """Return a copy of x in another dtype, of whole numbers or from them."""
    if isinstance(x, DeviceArray):
        return x.astype(dtype)  # type: ignore[return-value]
    return by_numpy(partial(np.ndarray.astype, dtype=dtype), x)


def to_dtype(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Return x in another dtype; x itself where that is its own.

    Raises
    ------
    TypeError
        If `dtype` is not that of booleans, integers, float32 or float64.
    """
    target, x = as_dtype(dtype), array("x", x)
    if not _known(target):
        raise TypeError(f"dtype must be bool, an integer, float32 or float64, got {target}")
    if not _known(x.dtype):
        raise TypeError(f"input must hold booleans, integers, float32 or float64, got {x.dtype}")
    if x.dtype == target:
        return x
    if x.dtype.kind != "f" or target.kind != "f":
        return converted(x, target)
    x = memory.dense(float_array("input", x))
    if x.dtype == target:  # it had the other byte order
        return x
    y = memory.empty_like(x, target)
    if x.size:
        problem = ConvertProblem("forward", same_dtype(input=x), x.size)
        dispatch.run(problem, (memory.flat(x),), (memory.flat(y),))
    return y


@lru_cache(maxsize=1024)
def _reordered(problem: PadProblem, order: tuple[int, ...]) -> PadProblem:
    shape = tuple(problem.shape[axis] for axis in order)
    return replace(problem, shape=shape, widths=tuple(problem.widths[axis] for axis in order))


def _padded(x: np.ndarray, problem: PadProblem, value: float) -> np.ndarray:
    """Pad in the order of memory, whatever it is."""
    order = memory.memory_order(x)
    y = memory.empty(tuple(problem.padded_shape[axis] for axis in order), x.dtype, x)
    if y.size:
        number_ = constant(np.array([float(value)]))
        dispatch.run(_reordered(problem, order), (contiguous(x.transpose(order)), number_), (y,))
    return y.transpose(np.argsort(order))


def pad(x: np.ndarray, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> np.ndarray:
    """Add elements at the ends of axes.

    Parameters
    ----------
    x : numpy.ndarray
        Any strides.
    pad : sequence of int
        (before, after) of the last axis, then of the one before it, and so on. Negative numbers take elements away.
    mode : {"constant", "reflect", "replicate", "circular"}
        What the new elements show: `value`; the inner elements mirrored, without those at the border; the elements at
        the border; or those at the other end. All but ``"constant"`` take 2 numbers for a 2-D or 3-D array, 4 for 3-D
        or 4-D, 6 for 4-D or 5-D.
    value : float, optional
        Zero if None; only with ``mode="constant"``.

    Returns
    -------
    numpy.ndarray
        A new array, its axes in memory in the order of those of x.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    value = None if value is None else int(value) if isinstance(value, bool) else number("value", value)
    if value and mode != "constant":
        raise ValueError(f"value must be None with mode={mode!r}, got {value!r}")
    x = array("x", x)
    if x.dtype.kind != "f":
        problem = pad_problem("forward", x.shape, "float64", pad, mode)
        padded = _padded_whole if type(x) is DeviceArray else definition.pad
        fill = (value or 0) if any(width > 0 for width in pad) else 0
        if x.dtype.kind in "iu" and not np.iinfo(x.dtype).min <= fill <= np.iinfo(x.dtype).max:
            raise ValueError(f"value must be a number that {x.dtype} holds, got {value!r}")
        return padded(x, problem, fill)
    x = float_array("input", x)
    problem = pad_problem("forward", x.shape, same_dtype(input=x), pad, mode)
    return _padded(x, problem, value or 0.0) if x.ndim else x.copy()


def _padded_whole(x: Any, problem: PadProblem, value: float) -> Any:
    """Return integers or booleans on a GPU with elements at their ends."""
    y, where = memory.empty(problem.padded_shape, x.dtype, x), []
    y.fill(value)
    for axis, positions in enumerate(problem.maps):
        inside = np.flatnonzero(positions >= 0)
        where.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
        x = x[(*[slice(None)] * axis, positions[inside])]
    y[tuple(where)] = x
    return y


def pad_backward(
    grad: np.ndarray, input_shape: Sequence[int], pad: Sequence[int], mode: str = "constant"
) -> np.ndarray:
    """Return the gradient of `pad` with respect to its input, of shape `input_shape`.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad = float_array("grad", grad)
    problem = pad_problem("backward_input", sizes("input_shape", input_shape), same_dtype(grad=grad), pad, mode)
    if grad.shape != problem.padded_shape:
        raise ValueError(f"grad must have the result's shape {problem.padded_shape}, got {grad.shape}")
    if mode == "constant":
        back = pad_problem("forward", grad.shape, problem.dtype, [-width for width in pad])
        return _padded(grad, back, 0.0) if grad.ndim else grad.copy()
    order = memory.memory_order(grad)
    dx = memory.empty(tuple(problem.shape[axis] for axis in order), grad.dtype, grad)
    if dx.size:
        dispatch.run(_reordered(problem, order), (contiguous(grad.transpose(order)),), (dx,))
    return dx.transpose(np.argsort(order))


def getitem_backward(grad: np.ndarray, index: Any, input_shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Return the gradient of ``x[index]`` with respect to x: each element's goes, added up, to where it was read.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result.
    index : object
        As NumPy takes it: integers, slices, None, Ellipsis, booleans, integer or boolean arrays, or a tuple of these.
    input_shape : sequence of int
    dtype : dtype

    Returns
    -------
    numpy.ndarray
        Shape `input_shape`, row-major.
    """
    shape = tuple(input_shape)
    parts = index if isinstance(index, tuple) else (index,)
    has_ellipsis = any(part is Ellipsis for part in parts)
    if not any(isinstance(part, (np.ndarray, DeviceArray, bool)) for part in parts):
        dx = memory.empty(shape, dtype, grad)
        if watched() and type(dx) is np.ndarray and dx.dtype.name in FLOATS and dx.size:
            fill_(dx, 0.0)
        else:
            dx.fill(0)
        # With an Ellipsis, indexing gives an array even where it gives a single element.
        copy_into(dx[parts if has_ellipsis else (*parts, ...)], grad)
        return dx
    # Dimensions that the index leaves alone at the end move along as rows.
    taken = len(shape) if has_ellipsis else sum(_consumed(part) for part in parts)
    places = to_device(np.arange(math.prod(shape[:taken])).reshape(shape[:taken]), device_of(grad))[index]
    inner = math.prod(shape[taken:])
    dx = memory.empty((math.prod(shape[:taken]), inner), dtype, grad)
    if dx.size:
        problem = IndexAddProblem("forward", same_dtype(grad=grad), len(dx), places.size, inner)
        rows = contiguous(grad).reshape(places.size, inner)
        dispatch.run(problem, (rows, contiguous(places.reshape(-1))), (dx,))
    return dx.reshape(shape)


def _consumed(part: Any) -> int:
    """Return how many dimensions of an array one part of an index is about."""
    if part is None or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, (np.ndarray, DeviceArray)) and part.dtype == bool else 1
