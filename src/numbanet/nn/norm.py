"""Batch normalisation layers, as torch.nn.BatchNorm1d and BatchNorm2d."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from numbanet import memory, ops
from numbanet.functional.norm import fused_batch_norm
from numbanet.nn.layout import Images, check_data_format, images
from numbanet.nn.module import Member
from numbanet.nn.parameter import Parameter, float_dtype, placed
from numbanet.ops.norm import average_weight
from numbanet.problem.base import integer
from numbanet.tensor import Tensor


class _BatchNorm(Images):
    """Normalise each channel to mean 0 and variance 1, then scale and shift it.

    In training mode the statistics are those of the batch, and running averages follow them; in evaluation mode the
    running averages are used (those of the batch where there are none).

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of a batch in the running averages; None: all batches count alike.
    affine : bool
        Whether each channel has a learned scale and shift.
    track_running_stats : bool
        Whether running averages are kept.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    bias : bool
        Whether `affine` includes a shift.

    Attributes
    ----------
    weight, bias : Parameter or None
        Shape (C,); 1 and 0 at first.
    running_mean, running_var : Tensor or None
        Shape (C,); 0 and 1 at first.
    num_batches_tracked : Tensor or None
        How many batches the running averages have seen.

    Raises
    ------
    TypeError, ValueError
        If `num_features` is not an integer, or negative; in a call, if the input does not fit.
    """

    weight: Any = Member("_parameters")
    bias: Any = Member("_parameters")
    running_mean: Any = Member("_buffers")
    running_var: Any = Member("_buffers")
    num_batches_tracked: Any = Member("_buffers")
    _dims: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = integer("num_features", num_features, 0)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        dtype = float_dtype(dtype, device)
        self.weight = Parameter(placed(memory.blank(num_features, dtype, 1), device)) if affine else None
        self.bias = Parameter(placed(memory.blank(num_features, dtype, 0), device)) if affine and bias else None
        for name, value in (("running_mean", 0), ("running_var", 1)):
            values = Tensor(placed(memory.blank(num_features, dtype, value), device)) if track_running_stats else None
            self.register_buffer(name, values)
        count = Tensor(placed(np.zeros((), np.int64), device)) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)

    def reset_running_stats(self) -> None:
        """Set the running averages to mean 0, variance 1 and no batches."""
        if self.track_running_stats:
            for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
                buffer.data[...] = value
                buffer.bump_version()

    def reset_parameters(self) -> None:
        """Set the running averages, scale and shift to their first values."""
        self.reset_running_stats()
        for parameter, value in ((self.weight, 1), (self.bias, 0)):
            if parameter is not None:
                parameter.data[...] = value
                parameter.bump_version()

    def _statistics(self, input: Tensor) -> tuple[Tensor | None, Tensor | None, bool, Any]:
        """Return what a call needs: running mean and variance, whether to use the batch's, the batch's weight."""
        if input.ndim not in self._dims:
            raise ValueError(f"input must have {' or '.join(map(str, self._dims))} dimensions, got shape {input.shape}")
        share = 0.0 if self.momentum is None else self.momentum
        if self.training and (seen := self.num_batches_tracked) is not None:
            ops.count(seen.data)
            if self.momentum is None:
                share = average_weight(seen.data, self.eps)
        mean, var = self.running_mean, self.running_var
        batch = self.training or mean is None
        if self.training and not self.track_running_stats:
            mean = var = None  # the running averages, if there are any, stay as they are
        return mean, var, batch, share

    @images()
    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input; in training mode update the running averages."""
        mean, var, batch, share = self._statistics(input)
        return fused_batch_norm(input, mean, var, self.weight, self.bias, batch, share, self.eps)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return self._described(
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    __doc__ = f"Batch normalisation of (N, C) or (N, C, L).\n\n{_BatchNorm.__doc__}"
    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = (
        'Batch normalisation of (N, C, H, W), or with ``data_format="channels_last"`` of (N, H, W, C).'
        f"\n\n{_BatchNorm.__doc__}"
    )
    _dims = (4,)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.data_format = check_data_format(data_format)
