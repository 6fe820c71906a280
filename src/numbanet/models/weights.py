"""First values of a whole model's layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numbanet import nn
from numbanet.nn import init
from numbanet.tensor import Tensor

# He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015): the gradients keep their size from layer to layer.
he_fan_out = partial(init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
narrow = partial(init.normal_, std=0.01)


def initialise(model: nn.Module, kind: type[nn.Module], fill: Callable[[Tensor], Any]) -> None:
    """Fill the weights of a model's layers of one class with ``fill(weight)``, and their biases with zeros."""
    for module in model.modules():
        if isinstance(module, kind):
            fill(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
