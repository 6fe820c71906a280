"""Layers and images for the tests of fused models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import numbanet as nnet
from numbanet import nn
from numbanet.tensor import Tensor

RNG = np.random.default_rng(0)


def images(channels: int = 8, size: int = 10) -> Tensor:
    return nnet.tensor(RNG.standard_normal((2, channels, size, size), dtype=np.float32))


def lived_in(model: Any) -> Any:
    """Give the batch norms statistics and scales, as if the model had been trained."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2), (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):  # fmt: skip
                if tensor is not None:
                    tensor.data[...] = RNG.uniform(low, high, tensor.shape)
    return model.eval()


def conv_bn(c: int, k: int, **options: Any) -> list[nn.Module]:
    return [nn.Conv2d(c, k, options.pop("size", 3), bias=False, **options), nn.BatchNorm2d(k)]


def run(model: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    with nnet.no_grad():
        return model(x).numpy()
