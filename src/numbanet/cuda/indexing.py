"""Arrays as indices on the GPU: positions, and masks, which become the positions of what is true in them.

A position that is out of bounds touches no memory. It is found out when Python next waits for the GPU: `to_host` raises
the IndexError then, as PyTorch's device assertions come late. Positions that the host knows are checked at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from numbanet.cuda import launch as launching
from numbanet.cuda import whole
from numbanet.cuda.compile import I32, I64, U8, Long, kernel
from numbanet.cuda.fault import report_index
from numbanet.cuda.index import add_up
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.device_array import DeviceArray, broadcast_to

_THREADS = 256
_MOST = 2**31 - 1
_NOWHERE = -(2**62)  # no row, from whichever end it is counted
i32, i64 = types.int32, types.int64


@kernel(threads=_THREADS)
def locate(count: Long, size: Long, index: I64, before: I64, places: I64, fault: I64):
    """Go on from places in the axes before to those with the next axis, of `size`, in row-major order.

    What is out of bounds lies nowhere, and is reported.
    """
    i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
    if i < count:
        position, place = index[i], before[i]
        if position < -size or position >= size:
            report_index(fault, position, size)
            place = i64(_NOWHERE)
        if place >= 0:
            place = place * size + (position + size if position < 0 else position)
        places[i] = place


@kernel(threads=_THREADS)
def spread(count: Long, mask: U8, counts: I32):
    """counts = 1 where the mask is true, else 0."""
    i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
    if i < count:
        counts[i] = i32(1) if mask[i] else i32(0)


@kernel(threads=_THREADS)
def list_true(count: Long, inner: Long, size: Long, mask: U8, starts: I32, places: I64):
    """List the places of what is true along an axis of `size`, with `inner` elements for each place."""
    i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
    if i < count and mask[i]:
        places[starts[i]] = i64(i // inner) % size


def _grid(count: int) -> tuple[int]:
    return (-(-count // _THREADS),)


def true_places(mask: DeviceArray) -> list[DeviceArray]:
    """Return the places of what is true along each axis, in row-major order; Python waits for their number."""
    if mask.size > _MOST:
        raise ValueError(f"a mask on the GPU may have {_MOST} elements at most, got shape {mask.shape}")
    dense, count = mask.copy("C"), mask.size
    counts, starts = empty((count,), "int32"), empty((count + 1,), "int32")
    launch(spread, _grid(count), (count, dense, counts))
    launch(add_up, (1,), (count, counts, starts))
    number, inner, found = int(starts[count].item()), count, []
    for size in mask.shape:
        inner //= max(size, 1)
        places = empty((number,), "int64")
        launch(list_true, _grid(count), (count, inner, size, dense, starts, places))
        found.append(places)
    return found


class _Located(NamedTuple):
    """What an index names: rows of a view whose first axes are those that arrays index.

    Attributes
    ----------
    moved : DeviceArray
    positions : DeviceArray
        In the row-major order of those axes.
    axes : int
        How many there are.
    first : int
        Where the axes of `positions` stand in the result.
    """

    moved: DeviceArray
    positions: DeviceArray
    axes: int
    first: int

    def result(self, rows: DeviceArray) -> DeviceArray:
        """Return rows with their axes in the order of the index."""
        new = self.positions.ndim
        return rows.transpose([*range(new, new + self.first), *range(new), *range(new + self.first, rows.ndim)])

    def rows(self, values: DeviceArray) -> DeviceArray:
        """Return values that broadcast to the index's result as rows."""
        new, inner = self.positions.ndim, self.moved.shape[self.axes :]
        shape = (*inner[: self.first], *self.positions.shape, *inner[self.first :])
        after = range(self.first + new, len(shape))
        return broadcast_to(values, shape).transpose([*range(self.first, self.first + new), *range(self.first), *after])


def _uploaded(array: DeviceArray, part: Any) -> Any:
    return launching.of(array).upload(part) if isinstance(part, np.ndarray) else part


