"""One kernel that computes every formula of a table, so that each is checked and only one kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numbanet.cuda.compile import Int, Kernel, T, device, kernel
from numbanet.cuda.launch import executor, launch
from numbanet.cuda.ptx import cuda, types
from tests.cuda.ptx.executor import Interpreter

i32 = types.int32


@device
def _nothing(*operands: Any) -> None:
    pass


def _chain(formulas: Sequence[Callable], takes: int, convert: Any) -> Any:
    """Return ``f(at, size, y, operands)``, which writes the result of formula k to ``y[at + k * size]``."""
    rest = _nothing
    for number, formula in reversed(list(enumerate(formulas))):
        rest = _link(number, formula, rest, convert)
    return rest


def _link(number: int, formula: Callable, rest: Any, convert: Any) -> Any:
    @device
    def write(at: Any, size: Any, y: Any, operands: Any) -> None:
        y[i32(at + number * size)] = convert(formula(*operands))
        rest(at, size, y, operands)

    return write


def all_formulas(name: str, formulas: Sequence[Callable], takes: int, dtype: str) -> Kernel:
    """Return the kernel ``y[k, i] = formulas[k](a[i], b[i], ...)``, of `takes` operands from 2 to 6."""
    convert = types.float32 if dtype == "float32" else types.float64
    write = _chain(formulas, takes, convert)

    @kernel(threads=128, config=f"{name},{dtype}")
    def table(size: Int, a: T, b: T, c: T, d: T, e: T, f: T, y: T):
        i = i32(i32(cuda.blockIdx.x) * 128 + i32(cuda.threadIdx.x))
        if i < size:
            if takes == 2:
                write(i, size, y, (a[i], b[i]))
            if takes == 3:
                write(i, size, y, (a[i], b[i], c[i]))
            if takes == 4:
                write(i, size, y, (a[i], b[i], c[i], d[i]))
            if takes == 5:
                write(i, size, y, (a[i], b[i], c[i], d[i], e[i]))
            if takes == 6:
                write(i, size, y, (a[i], b[i], c[i], d[i], e[i], f[i]))

    return table


def evaluate(name: str, formulas: Sequence[Callable], operands: Sequence[np.ndarray]) -> np.ndarray:
    """Return the results, an array of (formula, element)."""
    first = operands[0]
    chosen = all_formulas(name, formulas, len(operands), first.dtype.name)
    y = np.full((len(formulas), first.size), np.nan, first.dtype)
    arrays = (*operands, *(None,) * (6 - len(operands)), y)
    with executor(Interpreter()):
        launch(chosen, (-(-first.size // 128),), (first.size, *arrays), first.dtype.name)
    return y
