"""Formulas over dense memory: the one loop of activations and of everything else whose operands lie alike.

A formula takes as many operands as it needs and two parameters, numbers of one dtype. An operand has an element for
each result, or a single one that serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from numbanet.cuda.compile import Int, Kernel, Number, T, kernel
from numbanet.cuda.launch import aligned, launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, blocks, i32, lanes, partial_accesses, real

OPERANDS = 4


@lru_cache(maxsize=1024)
def flat_kernel(name: str, formula: Callable, operands: int, dtype: str, width: int) -> Kernel:
    """Return the kernel ``y[i] = formula(a[i], b[i], ..., p, q)``.

    Parameters
    ----------
    name : str
    formula : device function
    operands : int
        How many it takes, from 1 to 4.
    dtype : str
    width : int
        Numbers that a thread computes.
    """
    number = real(dtype)
    get, put = partial_accesses(width)
    two, three, four = operands > 1, operands > 2, operands > 3

    @kernel(threads=THREADS, blocks=4, config=f"{name},{dtype},{width}")
    def flat(
        size: Int, dense_a: Int, dense_b: Int, dense_c: Int, dense_d: Int, p: Number, q: Number,
        a: T, b: T, c: T, d: T, y: T,
    ):  # fmt: skip
        i = i32((i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x)) * width)
        left = i32(size - i)
        va, vb = cuda.local.array(width, number), cuda.local.array(width, number)
        vc, vd = cuda.local.array(width, number), cuda.local.array(width, number)
        if left > 0:
            if dense_a:
                get(a, i, left, va)
            else:
                for lane in range(width):
                    va[lane] = a[0]
            if two:
                if dense_b:
                    get(b, i, left, vb)
                else:
                    for lane in range(width):
                        vb[lane] = b[0]
            if three:
                if dense_c:
                    get(c, i, left, vc)
                else:
                    for lane in range(width):
                        vc[lane] = c[0]
            if four:
                if dense_d:
                    get(d, i, left, vd)
                else:
                    for lane in range(width):
                        vd[lane] = d[0]
            for lane in range(width):
                if four:
                    va[lane] = formula(va[lane], vb[lane], vc[lane], vd[lane], p, q)
                elif three:
                    va[lane] = formula(va[lane], vb[lane], vc[lane], p, q)
                elif two:
                    va[lane] = formula(va[lane], vb[lane], p, q)
                else:
                    va[lane] = formula(va[lane], p, q)
            put(y, i, left, va)

    return flat


def run_flat(
    name: str, formula: Callable, dtype: str, size: int, operands: Sequence[Any], y: Any,
    parameters: Sequence[float] = (0.0, 0.0), dense: Sequence[bool] = (True,) * OPERANDS,
) -> None:  # fmt: skip
    """Compute a formula over dense memory.

    Parameters
    ----------
    name : str
        What tells the formula from others.
    formula : device function
        Of the operands and two parameters.
    dtype : str
    size : int
        Elements of the result.
    operands : sequence of device array
        At most four.
    y : device array
        The result; it may be one of the operands.
    parameters : sequence of float
    dense : sequence of bool
        For each operand, whether it has `size` elements, or one.
    """
    wide = lanes(dtype) if aligned(*operands, y) else 1
    chosen = flat_kernel(name, formula, len(operands), dtype, wide)
    missing = OPERANDS - len(operands)
    flags = (*map(int, dense[: len(operands)]), *(0,) * missing)
    arrays = (*operands, *(None,) * missing, y)
    launch(chosen, (blocks(-(-size // wide)),), (size, *flags, *parameters, *arrays), dtype)
