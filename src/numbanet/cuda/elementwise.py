"""Elementwise functions with broadcasting: one strided walk; the definitions are `numbanet.reference.elementwise`'s.

Up to four dimensions of the result's memory are walked. Where every operand lies side by side along the innermost one,
or is the same there, a thread computes 16 bytes of results; else it computes one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import Int, Kernel, T, device, kernel
from numbanet.cuda.launch import aligned, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.scalar import scalars
from numbanet.cuda.vector import THREADS, blocks, i32, lanes, partial_accesses, real, too_large

MAX_DIMS = 4
OPERANDS = 3
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_UNARY = ("neg", "exp", "log", "sqrt", "abs")
_TERNARY = (
    "clamp", "where", "div_backward_divisor", "pow_backward_base", "pow_backward_exponent", "maximum_backward",
    "minimum_backward", "at_least_backward", "at_most_backward", "prelu_backward",
)  # fmt: skip


def operand_count(name: str) -> int:
    """Return how many operands a function takes."""
    return 1 if name in _UNARY else 3 if name in _TERNARY else 2


@lru_cache(maxsize=4)
def formulas(dtype: str) -> dict[str, Any]:
    """Return ``f(a, b, c)`` by name; a comparison gives 1 or 0 (bytes), the condition of "where" is a byte."""
    return {**_functions(dtype), **_derivatives(dtype), **_comparisons()}


def _functions(dtype: str) -> dict[str, Any]:
    s = scalars(dtype)
    zero, maximum, minimum = s.zero, s.maximum, s.minimum
    return {
        "add": device(lambda a, b, c: a + b),
        "sub": device(lambda a, b, c: a - b),
        "mul": device(lambda a, b, c: a * b),
        "div": device(lambda a, b, c: a / b),
        "pow": device(lambda a, b, c: math.pow(a, b)),
        "maximum": device(lambda a, b, c: maximum(a, b)),
        "minimum": device(lambda a, b, c: minimum(a, b)),
        "neg": device(lambda a, b, c: -a),
        "exp": device(lambda a, b, c: math.exp(a)),
        "log": device(lambda a, b, c: math.log(a)),
        "sqrt": device(lambda a, b, c: math.sqrt(a)),
        "abs": device(lambda a, b, c: abs(a)),
        "clamp": device(lambda a, b, c: minimum(maximum(a, b), c)),
        "where": device(lambda a, b, c: a if c != 0 else b),
        "prelu": device(lambda x, slope, c: x if x > zero else slope * x),
    }


def _derivatives(dtype: str) -> dict[str, Any]:
    s = scalars(dtype)
    zero, one, half = s.zero, s.one, s.number(0.5)

    @device
    def pow_backward_base(grad, a, b):
        less = b - one
        slope, step = b * math.pow(a, less), b - less
        # Large exponents are even, and so is what b - 1 is rounded to: the sign of a negative base would be lost.
        if math.copysign(one, a) < zero and (step < half or step > one + half):
            slope = -slope
        return zero if b == zero else grad * slope

    @device
    def pow_backward_exponent(grad, a, b):
        return zero if a == zero and b >= zero else grad * (math.pow(a, b) * math.log(a))

    @device
    def maximum_backward(grad, a, b):
        return half * grad if a == b else (zero if a < b else grad)

    @device
    def minimum_backward(grad, a, b):
        return half * grad if a == b else (zero if a > b else grad)

    return {
        "div_backward_divisor": device(lambda grad, a, b: -grad * (a / b / b)),
        "pow_backward_base": pow_backward_base,
        "pow_backward_exponent": pow_backward_exponent,
        "maximum_backward": maximum_backward,
        "minimum_backward": minimum_backward,
        "sqrt_backward": device(lambda grad, y, c: grad / (y + y)),
        "abs_backward": device(lambda grad, x, c: grad if x > zero else (-grad if x < zero else zero)),
        "at_least_backward": device(lambda grad, x, low: grad if x >= low else zero),
        "at_most_backward": device(lambda grad, x, high: grad if x <= high else zero),
        "prelu_backward": device(lambda grad, x, slope: grad if x > zero else slope * grad),
        "prelu_backward_weight": device(lambda grad, x, c: zero if x > zero else grad * x),
    }


def _comparisons() -> dict[str, Any]:
    yes, no = types.uint8(1), types.uint8(0)
    return {
        "eq": device(lambda a, b, c: yes if a == b else no),
        "ne": device(lambda a, b, c: yes if a != b else no),
        "lt": device(lambda a, b, c: yes if a < b else no),
        "le": device(lambda a, b, c: yes if a <= b else no),
        "gt": device(lambda a, b, c: yes if a > b else no),
        "ge": device(lambda a, b, c: yes if a >= b else no),
    }


@lru_cache(maxsize=512)
def elementwise_kernel(name: str, dtype: str, width: int) -> Kernel:
    """Return the kernel of one function; `width` results a thread."""
    formula: Callable = formulas(dtype)[name]
    number = real(dtype)
    kind_c = types.uint8 if name == "where" else number
    kind_out = types.uint8 if name in COMPARISONS else number
    get, put = partial_accesses(width)
    vector, two, three = width > 1, operand_count(name) > 1, operand_count(name) > 2

    @device
    def read(x, base, j, step, left, out):
        if vector and step == 1:
            get(x, i32(base + j), left, out)
        else:
            value = x[i32(base + j * step)]
            for lane in range(width):
                out[lane] = value

    def walk(
        work: Int, n: Int, pieces: Int, d1: Int, d2: Int, a0: Int, a1: Int, a2: Int, a3: Int, b0: Int, b1: Int, b2: Int,
        b3: Int, c0: Int, c1: Int, c2: Int, c3: Int, a: T, b: T, c: T, out: T,
    ):  # fmt: skip
        va, vb = cuda.local.array(width, number), cuda.local.array(width, number)
        vc, found = cuda.local.array(width, kind_c), cuda.local.array(width, kind_out)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            row = i32(item // pieces)
            j = i32((item - row * pieces) * width)
            left = i32(n - j)
            outer = i32(row // d2)
            i2, i0 = i32(row - outer * d2), i32(outer // d1)
            i1 = i32(outer - i0 * d1)
            read(a, i32(i0 * a0 + i1 * a1 + i2 * a2), j, a3, left, va)
            if two:
                read(b, i32(i0 * b0 + i1 * b1 + i2 * b2), j, b3, left, vb)
            if three:
                read(c, i32(i0 * c0 + i1 * c1 + i2 * c2), j, c3, left, vc)
            for lane in range(width):
                if three:
                    found[lane] = formula(va[lane], vb[lane], vc[lane])
                elif two:
                    found[lane] = formula(va[lane], vb[lane], number(0))
                else:
                    found[lane] = formula(va[lane], number(0), number(0))
            put(out, i32(row * n + j), left, found)

    walk.__annotations__ |= ({"out": "U8"} if name in COMPARISONS else {}) | ({"c": "U8"} if name == "where" else {})
    return kernel(threads=THREADS, blocks=4, config=f"{name},{dtype},{width}")(walk)


@dataclass(frozen=True)
class _Walk:
    """The kernel's integers, and which of the operands must begin at a multiple of 16 bytes."""

    work: int
    integers: tuple[int, ...]
    width: int
    contiguous: tuple[bool, ...]


