"""The convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import memory
from numbanet.nn import init
from numbanet.nn.layout import Images, channel_axis, images
from numbanet.nn.module import Member
from numbanet.nn.named import Activated, Activation, activated, text
from numbanet.nn.parameter import Parameter, float_dtype, placed
from numbanet.problem.base import choice, integer, pair
from numbanet.problem.conv import resolve_padding
from numbanet.tensor import Tensor

_MODES = ("zeros", "reflect", "replicate", "circular")


class Conv2d(Activated, Images):
    """Convolve (cross-correlate) images with learned filters, as torch.nn.Conv2d.

    Input (N, C, H, W) or (C, H, W); output (N, K, P, Q) or (K, P, Q); see `numbanet.ops.conv2d` for their sizes.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size, stride, dilation : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        One number, (height, width), ((top, bottom), (left, right)), or a word: ``"same"`` as in torch (stride 1 only),
        ``"same_upper"`` as in Keras and ONNX.
    groups : int
        Divides C and K.
    bias : bool
        Whether to add a learned number to each out-channel.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        Where it is not ``"zeros"``, a negative padding takes pixels away.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    generator : numpy.random.Generator, optional
        Draws the first values; the package's own if None.
    activation : str or callable, optional
        A function of the result, a layer, or a name: that of a function of `numbanet.functional` such as ``"relu"``,
        ``"softmax"`` (over the channels), ``"exponential"``, or ``"linear"`` for none.
    data_format : {"channels_first", "channels_last"}
        ``"channels_last"``: input and output have shape (N, H, W, C) or (H, W, C), as in Keras. Most layers of images
        take it. A tensor does not show its format: give all layers of a network the same, for a layer that takes
        channels first finds the width of channels-last images where it looks for their channels; and a `Flatten`
        behind them gives the numbers in another order to a `Linear`.

    Attributes
    ----------
    weight : Parameter
        Shape (K, C/groups, R, S); its memory is in the order (K, R, S, C/groups).
    bias : Parameter or None
        Shape (K,).

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """

    weight: Any = Member("_parameters")
    bias: Any = Member("_parameters")

    def __init__(
        self,
        in_channels: int,
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
        super().__init__(data_format)
        self.activation = activation
        self.groups = integer("groups", groups, 1)
        self.in_channels = _channels("in_channels", in_channels, groups)
        self.out_channels = _channels("out_channels", out_channels, groups)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.dilation = pair("dilation", dilation, 1)
        self.padding_mode = choice("padding_mode", padding_mode, _MODES)
        self.padding = padding
        top, bottom, left, right = self.pads((1, 1))  # checks the padding at once
        if not isinstance(padding, str):
            self.padding = (top, left) if (top, left) == (bottom, right) else ((top, bottom), (left, right))
        (r, s), cg = self.kernel_size, self.in_channels // self.groups
        dtype = float_dtype(dtype, device)
        weight = memory.blank((self.out_channels, r, s, cg), dtype).transpose(0, 3, 1, 2)
        self.weight = Parameter(placed(weight, device))
        self.bias = Parameter(placed(memory.blank(self.out_channels, dtype), device)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Draw new weights and biases: uniform in +-1 / sqrt(C/groups * R * S), as torch."""
        init.default_(self.weight, self.bias, generator)

    def pads(self, size: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the top, bottom, left and right pads of images of one height and width."""
        rows, columns = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size))
        least = 0 if self.padding_mode == "zeros" else None
        return resolve_padding(self.padding, (size[0], size[1]), (rows, columns), self.stride, least)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of a batch of images, or of one."""
        y = self._convolved(input)
        return y if self.activation is None else activated(self.activation, y, channel_axis(self))

    @images(3, 4)
    def _convolved(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            top, bottom, left, right = self.pads(input.shape[-2:])
            input, padding = F.pad(input, (left, right, top, bottom), self.padding_mode), 0
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Return channels, window, and what differs from the defaults."""
        first = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        others = (
            ("padding", self.padding, (0, 0)), ("dilation", self.dilation, (1, 1)), ("groups", self.groups, 1),
            ("bias", self.bias is not None, True), ("padding_mode", self.padding_mode, "zeros"),
            ("activation", text(self.activation), None),
        )  # fmt: skip
        rest = (f", {name}={value}" for name, value, default in others if value != default)
        return self._described(first + "".join(rest))


def _channels(name: str, value: Any, groups: int) -> int:
    count = integer(name, value, 1)
    if count % groups:
        raise ValueError(f"{name} must be a multiple of groups={groups}, got {count}")
    return count
