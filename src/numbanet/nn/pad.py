"""Layers that add pixels around images, or elements around sequences, as in torch.nn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from numbanet import functional
from numbanet.nn.layout import Images, images
from numbanet.problem.base import integer
from numbanet.problem.pointwise import number
from numbanet.tensor import Tensor


def _widths(padding: Any, count: int) -> tuple[int, ...]:
    """Return one number for every side, or the sequence of numbers that was given."""
    if isinstance(padding, (tuple, list)):
        return tuple(integer("padding", width) for width in padding)
    return (integer("padding", padding),) * count


def _value(value: Any) -> float | None:
    """Return the constant as it was given; PyTorch takes True for 1, and None for 0."""
    if value is not None and not isinstance(value, bool):
        number("value", value)
    return value


class _Pad(Images):
    """A layer that pads in one mode."""

    mode: ClassVar[str]
    padding: tuple[int, ...]
    value: float | None = None

    @images()
    def forward(self, input: Tensor) -> Tensor:
        """Return the padded input."""
        return functional.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """Return the widths, and the constant of a layer that was given one."""
        constant = "value" in vars(self)
        return self._described(f"padding={self.padding}, value={self.value}" if constant else str(self.padding))


class _Pad1d(_Pad):
    """Pad both ends of sequences (N, C, L) or (C, L).

    Parameters
    ----------
    padding : int or (int, int)
        How many elements before and after; negative numbers take elements away.
    """

    def __init__(self, padding: int | Sequence[int]):
        super().__init__()
        self.padding = _widths(padding, 2)


class _Pad2d(_Pad):
    """Pad all sides of images (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    padding : int or (int, int, int, int)
        How many pixels left, right, above and below; negative numbers take pixels away.
    data_format : {"channels_first", "channels_last"}
        With ``"channels_last"`` images are (N, H, W, C) or (H, W, C), see `Conv2d`.
    """

    def __init__(self, padding: int | Sequence[int], *, data_format: str = "channels_first"):
        super().__init__(data_format)
        self.padding = _widths(padding, 4)


class ConstantPad1d(_Pad1d):
    __doc__ = f"{_Pad1d.__doc__}    value : float\n        What the new elements are; None stands for zero.\n"
    mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float | None):
        super().__init__(padding)
        self.value = _value(value)


class ConstantPad2d(_Pad2d):
    __doc__ = f"{_Pad2d.__doc__}    value : float\n        What the new pixels are; None stands for zero.\n"
    mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float | None, *, data_format: str = "channels_first"):
        super().__init__(padding, data_format=data_format)
        self.value = _value(value)


class ZeroPad1d(_Pad1d):
    __doc__ = f"{_Pad1d.__doc__}\n    New elements are zero.\n"
    mode = "constant"


class ZeroPad2d(_Pad2d):
    __doc__ = f"{_Pad2d.__doc__}\n    New pixels are zero.\n"
    mode = "constant"


class ReflectionPad1d(_Pad1d):
    __doc__ = f"{_Pad1d.__doc__}\n    New elements mirror the inner ones; the mirror is the end element.\n"
    mode = "reflect"


class ReflectionPad2d(_Pad2d):
    __doc__ = f"{_Pad2d.__doc__}\n    New pixels mirror the inner ones; the mirrors are the pixels of the border.\n"
    mode = "reflect"


class ReplicationPad1d(_Pad1d):
    __doc__ = f"{_Pad1d.__doc__}\n    New elements are copies of the end element.\n"
    mode = "replicate"


class ReplicationPad2d(_Pad2d):
    __doc__ = f"{_Pad2d.__doc__}\n    New pixels are copies of the border's.\n"
    mode = "replicate"


class CircularPad1d(_Pad1d):
    __doc__ = f"{_Pad1d.__doc__}\n    New elements are those at the other end.\n"
    mode = "circular"


class CircularPad2d(_Pad2d):
    __doc__ = f"{_Pad2d.__doc__}\n    New pixels are those at the opposite border.\n"
    mode = "circular"
