"""Transposed convolution: its shape arithmetic and argument checks; its kernels are those of convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet.problem.base import integer, pair, plain, sizes
from numbanet.problem.conv import resolve_padding

Pair = tuple[int, int]


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
    stride, dilation : (int, int)
    padding : ((int, int), (int, int))
        Top and bottom, left and right.
    groups : int
    """

    shape: tuple[int, int, int, int]
    extra: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[Pair, Pair]
    dilation: tuple[int, int]
    groups: int


def transposed_size(size: int, span: int, stride: int, padding: Pair, output_padding: int) -> int:
    """Return the size of a result along one axis, whose filter spans so many pixels."""
    return (size - 1) * stride + span - sum(padding) + output_padding


def transposed_padding(padding: Any, spans: Pair, steps: Pair) -> tuple[tuple[Pair, Pair], Pair]:
    """Return the pads ((top, bottom), (left, right)), and the rows and columns that a word adds below and right.

    Parameters
    ----------
    padding : see `numbanet.problem.conv.resolve_padding`
        The pads of the convolution whose input has the result's size; by ``"same"`` (stride 1 only) and
        ``"same_upper"`` that is the size of the transposed one's input times the stride.
    spans, steps : (int, int)

    Raises
    ------
    TypeError, ValueError
        If `padding` makes no sense.
    """
    # The pads of words are the same for all multiples of the stride.
    top, bottom, left, right = resolve_padding(padding, steps, spans, steps)
    more = [max(step - span, 0) if padding == "same_upper" else 0 for step, span in zip(steps, spans)]
    return ((top, bottom), (left, right)), (more[0], more[1])


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
    stride, output_padding, dilation : int or (int, int)
        The output padding must be below the stride or the dilation.
    padding : see `transposed_padding`
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
    steps, gaps = pair("stride", stride, 1), pair("dilation", dilation, 1)
    spans = gaps[0] * (weight_shape[2] - 1) + 1, gaps[1] * (weight_shape[3] - 1) + 1
    pads, wider = transposed_padding(padding, spans, steps)
    more, groups = pair("output_padding", output_padding, 0), integer("groups", groups, 1)
    if channels % groups:
        raise ValueError(f"groups must divide the {channels} in-channels, got groups={groups}")
    if any(extra >= max(step, gap) for extra, step, gap in zip(more, steps, gaps)):
        raise ValueError(f"output_padding must be smaller than stride {steps} or dilation {gaps}, got {more}")
    more = more[0] + wider[0], more[1] + wider[1]
    h, w = (transposed_size(*axis) for axis in zip(size, spans, steps, pads, more))
    if min(*size, h, w) < 1:
        raise ValueError(f"input of shape {x_shape} gives a result of {h} x {w} pixels: both must have at least one")
    if max(h, w) >= 1 << 63:
        raise ValueError(f"input of shape {x_shape} gives a result of {h} x {w} pixels, which 64 bits can't count")
    shape = (n, weight_shape[1] * groups, h, w)
    return TransposedConv(shape, (more[0] // steps[0], more[1] // steps[1]), steps, pads, gaps, groups)
