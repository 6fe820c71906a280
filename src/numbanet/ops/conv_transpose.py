"""Transposed convolution and its gradients on arrays: the passes of convolution with their parts exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet.ops.conv import conv2d, conv2d_backward_input, conv2d_backward_weight
from numbanet.ops.elementwise import add
from numbanet.ops.shape import pad
from numbanet.problem.base import real_array, sizes
from numbanet.problem.conv_transpose import TransposedConv, transposed_conv

Size = int | Sequence[int]


def _batched(shape: Sequence[int]) -> tuple[int, ...]:
    shape = sizes("input", shape)
    return (1, *shape) if len(shape) == 3 else shape


def _extended(x: np.ndarray, problem: TransposedConv) -> np.ndarray:
    below, right = problem.extra
    return pad(x, (0, right, 0, below)) if below or right else x


def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Size = 1,
    padding: Any = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> np.ndarray:
    """Return the transposed convolution: the gradient of a convolution with respect to its input, as a layer.

    Each element of x adds a filter, times itself, to the result; neighbours are `stride` pixels apart there.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, K, P, Q) or (K, P, Q), any strides; float32 or float64.
    weight : numpy.ndarray
        Shape (K, C/groups, R, S), dtype of `x`.
    bias : numpy.ndarray, optional
        Shape (C,), dtype of `x`.
    stride, dilation : int or (int, int)
        Those of the convolution whose gradient this is.
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        Those as well: padding takes away from the result. With ``"same_upper"``, as Keras's ``padding="same"``, the
        result is `stride` times as large as the input; ``"same"`` is for stride 1 only.
    output_padding : int or (int, int)
        Rows and columns that the result has in addition, below and right; smaller than the stride or the dilation.
    groups : int

    Returns
    -------
    numpy.ndarray
        Shape (N, C, H, W) or (C, H, W) with H = (P - 1) stride - pads + dilation (R - 1) + output_padding + 1,
        and W likewise; channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    References
    ----------
    Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010.
    """
    x, weight = real_array("input", x), real_array("weight", weight)
    problem = transposed_conv(_batched(x.shape), weight.shape, stride, padding, output_padding, groups, dilation)
    if bias is not None:
        bias = real_array("bias", bias)
        if bias.shape != problem.shape[1:2]:
            raise ValueError(f"bias must have shape {problem.shape[1:2]}, got {bias.shape}")
        if bias.dtype != x.dtype:
            raise TypeError(f"dtypes must be equal, got input: {x.dtype}, bias: {bias.dtype}")
    shape = problem.shape if x.ndim == 4 else problem.shape[1:]
    options = (problem.stride, problem.padding, problem.dilation, problem.groups)
    y = conv2d_backward_input(_extended(x, problem), weight, shape, *options)
    return y if bias is None else add(y, bias.reshape(-1, 1, 1))


def conv_transpose2d_backward(
    grad: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    stride: Size = 1,
    padding: Any = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    of_input: bool = True,
    of_weight: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the gradients of `conv_transpose2d` with respect to x and weight, or None for one that is not asked for.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result.
    x, weight, stride, padding, output_padding, groups, dilation
        As given to `conv_transpose2d`.
    of_input, of_weight : bool
        Which gradients to compute.
    """
    x, weight = real_array("x", x), real_array("weight", weight)
    problem = transposed_conv(_batched(x.shape), weight.shape, stride, padding, output_padding, groups, dilation)
    options = (problem.stride, problem.padding, problem.dilation, problem.groups)
    dx = dw = None
    if of_input:
        dx = conv2d(grad, weight, None, *options)[..., : x.shape[-2], : x.shape[-1]]
    if of_weight:
        dw = conv2d_backward_weight(grad, _extended(x, problem), weight.shape, *options)
    return dx, dw
