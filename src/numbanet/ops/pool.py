"""Two-dimensional pooling and its gradients on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.shape import channels_last
from numbanet.ops.steady import steady
from numbanet.problem.base import array, dtype_name, float_array, real_array, same_dtype, sizes
from numbanet.problem.pool import (
    MaxPoolProblem,
    PoolProblem,
    adaptive_avg_pool2d_problem,
    avg_pool2d_problem,
    max_pool2d_problem,
)  # fmt: skip

Size = int | Sequence[int]


def _batched(name: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 4:
        return x
    if x.ndim == 3:
        return x[None]
    raise ValueError(f"{name} must have shape (N, C, H, W) or (C, H, W), got {x.shape}")
    return x


def _batched_shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = sizes("input_shape", shape)
    return (1, *shape) if len(shape) == 3 else shape


def _shaped(y: np.ndarray, ndim: int) -> np.ndarray:
    """Return (N, P, Q, C) memory as (N, C, P, Q), or (C, P, Q) where the input had no batch."""
    y = y.transpose(0, 3, 1, 2)
    return y[0] if ndim == 3 else y


def _pool(x: np.ndarray, images: np.ndarray, problem: PoolProblem) -> np.ndarray:
    y = memory.empty((problem.n, problem.p, problem.q, problem.c), x.dtype, x)
    if y.size:
        dispatch.run(problem, (channels_last(images),), (y,))
    return _shaped(y, x.ndim)


def _output_grad(name: str, grad: np.ndarray, problem: PoolProblem) -> np.ndarray:
    """Return the gradient of the result (or its offsets) as (N, P, Q, C) memory."""
    grads, expected = _batched(name, grad), (problem.n, problem.c, problem.p, problem.q)
    if grads.shape != expected:
        raise ValueError(f"{name} must have the result's shape {expected}, got {grads.shape}")
    return channels_last(grads)


def _pool_backward(grad: np.ndarray, problem: PoolProblem, ndim: int) -> np.ndarray:
    dx = memory.empty((problem.n, problem.h, problem.w, problem.c), problem.dtype, grad)
    moved = _output_grad("grad", grad, problem)
    if dx.size:
        dispatch.run(problem, (moved,), (dx,))
    return _shaped(dx, ndim)


@steady(1)
def max_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element of each window; NaN beats numbers.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W) or (C, H, W), any strides; float32 or float64.
    kernel_size, stride, dilation : int or (int, int)
        (height, width) of the window, of the steps between windows (`kernel_size` if None), and of the steps inside a
        window.
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        What to add on each side, as minus infinity: one number, (height, width), ((top, bottom), (left, right)), each
        at most half of the window; or a word. ``"same_upper"`` pads as Keras's ``padding="same"`` and ONNX:
        the result has ceil(H / stride) rows and ceil(W / stride) columns, and an odd row or column goes to the end.
        ``"same"`` is the same for stride 1 only, as in `conv2d`; mind that the stride is `kernel_size` unless given.
    ceil_mode : bool
        Round the number of windows up; see `numbanet.problem.pool.pooled_size`.
    return_indices : bool
        Return also where each maximum lies in its plane.

    Returns
    -------
    y : numpy.ndarray
        Shape (N, C, P, Q) or (C, P, Q) with P = floor((H + pads - dilation*(kernel - 1) - 1) / stride) + 1, and Q
        likewise; channels-last in memory.
    indices : numpy.ndarray
        With `return_indices`: int64, same shape, ``row * W + column``; of equal maxima the first counts.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        y, offsets = max_pool2d_offsets(x, *window)
        return y, max_pool2d_indices(offsets, np.shape(x), *window)
    x = real_array("input", x)
    images = _batched("input", x)
    return _pool(x, images, max_pool2d_problem("forward", images.shape, same_dtype(input=x), *window, offsets=False))


@steady(1)
def max_pool2d_offsets(
    x: np.ndarray,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result of `max_pool2d` and the offset ``r * S + s`` of each maximum in its window of R x S.

    The offsets are what `max_pool2d_backward` needs: uint8, or int32 where a window has more than 256 elements.
    """
    x = real_array("input", x)
    images = _batched("input", x)
    problem = max_pool2d_problem(
        "forward", images.shape, same_dtype(input=x), kernel_size, stride, padding, dilation, ceil_mode
    )  # fmt: skip
    shape = (problem.n, problem.p, problem.q, problem.c)
    y, offsets = memory.empty(shape, x.dtype, x), memory.empty(shape, problem.offsets, x)
    if y.size:
        dispatch.run(problem, (channels_last(images),), (y, offsets))
    return _shaped(y, x.ndim), _shaped(offsets, x.ndim)


def _check_offsets(offsets: np.ndarray, problem: MaxPoolProblem) -> np.ndarray:
    offsets = array("offsets", offsets)
    if offsets.dtype != problem.offsets:
        raise TypeError(f"offsets must have dtype {problem.offsets}, got {offsets.dtype}")
    return _output_grad("offsets", offsets, problem)


