"""Differentiable normalisation, as in torch.nn.functional."""

from __future__ import annotations

import numpy as np

from numbanet import ops
from numbanet.moments import Moments
from numbanet.tape import needs_grad, record
from numbanet.tensor import Tensor, values


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return (input - mean) / sqrt(var + eps) * weight + bias, channel by channel.

    Parameters
    ----------
    input : Tensor
        Shape (N, C), (N, C, L), (N, C, H, W) or with more dimensions.
    running_mean, running_var : Tensor or None
        Shape (C,). Where `training` is False they are the statistics; else they are updated in place:
        ``running = (1 - momentum) * running + momentum * batch``, with the unbiased variance.
    weight, bias : Tensor, optional
        Shape (C,); 1 and 0 if None.
    training : bool
        Whether the statistics are those of the batch (the biased variance).
    momentum : float
    eps : float
        Not negative, and with `training` not 0.

    Returns
    -------
    Tensor
        Shape of the input; channels lie side by side in memory.

    Raises
    ------
    ValueError
        If a shape or `eps` does not fit, `training` has a single value per channel, or running statistics are missing.
    TypeError
        If dtypes differ or are not float32 or float64.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015.
    """
    return fused_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def fused_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
    moments: Moments | None = None,
) -> Tensor:
    """Return activation(batch_norm(input) + residual) in the passes over memory that `batch_norm` makes.

    Parameters and errors as for `batch_norm`, and:

    Parameters
    ----------
    activation : {None, "relu"}
    residual : Tensor, optional
        Of the shape of the input.
    moments : Moments, optional
        Of the input, which a convolution has just computed.
    """
    x, scale = values("input", input), None if weight is None else values("weight", weight)
    y, mean, inverse = ops.batch_norm_forward(
        x,
        None if running_mean is None else values("running_mean", running_mean),
        None if running_var is None else values("running_var", running_var),
        scale,
        None if bias is None else values("bias", bias),
        training,
        momentum,
        eps,
        activation,
        None if residual is None else values("residual", residual),
        moments,
    )
    if training:
        for statistic in (running_mean, running_var):
            if statistic is not None:
                statistic.bump_version()
    if not needs_grad(input, weight, bias, residual):
        return Tensor(y)
    kept, added = None if activation is None else y, residual is not None

    def backward(grad: np.ndarray) -> tuple[np.ndarray, ...]:
        return ops.batch_norm_backward(grad, x, scale, mean, inverse, training, activation, kept, added)

    return record(y, (input, weight, bias, residual) if added else (input, weight, bias), backward)
