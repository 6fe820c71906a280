"""Definitions of the pointwise functions: of operands a, b, ... and parameters p and q, and their derivatives.

Those named ``..._backward`` take the gradient of the result first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists

Array = np.ndarray


def hardtanh(x: Array, low: float, high: float) -> Array:
    """min(max(x, low), high); NaN stays NaN."""
    return np.minimum(np.maximum(x, low), high)


def hardtanh_backward(grad: Array, x: Array, low: float, high: float) -> Array:
    """The derivative is 1 between the bounds (and at NaN), and 0 from them on."""
    return np.where((x <= low) | (x >= high), 0, grad)


def elu(x: Array, alpha: float, q: float) -> Array:
    """x where it is positive, else alpha (e^x - 1) (Clevert et al., arXiv:1511.07289)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(grad: Array, x: Array, alpha: float, q: float) -> Array:
    """The derivative is 1 where x > 0, else alpha e^x."""
    return grad * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


def hardsigmoid(x: Array, p: float, q: float) -> Array:
    """relu6(x + 3) / 6."""
    return np.minimum(np.maximum(x + 3, 0), 6) / 6


def hardsigmoid_backward(grad: Array, x: Array, p: float, q: float) -> Array:
    """The derivative is 1/6 between -3 and 3, else 0."""
    return np.where((x > -3) & (x < 3), grad / 6, 0)


def hardswish(x: Array, p: float, q: float) -> Array:
    """x relu6(x + 3) / 6 (Howard et al., arXiv:1905.02244)."""
    return x * np.minimum(np.maximum(x + 3, 0), 6) / 6


def hardswish_backward(grad: Array, x: Array, p: float, q: float) -> Array:
    """The derivative is 0 up to -3, 1 from 3 on, and x / 3 + 1 / 2 between them."""
    return np.where(x <= -3, 0, np.where(x >= 3, grad, grad * (x / 3 + 0.5)))


def softplus(x: Array, beta: float, threshold: float) -> Array:
    """log(1 + e^(beta x)) / beta; x itself where beta x is above the threshold."""
    return np.where(x * beta > threshold, x, np.logaddexp(0, x * beta) / beta)


def softplus_backward(grad: Array, x: Array, beta: float, threshold: float) -> Array:
    """The derivative is sigmoid(beta x); 1 above the threshold."""
    z = np.exp(-np.abs(x * beta))
    sigmoid = np.where(x * beta < 0, z, 1) / (1 + z)
    return grad * np.where(x * beta > threshold, 1, sigmoid)


def mish(x: Array, p: float, q: float) -> Array:
    """x tanh(log(1 + e^x)) (Misra, arXiv:1908.08681)."""
    return x * np.tanh(np.logaddexp(0, x))


def mish_backward(grad: Array, x: Array, p: float, q: float) -> Array:
    """With t = tanh(log(1 + e^x)), the derivative is t + x (1 - t^2) sigmoid(x); at infinities its limit."""
    t = np.tanh(np.logaddexp(0, x))
    return grad * (t + np.where(np.isinf(x), 0, x * (1 - t * t) / (1 + np.exp(-x))))


def l1(x: Array, target: Array, p: float, q: float) -> Array:
    """|x - target|."""
    return np.abs(x - target)


def l1_backward(grad: Array, x: Array, target: Array, scale: float, q: float) -> Array:
    """The sign of the difference, times `scale`."""
    return grad * scale * np.sign(x - target)


def huber(x: Array, target: Array, delta: float, scale: float) -> Array:
    """With d = |x - target|: d^2 / 2 up to delta, then delta (d - delta / 2); times `scale`."""
    d = np.abs(x - target)
    return scale * np.where(d <= delta, d * d / 2, delta * (d - delta / 2))


def huber_backward(grad: Array, x: Array, target: Array, delta: float, scale: float) -> Array:
    """The difference, at most delta in size, times `scale`."""
    return grad * scale * np.clip(x - target, -delta, delta)


def binary_cross_entropy(x: Array, target: Array, weight: Array, p: float, q: float) -> Array:
    """-weight (target log x + (1 - target) log(1 - x)), the logarithms at least -100; NaN for targets not in [0, 1]."""
    one, zero = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
    return np.where((target >= 0) & (target <= 1), -weight * (target * one + (1 - target) * zero), np.nan)


