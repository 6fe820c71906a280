"""Where the channels of images are: the argument ``data_format`` of layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numbanet.nn.module import Module
from numbanet.problem.base import choice
from numbanet.tape import record
from numbanet.tensor import Tensor, values

_SHAPES = {3: "(H, W, C)", 4: "(N, H, W, C)"}


def check_data_format(data_format: Any) -> str:
    """Return the argument ``data_format``, if it is one of the two words, else raise ValueError."""
    return choice("data_format", data_format, ("channels_first", "channels_last"))


class Images(Module):
    """A layer of images: (N, C, H, W) or (C, H, W), or as in Keras (N, H, W, C) or (H, W, C).

    Parameters
    ----------
    data_format : {"channels_first", "channels_last"}
        Where the channels of input and output are. The memory is that of channels-last images in either case, so the
        choice costs two views. Which one a tensor has can't be seen: give all layers of a network the same.

    Notes
    -----
    Numbers and words of height and width (sizes, windows, pads) mean the same in both formats, and so do parameters
    and the positions ``row * W + column`` of maxima.
    """

    data_format = "channels_first"

    def __init__(self, data_format: str = "channels_first") -> None:
        super().__init__()
        self.data_format = check_data_format(data_format)

    def _described(self, text: str) -> str:
        """Return the text of `extra_repr` with the data format, where it is not PyTorch's."""
        return text if self.data_format == "channels_first" else f"{text}, data_format={self.data_format}"


def images(*ranks: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: a method of `Images` that computes with channels first takes and gives the layer's format.

    Parameters
    ----------
    *ranks : int
        How many dimensions images with channels last may have, see `channels_last`. Those of images with channels first
        are for the method to check.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def called(self: Images, input: Tensor) -> Any:
            if self.data_format == "channels_first":
                return method(self, input)
            return channels_last(self, ranks, input, functools.partial(method, self))

        return called

    return decorate


def channels_last(layer: Images, ranks: tuple[int, ...], input: Tensor, function: Callable[[Tensor], Any]) -> Any:
    """Return what a function that computes with channels first makes of images with channels last.

    Parameters
    ----------
    layer : Images
        Has channels last.
    ranks : tuple of int
        How many dimensions the images may have: 3, 4, or any from 3 if there is none.
    input : Tensor
    function : callable
        Of images, to images or a tuple of them.

    Raises
    ------
    ValueError
        If the images have another number of dimensions.
    TypeError, ValueError
        Those of the function, with the shape of the images as they were given.
    """
    shape = values("input", input).shape
    if len(shape) < 3 or ranks and len(shape) not in ranks:
        expected = " or ".join(_SHAPES[rank] for rank in reversed(ranks)) or "(..., H, W, C)"
        raise ValueError(f"input must have shape {expected} with data_format='channels_last', got {shape}")
    try:
        result = function(to_first(layer, input))
    except (TypeError, ValueError) as error:
        error.args = (f"{error} (data_format='channels_last': this is the input of shape {shape}, channels first)",)
        raise
    return tuple(from_first(layer, y) for y in result) if isinstance(result, tuple) else from_first(layer, result)


def to_first(layer: Any, images: Tensor) -> Tensor:
    """Return images in a layer's format with their channels first, as a view."""
    if layer.data_format == "channels_first":
        return images
    first, last = _orders(images.ndim)
    return _view(images, first, last)


def from_first(layer: Any, images: Tensor) -> Tensor:
    """Return images with their channels first in a layer's format, as a view."""
    if layer.data_format == "channels_first":
        return images
    first, last = _orders(images.ndim)
    return _view(images, last, first)


@functools.lru_cache(maxsize=16)
def _orders(ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the dimensions in the order that moves the channels of images to the front, and the way back."""
    lead, (a, b, c) = tuple(range(ndim - 3)), (ndim - 3, ndim - 2, ndim - 1)
    return (*lead, c, a, b), (*lead, b, c, a)


def _view(images: Tensor, order: tuple[int, ...], back: tuple[int, ...]) -> Tensor:
    """Return `permute` of orders that need no check: it takes half the time."""
    return record(values("input", images).transpose(order), (images,), lambda grad: (grad.transpose(back),))


def shape_channels_first(module: Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a layer's input or output with the channels first."""
    if getattr(module, "data_format", "channels_first") == "channels_first" or len(shape) < 3:
        return shape
    *lead, height, width, channels = shape
    return (*lead, channels, height, width)


def shape_from_first(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of images with their channels first in a layer's format."""
    return shape if layer.data_format == "channels_first" else (*shape[:-3], *shape[-2:], shape[-3])


def channel_axis(module: Images) -> int:
    """Return the dimension of the channels, counted from the last."""
    return -3 if module.data_format == "channels_first" else -1
