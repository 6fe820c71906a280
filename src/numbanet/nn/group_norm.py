"""Layer, group and instance normalisation layers, as in torch.nn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from numbanet import functional as F
from numbanet import memory
from numbanet.nn.layout import Images, check_data_format, images
from numbanet.nn.module import Module
from numbanet.nn.norm import _BatchNorm
from numbanet.nn.parameter import Parameter, float_dtype, placed
from numbanet.problem.base import integer
from numbanet.problem.group_norm import normalized
from numbanet.tensor import Tensor


def _fill(parameter: Parameter | None, value: float) -> None:
    if parameter is not None:
        parameter.data[...] = value
        parameter.bump_version()


class LayerNorm(Module):
    """Normalise the last dimensions together, then scale and shift, as torch.nn.LayerNorm.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of those dimensions.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether each element has a learned scale and shift.
    bias : bool
        Whether that includes a shift.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.

    Attributes
    ----------
    weight, bias : Parameter or None
        Shape `normalized_shape`; 1 and 0 at first.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape, self.eps, self.elementwise_affine = normalized(normalized_shape), eps, elementwise_affine
        dtype = float_dtype(dtype, device)
        shape, shifts = self.normalized_shape, elementwise_affine and bias
        self.weight = Parameter(placed(memory.blank(shape, dtype, 1), device)) if elementwise_affine else None
        self.bias = Parameter(placed(memory.blank(shape, dtype, 0), device)) if shifts else None

    def reset_parameters(self) -> None:
        """Set scale and shift to 1 and 0."""
        _fill(self.weight, 1)
        _fill(self.bias, 0)

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        text = f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        return f"{text}, bias={self.bias is not None}"


class GroupNorm(Images):
    """Normalise groups of each sample's channels, then scale and shift each channel, as torch.nn.GroupNorm.

    Parameters
    ----------
    num_groups, num_channels : int
        The first divides the second.
    eps : float
        Added to the variance.
    affine : bool
        Whether each channel has a learned scale and shift.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    bias : bool
        Whether `affine` includes a shift.
    data_format : {"channels_first", "channels_last"}
        With ``"channels_last"`` the input is (N, H, W, C), see `Conv2d`.

    Attributes
    ----------
    weight, bias : Parameter or None
        Shape (C,); 1 and 0 at first.

    Raises
    ------
    ValueError
        If the groups do not divide the channels.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
    ):
        super().__init__(data_format)
        self.num_groups = integer("num_groups", num_groups, 1)
        self.num_channels = integer("num_channels", num_channels, 0)
        if num_channels % num_groups:
            raise ValueError(f"num_channels must be a multiple of num_groups={num_groups}, got {num_channels}")
        self.eps, self.affine = eps, affine
        dtype = float_dtype(dtype, device)
        self.weight = Parameter(placed(memory.blank(num_channels, dtype, 1), device)) if affine else None
        self.bias = Parameter(placed(memory.blank(num_channels, dtype, 0), device)) if affine and bias else None

    def reset_parameters(self) -> None:
        """Set scale and shift to 1 and 0."""
        _fill(self.weight, 1)
        _fill(self.bias, 0)

    @images(4)
    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        text = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
        return self._described(f"{text}, bias={self.bias is not None}")


class _InstanceNorm(_BatchNorm):
    """Normalise each channel of each sample; with running averages, these are used in evaluation mode.

    Parameters and attributes as for `BatchNorm2d`, but `affine` and `track_running_stats` are False by default.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    @images()
    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, a batch or a single sample; in training mode update the running averages."""
        single, whole = self._dims
        if input.ndim not in self._dims:
            raise ValueError(f"input must have {single} or {whole} dimensions, got shape {input.shape}")
        if input.shape[-whole + 1] != self.num_features:
            text = f"input must have {self.num_features} channels, got shape {input.shape}"
            if self.affine:
                raise ValueError(text)
            warnings.warn(text + ": num_features is not used, as affine is False", UserWarning, stacklevel=2)
        batch = F.unsqueeze(input, 0) if input.ndim == single else input
        own = self.training or not self.track_running_stats
        options = (own, 0.0 if self.momentum is None else self.momentum, self.eps)
        y = F.instance_norm(batch, self.running_mean, self.running_var, self.weight, self.bias, *options)
        return F.squeeze(y, 0) if input.ndim == single else y


class InstanceNorm1d(_InstanceNorm):
    __doc__ = f"Instance normalisation of (N, C, L) or (C, L).\n\n{_InstanceNorm.__doc__}"
    _dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = (
        'Instance normalisation of (N, C, H, W) or (C, H, W), or with ``data_format="channels_last"`` of (N, H, W, C) '
        f"or (H, W, C).\n\n{_InstanceNorm.__doc__}"
    )
    _dims = (3, 4)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.data_format = check_data_format(data_format)
