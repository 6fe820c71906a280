"""Optimizer steps fused into one pass over parameter, gradient and state; partial norms; scaling, clamping, filling.

Each is one launch for many arrays (see `numbanet.cuda.many`). The coefficients of a step are arguments, which nothing
has to bring to the GPU; a graph of launches gets those of the moment (see `numbanet.cuda.launch.each`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.block import block_sum
from numbanet.cuda.compile import F64, I32, I64, Double, Int, Kernel, Number, T, device, kernel
from numbanet.cuda.launch import constant, each, empty, launch
from numbanet.cuda.many import array_of, many_too_large, piece_of, pieces, runs, table, width_of
from numbanet.cuda.optim_rules import RULE_MAKERS
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.scalar import scalars
from numbanet.cuda.vector import THREADS, i32, partial_accesses, real
from numbanet.problem.optim import RULES

_STATES = 3
_COLUMNS = 2 + _STATES
_NUMBERS = 9  # parameters of the kernel for coefficients; of a rule with more, `launch` would say so
_WARPS = THREADS // 32
f64 = types.float64
_block_sum = block_sum(THREADS)


@lru_cache(maxsize=64)
def step_kernel(rule: str, dtype: str, used: tuple[bool, ...], options: tuple[str, ...], wide: int) -> Kernel:
    """Return the kernel of one rule, with the parts of its state and the options that a step uses."""
    number = real(dtype)
    update = RULE_MAKERS[rule](dtype, used, options)
    get, put = partial_accesses(wide)
    first, second, third = (*used, False, False)[:_STATES]
    words = [rule, dtype, str(wide), *(n for n, chosen in zip(RULES[rule], used) if chosen), *options]

    @kernel(threads=THREADS, blocks=2, config=",".join(words))
    def step(
        h0: Number, h1: Number, h2: Number, h3: Number, h4: Number, h5: Number, h6: Number, h7: Number, h8: Number,
        like: T, arrays: I64, plan: I32,
    ):  # fmt: skip
        row, start, count = piece_of(plan, i32(cuda.blockIdx.x))
        param, grad = array_of(like, arrays, row, _COLUMNS, 0), array_of(like, arrays, row, _COLUMNS, 1)
        s0, s1 = array_of(like, arrays, row, _COLUMNS, 2), array_of(like, arrays, row, _COLUMNS, 3)
        s2 = array_of(like, arrays, row, _COLUMNS, 4)
        p, g = cuda.local.array(wide, number), cuda.local.array(wide, number)
        v0, v1, v2 = cuda.local.array(wide, number), cuda.local.array(wide, number), cuda.local.array(wide, number)
        h = h0, h1, h2, h3, h4, h5, h6, h7, h8
        for lane in range(wide):
            v0[lane], v1[lane], v2[lane] = number(0), number(0), number(0)
        for k in range(i32(i32(cuda.threadIdx.x) * wide), count, THREADS * wide):
            i, left = i32(start + k), i32(count - k)
            get(param, i, left, p)
            get(grad, i, left, g)
            if first:
                get(s0, i, left, v0)
            if second:
                get(s1, i, left, v1)
            if third:
                get(s2, i, left, v2)
            for lane in range(wide):
                p[lane], v0[lane], v1[lane], v2[lane] = update(p[lane], g[lane], v0[lane], v1[lane], v2[lane], h)
            put(param, i, left, p)
            if first:
                put(s0, i, left, v0)
            if second:
                put(s1, i, left, v1)
            if third:
                put(s2, i, left, v2)

    return step


def _step(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grads, coefficients = inputs
    parameters, *state = outputs
    plan, dtype = pieces(problem.sizes), problem.dtype
    if not len(plan):
        return
    # A state that the step does not use is never touched: any array can stand for it.
    columns = [parameters, grads, *(parameters if arrays is None else arrays for arrays in state)]
    columns += [parameters] * (_COLUMNS - len(columns))
    used = tuple(name in problem.state for name in RULES[problem.rule])
    chosen = step_kernel(problem.rule, dtype, used, problem.options, width_of(dtype, columns))
    numbers = *each(coefficients), *[0.0] * (_NUMBERS - len(coefficients))
    launch(chosen, (len(plan),), (*numbers, None, table(columns), constant(plan)), dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Partial norms: a float64 number a piece, so that a float32 gradient of any length keeps its digits.

_KINDS = {2.0: "squares", 1.0: "magnitudes", math.inf: "largest", -math.inf: "least", 0.0: "count"}


@device
def _larger(a, b):
    return a if a > b or a != a else b


@device
def _smaller(a, b):
    return a if a < b or a != a else b


@lru_cache(maxsize=32)
def norm_kernel(dtype: str, kind: str, wide: int) -> Kernel:
    """Return the kernel of the partial norms of the pieces, of one kind."""
    number = real(dtype)
    get, _ = partial_accesses(wide)
    squares, magnitudes, largest, least, count_ = (kind == word for word in _KINDS.values())
    extreme = largest or least
    start = f64(math.inf) if least else f64(0)

    @kernel(threads=THREADS, config=f"{dtype},{kind},{wide}")
    def norm(order: Double, like: T, arrays: I64, plan: I32, partial: F64):
        scratch = cuda.shared.array(_WARPS, f64) if not extreme else cuda.shared.array(THREADS, f64)
        values = cuda.local.array(wide, number)
        t = i32(cuda.threadIdx.x)
        row, first, count = piece_of(plan, i32(cuda.blockIdx.x))
        x = array_of(like, arrays, row, 1, 0)
        total = start
        for k in range(i32(t * wide), count, THREADS * wide):
            get(x, i32(first + k), i32(count - k), values)
            for lane in range(wide):
                if k + lane < count:
                    v = abs(f64(values[lane]))
                    if squares:
                        total += v * v
                    elif magnitudes:
                        total += v
                    elif largest:
                        total = _larger(total, v)
                    elif least:
                        total = _smaller(total, v)
                    elif count_:
                        total += f64(1) if v != f64(0) else f64(0)
                    else:
                        total += math.pow(v, order)
        if extreme:
            scratch[t] = total
            cuda.syncthreads()
            if t == 0:
                for other in range(1, THREADS):
                    total = _larger(total, scratch[other]) if largest else _smaller(total, scratch[other])
        else:
            total = _block_sum(total, scratch)
        if t == 0:
            partial[i32(cuda.blockIdx.x)] = total

    return norm


@kernel(threads=THREADS)
def merge_norms(arrays: Int, extreme: Int, runs: I32, partial: F64, out: F64):
    """Merge the pieces of each array in their order, a thread an array; `extreme`: 1 for the largest, -1 the least."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < arrays:
        total = f64(math.inf) if extreme < 0 else f64(0)
        for piece in range(runs[i], runs[i32(i + 1)]):
            v = partial[piece]
            if extreme > 0:
                total = _larger(total, v)
            elif extreme < 0:
                total = _smaller(total, v)
            else:
                total += v
        out[i] = total