@lru_cache(maxsize=4096)
def _walk(problem: Any, vectors: bool) -> _Walk:
    d0, d1, d2, n = (1,) * (MAX_DIMS - len(problem.sizes)) + problem.sizes
    rows = d0 * d1 * d2
    steps = [(*(0,) * (MAX_DIMS - len(walk)), *walk) for walk in problem.steps]
    wide = lanes(problem.dtype)
    contiguous = tuple(walk[3] == 1 for walk in steps)
    fits = all(walk[3] in (0, 1) for walk in steps) and (rows == 1 or n % wide == 0)
    fits = fits and not any(step % wide for walk in steps if walk[3] == 1 for step in walk[:3])
    wide = wide if fits and vectors else 1
    pieces = -(-n // wide)
    steps += [(0,) * MAX_DIMS] * (OPERANDS - len(steps))
    numbers = (rows * pieces, n, pieces, d1, d2, *(step for walk in steps for step in walk))
    return _Walk(rows * pieces, numbers, wide, contiguous)


def _run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (out,) = outputs
    if not problem.size:
        return
    walk = _walk(problem, True)
    if walk.width > 1 and not aligned(out, *(x for x, along in zip(inputs, walk.contiguous) if along)):
        walk = _walk(problem, False)
    arrays = (*inputs, *(None,) * (OPERANDS - len(inputs)), out)
    chosen = elementwise_kernel(problem.function, problem.dtype, walk.width)
    launch(chosen, (blocks(walk.work),), (*walk.integers, *arrays), problem.dtype)


def _supports(problem: Any) -> str | None:
    if len(problem.sizes) > MAX_DIMS:
        return f"more than {MAX_DIMS} strided dimensions"
    spans = (
        1 + sum(abs(step) * (size - 1) for step, size in zip(steps, problem.sizes)) for steps in problem.steps
    )  # fmt: skip
    return too_large(problem.size, *spans)


CANDIDATES: CandidateLists = {("elementwise", "forward"): [Candidate("cuda.strided", _run, _supports)]}
