"""Windows of images as columns of a matrix, and back, on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import contiguous, copy_into, pad
from numbanet.problem.base import pair, plain, real_array
from numbanet.problem.unfold import FoldProblem, windows

Size = int | Sequence[int]


def unfold(x: np.ndarray, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> np.ndarray:
    """Return the windows of images as columns of a matrix.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W) or (C, H, W), any strides; float32 or float64.
    kernel_size, dilation, padding, stride : int or (int, int)

    Returns
    -------
    numpy.ndarray
        Shape (N, C * R * S, P * Q) or (C * R * S, P * Q).

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    x = real_array("input", x, "b")
    if x.ndim not in (3, 4) or 0 in x.shape[-3:]:
        raise ValueError(f"input must have shape (N, C, H, W) or (C, H, W), and pixels, got {x.shape}")
    w = windows(x.shape[-2:], kernel_size, dilation, padding, stride)
    images = x if x.ndim == 4 else x[None]
    (above, left), n, c = w.padding, images.shape[0], images.shape[1]
    padded = pad(images, (left, left, above, above)) if above or left else images
    sn, sc, sh, sw = padded.strides
    # Of a single element nobody takes the step, which may be longer than any memory.
    gaps = [step if count > 1 else 0 for step, count in zip((*w.dilation, *w.stride), (*w.kernel, *w.count))]
    strides = (sn, sc, sh * gaps[0], sw * gaps[1], sh * gaps[2], sw * gaps[3])
    source = memory.strided(padded, (n, c, *w.kernel, *w.count), strides)
    y = memory.empty(source.shape, x.dtype, x)
    copy_into(y, source)
    y = y.reshape(n, c * w.kernel[0] * w.kernel[1], w.count[0] * w.count[1])
    return y if x.ndim == 4 else y[0]


def fold(
    x: np.ndarray, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> np.ndarray:
    """Return the images whose pixels are the sums of the columns' elements that `unfold` would take from them.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C * R * S, P * Q) or (C * R * S, P * Q), any strides; float32 or float64.
    output_size : int or (int, int)
        Height and width of the result.
    kernel_size, dilation, padding, stride : int or (int, int)

    Returns
    -------
    numpy.ndarray
        Shape (N, C, H, W) or (C, H, W); channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    x = real_array("input", x, "b")
    w = windows(pair("output_size", plain("output_size", output_size), 0), kernel_size, dilation, padding, stride)
    taps, places = w.kernel[0] * w.kernel[1], w.count[0] * w.count[1]
    if x.ndim not in (2, 3) or x.shape[-2] % taps or not x.shape[-2] or x.shape[-1] != places:
        raise ValueError(f"input must have shape (N, C * {taps}, {places}) or (C * {taps}, {places}), got {x.shape}")
    columns = x if x.ndim == 3 else x[None]
    n, c = len(columns), columns.shape[1] // taps
    (above, left), (h, v) = w.padding, w.size
    full = memory.empty((n * c, h + 2 * above, v + 2 * left), x.dtype, x)
    if full.size:
        _, high, wide = full.shape
        problem = FoldProblem("forward", x.dtype.name, n * c, high, wide, *w.kernel, *w.count, w.stride, w.dilation)
        dispatch.run(problem, (contiguous(columns).reshape(n * c, *w.kernel, *w.count),), (full,))
    y = memory.empty_channels_last((n, c, h, v), x.dtype, x)
    copy_into(y, full.reshape(n, c, *full.shape[1:])[:, :, above : above + h, left : left + v])
    return y if x.ndim == 3 else y[0]
