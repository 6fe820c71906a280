"""The one-dimensional and the transposed convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import memory
from numbanet.functional.conv_transpose import single
from numbanet.nn import init
from numbanet.nn.layout import Images, channel_axis, channels_last, shape_channels_first
from numbanet.nn.named import Activated, Activation, activated, text
from numbanet.nn.parameter import Parameter, float_dtype, placed
from numbanet.problem.base import choice, integer, pair
from numbanet.problem.conv import resolve_padding
from numbanet.problem.conv_transpose import transposed_padding, transposed_size
from numbanet.tensor import Tensor

_MODES = ("zeros", "reflect", "replicate", "circular")


def _divisible(name: str, value: Any, groups: int) -> int:
    count = integer(name, value, 1)
    if count % groups:
        raise ValueError(f"{name} must be a multiple of groups={groups}, got {count}")
    return count


def _text(layer: Any, *others: tuple[str, Any, Any]) -> str:
    """Return channels, window, and what differs from the defaults, as torch prints them."""
    first = f"{layer.in_channels}, {layer.out_channels}, kernel_size={layer.kernel_size}, stride={layer.stride}"
    return first + "".join(f", {name}={value}" for name, value, default in others if value != default)


class Conv1d(Activated):
    """Convolve (cross-correlate) sequences with learned filters, as torch.nn.Conv1d.

    Input (N, C, L) or (C, L); output (N, K, Q) or (K, Q); parameters, attributes and errors as for `Conv2d`, with one
    number for each axis, and channels first.
    """

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
    ) -> None:
        super().__init__()
        self.activation = activation
        self.groups = integer("groups", groups, 1)
        self.in_channels = _divisible("in_channels", in_channels, groups)
        self.out_channels = _divisible("out_channels", out_channels, groups)
        self.kernel_size = (integer("kernel_size", single("kernel_size", kernel_size), 1),)
        self.stride = (integer("stride", single("stride", stride), 1),)
        self.dilation = (integer("dilation", single("dilation", dilation), 1),)
        self.padding_mode = choice("padding_mode", padding_mode, _MODES)
        self.padding = padding if isinstance(padding, str) else (integer("padding", single("padding", padding)),)
        self.pads(1)  # checks the words
        dtype, cg = float_dtype(dtype, device), self.in_channels // self.groups
        weight = memory.blank((self.out_channels, self.kernel_size[0], cg), dtype)
        self.weight = Parameter(placed(weight.transpose(0, 2, 1), device))
        self.bias = Parameter(placed(memory.blank(self.out_channels, dtype), device)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Draw new weights and biases: uniform in +-1 / sqrt(C/groups * S), as torch."""
        init.default_(self.weight, self.bias, generator)

    def pads(self, length: int) -> tuple[int, int]:
        """Return the pads before and after sequences of one length."""
        words = self.padding if isinstance(self.padding, str) else (0, self.padding[0])
        span = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        least = 0 if self.padding_mode == "zeros" else None
        return resolve_padding(words, (1, length), (1, span), (1, self.stride[0]), least)[2:]

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of a batch of sequences, or of one."""
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self.pads(input.shape[-1]), self.padding_mode), (0,)
        y = F.conv1d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return activated(self.activation, y, -2)

    def extra_repr(self) -> str:
        """Return channels, window, and what differs from the defaults."""
        return _text(
            self, ("padding", self.padding, (0,)), ("dilation", self.dilation, (1,)), ("groups", self.groups, 1),
            ("bias", self.bias is not None, True), ("padding_mode", self.padding_mode, "zeros"),
            ("activation", text(self.activation), None),
        )  # fmt: skip


class ConvTranspose2d(Activated, Images):
    """Transposed convolution with learned filters, as torch.nn.ConvTranspose2d.

    Input (N, K, P, Q) or (K, P, Q); output (N, C, H, W) or (C, H, W); see `numbanet.ops.conv_transpose2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        K and C.
    kernel_size, stride, output_padding, dilation : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        What is taken away from each side of the result; or a word: ``"same_upper"`` as Keras's ``padding="same"``, the
        result is `stride` times as large as the input; ``"same"`` for stride 1 only; ``"valid"`` takes away nothing
        (and adds nothing where the filter is smaller than the stride, other than Keras).
    groups : int
        Divides K and C.
    bias : bool
        Whether to add a learned number to each out-channel.
    padding_mode : {"zeros"}
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    generator : numpy.random.Generator, optional
        Draws the first values; the package's own if None.
    activation : str or callable, optional
        A function of the result, see `Conv2d`.
    data_format : {"channels_first", "channels_last"}
        With ``"channels_last"`` the input is (N, P, Q, K) and the output (N, H, W, C), see `Conv2d`.

    Attributes
    ----------
    weight : Parameter
        Shape (K, C/groups, R, S); its memory is in the order (K, R, S, C/groups).
    bias : Parameter or None
        Shape (C,).

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Any = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
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
        self.in_channels = _divisible("in_channels", in_channels, groups)
        self.out_channels = _divisible("out_channels", out_channels, groups)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride, self.dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
        self.padding, self.output_padding = padding, pair("output_padding", output_padding, 0)
        (top, bottom), (left, right) = transposed_padding(padding, self._spans, self.stride)[0]
        if not isinstance(padding, str):
            self.padding = (top, left) if (top, left) == (bottom, right) else ((top, bottom), (left, right))
        self.padding_mode = choice("padding_mode", padding_mode, ("zeros",))
        dtype, (r, s), cg = float_dtype(dtype, device), self.kernel_size, self.out_channels // self.groups
        self.weight = Parameter(placed(memory.blank((self.in_channels, r, s, cg), dtype).transpose(0, 3, 1, 2), device))
        self.bias = Parameter(placed(memory.blank(self.out_channels, dtype), device)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Draw new weights and biases: uniform in +-1 / sqrt(C/groups * R * S), as torch."""
        init.default_(self.weight, self.bias, generator)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Return the transposed convolution of a batch of images, or of one.

        Parameters
        ----------
        input : Tensor
        output_size : sequence of int, optional
            The result's shape in the layer's data format, or its height and width, where the stride leaves several
            possible.

        Raises
        ------
        ValueError
            If no output padding gives that size.
        """
        more = self.output_padding if output_size is None else self._output_padding(input.shape, output_size)
        options = (self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation)
        if self.data_format == "channels_first":
            y = F.conv_transpose2d(input, *options)
        else:
            y = channels_last(self, (3, 4), input, lambda images: F.conv_transpose2d(images, *options))
        return y if self.activation is None else activated(self.activation, y, channel_axis(self))

    @property
    def _spans(self) -> tuple[int, int]:
        """Height and width that the dilated filter spans."""
        rows, columns = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size))
        return rows, columns

    def _output_padding(self, shape: tuple[int, ...], output_size: Sequence[int]) -> tuple[int, ...]:
        wanted, rank = tuple(output_size), len(shape)
        if len(wanted) == rank:
            wanted = shape_channels_first(self, wanted)[-2:]
        if len(wanted) != 2:
            raise ValueError(f"output_size must have 2 or {rank} numbers, got {tuple(output_size)}")
        shape = shape_channels_first(self, shape)
        pads, wider = transposed_padding(self.padding, self._spans, self.stride)
        least = tuple(transposed_size(*axis) for axis in zip(shape[-2:], self._spans, self.stride, pads, wider))
        more = tuple(size - low for size, low in zip(wanted, least))
        if any(not 0 <= extra < step for extra, step in zip(more, self.stride)):
            most = tuple(low + step - 1 for low, step in zip(least, self.stride))
            raise ValueError(f"output_size must be from {least} to {most} for input of shape {shape}, got {wanted}")
        return more

    def extra_repr(self) -> str:
        """Return channels, window, and what differs from the defaults."""
        return _text(
            self, ("padding", self.padding, (0, 0)), ("dilation", self.dilation, (1, 1)),
            ("output_padding", self.output_padding, (0, 0)), ("groups", self.groups, 1),
            ("bias", self.bias is not None, True), ("activation", text(self.activation), None),
            ("data_format", self.data_format, "channels_first"),
        )  # fmt: skip
