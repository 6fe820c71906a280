"""Rearrangements of elements that split axes, exchange the parts, and join them: argument checks and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet.problem.base import integer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rearrangement:
    """``y = x.reshape(split).transpose(order).reshape(shape)``."""

    split: Shape
    order: Shape
    shape: Shape


def _image(name: str, shape: Shape) -> tuple[Shape, int, int, int]:
    if len(shape) < 3:
        raise ValueError(f"{name}: input must have shape (..., C, H, W), got {shape}")
    c, h, w = shape[-3:]
    return shape[:-3], c, h, w


def _order(lead: int, *rest: int) -> Shape:
    return (*range(lead), *(lead + axis for axis in rest))


@lru_cache(maxsize=1024, typed=True)
def pixel_shuffle(shape: Shape, factor: Any) -> Rearrangement:
    """Return the rearrangement (..., C r^2, H, W) to (..., C, H r, W r).

    Raises
    ------
    TypeError, ValueError
        If r is not a positive integer, or its square does not divide the channels.
    """
    r = integer("upscale_factor", factor, 1)
    lead, c, h, w = _image("pixel_shuffle", shape)
    if c % (r * r):
        raise ValueError(f"upscale_factor squared must divide the {c} channels of input, got {r}")
    out = c // (r * r)
    return Rearrangement((*lead, out, r, r, h, w), _order(len(lead), 0, 3, 1, 4, 2), (*lead, out, h * r, w * r))


@lru_cache(maxsize=1024, typed=True)
def pixel_unshuffle(shape: Shape, factor: Any) -> Rearrangement:
    """Return the rearrangement (..., C, H r, W r) to (..., C r^2, H, W); errors as for `pixel_shuffle`."""
    r = integer("downscale_factor", factor, 1)
    lead, c, h, w = _image("pixel_unshuffle", shape)
    if h % r or w % r:
        raise ValueError(f"downscale_factor must divide the {h} x {w} pixels of input, got {r}")
    split = (*lead, c, h // r, r, w // r, r)
    return Rearrangement(split, _order(len(lead), 0, 2, 4, 1, 3), (*lead, c * r * r, h // r, w // r))


@lru_cache(maxsize=1024, typed=True)
def channel_shuffle(shape: Shape, groups: Any) -> Rearrangement:
    """Return the rearrangement that takes one channel of each group in turn.

    Raises
    ------
    TypeError, ValueError
        If `groups` is not a positive integer or does not divide the channels, or the input has less than 3 dimensions.
    """
    count = integer("groups", groups, 1)
    if len(shape) < 3:
        raise ValueError(f"channel_shuffle: input must have shape (N, C, ...), got {shape}")
    n, c, *rest = shape
    if c % count:
        raise ValueError(f"groups must divide the {c} channels of input, got {count}")
    axes = tuple(range(3, len(shape) + 1))
    return Rearrangement((n, count, c // count, *rest), (0, 2, 1, *axes), shape)
