"""Elementwise functions with broadcasting: one strided loop, compiled once for each function.

Every function has three operands; what a function does not use is never read (the compiler drops the loads). The loop
walks up to four dimensions of the result's memory; in the innermost, operands that lie side by side are read as vectors
and broadcast ones stay in a register. Any other step is taken one element at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import vmath
from numbanet.cpu.compile import I64, Index, Kernel, T, device, kernel
from numbanet.cpu.copy import arrange
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    absolute,
    bits,
    convert,
    integers,
    lanes,
    load_as,
    load_as_tail,
    maximum,
    minimum,
    numpy_lanes,
    offset,
    select,
    splat,
    splat_as,
    splat_pair,
    sqrt,
    store_tail,
)
from numbanet.cpu.stream import aligned, drain, put, streams

MAX_DIMS = 4
_CHUNK = 1 << 14  # elements a task: large enough to hide the launch, small enough to share evenly
_SERIAL = 1 << 16  # up to so many elements one task does all: waking threads would cost more
_SHORT = 300  # rows of fewer elements are taken several at a time:
_WIDE = 1 << 10  # elements, about, which leave of the first-level cache enough for what streams through it


def _make(name: str, function: Callable) -> Kernel:
    """Return the kernel ``out = function(a, b, c)`` on vectors."""
    apply = device(function)

    def run(task: Index, ints: I64, a: T, b: T, c: T, out: T):
        (rows, d1, d2, n, rows_a_task, pieces, chunk, elements, large) = integers(ints, 9)
        (a_start, a0, a1, a2, a3, b_start, b0, b1, b2, b3, c_start, c0, c1, c2, c3) = integers(offset(ints, 9), 15)
        row = task // pieces * rows_a_task
        last = min(rows, row + rows_a_task)
        first = task % pieces * chunk
        i2, i1, i0 = row % d2, row // d2 % d1, row // d2 // d1
        dense = (a3 == 0 or a3 == 1) and (b3 == 0 or b3 == 1) and (c3 == 0 or c3 == 1)
        past = large != 0 and aligned(out)
        width = lanes(a)
        zero, pair = splat(a, 0.0), splat_pair(a, 0.0)
        while row < last:
            pa = a_start + i0 * a0 + i1 * a1 + i2 * a2
            pb = b_start + i0 * b0 + i1 * b1 + i2 * b2
            pc = c_start + i0 * c0 + i1 * c1 + i2 * c2
            po = row * n
            stop = min(min(n, first + chunk), elements - po)
            va, vb = splat_as(zero, a[pa]), splat_as(zero, b[pb])
            vc = splat_as(load_as_tail(c, pc, zero, 1), c[pc])
            j = first
            if dense:
                wa, wb = splat_as(pair, a[pa]), splat_as(pair, b[pb])
                wc = splat_as(load_as_tail(c, pc, pair, 1), c[pc])
                while j + 2 * width <= stop:
                    if a3 == 1:
                        wa = load_as(a, pa + j, pair)
                    if b3 == 1:
                        wb = load_as(b, pb + j, pair)
                    if c3 == 1:
                        wc = load_as(c, pc + j, pair)
                    put(out, po + j, convert(apply(wa, wb, wc), out), past)
                    j += 2 * width
                while j < stop:
                    if a3 == 1:
                        va = load_as_tail(a, pa + j, zero, stop - j)
                    if b3 == 1:
                        vb = load_as_tail(b, pb + j, zero, stop - j)
                    if c3 == 1:
                        vc = load_as_tail(c, pc + j, zero, stop - j)
                    store_tail(out, po + j, convert(apply(va, vb, vc), out), stop - j)
                    j += width
            else:
                while j < stop:
                    va, vb = splat_as(va, a[pa + j * a3]), splat_as(vb, b[pb + j * b3])
                    vc = splat_as(vc, c[pc + j * c3])
                    store_tail(out, po + j, convert(apply(va, vb, vc), out), 1)
                    j += 1
            row += 1
            i2 += 1
            if i2 == d2:
                i2, i1 = 0, i1 + 1
                if i1 == d1:
                    i1, i0 = 0, i0 + 1
        if past:
            drain()

    # The disk cache tells kernels apart by this name.
    run.__name__ = run.__qualname__ = name
    if name in _COMPARISONS:
        run.__annotations__["out"] = "U8"
    if name == "where":
        run.__annotations__["c"] = "U8"
    return kernel(run)


def _abs_backward(grad, x, _):
    zero = splat_as(x, 0.0)
    return select(x > zero, grad, select(x < zero, -grad, zero))


def _maximum_backward(grad, a, b):
    half, zero = grad * splat_as(grad, 0.5), splat_as(grad, 0.0)
    return select(a == b, half, select(a < b, zero, grad))


def _minimum_backward(grad, a, b):
    half, zero = grad * splat_as(grad, 0.5), splat_as(grad, 0.0)
    return select(a == b, half, select(a > b, zero, grad))


def _pow_backward_base(grad, a, b):
    zero, one = splat_as(b, 0.0), splat_as(b, 1.0)
    less = b - one
    slope = b * vmath.power(a, less)
    # Large exponents are even, and so is what b - 1 is rounded to: the sign of a negative base (or -0) would be lost.
    step = b - less
    slope = select((bits(a) < bits(zero)) & ((step < splat_as(b, 0.5)) | (step > splat_as(b, 1.5))), -slope, slope)
    return select(b == zero, zero, grad * slope)


def _pow_backward_exponent(grad, a, b):
    zero = splat_as(b, 0.0)
    return select((a == zero) & (b >= zero), zero, grad * vmath.log(a) * vmath.power(a, b))


_COMPARISONS = {
    "eq": lambda a, b, _: a == b,
    "ne": lambda a, b, _: a != b,
    "lt": lambda a, b, _: a < b,
    "le": lambda a, b, _: a <= b,
    "gt": lambda a, b, _: a > b,
    "ge": lambda a, b, _: a >= b,
}
_FUNCTIONS: dict[str, Callable] = {
    "add": lambda a, b, _: a + b,
    "sub": lambda a, b, _: a - b,
    "mul": lambda a, b, _: a * b,
    "div": lambda a, b, _: a / b,
    "pow": lambda a, b, _: vmath.power(a, b),
    "maximum": lambda a, b, _: maximum(a, b),
    "minimum": lambda a, b, _: minimum(a, b),
    "neg": lambda x, _, __: -x,
    "exp": lambda x, _, __: vmath.exp(x),
    "log": lambda x, _, __: vmath.log(x),
    "sqrt": lambda x, _, __: sqrt(x),
    "abs": lambda x, _, __: absolute(x),
    "clamp": lambda x, low, high: minimum(maximum(x, low), high),
    "where": lambda a, b, condition: select(condition != splat_as(condition, 0), a, b),
    "div_backward_divisor": lambda grad, a, b: -grad * (a / b / b),
    "pow_backward_base": _pow_backward_base,
    "pow_backward_exponent": _pow_backward_exponent,
    "maximum_backward": _maximum_backward,
    "minimum_backward": _minimum_backward,
    "sqrt_backward": lambda grad, y, _: grad / (y + y),
    "abs_backward": _abs_backward,
    "at_least_backward": lambda grad, x, low: select(x >= low, grad, splat_as(grad, 0.0)),
    "at_most_backward": lambda grad, x, high: select(x <= high, grad, splat_as(grad, 0.0)),
    "prelu": lambda x, slope, _: select(x > splat_as(x, 0.0), x, slope * x),
    "prelu_backward": lambda grad, x, slope: select(x > splat_as(x, 0.0), grad, slope * grad),
    "prelu_backward_weight": lambda grad, x, _: select(x > splat_as(x, 0.0), splat_as(x, 0.0), grad * x),
    **_COMPARISONS,
}
_KERNELS = {name: _make(name, function) for name, function in _FUNCTIONS.items()}


def _pair(dtype: str) -> int:
    """Return how many elements of a row a kernel takes at a time."""
    return 2 * numpy_lanes(dtype)


@lru_cache(maxsize=4096)
def _widened(problem: Any) -> Any:
    """Return the problem with short rows taken several at a time, or None where that needs no repeated operands.

    The operands of a row are either dense or the same in every row, such as a number for each of few channels.
    """
    if len(problem.sizes) != 2 or problem.size < _CHUNK or not 0 < problem.sizes[1] < _SHORT:
        return None
    count, n = problem.sizes
    if any(steps not in ((n, 1), (0, 1), (0, 0)) for steps in problem.steps) or any(problem.starts):
        return None
    whole = _pair(problem.dtype)
    step = whole // math.gcd(n, whole)  # rows that take whole pairs of vectors
    repeats = max(1, _WIDE // (n * step)) * step
    steps = tuple((n * repeats if outer else 0, inner) for outer, inner in problem.steps)
    return replace(problem, sizes=(-(-count // repeats), n * repeats), steps=steps)


@lru_cache(maxsize=4096)
def _cut(problem: Any, elements: int, large: bool) -> tuple[int, tuple[int, ...]]:
    """Return the number of tasks and the kernel's integers."""
    d0, d1, d2, n = (1,) * (MAX_DIMS - len(problem.sizes)) + problem.sizes
    rows = d0 * d1 * d2 if problem.size else 0
    chunk = _CHUNK if elements > _SERIAL else _SERIAL
    pieces = -(-n // chunk)
    rows_a_task = max(1, chunk // n) if n else 1
    walks: list[int] = []
    for operand in range(3):
        if operand < len(problem.steps):
            steps = problem.steps[operand]
            walks += (problem.starts[operand], *(0,) * (MAX_DIMS - len(steps)), *steps)
        else:
            walks += (0,) * (MAX_DIMS + 1)
    tasks = -(-rows // rows_a_task) * pieces
    large = large and (rows == 1 or n % _pair(problem.dtype) == 0)
    return tasks, (rows, d1, d2, n, rows_a_task, pieces, chunk, elements, large, *walks)


def _run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    buffers = [_raw(_span(x)) for x in inputs]
    elements = problem.size
    wide = _widened(problem)
    if wide is not None:
        repeated = (steps == (0, 1) for steps in wide.steps)
        buffers = [_tiled(x.reshape(-1), wide.sizes[1]) if again else x for x, again in zip(buffers, repeated)]
        problem = wide
    large = streams(outputs[0].nbytes, sum(x.nbytes for x in buffers))
    tasks, numbers = _cut(problem, elements, large)
    buffers += buffers[:1] * (3 - len(buffers))
    launch(_KERNELS[problem.function], tasks, (*buffers, _raw(_span(outputs[0]))), numbers, problem.dtype)


def _tiled(x: np.ndarray, size: int) -> np.ndarray:
    if x.dtype.kind != "f":
        return np.tile(x, size // x.size)
    y = memory.empty((size // x.size, x.size), x.dtype)
    arrange(x, y, y.shape, (0, 1), (x.size, 1))
    return y


def _span(x: np.ndarray) -> np.ndarray:
    """Return the memory from the lowest to the highest element of x as one dimension, gaps included."""
    if x.flags.c_contiguous:
        return x
    if x.ndim == 4 and (moved := x.transpose(0, 2, 3, 1)).flags.c_contiguous:
        return moved
    forwards = x[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)]
    extent = 1 + sum(stride // x.itemsize * (size - 1) for stride, size in zip(forwards.strides, x.shape))
    return memory.restrided(forwards, (extent if x.size else 0,), (x.itemsize,))


def _raw(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint8) if x.dtype == np.bool_ else x


def _supports(problem: Any) -> str | None:
    if problem.function not in _KERNELS:
        return f"no kernel for {problem.function}"
    return None if len(problem.sizes) <= MAX_DIMS else f"more than {MAX_DIMS} strided dimensions"


CANDIDATES: CandidateLists = {
    ("elementwise", "forward"): [Candidate("cpu.vector", _run, _supports)],
}