def binary_cross_entropy_backward(grad: Array, x: Array, target: Array, weight: Array, scale: float, q: float) -> Array:
    """weight (x - target) / (x (1 - x)), the denominator at least 1e-12; times `scale`."""
    return grad * scale * weight * (x - target) / np.maximum(x * (1 - x), 1e-12)


def binary_cross_entropy_backward_target(
    grad: Array, x: Array, target: Array, weight: Array, scale: float, q: float
) -> Array:
    """weight (log(1 - x) - log x), times `scale`; here the logarithms are not cut off."""
    return grad * scale * weight * (np.log1p(-x) - np.log(x))


def cross_entropy_with_logits(x: Array, target: Array, weight: Array, pos_weight: Array, p: float, q: float) -> Array:
    """-weight (pos_weight target log sigmoid(x) + (1 - target) log(1 - sigmoid(x)))."""
    return weight * (pos_weight * target * np.logaddexp(0, -x) + (1 - target) * np.logaddexp(0, x))


def cross_entropy_with_logits_backward(
    grad: Array, x: Array, target: Array, pos_weight: Array, scale: float, q: float
) -> Array:
    """(1 - target) sigmoid(x) - pos_weight target sigmoid(-x), times `scale`."""
    sigmoid = np.exp(-np.logaddexp(0, -x))
    return grad * scale * ((1 - target) * sigmoid - pos_weight * target * np.exp(-np.logaddexp(0, x)))


def cross_entropy_with_logits_backward_target(
    grad: Array, x: Array, pos_weight: Array, scale: float, q: float
) -> Array:
    """pos_weight log(1 + e^-x) - log(1 + e^x), times `scale`."""
    return grad * scale * (pos_weight * np.logaddexp(0, -x) - np.logaddexp(0, x))


def kl_div(x: Array, target: Array, p: float, q: float) -> Array:
    """target (log(target) - x), 0 where the target is 0."""
    return np.where(target == 0, 0, target * np.log(target)) - target * x


def kl_div_backward_target(grad: Array, x: Array, target: Array, scale: float, q: float) -> Array:
    """log(target) + 1 - x, times `scale`; -x where the target is 0."""
    return grad * scale * (np.where(target == 0, 0, np.log(target) + 1) - x)


def kl_div_log(x: Array, target: Array, p: float, q: float) -> Array:
    """e^target (target - x)."""
    return np.exp(target) * (target - x)


def kl_div_log_backward(grad: Array, target: Array, scale: float, q: float) -> Array:
    """-e^target, times `scale`."""
    return -grad * scale * np.exp(target)


def kl_div_log_backward_target(grad: Array, x: Array, target: Array, scale: float, q: float) -> Array:
    """e^target (target - x + 1), times `scale`."""
    return grad * scale * np.exp(target) * (target - x + 1)


FUNCTIONS: dict[str, Any] = {
    function.__name__: function
    for function in (
        hardtanh, hardtanh_backward, elu, elu_backward, hardsigmoid, hardsigmoid_backward, hardswish,
        hardswish_backward, softplus, softplus_backward, mish, mish_backward, l1, l1_backward, huber, huber_backward,
        binary_cross_entropy, binary_cross_entropy_backward, binary_cross_entropy_backward_target,
        cross_entropy_with_logits, cross_entropy_with_logits_backward, cross_entropy_with_logits_backward_target,
        kl_div, kl_div_backward_target, kl_div_log, kl_div_log_backward, kl_div_log_backward_target,
    )
}  # fmt: skip


def _values(problem: Any, inputs: Arrays) -> Array:
    *operands, parameters = inputs
    with np.errstate(all="ignore"):
        return FUNCTIONS[problem.function](*operands, *parameters)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    outputs[0][...] = _values(problem, inputs)


def _sum(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    with np.errstate(all="ignore"):
        outputs[0][...] = np.sum(_values(problem, inputs)) / np.float64(problem.size if problem.mean else 1)


CANDIDATES: CandidateLists = {
    ("pointwise", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("pointwise", "sum"): [Candidate("reference", _sum, cost=lambda p: float("inf"))],
}
