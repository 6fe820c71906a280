"""Definition of batch normalisation (Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1).

Arrays are matrices: a row is a sample, a column a channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def _normalised(problem: Any, x: np.ndarray, coefficients: Any, residual: np.ndarray | None) -> np.ndarray:
    mean, scale, shift = coefficients
    y = (x - mean) * scale + shift
    if residual is not None:
        y = y + residual
    return np.where(y < 0, 0, y) if problem.activation == "relu" else y


def _moments(problem: Any, inputs: Arrays, mean: np.ndarray, inverse: np.ndarray) -> tuple[Any, Any]:
    """Compute the statistics; return what x - mean is multiplied by, and what is added."""
    x, weight, bias, running_mean, running_var, (eps, momentum) = inputs
    if problem.training:
        mean[...] = x.mean(axis=0)
        var = np.square(x - mean).mean(axis=0)
        if running_mean is not None:
            running_mean[...] = (1 - momentum) * running_mean + momentum * mean
        if running_var is not None:
            unbiased = var * (problem.rows / (problem.rows - 1))
            running_var[...] = (1 - momentum) * running_var + momentum * unbiased
    else:
        mean[...] = running_mean
        var = running_var
    inverse[...] = 1 / np.sqrt(var + eps)
    return inverse * (1 if weight is None else weight), 0 if bias is None else bias


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    given, residual = inputs[:6], inputs[6]
    y, mean, inverse = outputs
    scale, shift = _moments(problem, given, mean, inverse)
    y[...] = _normalised(problem, inputs[0], (mean, scale, shift), residual)


def _statistics(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    mean, inverse, coefficients = outputs
    coefficients[1], coefficients[2] = _moments(problem, inputs, mean, inverse)
    coefficients[0] = mean


def _apply(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, coefficients, residual = inputs
    outputs[0][...] = _normalised(problem, x, coefficients, residual)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse, y = inputs
    dx, dweight, dbias, dresidual = outputs
    if problem.activation == "relu":
        grad = np.where(y <= 0, 0, grad)
    if dresidual is not None:
        dresidual[...] = grad
    normalised = (x - mean) * inverse
    dweight[...] = (grad * normalised).sum(axis=0)
    dbias[...] = grad.sum(axis=0)
    scale = inverse if weight is None else inverse * weight
    if problem.training:
        # The mean and the deviation depend on x too: their parts leave what is orthogonal to 1 and to the result.
        grad = grad - dbias / problem.rows - normalised * dweight / problem.rows
    dx[...] = grad * scale


CANDIDATES: CandidateLists = {
    ("batch_norm", which): [Candidate("reference", run, cost=lambda p: float("inf"))]
    for which, run in {
        "forward": _forward, "statistics": _statistics, "apply": _apply, "backward": _backward,
    }.items()
}  # fmt: skip
