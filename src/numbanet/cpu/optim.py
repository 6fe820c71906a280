"""Optimizer steps fused into one pass over parameter, gradient and state; partial norms; scaling and clamping.

Each rule is a function of one vector (`i`: where it starts, `n`: how many of its lanes count), inlined twice into its
kernel: with n = lanes for the full vectors, where the tests on n vanish, and once for the tail. The formulas, and the
order of the coefficients `h`, are those of `numbanet.reference.optim`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    absolute,
    convert,
    floats,
    fma,
    integers,
    lanes,
    load,
    load_tail,
    maximum,
    minimum,
    reduce_add,
    reduce_max,
    splat,
    sqrt,
    store,
    store_tail,
)
from numbanet.problem.optim import RULES

_CHUNK = 1 << 14  # elements a task


@device
def _get(p, i, n):
    return load(p, i) if n >= lanes(p) else load_tail(p, i, n)


@device
def _put(p, i, v, n):
    if n >= lanes(p):
        store(p, i, v)
    else:
        store_tail(p, i, v, n)


@device
def _gradient(param, grad, i, n, sign, decay):
    g = _get(grad, i, n) * splat(grad, sign)
    return g if decay == 0.0 else fma(splat(param, decay), _get(param, i, n), g)


@device
def _descend(param, i, n, lr, direction):
    _put(param, i, fma(splat(param, -lr), direction, _get(param, i, n)), n)


@device
def _sgd(param, grad, buffer, i, n, use_buffer, first, nesterov, h):
    sign, decay, lr, momentum, gain = h
    g = _gradient(param, grad, i, n, sign, decay)
    if use_buffer:
        b = g
        if not first:
            b = fma(splat(buffer, momentum), _get(buffer, i, n), splat(buffer, gain) * g)
        _put(buffer, i, b, n)
        g = fma(splat(buffer, momentum), b, g) if nesterov else b
    _descend(param, i, n, lr, g)


@kernel
def sgd(task: Index, ints: I64, param: T, grad: T, buffer: T, coefficients: F64):
    size, chunk, use_buffer, first, nesterov = integers(ints, 5)
    h = floats(coefficients, 5)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(param) <= end:
        _sgd(param, grad, buffer, i, lanes(param), use_buffer, first, nesterov, h)
        i += lanes(param)
    if i < end:
        _sgd(param, grad, buffer, i, end - i, use_buffer, first, nesterov, h)


@device
def _adam(param, grad, exp_avg, exp_avg_sq, largest, i, n, amsgrad, h):
    sign, decay, keep, gain1, beta2, gain2, size, scale, eps = h
    if keep != 1.0:
        _put(param, i, splat(param, keep) * _get(param, i, n), n)
    g = _gradient(param, grad, i, n, sign, decay)
    m = _get(exp_avg, i, n)
    m = fma(splat(param, gain1), g - m, m)
    _put(exp_avg, i, m, n)
    v = fma(splat(param, beta2), _get(exp_avg_sq, i, n), splat(param, gain2) * g * g)
    _put(exp_avg_sq, i, v, n)
    if amsgrad:
        v = maximum(_get(largest, i, n), v)
        _put(largest, i, v, n)
    _descend(param, i, n, size, m / fma(sqrt(v), splat(param, scale), splat(param, eps)))


@kernel
def adam(task: Index, ints: I64, param: T, grad: T, exp_avg: T, exp_avg_sq: T, largest: T, coefficients: F64):
    size, chunk, _, _, amsgrad = integers(ints, 5)
    h = floats(coefficients, 9)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(param) <= end:
        _adam(param, grad, exp_avg, exp_avg_sq, largest, i, lanes(param), amsgrad, h)
        i += lanes(param)
    if i < end:
        _adam(param, grad, exp_avg, exp_avg_sq, largest, i, end - i, amsgrad, h)


@device
def _rmsprop(param, grad, square_avg, grad_avg, buffer, i, n, centered, use_buffer, h):
    sign, decay, lr, alpha, gain, momentum, eps = h
    g = _gradient(param, grad, i, n, sign, decay)
    v = fma(splat(param, alpha), _get(square_avg, i, n), splat(param, gain) * g * g)
    _put(square_avg, i, v, n)
    if centered:
        mean = _get(grad_avg, i, n)
        mean = fma(splat(param, gain), g - mean, mean)
        _put(grad_avg, i, mean, n)
        v = fma(-mean, mean, v)
    g = g / (sqrt(v) + splat(param, eps))
    if use_buffer:
        g = fma(splat(param, momentum), _get(buffer, i, n), g)
        _put(buffer, i, g, n)
    _descend(param, i, n, lr, g)


@kernel
def rmsprop(task: Index, ints: I64, param: T, grad: T, square_avg: T, grad_avg: T, buffer: T, coefficients: F64):
    size, chunk, _, centered, use_buffer = integers(ints, 5)
    h = floats(coefficients, 7)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(param) <= end:
        _rmsprop(param, grad, square_avg, grad_avg, buffer, i, lanes(param), centered, use_buffer, h)
        i += lanes(param)
    if i < end:
        _rmsprop(param, grad, square_avg, grad_avg, buffer, i, end - i, centered, use_buffer, h)


@device
def _adagrad(param, grad, total, i, n, h):
    sign, decay, lr, eps = h
    g = _gradient(param, grad, i, n, sign, decay)
    s = fma(g, g, _get(total, i, n))
    _put(total, i, s, n)
    _descend(param, i, n, lr, g / (sqrt(s) + splat(param, eps)))


@kernel
def adagrad(task: Index, ints: I64, param: T, grad: T, total: T, coefficients: F64):
    size, chunk = integers(ints, 2)
    h = floats(coefficients, 4)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(param) <= end:
        _adagrad(param, grad, total, i, lanes(param), h)
        i += lanes(param)
    if i < end:
        _adagrad(param, grad, total, i, end - i, h)


@device
def _adadelta(param, grad, square_avg, acc_delta, i, n, h):
    sign, decay, lr, rho, gain, eps = h
    g = _gradient(param, grad, i, n, sign, decay)
    v = fma(splat(param, rho), _get(square_avg, i, n), splat(param, gain) * g * g)
    _put(square_avg, i, v, n)
    u = _get(acc_delta, i, n)
    delta = sqrt(u + splat(param, eps)) / sqrt(v + splat(param, eps)) * g
    _put(acc_delta, i, fma(splat(param, rho), u, splat(param, gain) * delta * delta), n)
    _descend(param, i, n, lr, delta)


@kernel
def adadelta(task: Index, ints: I64, param: T, grad: T, square_avg: T, acc_delta: T, coefficients: F64):
    size, chunk = integers(ints, 2)
    h = floats(coefficients, 6)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(param) <= end:
        _adadelta(param, grad, square_avg, acc_delta, i, lanes(param), h)
        i += lanes(param)
    if i < end:
        _adadelta(param, grad, square_avg, acc_delta, i, end - i, h)


_STEPS = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop, "adagrad": adagrad, "adadelta": adadelta}
_OPTIONS = {"sgd": ("first", "nesterov")}


def _step(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, coefficients = inputs
    parameter, *state = outputs
    # A state that the step does not use is never touched: any valid buffer can stand for it.
    buffers = [parameter if array is None else array for array in state]
    uses = [name in problem.state for name in RULES[problem.rule]]
    options = [name in problem.options for name in _OPTIONS.get(problem.rule, ())]
    tasks = -(-problem.size // _CHUNK)
    integers = (problem.size, _CHUNK, *uses, *options)
    launch(_STEPS[problem.rule], tasks, (parameter, grad, *buffers, coefficients), integers, problem.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Partial norms: one float64 number a task, so that a float32 gradient of any length keeps its digits.

_SQUARES, _MAGNITUDES, _MAXIMUM = range(3)


@device
def _accumulate(total, x, i, n, function):
    v = convert(absolute(_get(x, i, n)), total)
    if function == _SQUARES:
        return fma(v, v, total)
    return total + v if function == _MAGNITUDES else maximum(total, v)


@kernel
def norm(task: Index, ints: I64, x: T, partial: F64):
    size, chunk, function = integers(ints, 3)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    total = convert(splat(x, 0.0), partial)
    while i + lanes(x) <= end:
        total = _accumulate(total, x, i, lanes(x), function)
        i += lanes(x)
    if i < end:  # the lanes beyond the tail are zero: neutral for all three functions
        total = _accumulate(total, x, i, end - i, function)
    result = reduce_add(total)
    if function == _MAXIMUM and result == result:  # no lane is negative, so only NaN lanes make a NaN sum
        result = reduce_max(total)
    partial[task] = result


@kernel
def norm_any(task: Index, ints: I64, x: T, partial: F64, order: F64):
    size, chunk = integers(ints, 2)
    p = order[0]
    total = math.inf if p == -math.inf else 0.0
    for i in range(task * chunk, min(size, (task + 1) * chunk)):
        v = abs(float(x[i]))
        if p == -math.inf:
            total = v if v < total or v != v else total
        elif p == 0.0:
            total += 1.0 if v != 0.0 else 0.0
        else:
            total += v**p
    partial[task] = total


_VECTORISED = {2.0: _SQUARES, 1.0: _MAGNITUDES, math.inf: _MAXIMUM}


def _norm(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x,), (partial,) = inputs, outputs
    if problem.ord in _VECTORISED:
        integers = (problem.size, problem.chunk, _VECTORISED[problem.ord])
        launch(norm, partial.size, (x, partial), integers, problem.dtype)
    else:
        order = np.array([problem.ord])
        launch(norm_any, partial.size, (x, partial, order), (problem.size, problem.chunk), problem.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Scaling and clamping in place.


@device
def _clip_vector(x, i, n, scale, a, b):
    v = _get(x, i, n)
    if scale:
        v = v * splat(x, a)
    else:
        v = minimum(maximum(v, splat(x, a)), splat(x, b))
    _put(x, i, v, n)


@kernel
def clip(task: Index, ints: I64, x: T, coefficients: F64):
    size, chunk, scale = integers(ints, 3)
    a, b = floats(coefficients, 2)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    while i + lanes(x) <= end:
        _clip_vector(x, i, lanes(x), scale, a, b)
        i += lanes(x)
    if i < end:
        _clip_vector(x, i, end - i, scale, a, b)


def _clip(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    integers = (problem.size, _CHUNK, problem.function == "scale")
    launch(clip, -(-problem.size // _CHUNK), (outputs[0], inputs[0]), integers, problem.dtype)


CANDIDATES: CandidateLists = {
    ("optimizer_step", "step"): [Candidate("cpu.vector", _step)],
    ("vector_norm", "forward"): [Candidate("cpu.vector", _norm)],
    ("clip", "forward"): [Candidate("cpu.vector", _clip)],
}
