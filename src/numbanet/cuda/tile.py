"""The register tile of float32 products on the ordinary cores (FFMA), for whatever the operands are read from.

A block of 256 threads computes 128 x 128 results in slices of 8 of the reduction, double-buffered in shared memory; a
thread holds 8 x 8 of them in registers. In each slice a thread brings 4 neighbouring elements of either operand, which
a *loader* reads: a device function ``load(operand, slice, out)``, where `operand` is a tuple of whatever it needs. An
operand that is contiguous ALONG the reduction is loaded so that thread t brings 4 elements of the reduction of place
t // 2; one that is contiguous ACROSS it so that thread t brings 4 places of element t // 32 (see `brought`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import Epilogue

SIZE = 128  # rows, and columns, of a block
DEPTH = 8  # of the reduction, a slice
SIDE = 8  # results of a thread along each axis
THREADS = (SIZE // SIDE) ** 2
_SLICE = DEPTH * SIZE
_SHARED = 2 * _SLICE  # Numba takes the size of a shared array by name only
HALF = SIZE // 2

i32, f32 = types.int32, types.float32


@device
def _fragment(tile, start, out):
    """Read the 4 + 4 numbers of a thread from one line of a tile."""
    out[0], out[1], out[2], out[3] = ptx.load4(tile, i32(start))
    out[4], out[5], out[6], out[7] = ptx.load4(tile, i32(start + HALF))


@device
def _outer(total, a, b):
    for i in range(SIDE):
        for j in range(SIDE):
            total[i, j] += a[i] * b[j]


@device
def _multiply(total, tile_a, tile_b, at_a, at_b, a0, b0, a1, b1):
    """Add the products of one slice; while one line is multiplied, the next is on its way to registers."""
    _fragment(tile_a, at_a, a0)
    _fragment(tile_b, at_b, b0)
    for k in range(0, DEPTH, 2):
        _fragment(tile_a, i32(at_a + (k + 1) * SIZE), a1)
        _fragment(tile_b, i32(at_b + (k + 1) * SIZE), b1)
        _outer(total, a0, b0)
        if k + 2 < DEPTH:
            _fragment(tile_a, i32(at_a + (k + 2) * SIZE), a0)
            _fragment(tile_b, i32(at_b + (k + 2) * SIZE), b0)
        _outer(total, a1, b1)


@device
def _put_along(tile, at, values):
    for e in range(4):
        tile[i32(at + e * SIZE)] = values[e]


@device
def _put_across(tile, at, values):
    ptx.store4(tile, at, (values[0], values[1], values[2], values[3]))


@device
def _brought_along():
    t = i32(cuda.threadIdx.x)
    return i32(t >> 1), i32((t & 1) * 4)


@device
def _brought_across():
    t = i32(cuda.threadIdx.x)
    return i32((t & 31) * 4), i32(t >> 5)


def brought(across: bool) -> Any:
    """Return the device function that tells the (place, element of the slice) from which on this thread brings 4."""
    return _brought_across if across else _brought_along


@device
def results():
    """Return the (row, column) of this thread's first result: it holds rows r to r + 3 and r + 64 to r + 67, ..."""
    t = i32(cuda.threadIdx.x)
    return i32((t >> 4) * 4), i32((t & 15) * 4)


