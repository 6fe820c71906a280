"""Activation functions and their derivatives; the definitions are `numbanet.reference.activation`'s."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import device
from numbanet.cuda.flat import run_flat
from numbanet.cuda.scalar import scalars
from numbanet.cuda.vector import too_large


@lru_cache(maxsize=4)
def forward_formulas(dtype: str) -> dict[str, Any]:
    """Return ``f(x, parameter, unused)`` by name."""
    s = scalars(dtype)
    zero, half = s.zero, s.number(0.5)
    sigmoid = s.sigmoid
    root_half, slope, cubic = s.number(math.sqrt(0.5)), s.number(2 * math.sqrt(2 / math.pi)), s.number(0.044715)

    @device
    def gelu_tanh(x, p, q):
        return x * sigmoid(slope * (x + cubic * x * x * x))  # (1 + tanh(u)) / 2 = sigmoid(2 u): nothing cancels

    return {
        "relu": device(lambda x, p, q: zero if x < zero else x),
        "leaky_relu": device(lambda x, p, q: x if x > zero else p * x),
        "sigmoid": device(lambda x, p, q: sigmoid(x)),
        "tanh": device(lambda x, p, q: math.tanh(x)),
        "gelu": device(lambda x, p, q: half * x * math.erfc(-x * root_half)),
        "gelu_tanh": gelu_tanh,
        "silu": device(lambda x, p, q: x * sigmoid(x)),
    }


@lru_cache(maxsize=4)
def backward_formulas(dtype: str) -> dict[str, Any]:
    """Return ``f(grad, saved, parameter, unused)`` by name."""
    s = scalars(dtype)
    zero, one, half = s.zero, s.one, s.number(0.5)
    sigmoid = s.sigmoid
    root_half, slope, cubic = s.number(math.sqrt(0.5)), s.number(2 * math.sqrt(2 / math.pi)), s.number(0.044715)
    density, three_cubic = s.number(1 / math.sqrt(2 * math.pi)), s.number(3 * 0.044715)

    @device
    def gelu(grad, x, p, q):
        return grad * (half * math.erfc(-x * root_half) + x * density * math.exp(-half * x * x))

    @device
    def gelu_tanh(grad, x, p, q):
        y = sigmoid(slope * (x + cubic * x * x * x))
        return grad * (y + x * y * (one - y) * slope * (one + three_cubic * x * x))

    @device
    def silu(grad, x, p, q):
        y = sigmoid(x)
        return grad * y * (one + x * (one - y))

    return {
        "relu": device(lambda grad, y, p, q: zero if y <= zero else grad),
        "leaky_relu": device(lambda grad, x, p, q: grad if x > zero else p * grad),
        "sigmoid": device(lambda grad, y, p, q: grad * y * (one - y)),
        "tanh": device(lambda grad, y, p, q: grad * (one - y * y)),
        "gelu": gelu,
        "gelu_tanh": gelu_tanh,
        "silu": silu,
    }


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    formula = forward_formulas(problem.dtype)[problem.function]
    parameters = problem.parameter, 0.0
    run_flat(problem.function, formula, problem.dtype, problem.size, inputs, outputs[0], parameters)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    formula = backward_formulas(problem.dtype)[problem.function]
    name, parameters = f"{problem.function}_backward", (problem.parameter, 0.0)
    run_flat(name, formula, problem.dtype, problem.size, inputs, outputs[0], parameters)


def _supports(problem: Any) -> str | None:
    return too_large(problem.size)


CANDIDATES: CandidateLists = {
    ("activation", "forward"): [Candidate("cuda.flat", _forward, _supports)],
    ("activation", "backward_input"): [Candidate("cuda.flat", _backward, _supports)],
}
