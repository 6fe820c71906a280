"""DeviceArray: an array in a GPU's memory, with what the engine uses of numpy.ndarray.

It holds an address, a shape and strides, and knows nothing of kernels but those that move elements. Views (slices,
transposes) share the memory, which goes back to its pool with the last of them. Arithmetic is what `numbanet.ops` is
for: NumPy's functions refuse a DeviceArray, except for those that only look at shapes, and its values reach the host
only through `to_host`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import index as integer
from sys import getrefcount
from typing import Any

import numpy as np


class Memory:
    """A block of a GPU's memory.

    Attributes
    ----------
    pointer : int
        Its address on the device.
    size : int
        Bytes that may be used.
    owner : object
        What keeps the block alive; it takes the block back when it is no longer referred to.
    ours : bool
        Whether nobody but DeviceArrays reaches it: it is no other library's.
    device : int
        Number of the GPU.
    """

    __slots__ = ("__weakref__", "device", "ours", "owner", "pointer", "size")

    def __init__(self, pointer: int, size: int, owner: Any, ours: bool = True, device: int = 0):
        self.pointer, self.size, self.owner, self.ours, self.device = pointer, size, owner, ours, device


class _Flags:
    """What NumPy tells about the memory of an array."""

    __slots__ = ("_array",)

    def __init__(self, array: DeviceArray):
        self._array = array

    @property
    def c_contiguous(self) -> bool:
        """Whether the elements lie without gaps in row-major order."""
        a = self._array
        return _contiguous(a.shape, a.strides, a.dtype.itemsize)

    @property
    def writeable(self) -> bool:
        """Whether the array may be written to."""
        return self._array.writeable

    @writeable.setter
    def writeable(self, value: bool) -> None:
        self._array.writeable = value


@lru_cache(maxsize=4096)
def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size > 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True


def row_major(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the strides, in bytes, of a C-contiguous array."""
    strides, step = [], itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def view_strides(shape: tuple[int, ...], strides: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the strides of a view of another shape with as many elements; None where only a copy can have it."""
    runs: list[list[int]] = []  # [elements, stride of the innermost axis], innermost run first
    for n, stride in zip(reversed(shape), reversed(strides)):
        if n == 1:
            continue
        if runs and stride == runs[-1][0] * runs[-1][1]:
            runs[-1][0] *= n
        else:
            runs.append([n, stride])
    if 0 in shape:
        return (0,) * len(target)
    found, left, step = list[int](), 1, 1
    for n in reversed(target):
        if left == 1 and n != 1:
            left, step = runs.pop(0)
        if left % n:
            return None
        found.append(step)
        left, step = left // n, step * n
    return tuple(reversed(found))


class DeviceArray:
    """An array in a GPU's memory; made by `numbanet.cuda.launch.empty` and `numbanet.cuda.launch.upload`.

    Attributes
    ----------
    memory : Memory
        The block that it views.
    pointer : int
        Address of the element at which all indices are zero.
    shape, strides : tuple of int
        As in NumPy: strides in bytes.
    dtype : numpy.dtype
    writeable : bool
    """

    __slots__ = ("__weakref__", "dtype", "memory", "pointer", "shape", "strides", "writeable")
    __array_ufunc__ = None  # NumPy's arithmetic shall not take it for a sequence of numbers

    def __init__(
        self, memory: Memory, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype,
        writeable: bool = True,
    ):  # fmt: skip
        self.memory, self.pointer = memory, pointer
        self.shape, self.strides, self.dtype, self.writeable = shape, strides, dtype, writeable

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def base(self) -> Memory:
        """The memory, which views share."""
        return self.memory

    @property
    def device(self) -> str:
        """``"cuda"`` for the first GPU, ``"cuda:1"`` for the next."""
        return f"cuda:{self.memory.device}" if self.memory.device else "cuda"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def flags(self) -> _Flags:
        """``c_contiguous`` and ``writeable``."""
        return _Flags(self)

    @property
    def T(self) -> DeviceArray:  # noqa: N802 - NumPy's name
        """The array with its axes in reverse order."""
        return self.transpose()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-dimensional array")
        return self.shape[0]

    def __bool__(self) -> bool:
        raise TypeError("an array on the GPU is neither true nor false: use .item()")

    def __repr__(self) -> str:
        return f"<DeviceArray {self.shape} {self.dtype} at {self.pointer:#x}>"

    # ------------------------------------------------------------------------------------------------ to and from

    def to_host(self) -> np.ndarray:
        """Return a copy as a NumPy array with the same order of axes in memory."""
        from numbanet.cuda import launch
        from numbanet.watch import doubt

        doubt("values were brought from the GPU, for Python to read")
        return launch.of(self).download(self)

    def item(self) -> Any:
        """Return the only element as a Python number."""
        return self.to_host().item()

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return self.to_host().tolist()

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("an array on the GPU is no NumPy array: move the tensor with .cpu() first")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The memory as other libraries take it, without a copy: version 3, for the stream of `numbanet.cuda`."""
        from numbanet.cuda import launch

        self.memory.ours = False  # from now on
        return {
            "shape": self.shape, "typestr": self.dtype.str, "strides": self.strides, "version": 3,
            "data": (self.pointer if self.size else 0, not self.writeable), "stream": launch.of(self).stream_handle(),
        }  # fmt: skip

    def __reduce__(self) -> Any:
        return _restored, (self.to_host(),)

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return self.copy()

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        ours = _FUNCTIONS.get(function)
        if ours is None:
            raise TypeError(f"numpy.{function.__name__} takes no array on the GPU: use numbanet.ops, or .cpu() first")
        return ours(*args, **kwargs)

    # ------------------------------------------------------------------------------------------------ views

    def _view(self, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> DeviceArray:
        return DeviceArray(self.memory, pointer, shape, strides, self.dtype, self.writeable)

    def view(self, dtype: Any = None) -> DeviceArray:
        """Return a view, whose elements are taken for those of a dtype of the same size."""
        new = self.dtype if dtype is None else np.dtype(dtype)
        if new.itemsize != self.dtype.itemsize:
            raise TypeError(f"dtype must have elements of {self.dtype.itemsize} bytes, got {new}")
        return DeviceArray(self.memory, self.pointer, self.shape, self.strides, new, self.writeable)

    def transpose(self, *axes: Any) -> DeviceArray:
        """Return a view with the axes in another order: reversed if none are given."""
        if not axes or axes[0] is None:
            order: Any = range(len(self.shape))[::-1]
        else:
            order = axes if isinstance(axes[0], (int, np.integer)) else axes[0]
        shape, strides = self.shape, self.strides
        places = [int(axis) + len(shape) * (axis < 0) for axis in order]
        if sorted(places) != list(range(len(shape))):
            raise ValueError(f"axes must name each of {len(shape)} axes once, got {tuple(order)}")
        return self._view(self.pointer, tuple([shape[a] for a in places]), tuple([strides[a] for a in places]))

    def swapaxes(self, first: int, second: int) -> DeviceArray:
        """Return a view with two axes swapped."""
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.transpose(order)

    def reshape(self, *shape: Any) -> DeviceArray:
        """Return the elements in row-major order in another shape: a view where the memory allows one, else a copy."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        target = tuple([integer(size) for size in sizes])
        if -1 in target:
            rest = -math.prod(target)
            target = tuple([self.size // rest if size == -1 and rest else size for size in target])
        if math.prod(target) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {tuple(sizes)}")
        strides = view_strides(self.shape, self.strides, target)
        if strides is None:
            return self.copy("C").reshape(target)
        return self._view(self.pointer, target, strides)

    def ravel(self, order: str = "C") -> DeviceArray:
        """Return the elements in one dimension, in row-major order or ("K") in that of memory."""
        if order == "K":
            axes = sorted(range(self.ndim), key=lambda axis: -abs(self.strides[axis]))
            return self.transpose(axes).reshape(-1) if axes else self.reshape(-1)
        return self.reshape(-1)

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> DeviceArray:
        """Return a view without axes of size 1."""
        axes = range(self.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        gone = {a % self.ndim for a in axes if axis is not None or self.shape[a] == 1} if self.ndim else set()
        if any(self.shape[a] != 1 for a in gone):
            raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
        return self[tuple(0 if a in gone else slice(None) for a in range(self.ndim))]

    def __getitem__(self, index: Any) -> DeviceArray:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, (DeviceArray, np.ndarray)) for part in parts):
            from numbanet.cuda import indexing

            return indexing.take(self, parts)
        named = sum(part is not None and part is not Ellipsis for part in parts)
        if named > self.ndim:
            raise IndexError(f"too many indices: array is {self.ndim}-dimensional, but {named} were indexed")
        pointer, shape, strides, axis = self.pointer, list[int](), list[int](), 0
        for part in parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis):
            if part is None:
                shape.append(1)
                strides.append(0)
            elif part is Ellipsis:
                left = self.ndim - named
                shape += self.shape[axis : axis + left]
                strides += self.strides[axis : axis + left]
                axis += left
            elif isinstance(part, slice):
                start, stop, step = part.indices(self.shape[axis])
                count = len(range(start, stop, step))
                pointer += start * self.strides[axis] if count else 0
                shape.append(count)
                strides.append(step * self.strides[axis])
                axis += 1
            elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
                size = self.shape[axis]
                if not -size <= part < size:
                    raise IndexError(f"index {part} is out of bounds for axis {axis} with size {size}")
                pointer += int(part) % size * self.strides[axis]
                axis += 1
            else:
                raise TypeError(f"an array on the GPU takes integers and slices as index, got {type(part).__name__}")
        return self._view(pointer, tuple(shape), tuple(strides))

    # ------------------------------------------------------------------------------------------------ elements move

    def __setitem__(self, index: Any, value: Any) -> None:
        from numbanet.cuda import launch

        if not self.writeable:
            raise ValueError("assignment destination is read-only")
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, (DeviceArray, np.ndarray)) for part in parts):
            from numbanet.cuda import indexing

            return indexing.put(self, parts, value)
        target = self if index is Ellipsis else self[index]
        with launch.beside(self):
            target._assign(value)

    def _assign(self, value: Any) -> None:
        from numbanet.cuda import move

        if isinstance(value, DeviceArray):
            if value.memory.device != self.memory.device:
                raise ValueError(
                    f"an array on {value.device!r} does not go to {self.device!r} by itself: move it with .to()"
                )
            shared = _overlap(value.memory, self.memory)
            if shared and (value.pointer, value.strides) != (self.pointer, self.strides):
                value = value.copy()  # they may overlap, and threads read and write in any order
            move.copy(self, broadcast_to(value, self.shape))
        elif isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("an array on the CPU does not go to the GPU by itself: move it with .to('cuda') first")
        else:
            move.fill(self, value)

    def fill(self, value: Any) -> None:
        """Set all elements to a number."""
        self[...] = value

    def copy(self, order: str = "K") -> DeviceArray:
        """Return a copy without gaps: with the same order of axes in memory, or ("C") row-major."""
        return self._converted(self.dtype, order)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        """Return the elements in another dtype."""
        new = np.dtype(dtype)
        return self if new == self.dtype and not copy else self._converted(new, "K")

    def _converted(self, dtype: np.dtype, order: str) -> DeviceArray:
        from numbanet.cuda import launch, move

        with launch.beside(self):
            out = _empty_like(self, dtype) if order == "K" else launch.empty(self.shape, dtype.name)
            move.copy(out, self)
        return out


def _empty_like(array: DeviceArray, dtype: Any) -> DeviceArray:
    """Return an array without gaps, with the shape and the order of axes of another."""
    from numbanet.cuda import launch

    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    out = launch.empty(tuple([array.shape[a] for a in axes]), np.dtype(dtype).name)
    return out.transpose([axes.index(a) for a in range(array.ndim)])


def _overlap(first: Memory, second: Memory) -> bool:
    """Return whether blocks have bytes in common; other libraries' memory may be known by several of them."""
    return first.pointer < second.pointer + second.size and second.pointer < first.pointer + first.size


def contiguous_in(block: Memory, shape: Sequence[int], dtype: Any) -> DeviceArray:
    """Return a C-contiguous array that begins where a block does."""
    kind = np.dtype(dtype)
    return DeviceArray(block, block.pointer, tuple(shape), row_major(shape, kind.itemsize), kind)


def _restored(host: np.ndarray) -> DeviceArray:
    from numbanet.cuda import launch

    return launch.upload(host)


def broadcast_to(array: DeviceArray, shape: Any) -> DeviceArray:
    """Return a read-only view of a larger shape, as NumPy's function of that name."""
    target = (shape,) if isinstance(shape, int) else tuple(shape)
    if array.shape == target:
        return array
    extra = len(target) - array.ndim
    if extra < 0 or any(ours not in (1, size) for ours, size in zip(array.shape, target[extra:])):
        raise ValueError(f"an array of shape {array.shape} does not broadcast to {target}")
    kept = [0 if ours != size else step for ours, size, step in zip(array.shape, target[extra:], array.strides)]
    return DeviceArray(array.memory, array.pointer, target, (*[0] * extra, *kept), array.dtype, False)


def _expand_dims(array: DeviceArray, axis: int | tuple[int, ...]) -> DeviceArray:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    ndim = array.ndim + len(axes)
    new = {a % ndim for a in axes}
    return array[tuple(None if a in new else slice(None) for a in range(ndim))]


def full_like(array: DeviceArray, value: Any, dtype: Any = None) -> DeviceArray:
    """Return an array of one value with the shape and the order of axes of another, as NumPy's function."""
    from numbanet.cuda import launch

    with launch.beside(array):
        out = _empty_like(array, array.dtype if dtype is None else dtype)
        out.fill(value)
    return out


_FUNCTIONS: dict[Callable, Callable] = {
    np.broadcast_to: broadcast_to,
    np.expand_dims: _expand_dims,
    np.shape: lambda array: array.shape,
    np.ndim: lambda array: array.ndim,
    np.zeros_like: lambda array, dtype=None: full_like(array, 0, dtype),
    np.ones_like: lambda array, dtype=None: full_like(array, 1, dtype),
}


def alone(array: DeviceArray) -> bool:
    """Return whether the array alone refers to its memory, and covers it: another may take it over."""
    if getrefcount(array.memory) != _ALONE or not array.writeable or not array.memory.ours:
        return False
    return array.memory.size <= 2 * array.nbytes + 512  # and is not a small part of much memory


class _Probe:
    __slots__ = ("memory",)


_probe = _Probe()
_probe.memory = Memory(0, 0, None)  # type: ignore[attr-defined]
_ALONE = getrefcount(_probe.memory)  # type: ignore[attr-defined]
