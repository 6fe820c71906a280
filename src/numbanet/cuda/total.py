"""The sum of a formula over dense memory, added up in float64 in an order that the size alone decides.

A few neighbouring numbers are added in their own dtype, which is what keeps the memory busy on GPUs with few units for
float64; everything above is float64. Blocks leave their sums in a table, and one block adds up the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from numbanet.cuda.block import block_sum
from numbanet.cuda.compile import F64, Double, Int, Kernel, Number, T, kernel
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import THREADS, blocks, i32, lanes, partial_accesses, real

PARTS = 1024  # blocks at most: two for each slot of a large GPU
_WARPS = THREADS // 32
_OPERANDS = 4
f64 = types.float64
_block_sum = block_sum(THREADS)


@lru_cache(maxsize=256)
def _sums(name: str, formula: Callable, operands: int, dtype: str, width: int) -> Kernel:
    """Return the kernel that writes each block's sum of ``formula(a[i], b[i], ..., p, q)``."""
    number = real(dtype)
    zero = number(0)
    get, _ = partial_accesses(width)
    two, three, four = operands > 1, operands > 2, operands > 3

    @kernel(threads=THREADS, blocks=4, config=f"{name},{dtype},{width}")
    def sums(
        size: Int, step: Int, dense_a: Int, dense_b: Int, dense_c: Int, dense_d: Int, p: Number, q: Number,
        a: T, b: T, c: T, d: T, partial: F64,
    ):  # fmt: skip
        scratch = cuda.shared.array(_WARPS, f64)
        va, vb = cuda.local.array(width, number), cuda.local.array(width, number)
        vc, vd = cuda.local.array(width, number), cuda.local.array(width, number)
        for lane in range(width):
            va[lane] = a[0]
            vb[lane] = b[0] if two else zero
            vc[lane] = c[0] if three else zero
            vd[lane] = d[0] if four else zero
        total = f64(0)
        i = i32((i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x)) * width)
        left = i32(size - i)
        while left > 0:
            if dense_a:
                get(a, i, left, va)
            if two and dense_b:
                get(b, i, left, vb)
            if three and dense_c:
                get(c, i, left, vc)
            if four and dense_d:
                get(d, i, left, vd)
            few = zero
            for lane in range(width):
                if four:
                    v = formula(va[lane], vb[lane], vc[lane], vd[lane], p, q)
                elif three:
                    v = formula(va[lane], vb[lane], vc[lane], p, q)
                elif two:
                    v = formula(va[lane], vb[lane], p, q)
                else:
                    v = formula(va[lane], p, q)
                few += v if lane < left else zero
            total += f64(few)
            i, left = i32(i + step), i32(left - step)
        total = _block_sum(total, scratch)
        if cuda.threadIdx.x == 0:
            partial[i32(cuda.blockIdx.x)] = total

    return sums


@kernel(threads=THREADS)
def finish(parts: Int, step: Int, weighted: Int, keeps: Int, fixed: Double, partial: F64, total: T, divisor: F64):
    """total = sum of the parts / a divisor: `fixed`, or where `weighted` the sum of the numbers behind the parts.

    The parts stand `step` apart. `keeps`: the divisor is written, too.
    """
    scratch, other = cuda.shared.array(_WARPS, f64), cuda.shared.array(_WARPS, f64)
    mine, weight = f64(0), f64(0)
    for i in range(i32(cuda.threadIdx.x), parts, THREADS):
        mine += partial[i32(i * step)]
        if weighted:
            weight += partial[i32(i * step + 1)]
    mine, weight = _block_sum(mine, scratch), _block_sum(weight, other)
    if cuda.threadIdx.x == 0:
        if not weighted:
            weight = fixed
        total[0] = mine / weight
        if keeps:
            divisor[0] = weight


def run_total(
    name: str, formula: Callable, dtype: str, size: int, operands: Sequence[Any], total: Any, divisor: float,
    parameters: Sequence[float] = (0.0, 0.0), dense: Sequence[bool] = (True,) * _OPERANDS, kept: Any = None,
) -> None:  # fmt: skip
    """Write the sum of a formula's numbers, divided by `divisor`, which is written to `kept` if there is one.

    The other arguments are those of `numbanet.cuda.flat.run_flat`.
    """
    wide = lanes(dtype) if aligned(*operands) else 1
    chosen = _sums(name, formula, len(operands), dtype, wide)
    parts = min(PARTS, blocks(-(-size // wide)))
    missing = _OPERANDS - len(operands)
    flags = (*map(int, dense[: len(operands)]), *(0,) * missing)
    partial = empty((max(parts, 1),), "float64")
    arrays = (*operands, *(None,) * missing, partial)
    launch(chosen, (parts,), (size, parts * THREADS * wide, *flags, *parameters, *arrays), dtype)
    launch(finish, (1,), (parts, 1, 0, int(kept is not None), divisor, partial, total, kept), dtype)