def product(load_a: Callable, across_a: bool, load_b: Callable, across_b: bool) -> Any:
    """Make the device function ``accumulate(first, last, a, b, total)``: add slices first to last - 1 to the results.

    Parameters
    ----------
    load_a, load_b : device function
        ``load(operand, slice, out)`` reads 4 elements, zeros beyond the operand's ends.
    across_a, across_b : bool
        The 4 elements are neighbouring rows (of b: columns), not neighbours along the reduction.
    """
    put_a, put_b = (_put_across if across else _put_along for across in (across_a, across_b))
    brought_a, brought_b = brought(across_a), brought(across_b)

    @device
    def accumulate(first, last, a, b, total):
        tile_a = ptx.pointer(cuda.shared.array(_SHARED, f32, 128))
        tile_b = ptx.pointer(cuda.shared.array(_SHARED, f32, 128))
        a0, a1 = cuda.local.array(SIDE, f32), cuda.local.array(SIDE, f32)
        b0, b1 = cuda.local.array(SIDE, f32), cuda.local.array(SIDE, f32)
        next_a, next_b = cuda.local.array(4, f32), cuda.local.array(4, f32)
        for p in range(SIDE):
            for q in range(SIDE):
                total[p, q] = f32(0)
        place, line = brought_a()
        to_a = i32(line * SIZE + place)
        place, line = brought_b()
        to_b = i32(line * SIZE + place)
        at_a, at_b = results()
        if first < last:
            load_a(a, first, next_a)
            load_b(b, first, next_b)
        buffer = i32(0)
        for number in range(first, last):
            put_a(tile_a, i32(buffer * _SLICE + to_a), next_a)
            put_b(tile_b, i32(buffer * _SLICE + to_b), next_b)
            cuda.syncthreads()
            if number + 1 < last:
                load_a(a, i32(number + 1), next_a)
                load_b(b, i32(number + 1), next_b)
            _multiply(total, tile_a, tile_b, i32(buffer * _SLICE + at_a), i32(buffer * _SLICE + at_b), a0, b0, a1, b1)
            buffer = i32(buffer ^ 1)

    return accumulate


def fetcher(used: bool, lanes: int) -> Any:
    """Make ``fetch(x, at)``: a tuple of 2 or 4 neighbouring numbers, or one number; zeros where x is not used."""

    @device
    def four(x, at):
        return ptx.load4(x, at)

    @device
    def two(x, at):
        return ptx.load2(x, at)

    @device
    def one(x, at):
        return x[at]

    @device
    def zeros(x, at):
        return f32(0), f32(0), f32(0), f32(0)

    @device
    def zero(x, at):
        return f32(0)

    return {4: four, 2: two, 1: one}[lanes] if used else zero if lanes == 1 else zeros


def finisher(epilogue: Epilogue) -> Any:
    """Make the device function ``finish(value, bias, addend)`` of an epilogue."""
    adds_bias, adds_residual, activation = epilogue.bias, epilogue.residual, epilogue.activation
    clamps, clamps_above = activation is not None, activation == "relu6"

    @device
    def finish(value, bias, addend):
        if adds_bias:
            value += bias
        if adds_residual:
            value += addend
        if clamps:
            value = f32(0) if value < f32(0) else value  # which keeps NaN
        if clamps_above:
            value = f32(6) if value > f32(6) else value
        return value

    return finish


def words(epilogue: Epilogue) -> list[str]:
    """Return what names an epilogue in the configuration of a kernel."""
    found = [word for word, chosen in (("bias", epilogue.bias), ("residual", epilogue.residual)) if chosen]
    return found + ([epilogue.activation] if epilogue.activation else [])


def writer(vector: bool, epilogue: Epilogue) -> Any:
    """Make the device function ``write(total, p, start, column, columns, first, bias, residual, y)``.

    It stores row p of a thread's results: that of column j goes to ``y[start + j]``, and j's bias is
    ``bias[first + j]``; `column` is the thread's first, and those from `columns` on are dropped. With `vector`, all
    of these numbers are multiples of 4.
    """
    finish = finisher(epilogue)
    fetch_bias, fetch_addend = (fetcher(used, 4 if vector else 1) for used in (epilogue.bias, epilogue.residual))

    @device
    def write_vector(total, p, start, column, columns, first, bias, residual, y):
        for half in range(2):
            j = i32(column + half * HALF)
            if j < columns:
                b, addend = fetch_bias(bias, i32(first + j)), fetch_addend(residual, i32(start + j))
                ptx.store4(y, i32(start + j), (
                    finish(total[p, 4 * half], b[0], addend[0]),
                    finish(total[p, 4 * half + 1], b[1], addend[1]),
                    finish(total[p, 4 * half + 2], b[2], addend[2]),
                    finish(total[p, 4 * half + 3], b[3], addend[3]),
                ))  # fmt: skip

    @device
    def write_single(total, p, start, column, columns, first, bias, residual, y):
        for half in range(2):
            for q in range(4):
                j = i32(column + half * HALF + q)
                if j < columns:
                    at = i32(start + j)
                    b, addend = fetch_bias(bias, i32(first + j)), fetch_addend(residual, at)
                    y[at] = finish(total[p, 4 * half + q], b, addend)

    return write_vector if vector else write_single
