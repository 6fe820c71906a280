"""Optimizer steps fused into one pass over parameter, gradient and state; partial norms; scaling, clamping, filling.

All work on many arrays in one launch (see `numbanet.cpu.many`). Each rule is a function of one vector (`i`: where it
starts, `n`: how many of its lanes count), inlined twice into its kernel: with n = lanes for the full vectors, where the
tests on n vanish, and once for the tail. The formulas, and the order of the coefficients `h`, are those of
`numbanet.reference.optim`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.many import many, pieces, references, typed
from numbanet.cpu.parallel import launch
from numbanet.cpu.partial import get, put
from numbanet.cpu.simd import (
    absolute,
    convert,
    floats,
    fma,
    integers,
    lanes,
    maximum,
    minimum,
    offset,
    reduce_add,
    reduce_max,
    splat,
    sqrt,
)
from numbanet.problem.optim import RULES
from numbanet.watch import constant


@device
def _gradient(param, grad, i, n, sign, decay):
    g = get(grad, i, n) * splat(grad, sign)
    return g if decay == 0.0 else fma(splat(param, decay), get(param, i, n), g)


@device
def _descend(param, i, n, lr, direction):
    put(param, i, fma(splat(param, -lr), direction, get(param, i, n)), n)


@device
def _sgd(param, grad, buffer, i, n, use_buffer, first, nesterov, h):
    sign, decay, lr, momentum, gain = h
    g = _gradient(param, grad, i, n, sign, decay)
    if use_buffer:
        b = g
        if not first:
            b = fma(splat(buffer, momentum), get(buffer, i, n), splat(buffer, gain) * g)
        put(buffer, i, b, n)
        g = fma(splat(buffer, momentum), b, g) if nesterov else b
    _descend(param, i, n, lr, g)


@kernel
def sgd(task: Index, ints: I64, like: T, table: I64, plan: I64, coefficients: F64):
    tasks, use_buffer, first, nesterov = integers(ints, 4)
    h = floats(coefficients, 5)
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        param, grad, buffer = many(like, table, number * 3, 3)
        while i + lanes(param) <= end:
            _sgd(param, grad, buffer, i, lanes(param), use_buffer, first, nesterov, h)
            i += lanes(param)
        if i < end:
            _sgd(param, grad, buffer, i, end - i, use_buffer, first, nesterov, h)


@device
def _adam(param, grad, exp_avg, exp_avg_sq, largest, i, n, amsgrad, h):
    sign, decay, keep, gain1, beta2, gain2, size, scale, eps = h
    if keep != 1.0:
        put(param, i, splat(param, keep) * get(param, i, n), n)
    g = _gradient(param, grad, i, n, sign, decay)
    m = get(exp_avg, i, n)
    m = fma(splat(param, gain1), g - m, m)
    put(exp_avg, i, m, n)
    v = fma(splat(param, beta2), get(exp_avg_sq, i, n), splat(param, gain2) * g * g)
    put(exp_avg_sq, i, v, n)
    if amsgrad:
        v = maximum(get(largest, i, n), v)
        put(largest, i, v, n)
    _descend(param, i, n, size, m / fma(sqrt(v), splat(param, scale), splat(param, eps)))


@kernel
def adam(task: Index, ints: I64, like: T, table: I64, plan: I64, coefficients: F64):
    tasks, _, _, amsgrad = integers(ints, 4)
    h = floats(coefficients, 9)
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        param, grad, exp_avg, exp_avg_sq, largest = many(like, table, number * 5, 5)
        while i + lanes(param) <= end:
            _adam(param, grad, exp_avg, exp_avg_sq, largest, i, lanes(param), amsgrad, h)
            i += lanes(param)
        if i < end:
            _adam(param, grad, exp_avg, exp_avg_sq, largest, i, end - i, amsgrad, h)


@device
def _rmsprop(param, grad, square_avg, grad_avg, buffer, i, n, centered, use_buffer, h):
    sign, decay, lr, alpha, gain, momentum, eps = h
    g = _gradient(param, grad, i, n, sign, decay)
    v = fma(splat(param, alpha), get(square_avg, i, n), splat(param, gain) * g * g)
    put(square_avg, i, v, n)
    if centered:
        mean = get(grad_avg, i, n)
        mean = fma(splat(param, gain), g - mean, mean)
        put(grad_avg, i, mean, n)
        v = fma(-mean, mean, v)
    g = g / (sqrt(v) + splat(param, eps))
    if use_buffer:
        g = fma(splat(param, momentum), get(buffer, i, n), g)
        put(buffer, i, g, n)
    _descend(param, i, n, lr, g)


@kernel
def rmsprop(task: Index, ints: I64, like: T, table: I64, plan: I64, coefficients: F64):
    tasks, _, centered, use_buffer = integers(ints, 4)
    h = floats(coefficients, 7)
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        param, grad, square_avg, grad_avg, buffer = many(like, table, number * 5, 5)
        while i + lanes(param) <= end:
            _rmsprop(param, grad, square_avg, grad_avg, buffer, i, lanes(param), centered, use_buffer, h)
            i += lanes(param)
        if i < end:
            _rmsprop(param, grad, square_avg, grad_avg, buffer, i, end - i, centered, use_buffer, h)


@device
def _adagrad(param, grad, total, i, n, h):
    sign, decay, lr, eps = h
    g = _gradient(param, grad, i, n, sign, decay)
    s = fma(g, g, get(total, i, n))
    put(total, i, s, n)
    _descend(param, i, n, lr, g / (sqrt(s) + splat(param, eps)))


@kernel
def adagrad(task: Index, ints: I64, like: T, table: I64, plan: I64, coefficients: F64):
    tasks, _ = integers(ints, 2)
    h = floats(coefficients, 4)
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        param, grad, total = many(like, table, number * 3, 3)
        while i + lanes(param) <= end:
            _adagrad(param, grad, total, i, lanes(param), h)
            i += lanes(param)
        if i < end:
            _adagrad(param, grad, total, i, end - i, h)


@device
def _adadelta(param, grad, square_avg, acc_delta, i, n, h):
    sign, decay, lr, rho, gain, eps = h
    g = _gradient(param, grad, i, n, sign, decay)
    v = fma(splat(param, rho), get(square_avg, i, n), splat(param, gain) * g * g)
    put(square_avg, i, v, n)
    u = get(acc_delta, i, n)
    delta = sqrt(u + splat(param, eps)) / sqrt(v + splat(param, eps)) * g
    put(acc_delta, i, fma(splat(param, rho), u, splat(param, gain) * delta * delta), n)
    _descend(param, i, n, lr, delta)


@kernel
def adadelta(task: Index, ints: I64, like: T, table: I64, plan: I64, coefficients: F64):
    tasks, _, _ = integers(ints, 3)
    h = floats(coefficients, 6)
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        param, grad, square_avg, acc_delta = many(like, table, number * 4, 4)
        while i + lanes(param) <= end:
            _adadelta(param, grad, square_avg, acc_delta, i, lanes(param), h)
            i += lanes(param)
        if i < end:
            _adadelta(param, grad, square_avg, acc_delta, i, end - i, h)


_STEPS = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop, "adagrad": adagrad, "adadelta": adadelta}
_OPTIONS = {"sgd": ("first", "nesterov")}


def _step(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grads, coefficients = inputs
    parameters, *state = outputs
    # A state that the step does not use is never touched: any valid buffer can stand for it.
    columns = (parameters, grads, *(parameters if arrays is None else arrays for arrays in state))
    uses = [name in problem.state for name in RULES[problem.rule]]
    options = [name in problem.options for name in _OPTIONS.get(problem.rule, ())]
    tasks, _, plan = pieces(problem.sizes)
    table = references([array for row in zip(*columns) for array in row])
    arrays = (typed(problem.dtype), table, plan, coefficients)
    launch(_STEPS[problem.rule], tasks, arrays, (tasks, *uses, *options), problem.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Partial norms: one float64 number a piece, so that a float32 gradient of any length keeps its digits.

_SQUARES, _MAGNITUDES, _MAXIMUM = range(3)


@device
def _accumulate(total, x, i, n, function):
    v = convert(absolute(get(x, i, n)), total)
    if function == _SQUARES:
        return fma(v, v, total)
    return total + v if function == _MAGNITUDES else maximum(total, v)


@kernel
def norm(task: Index, ints: I64, like: T, table: I64, plan: I64, partial: F64):
    tasks, function = integers(ints, 2)
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        (x,) = many(like, table, number, 1)
        # Two sums: one would wait for itself.
        total = convert(splat(x, 0.0), partial)
        other = total
        while i + 2 * lanes(x) <= end:
            total = _accumulate(total, x, i, lanes(x), function)
            other = _accumulate(other, x, i + lanes(x), lanes(x), function)
            i += 2 * lanes(x)
        while i < end:  # the lanes beyond the tail are zero: neutral for all three functions
            total = _accumulate(total, x, i, end - i, function)
            i += lanes(x)
        if function == _MAXIMUM:
            total = maximum(total, other)
            result = reduce_add(total)
            if result == result:  # no lane is negative, so only NaN lanes make a NaN sum
                result = reduce_max(total)
        else:
            result = reduce_add(total + other)
        partial[piece] = result


@kernel
def norm_any(task: Index, ints: I64, like: T, table: I64, plan: I64, partial: F64, order: F64):
    tasks = ints[0]
    p = order[0]
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        (x,) = many(like, table, number, 1)
        total = math.inf if p == -math.inf else 0.0
        while i < end:
            v = abs(float(x[i]))
            if p == -math.inf:
                total = v if v < total or v != v else total
            elif p == 0.0:
                total += 1.0 if v != 0.0 else 0.0
            else:
                total += v**p
            i += 1
        partial[piece] = total


_VECTORISED = {2.0: _SQUARES, 1.0: _MAGNITUDES, math.inf: _MAXIMUM}


def _norm(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    tasks, count, plan = pieces(problem.sizes)
    partial = memory.empty((count,), np.float64)
    arrays = (typed(problem.dtype), references(inputs[0]), plan, partial)
    if problem.ord in _VECTORISED:
        launch(norm, tasks, arrays, (tasks, _VECTORISED[problem.ord]), problem.dtype)
    else:
        launch(norm_any, tasks, (*arrays, constant(np.array([problem.ord]))), (tasks,), problem.dtype)
    # The parts of an array, in their order.
    numbers = (tasks, count, len(problem.sizes), _MERGES.get(problem.ord, _MERGE_SUM))
    launch(merge, 1, (partial, plan, outputs[0]), numbers, problem.dtype)


_MERGE_SUM, _MERGE_MAXIMUM, _MERGE_MINIMUM = range(3)
_MERGES = {math.inf: _MERGE_MAXIMUM, -math.inf: _MERGE_MINIMUM}


@kernel
def merge(task: Index, ints: I64, partial: F64, plan: I64, out: F64):
    """Merge the parts of each array."""
    tasks, count, arrays, function = integers(ints, 4)
    for number in range(arrays):
        out[number] = math.inf if function == _MERGE_MINIMUM else 0.0
    for piece in range(count):
        number, v = plan[tasks + 1 + 3 * piece], partial[piece]
        former = out[number]
        if function == _MERGE_SUM:
            v = former + v
        elif former != former or (v == v and (v < former if function == _MERGE_MAXIMUM else v > former)):
            v = former
        out[number] = v


# ---------------------------------------------------------------------------------------------------------------------
# Scaling, clamping and filling in place.

_SCALE, _CLAMP, _FILL = range(3)
_CLIPS = {"scale": _SCALE, "clamp": _CLAMP, "fill": _FILL}


@device
def _clip_vector(x, i, n, function, a, b):
    v = splat(x, a)
    if function == _SCALE:
        v = get(x, i, n) * v
    elif function == _CLAMP:
        v = minimum(maximum(get(x, i, n), v), splat(x, b))
    put(x, i, v, n)


@kernel
def clip(task: Index, ints: I64, like: T, table: I64, plan: I64, coefficients: F64):
    tasks, function = integers(ints, 2)
    a, b = floats(coefficients, 2)
    if function == _SCALE and a == 1.0:
        return
    for piece in range(plan[task], plan[task + 1]):
        number, i, end = integers(offset(plan, tasks + 1 + 3 * piece), 3)
        (x,) = many(like, table, number, 1)
        while i + lanes(x) <= end:
            _clip_vector(x, i, lanes(x), function, a, b)
            i += lanes(x)
        if i < end:
            _clip_vector(x, i, end - i, function, a, b)


def _clip(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    tasks, _, plan = pieces(problem.sizes)
    arrays = (typed(problem.dtype), references(outputs[0]), plan, inputs[0])
    launch(clip, tasks, arrays, (tasks, _CLIPS[problem.function]), problem.dtype)


CANDIDATES: CandidateLists = {
    ("optimizer_step", "step"): [Candidate("cpu.vector", _step)],
    ("vector_norm", "forward"): [Candidate("cpu.vector", _norm)],
    ("clip", "forward"): [Candidate("cpu.vector", _clip)],
}
