"""Formulas on vectors, and the two loops that every one of them runs in: one writes the numbers, one adds them up.

A formula takes four operands and two parameters, and ignores what it does not need: the compiler then drops the loads.
An operand is dense, or a single number that stays in a register.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import vmath
from numbanet.cpu.compile import F64, I64, Index, Kernel, T, device, kernel
from numbanet.cpu.loss import finish
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    absolute,
    convert,
    fma,
    integers,
    lanes,
    load,
    load_tail,
    maximum,
    minimum,
    reduce_add,
    select,
    splat,
    store,
    store_tail,
)
from numbanet.cpu.vmath import pick

_CHUNK = 1 << 14  # elements a task
_EXACT = 8  # vectors that are added in the input's dtype before their sum goes to float64


def _make_map(name: str, formula: Callable) -> Kernel:
    """Return the kernel ``out = formula(a, b, c, d, p, q)``."""

    def run(task: Index, ints: I64, a: T, b: T, c: T, d: T, parameters: F64, out: T):
        size, chunk, dense_a, dense_b, dense_c, dense_d = integers(ints, 6)
        i, end = task * chunk, min(size, (task + 1) * chunk)
        p, q = splat(out, parameters[0]), splat(out, parameters[1])
        va, vb, vc, vd = splat(a, a[0]), splat(b, b[0]), splat(c, c[0]), splat(d, d[0])
        while i < end:
            n = end - i
            if n >= lanes(out):
                if dense_a:
                    va = load(a, i)
                if dense_b:
                    vb = load(b, i)
                if dense_c:
                    vc = load(c, i)
                if dense_d:
                    vd = load(d, i)
                store(out, i, formula(va, vb, vc, vd, p, q))
            else:
                if dense_a:
                    va = load_tail(a, i, n)
                if dense_b:
                    vb = load_tail(b, i, n)
                if dense_c:
                    vc = load_tail(c, i, n)
                if dense_d:
                    vd = load_tail(d, i, n)
                store_tail(out, i, formula(va, vb, vc, vd, p, q), n)
            i += lanes(out)

    run.__name__ = run.__qualname__ = name  # the disk cache tells kernels apart by this name
    return kernel(run)


def _make_sum(name: str, formula: Callable) -> Kernel:
    """Return the kernel that adds up ``formula(a, b, c, d, p, q)``; beside each task's sum stands its count."""

    def run(task: Index, ints: I64, a: T, b: T, c: T, d: T, parameters: F64, partial: F64):
        size, chunk, dense_a, dense_b, dense_c, dense_d = integers(ints, 6)
        start, end = task * chunk, min(size, (task + 1) * chunk)
        p, q = splat(a, parameters[0]), splat(a, parameters[1])
        va, vb, vc, vd = splat(a, a[0]), splat(b, b[0]), splat(c, c[0]), splat(d, d[0])
        zero, i = splat(a, 0.0), start
        total = convert(zero, partial)
        while i + lanes(a) <= end:
            stop, few = min(end, i + _EXACT * lanes(a)), zero
            while i + lanes(a) <= stop:
                if dense_a:
                    va = load(a, i)
                if dense_b:
                    vb = load(b, i)
                if dense_c:
                    vc = load(c, i)
                if dense_d:
                    vd = load(d, i)
                few = few + formula(va, vb, vc, vd, p, q)
                i += lanes(a)
            total = total + convert(few, partial)
        partial[2 * task], partial[2 * task + 1] = reduce_add(total), end - start
        while i < end:  # one at a time: a formula need not be zero in the lanes beyond the end
            if dense_a:
                va = splat(a, a[i])
            if dense_b:
                vb = splat(b, b[i])
            if dense_c:
                vc = splat(c, c[i])
            if dense_d:
                vd = splat(d, d[i])
            partial[2 * task] += reduce_add(formula(va, vb, vc, vd, p, q)) / lanes(a)
            i += 1

    run.__name__ = run.__qualname__ = f"{name}_sum"
    return kernel(run)


# ---------------------------------------------------------------------------------------------------------------------
# Formulas


@device
def _log1p(e):
    """Return log(1 + e) for e >= 0 with a small relative error: the rounding of 1 + e is taken out (Kahan)."""
    one = pick(e, 1.0, 1.0)
    u = one + e
    return select(u == one, e, vmath.log(u) * (e / (u - one)))


@device
def _expm1(x):
    """Return e^x - 1 for x <= 0 with a small relative error (Kahan)."""
    one = pick(x, 1.0, 1.0)
    u = vmath.exp(x)
    difference = u - one
    inner = select(difference == -one, difference, difference * (x / vmath.log(u)))
    return select(u == one, x, inner)


