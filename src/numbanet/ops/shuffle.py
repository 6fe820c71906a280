"""Rearrangements of pixels and channels on arrays: one strided copy each."""

from __future__ import annotations

import numpy as np

from numbanet import memory
from numbanet.ops.shape import copy_into, reshape
from numbanet.problem import shuffle
from numbanet.problem.base import array, integer
from numbanet.problem.shuffle import Rearrangement


def rearrange(x: np.ndarray, how: Rearrangement) -> np.ndarray:
    """Return x rearranged; results with four dimensions are channels-last in memory."""
    source = reshape(x, how.split).transpose(how.order)
    empty = memory.empty_channels_last if len(how.shape) == 4 else memory.empty
    y = empty(how.shape, x.dtype, x)
    copy_into(y.reshape(source.shape), source)  # to split an axis, NumPy needs no copy
    return y


def pixel_shuffle(x: np.ndarray, upscale_factor: int) -> np.ndarray:
    """Return x of shape (..., C r^2, H, W) as (..., C, H r, W r): each r^2 channels become a square of pixels.

    Raises
    ------
    TypeError, ValueError
        If the factor r is not a positive integer, or its square does not divide the channels.

    References
    ----------
    Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
    network", arXiv:1609.05158.
    """
    x = array("input", x)
    return rearrange(x, shuffle.pixel_shuffle(x.shape, integer("upscale_factor", upscale_factor, 1)))


def pixel_unshuffle(x: np.ndarray, downscale_factor: int) -> np.ndarray:
    """Return x of shape (..., C, H r, W r) as (..., C r^2, H, W): the contrary of `pixel_shuffle`."""
    x = array("input", x)
    return rearrange(x, shuffle.pixel_unshuffle(x.shape, integer("downscale_factor", downscale_factor, 1)))


def channel_shuffle(x: np.ndarray, groups: int) -> np.ndarray:
    """Return x of shape (N, C, ...) with the channels in another order: the first of each group, the second, ...

    Raises
    ------
    TypeError, ValueError
        If `groups` is not a positive integer that divides C, or x has less than 3 dimensions.

    References
    ----------
    Zhang et al., "ShuffleNet", arXiv:1707.01083.
    """
    x = array("input", x)
    return rearrange(x, shuffle.channel_shuffle(x.shape, integer("groups", groups, 1)))