def _positions(part: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the arrays of positions along the axes that one array of the index is about."""
    if part.dtype.kind not in "biu":
        raise IndexError(f"arrays used as indices must be of integer or boolean type, got {part.dtype}")
    if part.dtype.kind != "b":
        if isinstance(part, np.ndarray) and part.size and not -shape[0] <= part.min() <= part.max() < shape[0]:
            wrong = part[(part < -shape[0]) | (part >= shape[0])].flat[0]
            raise IndexError(f"index {wrong} is out of bounds for an axis of size {shape[0]}")
        return [part]
    if part.shape != shape[: part.ndim]:
        raise IndexError(f"the mask of shape {part.shape} does not fit the indexed axes of shape {shape[: part.ndim]}")
    return list(np.nonzero(part)) if isinstance(part, np.ndarray) else true_places(part)


def _located(array: DeviceArray, parts: tuple[Any, ...]) -> _Located:
    named = sum(_axes(part) for part in parts)
    if named > array.ndim:
        raise IndexError(f"too many indices: array is {array.ndim}-dimensional, but {named} were indexed")
    plain: list[Any] = []  # with a slice for each axis that an array is about
    arrays: list[tuple[int, Any]] = []  # and where it stands
    axis = 0
    for part in parts:
        if part is Ellipsis:
            plain += [slice(None)] * (array.ndim - named)
            axis += array.ndim - named
        elif isinstance(part, (DeviceArray, np.ndarray)):
            for positions in _positions(part, array.shape[axis:]):
                arrays.append((len(plain), positions))
                plain.append(slice(None))
                axis += 1
        else:
            plain.append(part)
            axis += _axes(part)
    if any(isinstance(part, (int, np.integer)) for part in plain):
        raise TypeError("an index on the GPU may not hold integers beside arrays")
    viewed = array[tuple(plain)]
    places = [place for place, _ in arrays]
    moved = viewed.transpose([*places, *[axis for axis in range(viewed.ndim) if axis not in places]])
    sizes = moved.shape[: len(places)]
    given = [_uploaded(array, positions).astype(np.int64, copy=False) for _, positions in arrays]
    positions = _row_major(given, sizes)
    together = places == list(range(places[0], places[-1] + 1))
    return _Located(moved, positions, len(places), places[0] if together else 0)


def _row_major(indices: list[DeviceArray], sizes: tuple[int, ...]) -> DeviceArray:
    """Return, for an index along each of some axes, where the elements lie in the row-major order of those axes."""
    shape = np.broadcast_shapes(*[index.shape for index in indices])
    found = empty(shape, "int64")
    found.fill(0)
    for index, size in zip(indices, sizes):
        if found.size:
            wide = broadcast_to(index, shape).copy("C")
            launch(locate, _grid(found.size), (found.size, size, wide, found, found, launching.current().fault()))
    return found


def _axes(part: Any) -> int:
    """Return how many axes one part of an index is about."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, (DeviceArray, np.ndarray)) and part.dtype.kind == "b" else 1


def take(array: DeviceArray, parts: tuple[Any, ...]) -> DeviceArray:
    """Return ``array[parts]``, a copy, where arrays are among the parts; see `DeviceArray.__getitem__`."""
    with launching.beside(array):
        found = _located(array, parts)
        flat = math.prod(found.moved.shape[: found.axes]), *found.moved.shape[found.axes :]
        return found.result(whole.take_rows(found.moved.reshape(flat), found.positions))


def put(array: DeviceArray, parts: tuple[Any, ...], value: Any) -> None:
    """Do ``array[parts] = value``; of values for one element any is the one that stays."""
    with launching.beside(array):
        found = _located(array, parts)
        if isinstance(value, DeviceArray):
            values = value.astype(array.dtype, copy=False)
        elif isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("an array on the CPU does not go to the GPU by itself: move it with .to('cuda') first")
        else:
            values = empty((), array.dtype.name)
            values.fill(value)
        rows = found.rows(values).copy("C")
        dense = found.moved if found.moved.flags.c_contiguous else found.moved.copy("C")
        flat = math.prod(dense.shape[: found.axes]), *dense.shape[found.axes :]
        whole.put_rows(dense.reshape(flat), found.positions, rows)
        if dense is not found.moved:
            found.moved[...] = dense
