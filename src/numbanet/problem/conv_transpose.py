"""Transposed convolution: its shape arithmetic and argument checks; its kernels are those of convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet.problem.base import integer, pair, plain, sizes


@dataclass(frozen=True)
class TransposedConv:
    """The convolution of which a transposed convolution is the gradient with respect to the input.

    Attributes
    ----------
    shape : tuple of int
        (N, C, H, W) of the result.
    extra : (int, int)
        Rows and columns of zeros to add below and right of the input: where the output padding reaches a whole step,
        the convolution of the result is larger than the input.
    stride, padding, dilation : (int, int)
    groups : int
    """

    shape: tuple[int, int, int, int]
    extra: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def transposed_size(size: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """Return the size of a result along one axis: (size - 1) stride - 2 padding + dilation (kernel - 1) + ... + 1."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def transposed_conv(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> TransposedConv:
    """Check the arguments of a transposed convolution.

    Parameters
    ----------
    x_shape : (N, K, P, Q)
    weight_shape : (K, C/groups, R, S)
    stride, padding, output_padding, dilation : int or (int, int)
        The output padding must be below the stride or the dilation.
    groups : int

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _transposed_conv(
        sizes("input", x_shape), sizes("weight", weight_shape), plain("stride", stride), plain("padding", padding),
        plain("output_padding", output_padding), plain("groups", groups), plain("dilation", dilation),
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _transposed_conv(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Any, padding: Any, output_padding: Any,
    groups: Any, dilation: Any,
) -> TransposedConv:  # fmt: skip
    if len(x_shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W) or (C, H, W), got {x_shape}")
    if len(weight_shape) != 4 or min(weight_shape[2:]) < 1:
        raise ValueError(f"weight must have shape (C_in, C_out/groups, R, S), got {weight_shape}")
    n, channels, *size = x_shape
    if channels != weight_shape[0]:
        raise ValueError(f"input must have the {weight_shape[0]} channels of weight, got input of shape {x_shape}")
    steps, pads, gaps = pair("stride", stride, 1), pair("padding", padding, 0), pair("dilation", dilation, 1)
    more, groups = pair("output_padding", output_padding, 0), integer("groups", groups, 1)
    if channels % groups:
        raise ValueError(f"groups must divide the {channels} in-channels, got groups={groups}")
    if any(extra >= max(step, gap) for extra, step, gap in zip(more, steps, gaps)):
        raise ValueError(f"output_padding must be smaller than stride {steps} or dilation {gaps}, got {more}")
    kernel = weight_shape[2:]
    h, w = (transposed_size(*axis) for axis in zip(size, kernel, steps, pads, more, gaps))
    if min(*size, h, w) < 1:
        raise ValueError(f"input of shape {x_shape} gives a result of {h} x {w} pixels: both must have at least one")
    if max(h, w) >= 1 << 63:
        raise ValueError(f"input of shape {x_shape} gives a result of {h} x {w} pixels, which 64 bits can't count")
    shape = (n, weight_shape[1] * groups, h, w)
    return TransposedConv(shape, (more[0] // steps[0], more[1] // steps[1]), steps, pads, gaps, groups)
