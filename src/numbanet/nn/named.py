"""Activation functions by name: the argument ``activation`` of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numbanet import functional as F
from numbanet.nn.module import Module
from numbanet.tensor import Tensor

Activation = str | Callable[[Tensor], Tensor] | None
_NAMES = (
    "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "hardtanh",
    "hardsigmoid", "hardswish", "softmax", "log_softmax", "exponential", "linear",
)  # fmt: skip


class _Child:
    """What an attribute is that is not in the layer's ``__dict__``: the child module of that name, or None."""

    def __get__(self, layer: Any, owner: Any = None) -> Any:
        return self if layer is None else layer._modules.get("activation")


class Activated(Module):
    """A layer with an attribute ``activation``: None, a name, a function, or a layer, which then is a child module.

    What is assigned is checked as the argument is. A layer that was pickled when there was no such attribute has none.
    """

    activation: Any = _Child()

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "activation":
            super().__setattr__(name, value)
            return
        if "_modules" not in self.__dict__:
            raise AttributeError("cannot assign activation before Module.__init__() call")
        value, children = check_activation(value), self._modules
        self.__dict__.pop(name, None)
        if isinstance(value, Module):
            children[name] = value
        else:
            children.pop(name, None)
            self.__dict__[name] = value


def check_activation(activation: Any) -> Activation:
    """Return the argument ``activation``; None for ``"linear"``.

    Raises
    ------
    ValueError
        If it is neither None, nor the name of a function of one tensor, nor such a function or layer.
    """
    if activation is None or (isinstance(activation, str) and activation in _NAMES):
        return None if activation == "linear" else activation
    if isinstance(activation, type):
        raise ValueError(f"activation must be a layer such as {activation.__name__}(), got the class {activation!r}")
    if callable(activation):
        return activation
    raise ValueError(f"activation must be None, a function, a layer or one of {', '.join(_NAMES)}, got {activation!r}")


def activated(activation: Activation, y: Tensor, channels: int) -> Tensor:
    """Return the activation of a layer's result, whose channels are in one dimension: softmax goes over them."""
    if activation is None:
        return y
    if not isinstance(activation, str):
        return activation(y)
    if activation.endswith("softmax"):
        return getattr(F, activation)(y, channels)
    return F.exp(y) if activation == "exponential" else getattr(F, activation)(y)


def text(activation: Activation) -> str | None:
    """Return what `extra_repr` shows: a name, or None where there is none, or a layer, which shows as such."""
    if activation is None or isinstance(activation, (str, Module)):
        return activation if isinstance(activation, str) else None
    return getattr(activation, "__name__", repr(activation))
