"""Activation functions by name: the argument ``activation`` of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numbanet import functional as F
from numbanet.tensor import Tensor

Activation = str | Callable[[Tensor], Tensor] | None
_NAMES = (
    "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "hardtanh",
    "hardsigmoid", "hardswish",
)  # fmt: skip


def check_activation(activation: Any) -> Activation:
    """Return the argument ``activation``.

    Raises
    ------
    ValueError
        If it is neither None, nor the name of a function of one tensor, nor such a function.
    """
    if activation is None or callable(activation) or activation in _NAMES:
        return activation
    raise ValueError(f"activation must be None, a function or one of {', '.join(_NAMES)}, got {activation!r}")


def activated(activation: Activation, y: Tensor) -> Tensor:
    """Return the activation of a layer's result."""
    if activation is None:
        return y
    return getattr(F, activation)(y) if isinstance(activation, str) else activation(y)
