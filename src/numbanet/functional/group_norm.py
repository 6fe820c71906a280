"""Differentiable layer, group and instance normalisation, as in torch.nn.functional."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from numbanet import ops
from numbanet.functional.norm import batch_norm
from numbanet.ops.group_norm import group_norm_backward, group_norm_forward, layer_norm_backward, layer_norm_forward
from numbanet.problem.base import float_array
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def _data(name: str, tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else values(name, tensor)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return the input with its last dimensions normalised together; see `numbanet.ops.layer_norm`.

    Parameters
    ----------
    input : Tensor
        Any shape that ends with `normalized_shape`.
    normalized_shape : sequence of int
    weight, bias : Tensor, optional
        Shape `normalized_shape`; 1 and 0 if None.
    eps : float

    Returns
    -------
    Tensor
        Same shape.
    """
    x, scale = values("input", input), _data("weight", weight)
    if isinstance(normalized_shape, (int, np.integer)):  # the layer takes one
        raise TypeError(f"normalized_shape must be a sequence of sizes, got {normalized_shape!r}")
    y, mean, inverse = layer_norm_forward(x, normalized_shape, scale, _data("bias", bias), eps)

    def backward(grad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return layer_norm_backward(grad, x, normalized_shape, scale, mean, inverse)

    return record(y, (input, weight, bias), backward)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return the normalised input, and the mean and variance of each group."""
    x, scale = values("input", input), _data("weight", weight)
    y, mean, inverse, variance = group_norm_forward(x, num_groups, scale, _data("bias", bias), eps)

    def backward(grad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return group_norm_backward(grad, x, num_groups, scale, mean, inverse)

    return record(y, (input, weight, bias), backward), mean, variance


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Return the input with groups of each sample's channels normalised; see `numbanet.ops.group_norm`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, ...).
    num_groups : int
        Divides C.
    weight, bias : Tensor, optional
        Shape (C,); 1 and 0 if None.
    eps : float

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or a group has a single value.
    """
    shape = values("input", input).shape
    if len(shape) > 1 and isinstance(num_groups, int) and num_groups > 0 and shape[1] % num_groups == 0:
        if shape[0] * (shape[1] // num_groups) * math.prod(shape[2:]) == 1:
            raise ValueError(f"input: expected more than 1 value per group when training, got shape {shape}")
    return _group_norm(input, num_groups, weight, bias, eps)[0]


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return the input with each channel of each sample normalised (Ulyanov et al., arXiv:1607.08022).

    Parameters
    ----------
    input : Tensor
        Shape (N, C, ...).
    running_mean, running_var : Tensor, optional
        Shape (C,), float32 or float64. Where `use_input_stats` is False they are the statistics; else they follow the
        means over the batch of each sample's mean and unbiased variance:
        ``running = (1 - momentum) * running + momentum * batch``.
    weight, bias : Tensor, optional
        Shape (C,); 1 and 0 if None.
    use_input_stats : bool
    momentum, eps : float

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or a channel has a single value.
    """
    shape = values("input", input).shape
    if len(shape) < 2:
        raise ValueError(f"input must have at least 2 dimensions (N, C, ...), got shape {shape}")
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("running_mean and running_var must be given when use_input_stats is False")
        fixed = _like(input, "running_mean", running_mean), _like(input, "running_var", running_var)
        return batch_norm(input, *fixed, weight, bias, False, momentum, eps)
    count = math.prod(shape[2:])
    if count == 1:
        raise ValueError(f"input: expected more than 1 spatial element when training, got shape {shape}")
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is not None and float_array(name, values(name, statistic)).shape != (shape[1],):
            raise ValueError(f"{name} must have shape ({shape[1]},), one number a channel, got {statistic.shape}")
    y, mean, variance = _group_norm(input, max(1, shape[1]), weight, bias, eps)
    if shape[0] and count:
        if running_mean is not None:
            _follow(running_mean, mean, momentum)
        if running_var is not None:
            _follow(running_var, ops.mul(variance, count / (count - 1)), momentum)
    return y


def _like(input: Tensor, name: str, statistic: Tensor) -> Tensor:
    """Return a running statistic in the dtype of the input."""
    float_array(name, values(name, statistic))
    return statistic.to(dtype=input.dtype)


def _follow(running: Tensor, statistic: np.ndarray, momentum: float) -> None:
    """Move a running average towards the mean over the batch."""
    average = ops.mean(statistic, 0).astype(running.dtype, copy=False)
    step = ops.mul(ops.sub(average, running.data), momentum)
    running.data[...] = ops.add(running.data, step)
    running.bump_version()
