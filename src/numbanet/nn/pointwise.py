"""Activation layers with parameters or corners, as in torch.nn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from numbanet import functional, memory
from numbanet.nn.layout import Images, images
from numbanet.nn.module import Module
from numbanet.nn.parameter import Parameter, float_dtype, placed
from numbanet.problem.base import integer
from numbanet.problem.pointwise import number
from numbanet.tensor import Tensor


class _Activation(Module):
    """A function of each element; with `inplace` the input tensor takes over the result."""

    _function: ClassVar[Callable[..., Tensor]]

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of each element."""
        return type(self)._function(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        """Return the arguments that differ from their defaults."""
        return "inplace=True" if self.inplace else ""


class ReLU6(_Activation):
    """min(max(x, 0), 6); with `inplace` the input tensor takes over the result."""

    _function = staticmethod(functional.relu6)


class Hardsigmoid(_Activation):
    """``relu6(x + 3) / 6``; with `inplace` the input tensor takes over the result."""

    _function = staticmethod(functional.hardsigmoid)

    def extra_repr(self) -> str:
        """Return nothing, as torch."""
        return ""


class Hardswish(Hardsigmoid):
    """``x * relu6(x + 3) / 6``; with `inplace` the input tensor takes over the result."""

    _function = staticmethod(functional.hardswish)


class Mish(_Activation):
    """x tanh(log(1 + e^x)); with `inplace` the input tensor takes over the result."""

    _function = staticmethod(functional.mish)


def _renamed(bound: str, old: float | None, new: float) -> float:
    """Return a bound, by whichever name it was given."""
    if old is None:
        return new
    warnings.warn(f"{bound}_value is deprecated: the argument's name is {bound}_val", FutureWarning, stacklevel=3)
    return old


class Hardtanh(Module):
    """x, moved to the nearest bound where it lies beyond it; arguments as for `numbanet.functional.hardtanh`.

    `min_value` and `max_value` are PyTorch's old names of the bounds, with a FutureWarning as there.
    """

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ):
        super().__init__()
        min_val, max_val = _renamed("min", min_value, min_val), _renamed("max", max_value, max_val)
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace
        if not number("max_val", max_val) > number("min_val", min_val):
            raise ValueError(f"max_val must be above min_val, got {max_val} and {min_val}")

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of each element."""
        return functional.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """Return the bounds, and inplace where it is set."""
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class ELU(Module):
    """x where it is positive, else alpha (e^x - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of each element."""
        return functional.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """Return alpha, and inplace where it is set."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class Softplus(Module):
    """log(1 + e^(beta x)) / beta, and x itself where beta x is above the threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of each element."""
        return functional.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"beta={self.beta}, threshold={self.threshold}"


class PReLU(Images):
    """x where it is positive, else a learned number times x: one for all, or one a channel.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels.
    init : float
        First value of the slopes.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    data_format : {"channels_first", "channels_last"}
        Whether channels are dimension 1, or the last one of images; see `Conv2d`.

    Attributes
    ----------
    weight : Parameter
        Shape (num_parameters,).
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: str | None = None,
        dtype: Any = None,
        *,
        data_format: str = "channels_first",
    ):
        super().__init__(data_format)
        self.num_parameters = integer("num_parameters", num_parameters, 1)
        self.init = number("init", int(init) if isinstance(init, bool) else init)
        self.weight = Parameter(placed(memory.blank(num_parameters, float_dtype(dtype, device), self.init), device))

    def reset_parameters(self) -> None:
        """Set the slopes to their first value."""
        self.weight.data[...] = self.init
        self.weight.bump_version()

    @images(4)
    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of each element."""
        return functional.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Return the number of slopes."""
        return self._described(f"num_parameters={self.num_parameters}")
