"""Differentiable local response normalisation, as torch.nn.functional.local_response_norm."""

from __future__ import annotations

from numbanet import ops
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Return input / (k + alpha / size * sum of squares)^beta; see `numbanet.ops.local_response_norm`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, ...), at least 3 dimensions.
    size : int
        Number of neighbouring channels whose squares are added.
    alpha, beta, k : float

    Returns
    -------
    Tensor
        Same shape.
    """
    x, options = values("input", input), (size, alpha, beta, k)
    y = ops.local_response_norm(x, *options)
    return record(y, (input,), lambda grad: (ops.local_response_norm_backward(grad, x, *options),))