def max_pool2d_indices(
    offsets: np.ndarray,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> np.ndarray:
    """Return the positions ``row * W + column`` (int64) that the offsets of `max_pool2d_offsets` stand for."""
    problem = max_pool2d_problem(
        "indices", _batched_shape(input_shape), "float32", kernel_size, stride, padding, dilation, ceil_mode
    )  # fmt: skip
    moved = _check_offsets(offsets, problem)
    indices = memory.empty(moved.shape, np.int64, moved)
    if indices.size:
        dispatch.run(problem, (moved,), (indices,))
    return _shaped(indices, offsets.ndim)


@steady(2)
def max_pool2d_backward(
    grad: np.ndarray,
    offsets: np.ndarray,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> np.ndarray:
    """Return the gradient of `max_pool2d` with respect to its input: each goes to the element that was the maximum.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result: shape (N, C, P, Q) or (C, P, Q).
    offsets : numpy.ndarray
        Same shape: the second result of `max_pool2d_offsets`.
    input_shape : sequence of int
        Shape of the input: (N, C, H, W) or (C, H, W).
    kernel_size, stride, padding, dilation, ceil_mode
        As given to `max_pool2d`.

    Returns
    -------
    numpy.ndarray
        Shape `input_shape`; channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad = float_array("grad", grad)
    problem = max_pool2d_problem(
        "backward_input", _batched_shape(input_shape), dtype_name(grad.dtype), kernel_size, stride, padding, dilation,
        ceil_mode,
    )  # fmt: skip
    dx = memory.empty((problem.n, problem.h, problem.w, problem.c), problem.dtype, grad)
    moved = _output_grad("grad", grad, problem), _check_offsets(offsets, problem)
    if dx.size:
        dispatch.run(problem, moved, (dx,))
    return _shaped(dx, len(input_shape))


@steady(1)
def avg_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool | None = None,
    divisor_override: int | None = None,
) -> np.ndarray:
    """Return the mean of each window.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W) or (C, H, W), any strides; float32 or float64.
    kernel_size, stride : int or (int, int)
        (height, width) of the window, and of the steps between windows (`kernel_size` if None).
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        As for `max_pool2d`, with zeros.
    ceil_mode : bool
        Round the number of windows up; see `numbanet.problem.pool.pooled_size`.
    count_include_pad : bool, optional
        Whether the zeros of the padding count as elements. None: those of numbers do, as in torch; those of a word do
        not, as in Keras.
    divisor_override : int, optional
        Divide the sums by it instead; not zero.

    Returns
    -------
    numpy.ndarray
        Shape (N, C, P, Q) or (C, P, Q) with P = floor((H + pads - kernel) / stride) + 1, and Q likewise;
        channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    if type(x) is not np.ndarray or x.dtype != np.int64:  # PyTorch's one dtype of integers here
        x = float_array("input", x)
    images = _batched("input", x)
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _pool(x, images, avg_pool2d_problem("forward", images.shape, same_dtype(input=x), *options))


@steady(1)
def avg_pool2d_backward(
    grad: np.ndarray,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool | None = None,
    divisor_override: int | None = None,
) -> np.ndarray:
    """Return the gradient of `avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result: shape (N, C, P, Q) or (C, P, Q).
    input_shape : sequence of int
        Shape of the input: (N, C, H, W) or (C, H, W).
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As given to `avg_pool2d`.

    Returns
    -------
    numpy.ndarray
        Shape `input_shape`; channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad = float_array("grad", grad)
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    problem = avg_pool2d_problem("backward_input", _batched_shape(input_shape), dtype_name(grad.dtype), *options)
    return _pool_backward(grad, problem, len(input_shape))


@steady(1)
def adaptive_avg_pool2d(x: np.ndarray, output_size: Any) -> np.ndarray:
    """Return the means of P x Q rectangles that cover the image evenly.

    ``y[n, c, p, q]`` is the mean over the rows floor(p*H/P) to ceil((p+1)*H/P) - 1 and the columns likewise.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W) or (C, H, W), any strides; float32 or float64.
    output_size : int or (int or None, int or None)
        (P, Q); one number for both; None for the size of the input.

    Returns
    -------
    numpy.ndarray
        Shape (N, C, P, Q) or (C, P, Q); channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    x = float_array("input", x)
    images = _batched("input", x)
    return _pool(x, images, adaptive_avg_pool2d_problem("forward", images.shape, same_dtype(input=x), output_size))


@steady(1)
def adaptive_avg_pool2d_backward(grad: np.ndarray, input_shape: Sequence[int]) -> np.ndarray:
    """Return the gradient of `adaptive_avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result: shape (N, C, P, Q) or (C, P, Q).
    input_shape : sequence of int
        Shape of the input: (N, C, H, W) or (C, H, W).

    Returns
    -------
    numpy.ndarray
        Shape `input_shape`; channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    grad = float_array("grad", grad)
    size = tuple(_batched("grad", grad).shape[2:])
    if 0 in grad.shape[1:] and size != (1, 1):
        raise ValueError(f"output_size must have pixels, and input channels, for a gradient: grad is {grad.shape}")
    problem = adaptive_avg_pool2d_problem("backward_input", _batched_shape(input_shape), dtype_name(grad.dtype), size)
    return _pool_backward(grad, problem, len(input_shape))