def _norm(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (arrays,), dtype = inputs, problem.dtype
    plan, kind = pieces(problem.sizes), _KINDS.get(problem.ord, "power")
    partial = empty((max(1, len(plan)),), "float64")
    if len(plan):
        chosen = norm_kernel(dtype, kind, width_of(dtype, [arrays]))
        launch(chosen, (len(plan),), (problem.ord, None, table([arrays]), constant(plan), partial), dtype)
    extreme = {"largest": 1, "least": -1}.get(kind, 0)
    count = len(problem.sizes)
    numbers = (count, extreme, constant(runs(problem.sizes)), partial, outputs[0])
    launch(merge_norms, (-(-count // THREADS),), numbers, dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Scaling, clamping and filling in place.


@lru_cache(maxsize=16)
def clip_kernel(function: str, dtype: str, wide: int) -> Kernel:
    """Return the kernel that scales, clamps or fills many arrays."""
    s = scalars(dtype)
    number, maximum, minimum = s.number, s.maximum, s.minimum
    get, put = partial_accesses(wide)
    scales, clamps = function == "scale", function == "clamp"

    @kernel(threads=THREADS, config=f"{function},{dtype},{wide}")
    def clip(a: Number, b: Number, like: T, arrays: I64, plan: I32):
        values = cuda.local.array(wide, number)
        row, start, count = piece_of(plan, i32(cuda.blockIdx.x))
        x = array_of(like, arrays, row, 1, 0)
        for k in range(i32(i32(cuda.threadIdx.x) * wide), count, THREADS * wide):
            i, left = i32(start + k), i32(count - k)
            if scales or clamps:
                get(x, i, left, values)
            for lane in range(wide):
                if scales:
                    values[lane] = values[lane] * a
                elif clamps:
                    values[lane] = minimum(maximum(values[lane], a), b)
                else:
                    values[lane] = a
            put(x, i, left, values)

    return clip


def _clip(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (numbers,), (arrays,), dtype = inputs, outputs, problem.dtype
    plan = pieces(problem.sizes)
    if len(plan):
        chosen = clip_kernel(problem.function, dtype, width_of(dtype, [arrays]))
        coefficients = float(numbers[0]), float(numbers[1])
        launch(chosen, (len(plan),), (*coefficients, None, table([arrays]), constant(plan)), dtype)


def _supports(problem: Any) -> str | None:
    return many_too_large(problem.sizes)


CANDIDATES: CandidateLists = {
    ("optimizer_step", "step"): [Candidate("cuda.many", _step, _supports)],
    ("vector_norm", "forward"): [Candidate("cuda.many", _norm, _supports)],
    ("clip", "forward"): [Candidate("cuda.many", _clip, _supports)],
}
