"""The adaptive maximum pooling layer."""

from __future__ import annotations

from typing import Any

from numbanet import functional
from numbanet.nn.layout import Images, images
from numbanet.tensor import Tensor


class AdaptiveMaxPool2d(Images):
    """The maxima of P x Q rectangles that cover the image.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        (P, Q); None for the size of the input.
    return_indices : bool
        Return also the positions of the maxima.
    data_format : {"channels_first", "channels_last"}
        See `Conv2d`.
    """

    def __init__(self, output_size: Any, return_indices: bool = False, *, data_format: str = "channels_first"):
        super().__init__(data_format)
        self.output_size, self.return_indices = output_size, return_indices

    @images(3, 4)
    def forward(self, input: Tensor) -> Any:
        """Return the maxima, and their positions if asked."""
        return functional.adaptive_max_pool2d(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        """Return the output size, as torch prints it."""
        return self._described(f"output_size={self.output_size}")
