"""The update rules of optimizers on single numbers; the definitions are `numbanet.reference.optim`'s.

A rule takes the parameter, its gradient, three numbers of state and the coefficients ``h``, and returns the parameter
and the three. What of the state a step does not use, it returns as it came.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numbanet.cuda.compile import device
from numbanet.cuda.scalar import scalars


def _gradient(dtype: str) -> Any:
    zero = scalars(dtype).zero

    @device
    def gradient(p, g, sign, decay):
        g = sign * g
        return g + decay * p if decay != zero else g  # 0 * inf would not leave the gradient alone

    return gradient


def sgd(dtype: str, used: tuple[bool, ...], options: tuple[str, ...]) -> Any:
    """Momentum, Nesterov's or not; the first step starts the buffer."""
    gradient = _gradient(dtype)
    (buffered,), first, nesterov = used, "first" in options, "nesterov" in options

    @device
    def rule(p, g, buffer, s1, s2, h):
        sign, decay, lr, momentum, gain = h[0], h[1], h[2], h[3], h[4]
        g = gradient(p, g, sign, decay)
        if buffered:
            buffer = g if first else momentum * buffer + gain * g
            g = g + momentum * buffer if nesterov else buffer
        return p - lr * g, buffer, s1, s2

    return rule


def adam(dtype: str, used: tuple[bool, ...], options: tuple[str, ...]) -> Any:
    """Adam, AdamW and AMSGrad."""
    gradient, maximum = _gradient(dtype), scalars(dtype).maximum
    amsgrad = used[2]

    @device
    def rule(p, g, m, v, largest, h):
        sign, decay, keep, gain1, beta2, gain2, size, scale, eps = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8]
        p = keep * p
        g = gradient(p, g, sign, decay)
        m += gain1 * (g - m)
        v = beta2 * v + gain2 * g * g
        spread = v
        if amsgrad:
            largest = maximum(largest, v)
            spread = largest
        return p - size * (m / (math.sqrt(spread) * scale + eps)), m, v, largest

    return rule


def rmsprop(dtype: str, used: tuple[bool, ...], options: tuple[str, ...]) -> Any:
    """RMSprop, centred or not, with momentum or without."""
    gradient = _gradient(dtype)
    centred, buffered = used[1], used[2]

    @device
    def rule(p, g, v, mean, buffer, h):
        sign, decay, lr, alpha, gain, momentum, eps = h[0], h[1], h[2], h[3], h[4], h[5], h[6]
        g = gradient(p, g, sign, decay)
        v = alpha * v + gain * g * g
        spread = v
        if centred:
            mean += gain * (g - mean)
            spread = v - mean * mean
        g = g / (math.sqrt(spread) + eps)
        if buffered:
            buffer = momentum * buffer + g
            g = buffer
        return p - lr * g, v, mean, buffer

    return rule


def adagrad(dtype: str, used: tuple[bool, ...], options: tuple[str, ...]) -> Any:
    """Adagrad."""
    gradient = _gradient(dtype)

    @device
    def rule(p, g, total, s1, s2, h):
        sign, decay, lr, eps = h[0], h[1], h[2], h[3]
        g = gradient(p, g, sign, decay)
        total += g * g
        return p - lr * (g / (math.sqrt(total) + eps)), total, s1, s2

    return rule


def adadelta(dtype: str, used: tuple[bool, ...], options: tuple[str, ...]) -> Any:
    """Adadelta."""
    gradient = _gradient(dtype)

    @device
    def rule(p, g, v, u, s2, h):
        sign, decay, lr, rho, gain, eps = h[0], h[1], h[2], h[3], h[4], h[5]
        g = gradient(p, g, sign, decay)
        v = rho * v + gain * g * g
        delta = math.sqrt(u + eps) / math.sqrt(v + eps) * g
        u = rho * u + gain * delta * delta
        return p - lr * delta, v, u, s2

    return rule


RULE_MAKERS: dict[str, Callable[[str, tuple[bool, ...], tuple[str, ...]], Any]] = {
    "sgd": sgd, "adam": adam, "rmsprop": rmsprop, "adagrad": adagrad, "adadelta": adadelta,
}  # fmt: skip
