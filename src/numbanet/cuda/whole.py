"""What the engine computes of integers and booleans on the GPU: arithmetic, comparisons, sums, extremes, rows.

On the CPU these are left to NumPy. One kernel walks any number of arrays of any strides with one function; speed is of
no concern: labels, counts and masks are small beside what the float kernels move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cuda.compile import I64, U8, Int, Kernel, Long, device, kernel
from numbanet.cuda.launch import constant, empty, launch, where_arrays_are
from numbanet.cuda.move import POINTEES, Walk, in_elements, place, walk
from numbanet.cuda.ptx import cuda, types
from numbanet.device_array import DeviceArray, broadcast_to

_THREADS = 256
i64 = types.int64


def _power(a, b):
    # As NumPy's: negative powers of integers lose their fraction.
    result, base, left = i64(1), a, b
    if b < 0:
        result = i64(1) if a == 1 else i64(0)
        if a == -1:
            result = i64(1) if b % 2 == 0 else i64(-1)
        left = i64(0)
    while left > 0:
        if left & 1:
            result *= base
        base *= base
        left >>= 1
    return result


FUNCTIONS: dict[str, tuple[int, Callable, bool]] = {
    "add": (2, lambda a, b: a + b, False),
    "sub": (2, lambda a, b: a - b, False),
    "mul": (2, lambda a, b: a * b, False),
    "pow": (2, _power, False),
    "maximum": (2, lambda a, b: a if a > b else b, False),
    "minimum": (2, lambda a, b: a if a < b else b, False),
    "neg": (1, lambda a: -a, False),
    "abs": (1, lambda a: -a if a < 0 else a, False),
    "clamp": (3, lambda a, low, high: min(max(a, low), high), False),
    "where": (3, lambda a, b, condition: a if condition != 0 else b, False),
    "and": (2, lambda a, b: a & b, False),
    "or": (2, lambda a, b: a | b, False),
    "xor": (2, lambda a, b: a ^ b, False),
    "not": (1, lambda a: ~a, False),
    "eq": (2, lambda a, b: a == b, True),
    "ne": (2, lambda a, b: a != b, True),
    "lt": (2, lambda a, b: a < b, True),
    "le": (2, lambda a, b: a <= b, True),
    "gt": (2, lambda a, b: a > b, True),
    "ge": (2, lambda a, b: a >= b, True),
}
"""``{name: (operands, function of int64, whether the result is boolean)}``."""
_LOGICAL = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and"}  # what NumPy makes of them for booleans


@lru_cache(maxsize=256)
def _kernel(name: str, kinds: tuple[str, ...], result: str, boolean: bool) -> Kernel:
    operands, function, compares = FUNCTIONS[name]
    compute, two, three = device(function), operands > 1, operands > 2
    flips = boolean and name == "not"

    def whole(count: Long, rank: Int, table: I64, a: U8, b: U8, c: U8, y: U8):
        i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
        if i < count:
            x = i64(a[place(i, rank, table, 0)])
            if three:
                value = compute(x, i64(b[place(i, rank, table, 1)]), i64(c[place(i, rank, table, 2)]))
            elif two:
                value = compute(x, i64(b[place(i, rank, table, 1)]))
            else:
                value = compute(x)
            at = place(i, rank, table, 3)
            if compares:
                y[at] = types.uint8(1) if value else types.uint8(0)
            elif flips:
                y[at] = types.uint8(x == 0)
            else:
                y[at] = value

    whole.__annotations__.update(zip("abc", (*kinds, "U8", "U8")[:3]), y=result)
    return kernel(threads=_THREADS, config=",".join((name, *kinds, result, "boolean" * boolean)))(whole)


@where_arrays_are
def elementwise(function: str, operands: Sequence[Any]) -> Any:
    """Return a function of arrays of integers or booleans that broadcast, in their common dtype.

    Parameters
    ----------
    function : str
        A key of `FUNCTIONS`. The condition of ``"where"`` comes last.
    operands : sequence of DeviceArray
        All of one dtype, but for the condition.
    """
    dtype = operands[0].dtype
    if dtype.kind == "b":
        if function in ("neg", "sub"):
            raise TypeError(f"{function} of booleans is not defined: use ^, ~ or logical_not")
        function = _LOGICAL.get(function, function)
    shape = np.broadcast_shapes(*[x.shape for x in operands])
    out = empty(shape, "bool" if FUNCTIONS[function][2] else dtype.name)
    if out.size:
        wide = [broadcast_to(x, shape) for x in operands]
        given = (*wide, *[None] * (3 - len(wide)))
        strides = [in_elements(wide[0] if x is None else x) for x in given]
        planned = walk(shape, *strides, in_elements(out))
        kinds = tuple(POINTEES[x.dtype.name] for x in wide)
        run = _kernel(function, kinds, POINTEES[out.dtype.name], dtype.kind == "b")
        launch(run, planned.grid, (planned.count, planned.rank, constant(planned.table), *given, out))
    return out


@lru_cache(maxsize=64)
def _reducing(kind: str, result: str, mode: str) -> Kernel:
    """Return the kernel of which each thread goes along one line: "sum", "max" or "min"."""
    sums, largest = mode == "sum", mode == "max"

    def reduce(count: Long, rank: Int, table: I64, length: Long, step: Long, x: U8, y: U8, positions: I64):
        i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
        if i < count:
            at = place(i, rank, table, 0)
            if sums:
                total = i64(0)
                for j in range(length):
                    total += i64(x[i64(at + j * step)])
                y[i] = total
            else:
                best, where = x[at], i64(0)
                for j in range(1, length):
                    value = x[i64(at + j * step)]
                    if (largest and value > best) or (not largest and value < best):
                        best, where = value, i64(j)
                y[i] = best
                positions[i] = where

    reduce.__annotations__.update(x=kind, y=result)
    return kernel(threads=_THREADS, config=f"{mode},{kind}")(reduce)


def _along(x: DeviceArray, axis: int, mode: str, out: DeviceArray, positions: DeviceArray | None) -> None:
    rest = x[tuple(0 if a == axis else slice(None) for a in range(x.ndim))]
    row = [step // out.itemsize for step in out.strides]
    planned: Walk = walk(rest.shape, in_elements(rest), tuple(row))
    step = x.strides[axis] // x.itemsize
    run = _reducing(POINTEES[x.dtype.name], POINTEES[out.dtype.name], mode)
    if out.size:
        table = constant(planned.table)
        launch(run, planned.grid, (planned.count, planned.rank, table, x.shape[axis], step, rest, out, positions))


@where_arrays_are
def total(x: Any, dims: Sequence[int], keepdim: bool) -> Any:
    """Return the sums, in int64, over some dimensions."""
    for axis in sorted(dims[: x.ndim], reverse=True):
        out = empty(tuple(n for a, n in enumerate(x.shape) if a != axis), "int64")
        _along(x, axis, "sum", out, None)
        x = out[(*[slice(None)] * axis, None)] if keepdim else out
    return x.astype(np.int64, copy=False)


@where_arrays_are
def extremum(x: Any, axis: int, largest: bool) -> tuple[Any, Any]:
    """Return the largest (or smallest) elements along a dimension, kept with size 1, and the places of the first."""
    shape = tuple(n for a, n in enumerate(x.shape) if a != axis)
    found, positions = empty(shape, x.dtype.name), empty(shape, "int64")
    _along(x, axis, "max" if largest else "min", found, positions)
    wide = (*[slice(None)] * axis, None)
    return found[wide], positions[wide]


@lru_cache(maxsize=16)
def _indexing(kind: str, scatters: bool) -> Kernel:
    """Return the kernel that reads rows of x by index into y, or writes the rows of y to x."""

    def take(count: Long, inner: Long, rows: Long, index: I64, x: U8, y: U8):
        i = i64(cuda.blockIdx.x) * _THREADS + i64(cuda.threadIdx.x)
        if i < count:
            row = index[i64(i // inner)]
            if row < 0:
                row += rows
            if row >= 0 and row < rows:
                at = i64(row * inner + i % inner)
                if scatters:
                    x[at] = y[i]
                else:
                    y[i] = x[at]

    take.__annotations__.update(x=kind, y=kind)
    return kernel(threads=_THREADS, config=f"{kind},{'put' if scatters else 'get'}")(take)


def _launch_rows(x: DeviceArray, index: DeviceArray, y: DeviceArray, scatters: bool) -> None:
    rows, inner = x.shape[0], math.prod(x.shape[1:])
    bits = {1: "U8", 2: "U16", 4: "U32", 8: "U64"}[x.itemsize]
    if y.size:
        grid = -(-y.size // _THREADS), 1, 1
        launch(_indexing(bits, scatters), grid, (y.size, inner, rows, index, x, y))


def take_rows(x: DeviceArray, index: DeviceArray) -> DeviceArray:
    """Return ``x[index]`` for an array of integers; negative ones count from the end.

    The row of an index that is out of bounds is arbitrary.
    """
    index = index.astype(np.int64, copy=False).copy("C")
    y = empty((*index.shape, *x.shape[1:]), x.dtype.name)
    _launch_rows(x.copy("C"), index, y, scatters=False)
    return y


def put_rows(x: DeviceArray, index: DeviceArray, rows: DeviceArray) -> None:
    """Do ``x[index] = rows`` for C-contiguous arrays; an index that is out of bounds writes nothing."""
    _launch_rows(x, index.astype(np.int64, copy=False).copy("C"), rows, scatters=True)


@where_arrays_are
def put_along(target: DeviceArray, positions: DeviceArray, values: DeviceArray, axis: int) -> None:
    """Write values of size 1 along an axis to their positions there: NumPy's ``put_along_axis``."""
    lines = target.swapaxes(axis, -1)
    count = math.prod(lines.shape[:-1])
    base = np.arange(count).reshape(lines.shape[:-1]) * lines.shape[-1]
    at = elementwise("add", (positions.swapaxes(axis, -1)[..., 0], constant(_kept(base))))
    dense = lines.copy("C")
    _launch_rows(dense.reshape(-1), at.copy("C"), values.swapaxes(axis, -1)[..., 0].copy("C"), scatters=True)
    lines[...] = dense


@lru_cache(maxsize=64)
def _interned(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, np.int64).reshape(shape)


def _kept(table: np.ndarray) -> np.ndarray:
    """Return an equal table that lives on, so that its copy on the device serves again."""
    return _interned(np.ascontiguousarray(table, np.int64).tobytes(), table.shape)
