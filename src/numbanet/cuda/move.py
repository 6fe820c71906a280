"""Copy, convert and fill arrays of any dtype and strides on the GPU: what assignment to a DeviceArray does.

The kernels walk the elements in the target's order of memory. Axes that lie one after the other in both arrays count as
one, so a copy between equal layouts is a copy of a line.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.cuda.compile import I64, U8, Int, Kernel, Long, device, kernel
from numbanet.cuda.launch import constant, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.device_array import DeviceArray

_THREADS = 256
POINTEES = {
    "bool": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""What kernels call the elements of a dtype."""
_BITS = {1: "U8", 2: "U16", 4: "U32", 8: "U64"}  # for who does not look at the values

i64 = types.int64


class Walk(NamedTuple):
    """How a kernel walks arrays of one shape.

    Attributes
    ----------
    count : int
        Elements.
    rank : int
        Axes that are left.
    table : numpy.ndarray
        The sizes of the axes, then their strides in each of the arrays, in elements; the innermost axis last.
    """

    count: int
    rank: int
    table: np.ndarray

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of a kernel in which each thread takes one element."""
        return -(-self.count // _THREADS), 1, 1


@lru_cache(maxsize=4096)
def walk(shape: tuple[int, ...], *strides: tuple[int, ...]) -> Walk:
    """Plan a walk over arrays of a shape with these strides (in elements), in the order of memory of the last."""
    order = sorted((axis for axis, n in enumerate(shape) if n != 1), key=lambda axis: -abs(strides[-1][axis]))
    axes: list[tuple[int, ...]] = []  # (size, strides...)
    for axis in order:
        size, steps = shape[axis], [s[axis] for s in strides]
        if axes and all(before == step * size for before, step in zip(axes[-1][1:], steps)):
            axes[-1] = (axes[-1][0] * size, *steps)
        else:
            axes.append((size, *steps))
    table = np.array(axes or [(1, *[0] * len(strides))], np.int64).T
    return Walk(int(np.prod(table[0])), table.shape[1], np.ascontiguousarray(table))


@device
def place(i, rank, table, which):
    """Return where element i of a walk lies in its array number `which`."""
    at, rest = i64(0), i
    for step in range(rank - 1):
        axis = i64(rank - 1 - step)
        size = table[axis]
        index = rest % size
        rest = rest // size
        at += index * table[i64((which + 1) * rank + axis)]
    return at + rest * table[i64((which + 1) * rank)]


@lru_cache(maxsize=256)
def copying(source: str, target: str, to_bool: bool) -> Kernel:
    """Return the kernel that copies elements of one kind to another; see `numbanet.cuda.compile` for the words."""

    def convert(count: Long, rank: Int, table: I64, x: U8, y: U8):
        i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
        if i < count:
            value = x[place(i, rank, table, 0)]
            if to_bool:
                y[place(i, rank, table, 1)] = types.uint8(value != 0)
            else:
                y[place(i, rank, table, 1)] = value

    convert.__annotations__.update(x=source, y=target)
    return kernel(threads=_THREADS, config=f"{source},{'bool' if to_bool else target}")(convert)


@lru_cache(maxsize=8)
def filling(target: str) -> Kernel:
    """Return the kernel that writes one pattern of bits to all elements."""

    def fill(count: Long, rank: Int, table: I64, bits: Long, y: U8):
        i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
        if i < count:
            y[place(i, rank, table, 0)] = bits

    fill.__annotations__.update(y=target)
    return kernel(threads=_THREADS, config=target)(fill)


def in_elements(x: Any) -> tuple[int, ...]:
    """Return the strides of an array, in elements."""
    size = x.dtype.itemsize
    return tuple([step // size for step in x.strides])


def copy(target: DeviceArray, source: DeviceArray) -> None:
    """Copy the elements of an array to another of the same shape, in its dtype; the two must not overlap."""
    if not target.size:
        return
    planned = walk(target.shape, in_elements(source), in_elements(target))
    if source.dtype == target.dtype:
        bits = _BITS[target.dtype.itemsize]
        run = copying(bits, bits, False)
    else:
        run = copying(POINTEES[source.dtype.name], POINTEES[target.dtype.name], target.dtype == bool)
    launch(run, planned.grid, (planned.count, planned.rank, constant(planned.table), source, target))


def fill(target: DeviceArray, value: Any) -> None:
    """Set all elements of an array to a number."""
    if not target.size:
        return
    kind = np.dtype(f"u{target.dtype.itemsize}")
    bits = int(np.array(value).astype(target.dtype).reshape(()).view(kind).astype(np.uint64).view(np.int64))
    planned = walk(target.shape, in_elements(target))
    run = filling(_BITS[target.dtype.itemsize])
    launch(run, planned.grid, (planned.count, planned.rank, constant(planned.table), bits, target))
