"""Clipping by the norm of many arrays together, with no value that Python waits for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from numbanet.cuda.compile import F64, I32, I64, Double, Int, Kernel, T, kernel
from numbanet.cuda.launch import constant, empty, launch, where_arrays_are
from numbanet.cuda.many import array_of, piece_of, pieces, table, width_of
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import THREADS, i32, partial_accesses, real
from numbanet.device_array import DeviceArray

f64 = types.float64
_LARGEST, _LEAST, _COUNT, _POWER = range(4)
_KINDS = {math.inf: _LARGEST, -math.inf: _LEAST, 0.0: _COUNT}


@kernel(threads=1)
def factor(count: Int, kind: Int, order: Double, most: Double, sums: F64, out: F64):
    """out[0] = the norm of all arrays together, of whose elements' powers these are the sums; out[1] = what scales."""
    total = sums[0] if kind == _LARGEST or kind == _LEAST else f64(0)
    for i in range(count):
        value = sums[i]
        if kind == _LARGEST:
            total = value if value > total or value != value else total
        elif kind == _LEAST:
            total = value if value < total or value != value else total
        elif kind == _COUNT:
            total += f64(1) if value != f64(0) else f64(0)
        else:
            total += value
    if kind == _POWER:
        total = math.sqrt(total) if order == f64(2) else math.pow(total, f64(1) / order)
    out[0] = total
    share = most / (total + f64(1e-6))
    out[1] = f64(1) if share >= f64(1) else share  # NaN scales, too


@lru_cache(maxsize=8)
def _scaling(dtype: str, wide: int) -> Kernel:
    number = real(dtype)
    get, put = partial_accesses(wide)

    @kernel(threads=THREADS, config=f"{dtype},{wide}")
    def scale_by(by: F64, like: T, arrays: I64, plan: I32):
        values = cuda.local.array(wide, number)
        row, start, count = piece_of(plan, i32(cuda.blockIdx.x))
        x, share = array_of(like, arrays, row, 1, 0), number(by[1])
        for k in range(i32(i32(cuda.threadIdx.x) * wide), count, THREADS * wide):
            i, left = i32(start + k), i32(count - k)
            get(x, i, left, values)
            for lane in range(wide):
                values[lane] = values[lane] * share
            put(x, i, left, values)

    return scale_by


@where_arrays_are
def norm_and_factor(sums: DeviceArray, most: float, order: float) -> DeviceArray:
    """Return, on the GPU, the norm of many arrays together, and what scales them to one of at most `most`; float64.

    Parameters
    ----------
    sums : DeviceArray
        Of each array what `VectorNormProblem` gives.
    most, order : float
    """
    found = empty((2,), "float64")
    launch(factor, (1,), (sums.size, _KINDS.get(order, _POWER), order, most, sums, found))
    return found


@where_arrays_are
def scale_all(groups: Sequence[Sequence[DeviceArray]], found: DeviceArray) -> None:
    """Scale dense arrays in place by what `norm_and_factor` found; float32 or float64, one dtype a group."""
    for members in groups:
        plan, dtype = pieces(tuple([x.size for x in members])), members[0].dtype.name
        if len(plan):
            run = _scaling(dtype, width_of(dtype, [members]))
            launch(run, (len(plan),), (found, None, table([members]), constant(plan)), dtype)
