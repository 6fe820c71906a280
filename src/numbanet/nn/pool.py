"""Pooling layers, as in torch.nn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numbanet import functional
from numbanet.nn.layout import Images, images
from numbanet.problem.pool import counts_padding, pool_pads, pool_window
from numbanet.tensor import Tensor

Size = int | Sequence[int]


class _Pool(Images):
    """A layer of windows, whose arguments are checked when it is made and kept as they were given, as in torch."""

    dilation: Size = 1

    def __init__(self, kernel_size: Size, stride: Size | None, padding: Any, dilation: Size, data_format: str):
        super().__init__(data_format)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.pads((1, 1))

    def pads(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the top, bottom, left and right pads of images of one height and width."""
        return pool_pads(self.padding, size, *pool_window(self.kernel_size, self.stride, self.dilation))


class MaxPool2d(_Pool):
    """The largest element of each window; arguments as `numbanet.functional.max_pool2d`.

    Parameters
    ----------
    kernel_size, stride, dilation : int or (int, int)
        `stride` is `kernel_size` if None.
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        Pads that never are the maximum; ``"same_upper"`` as Keras's ``padding="same"``: ceil(size / stride) windows.
        ``"same"`` needs stride 1.
    return_indices : bool
        Return also the positions of the maxima.
    ceil_mode : bool
        Round the number of windows up.
    data_format : {"channels_first", "channels_last"}
        See `Conv2d`.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Any = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        data_format: str = "channels_first",
    ):
        super().__init__(kernel_size, stride, padding, dilation, data_format)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    @images(3, 4)
    def forward(self, input: Tensor) -> Any:
        """Return the maxima, and their indices if asked."""
        return functional.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return self._described(
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(_Pool):
    """The mean of each window; arguments as `numbanet.functional.avg_pool2d`.

    Parameters
    ----------
    kernel_size, stride : int or (int, int)
        `stride` is `kernel_size` if None.
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        Zeros; ``"same_upper"`` as Keras's ``padding="same"``: ceil(size / stride) windows. ``"same"`` needs stride 1.
    ceil_mode : bool
        Round the number of windows up.
    count_include_pad : bool, optional
        Whether the zeros of the padding count as elements. None: those of numbers do, as in torch; those of a word do
        not, as in Keras.
    divisor_override : int, optional
        Divide the sums by it instead.
    data_format : {"channels_first", "channels_last"}
        See `Conv2d`.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool | None = None,
        divisor_override: int | None = None,
        *,
        data_format: str = "channels_first",
    ):
        super().__init__(kernel_size, stride, padding, 1, data_format)
        self.ceil_mode, self.divisor_override = ceil_mode, divisor_override
        self.count_include_pad = counts_padding(count_include_pad, padding)

    @images(3, 4)
    def forward(self, input: Tensor) -> Tensor:
        """Return the means."""
        return functional.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return self._described(f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}")


class AdaptiveAvgPool2d(Images):
    """The means of P x Q rectangles that cover the image.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        (P, Q); None for the size of the input.
    data_format : {"channels_first", "channels_last"}
        See `Conv2d`.
    """

    def __init__(self, output_size: Any, *, data_format: str = "channels_first"):
        super().__init__(data_format)
        self.output_size = output_size

    @images(3, 4)
    def forward(self, input: Tensor) -> Tensor:
        """Return the means."""
        return functional.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        """Return the output size, as torch prints it."""
        return self._described(f"output_size={self.output_size}")
