"""Definition of batch normalisation (Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1).

Arrays are matrices: a row is a sample, a column a channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, running_mean, running_var, (eps, momentum) = inputs
    y, mean, inverse = outputs
    if problem.training:
        mean[...] = x.mean(axis=0)
        var = np.square(x - mean).mean(axis=0)
        if running_mean is not None:
            running_mean += momentum * (mean - running_mean)
        if running_var is not None:
            running_var += momentum * (var * (problem.rows / (problem.rows - 1)) - running_var)
    else:
        mean[...] = running_mean
        var = running_var
    inverse[...] = 1 / np.sqrt(var + eps)
    y[...] = (x - mean) * inverse * (1 if weight is None else weight) + (0 if bias is None else bias)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse = inputs
    dx, dweight, dbias = outputs
    normalised = (x - mean) * inverse
    dweight[...] = (grad * normalised).sum(axis=0)
    dbias[...] = grad.sum(axis=0)
    scale = inverse if weight is None else inverse * weight
    if problem.training:
        # The mean and the deviation depend on x too: their parts leave what is orthogonal to 1 and to the result.
        grad = grad - dbias / problem.rows - normalised * dweight / problem.rows
    dx[...] = grad * scale


CANDIDATES: CandidateLists = {
    ("batch_norm", "forward"): [Candidate("reference", _forward, cost=lambda p: float("inf"))],
    ("batch_norm", "backward"): [Candidate("reference", _backward, cost=lambda p: float("inf"))],
}
