"""Layers between images and columns of their windows, as in torch.nn."""

from __future__ import annotations

from collections.abc import Sequence

from numbanet import functional
from numbanet.nn.module import Module
from numbanet.tensor import Tensor

Size = int | Sequence[int]


class Unfold(Module):
    """The windows of images as columns of a matrix; arguments as for `numbanet.functional.unfold`."""

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1):
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """Return the columns."""
        return functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        options = f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        return f"kernel_size={self.kernel_size}, {options}"


class Fold(Module):
    """Images of columns; arguments as for `numbanet.functional.fold`."""

    def __init__(
        self, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
    ):
        super().__init__()
        self.output_size = output_size
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """Return the images."""
        options = (self.kernel_size, self.dilation, self.padding, self.stride)
        return functional.fold(input, self.output_size, *options)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        options = f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        return f"output_size={self.output_size}, kernel_size={self.kernel_size}, {options}"
