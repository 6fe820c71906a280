"""Two-dimensional convolution and its gradient passes on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.moments import Moments
from numbanet.ops.elementwise import add
from numbanet.ops.shape import channels_last, contiguous
from numbanet.ops.steady import steady
from numbanet.prepared import PreparedWeight
from numbanet.problem.base import choice, dtype_name, float_array, real_array, same_dtype, sizes
from numbanet.problem.conv import ACTIVATIONS, ConvProblem, conv2d_problem, epilogue, plain_options


def _batched(name: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[None]
    if x.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W) or (C, H, W), got {x.shape}")
    return x


@steady(3, "residual")
def conv2d(
    x: np.ndarray,
    weight: np.ndarray | PreparedWeight,
    bias: np.ndarray | None = None,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    residual: np.ndarray | None = None,
    activation: str | None = None,
    moments: Moments | None = None,
) -> np.ndarray:
    """Convolve (cross-correlate) images with filters.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, H, W) or (C, H, W), any strides; float32, float64, or integers, for which the definition in NumPy
        runs.
    weight : numpy.ndarray or PreparedWeight
        Shape (K, C/groups, R, S), dtype of `x`; or what `prepare_conv2d` made of it.
    bias : numpy.ndarray, optional
        Shape (K,), dtype of `x`.
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((int, int), (int, int)) or {"valid", "same", "same_upper"}
        One number, (height, width), ((top, bottom), (left, right)), or a word: ``"same"`` as in torch (stride 1 only),
        ``"same_upper"`` as in Keras and ONNX.
    groups : int
        Divides C and K; group g of the out-channels sees group g of the in-channels only.
    residual : numpy.ndarray, optional
        Added to the result as it is stored: the result's shape, dtype of `x`.
    activation : {None, "relu", "relu6"}
        Applied last, as the result is stored: max(y, 0), or min(max(y, 0), 6); NaN stays NaN.
    moments : Moments, optional
        Takes the statistics of the result, for `batch_norm_forward`, if the kernel that runs can give them.

    Returns
    -------
    numpy.ndarray
        Shape (N, K, P, Q) or (K, P, Q) with P = floor((H + pads - dilation * (R - 1) - 1) / stride) + 1, and Q
        likewise; channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    Notes
    -----
    Rounding, and what infinite and NaN operands do at borders and under Winograd's algorithm: docs/numerics.md.
    """
    x = real_array("input", x)
    images, dtype = x if x.ndim == 4 else _batched("input", x), x.dtype
    prepared, ordered = isinstance(weight, PreparedWeight), weight
    if not prepared and not (type(weight) is np.ndarray and weight.dtype == dtype):
        ordered = real_array("weight", weight)
    if bias is not None and not (type(bias) is np.ndarray and bias.dtype == dtype and bias.flags.c_contiguous):
        bias = contiguous(real_array("bias", bias))
    if residual is not None:
        residual = float_array("residual", residual)
    if activation is not None:
        choice("activation", activation, ACTIVATIONS)
    if ordered.dtype != dtype or (bias is not None and bias.dtype != dtype):
        same_dtype(input=x, weight=ordered, bias=bias)
    problem, shape = _forward_plan(
        images.shape, ordered.shape, dtype, None if bias is None else bias.shape, residual is not None, activation,
        *plain_options(stride, padding, dilation, groups), prepared,
    )  # fmt: skip
    if residual is not None:
        same_dtype(input=x, residual=residual)
        residual = channels_last(_of_result("residual", residual, problem))
    y = memory.empty(shape, dtype, x)
    if y.size:
        w = ordered if prepared else channels_last(ordered)  # type: ignore[arg-type]
        outputs = (y,) if moments is None or type(y) is not np.ndarray else (y, moments)
        dispatch.run(problem, (channels_last(images), w, bias, residual), outputs)
    y = y.transpose(0, 3, 1, 2)
    return y if images is x else y[0]


@lru_cache(maxsize=4096)  # all options are plain
def _forward_plan(
    x_shape: tuple, weight_shape: tuple, dtype: np.dtype, bias_shape: tuple | None, residual: bool,
    activation: str | None, stride: Any, padding: Any, dilation: Any, groups: int, prepared: bool,
) -> tuple[ConvProblem, tuple[int, ...]]:  # fmt: skip
    """Return the problem and the shape of the result in memory: a steady call looks them up."""
    if bias_shape is not None and bias_shape != weight_shape[:1]:
        raise ValueError(f"bias must have shape {weight_shape[:1]}, got {bias_shape}")
    then = epilogue(bias_shape is not None, residual, activation)
    problem = conv2d_problem(
        "forward", x_shape, weight_shape, dtype_name(dtype), stride, padding, dilation, groups, then, prepared
    )  # fmt: skip
    return problem, (problem.n, problem.p, problem.q, problem.k)


def conv2d_shape(
    x: np.ndarray, weight: np.ndarray, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[int, ...]:
    """Return the shape that `conv2d` of these operands gives; errors as there."""
    x, weight = float_array("input", x), float_array("weight", weight)
    images = _batched("input", x)
    problem, (n, p, q, k) = _forward_plan(
        images.shape, weight.shape, np.dtype(same_dtype(input=x, weight=weight)), None, False, None,
        *plain_options(stride, padding, dilation, groups), False,
    )  # fmt: skip
    return (n, k, p, q) if x.ndim == 4 else (k, p, q)


def prepare_conv2d(
    weight: np.ndarray,
    input_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> PreparedWeight:
    """Pack or transform a weight for the kernel that convolves images of a shape, once for many calls of `conv2d`.

    Parameters
    ----------
    weight : numpy.ndarray
        Shape (K, C/groups, R, S). It must not be changed as long as the result is used.
    input_shape : sequence of int
        Shape of the input: (N, C, H, W) or (C, H, W). Images of other shapes are taken too; where another kernel runs
        for them, the weight is prepared for that one at the first call.
    stride, padding, dilation, groups
        As given to `conv2d`.

    Returns
    -------
    PreparedWeight
        To be given to `conv2d` in place of the weight.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    weight = float_array("weight", weight)
    prepared = PreparedWeight(weight)
    sizes_ = sizes("input_shape", input_shape)
    shape = sizes_ if len(sizes_) == 4 else (1, *sizes_)
    dtype = dtype_name(prepared.dtype)
    problem = conv2d_problem(
        "forward", shape, prepared.shape, dtype, stride, padding, dilation, groups, prepared=True
    )  # fmt: skip
    if weight.size:
        prepared.form(dispatch.choose(problem), problem)
    return prepared


