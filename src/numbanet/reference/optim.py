"""Definitions of the optimizers' update rules, of vector norms and of clipping.

Each rule takes the parameter p, its gradient g and its state, and updates p and the state in place. `sign` is -1 where
the objective shall grow. A decay of zero leaves the gradient alone (0 * inf would not).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists

Optional = np.ndarray | None


def _gradient(p: np.ndarray, g: np.ndarray, sign: float, decay: float) -> np.ndarray:
    return sign * g + decay * p if decay else sign * g


def sgd(p: np.ndarray, g: np.ndarray, state: tuple[Optional], h: np.ndarray, options: tuple[str, ...]) -> None:
    """Gradient descent with momentum: b = momentum * b + (1 - dampening) * g; p -= lr * b.

    The first step starts with b = g; Nesterov's form steps along g + momentum * b.
    """
    sign, decay, lr, momentum, gain = h
    g = _gradient(p, g, sign, decay)
    (buffer,) = state
    if buffer is not None:
        buffer[...] = g if "first" in options else momentum * buffer + gain * g
        g = g + momentum * buffer if "nesterov" in options else buffer
    p -= lr * g


def adam(
    p: np.ndarray, g: np.ndarray, state: tuple[Optional, ...], h: np.ndarray, options: tuple[str, ...]
) -> None:
    """Adam (Kingma and Ba, 2015): m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g^2; p -= lr * m / sqrt(v).

    The bias corrections stand in the coefficients: `size` = lr / (1 - beta1^t), `scale` = 1 / sqrt(1 - beta2^t).
    `keep` = 1 - lr * weight_decay is AdamW's decoupled decay. AMSGrad divides by the largest v so far.
    """
    sign, decay, keep, gain1, beta2, gain2, size, scale, eps = h
    m, v, largest = state
    assert m is not None and v is not None
    p *= keep
    g = _gradient(p, g, sign, decay)
    m += gain1 * (g - m)
    v[...] = beta2 * v + gain2 * g * g
    if largest is not None:
        largest[...] = np.maximum(largest, v)
        v = largest
    p -= size * m / (np.sqrt(v) * scale + eps)


def rmsprop(
    p: np.ndarray, g: np.ndarray, state: tuple[Optional, ...], h: np.ndarray, options: tuple[str, ...]
) -> None:
    """RMSprop (Tieleman and Hinton, 2012): v = alpha * v + (1 - alpha) * g^2; p -= lr * g / (sqrt(v) + eps).

    The centred form (Graves, 2013) subtracts the square of the mean gradient from v; momentum adds up the quotients.
    """
    sign, decay, lr, alpha, gain, momentum, eps = h
    v, mean, buffer = state
    assert v is not None
    g = _gradient(p, g, sign, decay)
    v[...] = alpha * v + gain * g * g
    spread = v
    if mean is not None:
        mean += gain * (g - mean)
        spread = v - mean * mean
    g = g / (np.sqrt(spread) + eps)
    if buffer is not None:
        buffer[...] = momentum * buffer + g
        g = buffer
    p -= lr * g


def adagrad(p: np.ndarray, g: np.ndarray, state: tuple[Optional], h: np.ndarray, options: tuple[str, ...]) -> None:
    """Adagrad (Duchi, Hazan and Singer, 2011): s += g^2; p -= lr * g / (sqrt(s) + eps)."""
    sign, decay, lr, eps = h
    (total,) = state
    assert total is not None
    g = _gradient(p, g, sign, decay)
    total += g * g
    p -= lr * g / (np.sqrt(total) + eps)


def adadelta(
    p: np.ndarray, g: np.ndarray, state: tuple[Optional, ...], h: np.ndarray, options: tuple[str, ...]
) -> None:
    """Adadelta (Zeiler, 2012): steps of the root mean square of past steps over that of past gradients, times g."""
    sign, decay, lr, rho, gain, eps = h
    v, u = state
    assert v is not None and u is not None
    g = _gradient(p, g, sign, decay)
    v[...] = rho * v + gain * g * g
    delta = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    u[...] = rho * u + gain * delta * delta
    p -= lr * delta


_RULES: dict[str, Any] = {
    "sgd": sgd, "adam": adam, "rmsprop": rmsprop, "adagrad": adagrad, "adadelta": adadelta,
}  # fmt: skip


def _step(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grads, coefficients = inputs
    parameters, *states = outputs
    with np.errstate(all="ignore"):
        for number, (parameter, grad) in enumerate(zip(parameters, grads)):
            state = tuple(None if arrays is None else arrays[number] for arrays in states)
            _RULES[problem.rule](parameter, grad, state, coefficients, problem.options)


def _partial_norm(x: np.ndarray, order: float) -> float:
    x = np.abs(x.astype(np.float64))
    if order in (np.inf, -np.inf):
        return float(x.max(initial=0.0) if order > 0 else x.min(initial=np.inf))
    return float(np.count_nonzero(x) if order == 0 else (x**order).sum())


def _norm(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    with np.errstate(all="ignore"):
        outputs[0][...] = [_partial_norm(x, problem.ord) for x in inputs[0]]


def _clip(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    first, second = inputs[0]
    with np.errstate(all="ignore"):
        for x in outputs[0]:
            if problem.function == "scale":
                x *= first
            elif problem.function == "clamp":
                np.clip(x, first, second, out=x)
            else:
                x.fill(first)


def _candidates(run: Any) -> list[Candidate]:
    return [Candidate("reference", run, cost=lambda p: float("inf"))]


CANDIDATES: CandidateLists = {
    ("optimizer_step", "step"): _candidates(_step),
    ("vector_norm", "forward"): _candidates(_norm),
    ("clip", "forward"): _candidates(_clip),
}
