"""Layers that learn their number of in-channels from the first input, as torch.nn.LazyConv2d and LazyLinear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet.nn.conv import Conv2d
from numbanet.nn.linear import Linear
from numbanet.nn.named import Activation
from numbanet.nn.parameter import Parameter
from numbanet.tensor import Tensor

# The arguments are checked by making a layer of the smallest size, whose values nobody sees.
_UNUSED = np.random.default_rng


class LazyConv2d(Conv2d):
    """A `Conv2d` whose in-channels are those of its first input; from then on it is a `Conv2d`.

    Parameters as for `Conv2d`, without `in_channels`. Before the first call there is no weight: run the model once,
    on zeros for example, before its parameters are handed to an optimizer, saved or loaded.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Any = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        *,
        activation: Activation = None,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(
            groups, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype,
            _UNUSED(0), activation=activation, data_format=data_format,
        )  # fmt: skip
        self._dtype, self._generator = self.weight.dtype, generator
        unknown: Any = None
        self.in_channels, self.weight = 0, unknown

    def forward(self, input: Tensor) -> Tensor:
        """Make the weight, and return the convolution."""
        axis = -1 if self.data_format == "channels_last" else -3
        if input.ndim not in (3, 4):
            raise ValueError(f"input must have 3 or 4 dimensions, got shape {input.shape}")
        channels = input.shape[axis]
        if channels % self.groups or not channels:
            raise ValueError(f"input must have a multiple of groups={self.groups} channels, got shape {input.shape}")
        self.in_channels = channels
        shape = (self.out_channels, *self.kernel_size, channels // self.groups)
        self.weight = Parameter(np.empty(shape, self._dtype).transpose(0, 3, 1, 2))
        self.reset_parameters(self._generator)
        del self._dtype, self._generator
        self.__class__ = Conv2d  # type: ignore[assignment]
        return self.forward(input)


class LazyLinear(Linear):
    """A `Linear` whose in_features are those of its first input; from then on it is a `Linear`.

    Parameters as for `Linear`, without `in_features`; before the first call there is no weight, see `LazyConv2d`.
    """

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        *,
        activation: Activation = None,
    ) -> None:
        super().__init__(1, out_features, bias, device, dtype, _UNUSED(0), activation=activation)
        self._dtype, self._generator = self.weight.dtype, generator
        unknown: Any = None
        self.in_features, self.weight = 0, unknown

    def forward(self, input: Tensor) -> Tensor:
        """Make the weight, and return the products."""
        if not input.ndim:
            raise ValueError("input must have at least one dimension, got a scalar")
        self.in_features = input.shape[-1]
        self.weight = Parameter(np.empty((self.out_features, self.in_features), self._dtype))
        self.reset_parameters(self._generator)
        del self._dtype, self._generator
        self.__class__ = Linear  # type: ignore[assignment]
        return self.forward(input)