@steady(2)
def conv2d_backward_input(
    grad: np.ndarray,
    weight: np.ndarray,
    input_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> np.ndarray:
    """Return the gradient of `conv2d` with respect to its input.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result: shape (N, K, P, Q) or (K, P, Q).
    weight : numpy.ndarray
        Shape (K, C/groups, R, S).
    input_shape : sequence of int
        Shape of the input: (N, C, H, W) or (C, H, W).
    stride, padding, dilation, groups
        As given to `conv2d`.

    Returns
    -------
    numpy.ndarray
        Shape `input_shape`; channels-last in memory.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    return _gradient_of_input(None, grad, weight, input_shape, plain_options(stride, padding, dilation, groups))


@steady(3)
def add_conv2d_backward_input(
    known: np.ndarray,
    grad: np.ndarray,
    weight: np.ndarray,
    input_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    into: bool = False,
) -> np.ndarray:
    """Return ``known + conv2d_backward_input(grad, ...)``: the total gradient of an input that is used twice.

    On the CPU, what is known is added as the gradient is stored, if it has its memory order. The sums are the same.

    Parameters
    ----------
    known : numpy.ndarray
        Shape `input_shape`.
    grad, weight, input_shape, stride, padding, dilation, groups
        As given to `conv2d_backward_input`.
    into : bool
        Whether nobody needs `known` any more: its memory may become the result's.

    Returns
    -------
    numpy.ndarray
        Shape `input_shape`.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    known, grad = real_array("known", known), real_array("grad", grad)
    same_dtype(known=known, grad=grad)
    shape, options = sizes("input_shape", input_shape), plain_options(stride, padding, dilation, groups)
    if known.shape != shape:
        raise ValueError(f"known must have the input's shape {shape}, got {known.shape}")
    rows = known.transpose((0, 2, 3, 1) if len(shape) == 4 else (1, 2, 0)) if len(shape) in (3, 4) else known
    if type(rows) is not np.ndarray or not rows.flags.c_contiguous:
        return add(known, _gradient_of_input(None, grad, weight, shape, options))
    return _gradient_of_input(rows, grad, weight, shape, options, into)


def _gradient_of_input(
    known: np.ndarray | None, grad: np.ndarray, weight: np.ndarray, input_shape: Sequence[int], options: tuple,
    into: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return `conv2d_backward_input`, plus what is known of it: an array in the memory order of the result."""
    grad, weight = real_array("grad", grad), real_array("weight", weight)
    if grad.dtype != weight.dtype:
        same_dtype(grad=grad, weight=weight)
    input_shape = sizes("input_shape", input_shape)
    shape = input_shape if len(input_shape) == 4 else (1, *input_shape)
    problem = _backward_plan("backward_input", shape, weight.shape, grad.dtype, *options, known is not None)
    grads = _of_result("grad", grad, problem)
    rows = problem.n, problem.h, problem.w, problem.c
    given = () if known is None else (known.reshape(rows),)
    dx = given[0] if into and given else memory.empty(rows, grad.dtype, grad)
    if dx.size:
        dispatch.run(problem, (channels_last(grads), channels_last(weight), *given), (dx,))
    dx = dx.transpose(0, 3, 1, 2)
    return dx[0] if len(input_shape) == 3 else dx


@steady(2)
def conv2d_backward_weight(
    x: np.ndarray,
    grad: np.ndarray,
    weight_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> np.ndarray:
    """Return the gradient of `conv2d` with respect to its weight.

    Parameters
    ----------
    x : numpy.ndarray
        The input: shape (N, C, H, W) or (C, H, W).
    grad : numpy.ndarray
        Gradient of the result: shape (N, K, P, Q) or (K, P, Q).
    weight_shape : sequence of int
        (K, C/groups, R, S).
    stride, padding, dilation, groups
        As given to `conv2d`.

    Returns
    -------
    numpy.ndarray
        Shape `weight_shape`, in the memory order of weights (K, R, S, C/groups).

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.
    """
    x, grad = float_array("input", x), float_array("grad", grad)
    images = _batched("input", x)
    if x.dtype != grad.dtype:
        same_dtype(input=x, grad=grad)
    weight_shape = sizes("weight_shape", weight_shape)
    problem = _backward_plan(
        "backward_weight", images.shape, weight_shape, x.dtype, *plain_options(stride, padding, dilation, groups)
    )
    grads = _of_result("grad", grad, problem)
    dw = memory.empty((problem.k, problem.r, problem.s, problem.cg), x.dtype, x)
    if dw.size:
        dispatch.run(problem, (channels_last(images), channels_last(grads)), (dw,))
    return dw.transpose(0, 3, 1, 2)


@lru_cache(maxsize=4096)  # all options are plain
def _backward_plan(
    which: str, x_shape: tuple, weight_shape: tuple, dtype: np.dtype, stride: Any, padding: Any, dilation: Any,
    groups: int, residual: bool = False,
) -> ConvProblem:  # fmt: skip
    """Return the problem of a gradient: a steady call looks it up."""
    then = epilogue(residual=residual)
    return conv2d_problem(which, x_shape, weight_shape, dtype_name(dtype), stride, padding, dilation, groups, then)


def _of_result(name: str, array: np.ndarray, problem: ConvProblem) -> np.ndarray:
    """Return an array of the result's shape as (N, K, P, Q)."""
    batch, expected = _batched(name, array), (problem.n, problem.k, problem.p, problem.q)
    if batch.shape != expected:
        raise ValueError(f"{name} must have the result's shape {expected}, got {batch.shape}")
    return batch
