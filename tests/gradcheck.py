"""Finite differences: the check that every differentiable function's gradients pass, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import numbanet as nnet


def gradcheck(
    function: Callable[..., nnet.Tensor], *arrays: np.ndarray, step: float = 1e-6, tolerance: float = 1e-7
) -> None:
    """Compare the gradients of ``sum(function(*tensors) * weights)`` with central differences.

    Each array becomes a float64 tensor that requires a gradient; `weights` are fixed random numbers, so that a wrong
    order of elements shows.
    """
    tensors = [nnet.tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    result = function(*tensors)
    weights = np.random.default_rng(0).standard_normal(result.shape)
    result.backward(weights)

    def value(changed: list[np.ndarray]) -> float:
        with nnet.no_grad():
            return float((function(*(nnet.tensor(a) for a in changed)).data * weights).sum())

    for position, tensor in enumerate(tensors):
        expected = np.zeros(tensor.shape)
        for index in np.ndindex(*tensor.shape):
            values = []
            for sign in (1, -1):
                changed = [t.data.copy() for t in tensors]
                changed[position][index] += sign * step
                values.append(value(changed))
            expected[index] = (values[0] - values[1]) / (2 * step)
        assert tensor.grad is not None, f"operand {position} got no gradient"
        error = np.abs(tensor.grad.data - expected).max(initial=0) / max(1.0, np.abs(expected).max(initial=0))
        assert error < tolerance, f"operand {position}: gradient differs from finite differences by {error:.1e}"