@device
def _softplus(x):
    """Return log(1 + e^x)."""
    zero = pick(x, 0.0, 0.0)
    return select(x > zero, x, zero) + _log1p(vmath.exp(-absolute(x)))


@device
def hardtanh(x, _, __, ___, low, high):
    return minimum(maximum(x, low), high)


@device
def hardtanh_backward(grad, x, _, __, low, high):
    return select((x <= low) | (x >= high), pick(x, 0.0, 0.0), grad)  # at NaN: grad, as in PyTorch


@device
def elu(x, _, __, ___, alpha, q):
    zero = pick(x, 0.0, 0.0)
    return select(x > zero, x, alpha * _expm1(minimum(x, zero)))


@device
def elu_backward(grad, x, _, __, alpha, q):
    return select(x > pick(x, 0.0, 0.0), grad, grad * (alpha * vmath.exp(x)))


@device
def _sixth(x):
    zero, six = pick(x, 0.0, 0.0), pick(x, 6.0, 6.0)
    return minimum(maximum(x + pick(x, 3.0, 3.0), zero), six) / six


@device
def hardsigmoid(x, _, __, ___, p, q):
    return _sixth(x)


@device
def hardsigmoid_backward(grad, x, _, __, p, q):
    three = pick(x, 3.0, 3.0)
    return select((x > -three) & (x < three), grad / pick(x, 6.0, 6.0), pick(x, 0.0, 0.0))


@device
def hardswish(x, _, __, ___, p, q):
    return x * _sixth(x)


@device
def hardswish_backward(grad, x, _, __, p, q):
    three = pick(x, 3.0, 3.0)
    slope = fma(x, pick(x, 1 / 3, 1 / 3), pick(x, 0.5, 0.5))
    return select(x <= -three, pick(x, 0.0, 0.0), select(x >= three, grad, grad * slope))


@device
def softplus(x, _, __, ___, beta, threshold):
    z = x * beta
    return select(z > threshold, x, _softplus(z) / beta)


@device
def softplus_backward(grad, x, _, __, beta, threshold):
    z = x * beta
    return select(z > threshold, grad, grad * vmath.sigmoid(z))


@device
def _mish_parts(x):
    """Return t = tanh(log(1 + e^x)) and 1 - t^2; with n = e^x (e^x + 2) they are n / (n + 2) and 4 (n + 1) / (n + 2)^2.

    Beyond 20 both have reached their limits.
    """
    far, two = pick(x, 20.0, 40.0), pick(x, 2.0, 2.0)
    e = vmath.exp(select(x > far, far, x))
    n = e * (e + two)
    r = pick(x, 1.0, 1.0) / (n + two)
    return n * r, pick(x, 4.0, 4.0) * (n + pick(x, 1.0, 1.0)) * r * r


@device
def mish(x, _, __, ___, p, q):
    t, _rest = _mish_parts(x)
    return x * t


@device
def mish_backward(grad, x, _, __, p, q):
    t, rest = _mish_parts(x)
    limit = pick(x, 1e3, 1e3)  # an infinite x times the rest, which is 0 there, would be NaN
    bounded = select(x > limit, limit, select(x < -limit, -limit, x))
    return grad * fma(bounded * rest, vmath.sigmoid(x), t)


@device
def l1(x, target, _, __, p, q):
    return absolute(x - target)


@device
def l1_backward(grad, x, target, _, scale, q):
    zero, d, g = pick(x, 0.0, 0.0), x - target, grad * scale
    return select(d > zero, g, select(d < zero, -g, g * d))  # g d: zero, or NaN


@device
def huber(x, target, _, __, delta, scale):
    half, d = pick(x, 0.5, 0.5), absolute(x - target)
    return scale * select(d <= delta, half * d * d, delta * (d - half * delta))


@device
def huber_backward(grad, x, target, _, delta, scale):
    return grad * scale * minimum(maximum(x - target, -delta), delta)


@device
def binary_cross_entropy(x, target, weight, _, p, q):
    one, least = pick(x, 1.0, 1.0), pick(x, -100.0, -100.0)
    rest = one - target
    # 1 - x is exact for x >= 1/2; below, log(1 - x) = -2 atanh(x / (2 - x)) would be finer than any target needs
    loss = fma(target, maximum(vmath.log(x), least), rest * maximum(vmath.log(one - x), least))
    return select(target * rest >= pick(x, 0.0, 0.0), -weight * loss, pick(x, math.nan, math.nan))


@device
def binary_cross_entropy_backward(grad, x, target, weight, scale, q):
    one = pick(x, 1.0, 1.0)
    return grad * scale * weight * (x - target) / maximum(x * (one - x), pick(x, 1e-12, 1e-12))


