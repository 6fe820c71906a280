"""What numbanet answers where it differs from PyTorch, written with PyTorch's tensors: see `known`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as TF

from tests.parity.grid.layers import observed, with_state
from tests.parity.grid.running import State

Tensor = torch.Tensor


def with_limits(function: Callable) -> Callable:
    """Return an activation whose gradient at infinities is 1 or 0, and whose value inf or NaN."""

    def call(x: Tensor, *arguments: Any, **options: Any) -> Any:
        finite = function(x.masked_fill(x.isinf(), 0.0), *arguments, **options)
        return torch.where(x == torch.inf, x, torch.where(x == -torch.inf, 0 * finite + torch.nan, finite))

    return call


def passing_nan(function: Callable) -> Callable:
    """Return an activation through which gradients pass where the input is NaN."""

    def call(x: Tensor, *arguments: Any, **options: Any) -> Any:
        return torch.where(x.isnan(), x, function(x.nan_to_num(0.0, torch.inf, -torch.inf), *arguments, **options))

    return call


def changed(function: Callable) -> Callable:
    """Return an activation without `inplace`; with it, the result stands for the input too."""

    def call(x: Tensor, *arguments: Any, **options: Any) -> Any:
        inplace = options.pop("inplace", None) is True or True in [a is True for a in arguments]
        y = function(x, *(a for a in arguments if not isinstance(a, bool)), **options)
        return [y, y] if inplace else y

    return call


def hardsigmoid(x: Tensor) -> Tensor:
    """The definition, in the input's precision."""
    return TF.hardtanh(x / 6 + 0.5, 0.0, 1.0)


def kl_div(x: Tensor, target: Tensor, log_target: bool = False, **options: Any) -> Tensor:
    """The derivative of t log t is taken for 0 where t is 0."""
    zero = target == 0
    logs = torch.where(zero, 0.0, torch.special.xlogy(target, target.masked_fill(zero, 1.0)))
    return reduced_loss(logs - target * x, **options)


def reduced_loss(x: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """Reduce as losses do."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    if reduction == "none":
        return x
    return x.mean() if reduction == "mean" else x.sum() / (len(x) if reduction == "batchmean" else 1)


def no_number(loss: Callable) -> Callable:
    """Return a loss whose gradient is NaN where the difference of its operands is."""

    def call(x: Tensor, target: Tensor, **options: Any) -> Tensor:
        missing = (x - target).isnan()
        given = [operand * 1 for operand in (x, target)]
        for operand in given:
            if operand.requires_grad:
                its = missing.sum_to_size(operand.shape) > 0
                operand.register_hook(lambda grad, its=its: grad.masked_fill(its, torch.nan))
        return loss(*given, **options)

    return call



def binary_cross_entropy_with_logits(
    x: Tensor, target: Tensor, weight: Any = None, pos_weight: Any = None, **options: Any
) -> Tensor:
    """Two terms, neither of which is the difference of infinities."""
    yes, no = TF.softplus(-x, threshold=50.0), TF.softplus(x, threshold=50.0)
    loss = target * yes * (1 if pos_weight is None else pos_weight) + (1 - target) * no
    return reduced_loss((loss * (1 if weight is None else weight)).to(x.dtype), **options)



def over_all(function: Callable) -> Callable:
    """Return a reduction over all dimensions, whichever are asked for."""

    def call(x: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
        y = function(x, **options)
        return y.reshape((1,) * x.dim()) if keepdim else y

    return call


def normalised_nothing(x: Tensor, weight: Any = None, bias: Any = None) -> Tensor:
    """Scale and shift images of which there are none."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    x = x * (1 if weight is None else weight.reshape(shape))
    return x + (0 if bias is None else bias.reshape(shape))


def instance_norm(x: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """Statistics stay as they are where there are no images."""
    kept = [statistic.clone() for statistic in (running_mean, running_var) if statistic is not None]
    return [normalised_nothing(x, weight, bias), *kept]


def instance_layer(name: str) -> Callable:
    """Return what an instance normalisation does where there are no images."""

    def call(x: Tensor, *arguments: Any, train: bool = True, **options: Any) -> State:
        layer = with_state(torch.nn, name, x, *arguments, **options)
        layer.eval()
        return observed(layer, [normalised_nothing(x, layer.weight, layer.bias) for _ in range(2)])

    return call


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """An empty batch of the shape that it would have."""
    *first, c, h, w = x.shape
    return x.reshape(*first, c * downscale_factor**2, h // downscale_factor, w // downscale_factor)


def variance_of_too_few(x: Tensor, correction: Any) -> Tensor:
    """Infinite, with a gradient as if the number of elements could be negative."""
    return (x - x.mean()).square().sum() / (x.numel() - correction) + torch.inf
