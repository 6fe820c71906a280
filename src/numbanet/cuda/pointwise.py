"""Formulas with parameters, and the sums of their numbers; the definitions are `numbanet.reference.pointwise`'s."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import device
from numbanet.cuda.flat import run_flat
from numbanet.cuda.scalar import scalars
from numbanet.cuda.total import run_total
from numbanet.cuda.vector import too_large


@lru_cache(maxsize=4)
def activations(dtype: str) -> dict[str, Any]:
    """Return the activation functions ``f(x, p, q)`` and their derivatives ``f(grad, x, p, q)``."""
    s = scalars(dtype)
    number, zero, one = s.number, s.zero, s.one
    half, two, three, four, six = number(0.5), number(2), number(3), number(4), number(6)
    third, twenty = number(1 / 3), number(20)
    maximum, minimum, sigmoid, softplus = s.maximum, s.minimum, s.sigmoid, s.softplus

    @device
    def hardswish_backward(grad, x, p, q):
        return zero if x <= -three else (grad if x >= three else grad * (x * third + half))

    @device
    def softplus_forward(x, beta, threshold):
        z = x * beta
        return x if z > threshold else softplus(z) / beta

    @device
    def softplus_backward(grad, x, beta, threshold):
        z = x * beta
        return grad if z > threshold else grad * sigmoid(z)

    @device
    def mish(x, p, q):
        # With e = exp(x) and n = e (e + 2), tanh(log(1 + e)) is n / (n + 2); it is 1 from 20 on.
        e = math.exp(minimum(x, twenty))
        n = e * (e + two)
        return x * (n / (n + two))

    @device
    def mish_backward(grad, x, p, q):
        e = math.exp(minimum(x, twenty))
        n = e * (e + two)
        r = one / (n + two)
        rest = four * (n + one) * r * r  # 1 - t^2
        inner = zero if x > twenty or x < -number(1e3) else x * rest * sigmoid(x)
        return grad * (n * r + inner)

    return {
        "hardtanh": device(lambda x, low, high: minimum(maximum(x, low), high)),
        "hardtanh_backward": device(lambda grad, x, low, high: zero if x <= low or x >= high else grad),
        "elu": device(lambda x, alpha, q: x if x > zero else alpha * math.expm1(x)),
        "elu_backward": device(lambda grad, x, alpha, q: grad if x > zero else grad * (alpha * math.exp(x))),
        "hardsigmoid": device(lambda x, p, q: minimum(maximum(x + three, zero), six) / six),
        "hardsigmoid_backward": device(lambda grad, x, p, q: grad / six if x > -three and x < three else zero),
        "hardswish": device(lambda x, p, q: x * (minimum(maximum(x + three, zero), six) / six)),
        "hardswish_backward": hardswish_backward,
        "softplus": softplus_forward,
        "softplus_backward": softplus_backward,
        "mish": mish,
        "mish_backward": mish_backward,
    }


@lru_cache(maxsize=4)
def losses(dtype: str) -> dict[str, Any]:
    """Return the losses, functions of their operands and two parameters."""
    s = scalars(dtype)
    number, zero, one = s.number, s.zero, s.one
    half, least, nan = number(0.5), number(-100), number(math.nan)
    maximum, softplus = s.maximum, s.softplus

    @device
    def huber(x, target, delta, scale):
        d = abs(x - target)
        return scale * (half * d * d if d <= delta else delta * (d - half * delta))

    @device
    def binary_cross_entropy(x, target, weight, p, q):
        first, second = maximum(math.log(x), least), maximum(math.log1p(-x), least)
        return -weight * (target * first + (one - target) * second) if target >= zero and target <= one else nan

    @device
    def cross_entropy_with_logits(x, target, weight, pos_weight, p, q):
        return weight * (pos_weight * target * softplus(-x) + (one - target) * softplus(x))

    @device
    def kl_div(x, target, p, q):
        return (zero if target == zero else target * math.log(target)) - target * x

    return {
        "l1": device(lambda x, target, p, q: abs(x - target)),
        "huber": huber,
        "binary_cross_entropy": binary_cross_entropy,
        "cross_entropy_with_logits": cross_entropy_with_logits,
        "kl_div": kl_div,
        "kl_div_log": device(lambda x, target, p, q: math.exp(target) * (target - x)),
    }


@lru_cache(maxsize=4)
def loss_gradients(dtype: str) -> dict[str, Any]:
    """Return the derivatives of the losses, functions of the gradient, the operands and two parameters."""
    s = scalars(dtype)
    number, zero, one = s.number, s.zero, s.one
    tiny = number(1e-12)
    maximum, minimum, sign, sigmoid, softplus = s.maximum, s.minimum, s.sign, s.sigmoid, s.softplus

    @device
    def binary_cross_entropy_backward(grad, x, target, weight, scale, q):
        return grad * scale * weight * (x - target) / maximum(x * (one - x), tiny)

    @device
    def binary_cross_entropy_backward_target(grad, x, target, weight, scale, q):
        return grad * scale * weight * (math.log1p(-x) - math.log(x))

    @device
    def cross_entropy_with_logits_backward(grad, x, target, pos_weight, scale, q):
        return grad * scale * ((one - target) * sigmoid(x) - pos_weight * target * sigmoid(-x))

    @device
    def cross_entropy_with_logits_backward_target(grad, x, pos_weight, scale, q):
        return grad * scale * (pos_weight * softplus(-x) - softplus(x))

    @device
    def kl_div_backward_target(grad, x, target, scale, q):
        return grad * scale * ((zero if target == zero else math.log(target) + one) - x)

    return {
        "l1_backward": device(lambda grad, x, target, scale, q: grad * scale * sign(x - target)),
        "huber_backward": device(
            lambda grad, x, target, delta, scale: grad * scale * minimum(maximum(x - target, -delta), delta)
        ),
        "binary_cross_entropy_backward": binary_cross_entropy_backward,
        "binary_cross_entropy_backward_target": binary_cross_entropy_backward_target,
        "cross_entropy_with_logits_backward": cross_entropy_with_logits_backward,
        "cross_entropy_with_logits_backward_target": cross_entropy_with_logits_backward_target,
        "kl_div_backward_target": kl_div_backward_target,
        "kl_div_log_backward": device(lambda grad, target, scale, q: -grad * scale * math.exp(target)),
        "kl_div_log_backward_target": device(
            lambda grad, x, target, scale, q: grad * scale * math.exp(target) * (target - x + one)
        ),
    }


def formulas(dtype: str) -> dict[str, Any]:
    """Return all of them."""
    return {**activations(dtype), **losses(dtype), **loss_gradients(dtype)}


def _formula(problem: Any) -> Any:
    for table in (activations, losses, loss_gradients):
        found = table(problem.dtype).get(problem.function)
        if found is not None:
            return found
    raise KeyError(problem.function)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    *operands, parameters = inputs
    numbers = float(parameters[0]), float(parameters[1])
    run_flat(
        problem.function, _formula(problem), problem.dtype, problem.size, operands, outputs[0], numbers, problem.dense
    )  # fmt: skip


def _sum(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    *operands, parameters = inputs
    numbers = float(parameters[0]), float(parameters[1])
    divisor = float(problem.size) if problem.mean else 1.0
    run_total(
        problem.function, _formula(problem), problem.dtype, problem.size, operands, outputs[0], divisor, numbers,
        problem.dense,
    )  # fmt: skip


def _supports(problem: Any) -> str | None:
    return too_large(problem.size)


CANDIDATES: CandidateLists = {
    ("pointwise", "forward"): [Candidate("cuda.flat", _forward, _supports)],
    ("pointwise", "sum"): [Candidate("cuda.total", _sum, _supports)],
}