@device
def binary_cross_entropy_backward_target(grad, x, target, weight, scale, q):
    return grad * scale * weight * (vmath.log(pick(x, 1.0, 1.0) - x) - vmath.log(x))


@device
def cross_entropy_with_logits(x, target, weight, pos_weight, p, q):
    one, zero = pick(x, 1.0, 1.0), pick(x, 0.0, 0.0)
    small = _log1p(vmath.exp(-absolute(x)))
    minus, plus = small + maximum(-x, zero), small + maximum(x, zero)  # log(1 + e^-x), log(1 + e^x)
    return weight * fma(pos_weight * target, minus, (one - target) * plus)


@device
def cross_entropy_with_logits_backward(grad, x, target, pos_weight, scale, q):
    one = pick(x, 1.0, 1.0)
    return grad * scale * fma(one - target, vmath.sigmoid(x), -(pos_weight * target * vmath.sigmoid(-x)))


@device
def cross_entropy_with_logits_backward_target(grad, x, pos_weight, _, scale, q):
    zero = pick(x, 0.0, 0.0)
    small = _log1p(vmath.exp(-absolute(x)))
    return grad * scale * fma(pos_weight, small + maximum(-x, zero), -(small + maximum(x, zero)))


@device
def kl_div(x, target, _, __, p, q):
    zero = pick(x, 0.0, 0.0)
    return select(target == zero, zero, target * vmath.log(target)) - target * x


@device
def kl_div_backward_target(grad, x, target, _, scale, q):
    zero = pick(x, 0.0, 0.0)
    return grad * scale * (select(target == zero, zero, vmath.log(target) + pick(x, 1.0, 1.0)) - x)


@device
def kl_div_log(x, target, _, __, p, q):
    return vmath.exp(target) * (target - x)


@device
def kl_div_log_backward(grad, target, _, __, scale, q):
    return -grad * scale * vmath.exp(target)


@device
def kl_div_log_backward_target(grad, x, target, _, scale, q):
    return grad * scale * vmath.exp(target) * (target - x + pick(x, 1.0, 1.0))


_LOSSES: dict[str, Callable] = {
    "l1": l1, "huber": huber, "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy_with_logits": cross_entropy_with_logits, "kl_div": kl_div, "kl_div_log": kl_div_log,
}  # fmt: skip
_FORMULAS: dict[str, Callable] = {
    "hardtanh": hardtanh, "hardtanh_backward": hardtanh_backward, "elu": elu, "elu_backward": elu_backward,
    "hardsigmoid": hardsigmoid, "hardsigmoid_backward": hardsigmoid_backward, "hardswish": hardswish,
    "hardswish_backward": hardswish_backward, "softplus": softplus, "softplus_backward": softplus_backward,
    "mish": mish, "mish_backward": mish_backward, "l1_backward": l1_backward, "huber_backward": huber_backward,
    "binary_cross_entropy_backward": binary_cross_entropy_backward,
    "binary_cross_entropy_backward_target": binary_cross_entropy_backward_target,
    "cross_entropy_with_logits_backward": cross_entropy_with_logits_backward,
    "cross_entropy_with_logits_backward_target": cross_entropy_with_logits_backward_target,
    "kl_div_backward_target": kl_div_backward_target, "kl_div_log_backward": kl_div_log_backward,
    "kl_div_log_backward_target": kl_div_log_backward_target, **_LOSSES,
}  # fmt: skip
_MAPS = {name: _make_map(name, formula) for name, formula in _FORMULAS.items()}
_SUMS = {name: _make_sum(name, formula) for name, formula in _LOSSES.items()}


def _launch(table: dict[str, Kernel], problem: Any, inputs: Arrays, out: np.ndarray) -> int:
    *operands, parameters = inputs
    missing = 4 - len(operands)
    flags = (*problem.dense, *(False,) * missing)
    tasks = -(-problem.size // _CHUNK)
    arrays = (*operands, *operands[:1] * missing, parameters, out)
    launch(table[problem.function], tasks, arrays, (problem.size, _CHUNK, *flags), problem.dtype)
    return tasks


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _launch(_MAPS, problem, inputs, outputs[0])


def _sum(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    partial = memory.empty((2 * -(-problem.size // _CHUNK),), np.float64)
    parts = _launch(_SUMS, problem, inputs, partial)
    launch(finish, 1, (partial, *outputs, memory.empty((1,), np.float64)), (parts, problem.mean), problem.dtype)


def _summable(problem: Any) -> str | None:
    return None if problem.function in _SUMS else f"no kernel adds up {problem.function}"


CANDIDATES: CandidateLists = {
    ("pointwise", "forward"): [Candidate("cpu.vector", _forward)],
    ("pointwise", "sum"): [Candidate("cpu.vector", _sum, _summable)],
}
