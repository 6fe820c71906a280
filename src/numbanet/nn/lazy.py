"""Layers that learn their number of in-channels from the first input, as torch.nn.LazyConv2d and LazyLinear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet.nn.conv import Conv2d
from numbanet.nn.layout import shape_channels_first
from numbanet.nn.linear import Linear
from numbanet.nn.module import Module
from numbanet.nn.named import Activation
from numbanet.nn.parameter import Parameter
from numbanet.nn.uninitialized import UninitializedParameter
from numbanet.tensor import Tensor

# The arguments are checked by making a layer of the smallest size, whose values nobody sees.
_UNUSED = np.random.default_rng


class _Lazy(Module):
    """A layer whose weight may wait for its shape."""

    weight: Parameter
    _generator: np.random.Generator | None

    def _state_loaded(self) -> None:
        """Be an ordinary layer from now on, if the state had a weight."""
        if not isinstance(self.weight, UninitializedParameter):
            self._settle()

    def _settle(self) -> None:
        """Become the ordinary layer of the weight that is there."""
        raise NotImplementedError

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Draw new weights and biases, once there are any."""
        if not isinstance(self.weight, UninitializedParameter):
            super().reset_parameters(generator)  # type: ignore[misc]


class LazyConv2d(_Lazy, Conv2d):
    """A `Conv2d` whose in-channels are those of its first input; from then on it is a `Conv2d`.

    Parameters as for `Conv2d`, without `in_channels`. The weight is an `UninitializedParameter` until the first call,
    or until a state is loaded; an optimizer that holds it goes on with the values that it gets then.
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
        self._generator, shape = generator, (self.out_channels, None, *self.kernel_size)
        self.in_channels, self.weight = 0, UninitializedParameter(dtype=self.weight.dtype, shape=shape)

    def forward(self, input: Tensor) -> Tensor:
        """Make the weight where it is not there yet, and return the convolution."""
        if isinstance(self.weight, UninitializedParameter):
            if input.ndim not in (3, 4):
                raise ValueError(f"input must have 3 or 4 dimensions, got shape {input.shape}")
            channels = shape_channels_first(self, input.shape)[-3]
            if channels % self.groups or not channels:
                raise ValueError(
                    f"input must have a multiple of groups={self.groups} channels, got shape {input.shape} with "
                    f"data_format={self.data_format!r}"
                )
            self.weight.materialize((self.out_channels, channels // self.groups, *self.kernel_size))
            self.reset_parameters(self._generator)
        self._settle()
        return self.forward(input)

    def _settle(self) -> None:
        self.in_channels = self.weight.shape[1] * self.groups
        del self._generator
        self.__class__ = Conv2d  # type: ignore[assignment]


class LazyLinear(_Lazy, Linear):
    """A `Linear` whose in_features are those of its first input; from then on it is a `Linear`.

    Parameters as for `Linear`, without `in_features`; the weight has no shape before the first call, see `LazyConv2d`.
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
        self._generator, shape = generator, (self.out_features, None)
        self.in_features, self.weight = 0, UninitializedParameter(dtype=self.weight.dtype, shape=shape)

    def forward(self, input: Tensor) -> Tensor:
        """Make the weight where it is not there yet, and return the products."""
        if isinstance(self.weight, UninitializedParameter):
            if not input.ndim:
                raise ValueError("input must have at least one dimension, got a scalar")
            self.weight.materialize((self.out_features, input.shape[-1]))
            self.reset_parameters(self._generator)
        self._settle()
        return self.forward(input)

    def _settle(self) -> None:
        self.in_features = self.weight.shape[1]
        del self._generator
        self.__class__ = Linear  # type: ignore[assignment]
