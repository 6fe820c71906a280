"""Batch normalisation of arrays (Ioffe and Szegedy, "Batch Normalization", 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import dispatch, memory
from numbanet.device_array import DeviceArray
from numbanet.moments import Moments
from numbanet.ops.shape import contiguous
from numbanet.ops.steady import steady
from numbanet.prepared import PreparedWeight
from numbanet.problem.base import choice, doubles, dtype_name, flag, float_array, optional_choice, same_dtype
from numbanet.problem.norm import BatchNormProblem, batch_norm_problem
from numbanet.problem.pointwise import number
from numbanet.watch import Live, again, doubt, live, watched

_FEW = (512,)  # channels, up to which comparing their numbers takes less time than a launch


@lru_cache(maxsize=64)
def _orders(ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the dimensions of (N, C, ...) in the order that moves the channels to the end, and the way back."""
    return (0, *range(2, ndim), 1), (0, ndim - 1, *range(1, ndim - 1))


def _matrix(x: np.ndarray) -> np.ndarray:
    """Return x of shape (N, C, ...) as a C-contiguous array of shape (N, ..., C), copied only if it must be."""
    moved = x.transpose(_orders(x.ndim)[0])
    return moved if moved.flags.c_contiguous else contiguous(moved)


class _Average:
    """The number of batches that count alike, of which a replay works out the weight of the next one."""

    what = "an average was taken over all batches"

    def __init__(self, count: np.ndarray, numbers: np.ndarray):
        self._count, self._numbers = count, numbers

    def go_on(self) -> bool:
        self._numbers[1] = 1.0 / self._count.item()
        return True

    def save(self) -> Callable[[], None]:
        return lambda: None  # the next replay works it out

    def arrays(self) -> list[Any]:
        return []


def average_weight(count: np.ndarray, eps: float) -> Any:
    """Return the `momentum` of a batch with which all `count` batches count alike in the running statistics.

    Where somebody watches it is a `Live` array of `eps` and the weight, which a replay renews.
    """
    weight = 1.0 / memory.on_host(count).item()
    if not watched() or type(count) is DeviceArray:
        return weight
    numbers = live([number("eps", eps, 0, above=True), weight], np.float64)
    again(_Average(count, numbers))
    return numbers


def _numbers(eps: float, momentum: Any, training: bool) -> np.ndarray:
    if type(momentum) is Live:
        return momentum
    if not (type(eps) is type(momentum) is float and eps > 0):
        eps, momentum = number("eps", eps, 0, above=training), number("momentum", momentum)
    return doubles(eps, momentum)


def _vector(name: str, value: np.ndarray | None) -> np.ndarray | None:
    return None if value is None else contiguous(float_array(name, value))


def _shape(vector: np.ndarray | None) -> tuple[int, ...] | None:
    return None if vector is None else vector.shape


def _fit(dtype: np.dtype, *vectors: Any) -> bool:
    """Return whether all vectors that are there are arrays on the CPU as kernels take them."""
    for vector in vectors:
        if vector is not None and not (
            type(vector) is np.ndarray and vector.dtype == dtype and vector.flags.c_contiguous
        ):  # fmt: skip
            return False
    return True


class _Plan(NamedTuple):
    """A problem, and how its input becomes the matrix that kernels see."""

    problem: BatchNormProblem
    order: tuple[int, ...]
    back: tuple[int, ...]
    memory: tuple[int, ...]
    """The shape of the input with its channels last."""
    matrix: tuple[int, int]


@lru_cache(maxsize=4096)
def _plan(which: str, dtype: np.dtype, shape: tuple[int, ...], *further: Any) -> _Plan:
    """Return the plan of a `batch_norm_problem`: a steady call looks it up."""
    problem = batch_norm_problem(which, dtype_name(dtype), shape, *further)
    order, back = _orders(len(shape))
    return _Plan(problem, order, back, tuple([shape[a] for a in order]), (problem.rows, problem.channels))


def _check_updated(mean: Any, var: Any) -> None:
    """Refuse running statistics that can't be updated in place."""
    for name, value in (("running_mean", mean), ("running_var", var)):
        if value is not None and not isinstance(value, (np.ndarray, DeviceArray)):
            raise TypeError(f"{name} must be an array, got {type(value).__name__}")
        if value is not None and not value.flags.writeable:
            raise ValueError(f"{name} is updated in place and must not be read-only")


class _Operands(NamedTuple):
    """The vectors of a normalisation, and those running statistics that must be copied back."""

    vectors: tuple[np.ndarray | None, ...]  # weight, bias, running mean, running variance
    shapes: tuple[tuple[int, ...] | None, ...]  # running mean, running variance, weight, bias
    copied: Sequence[tuple[np.ndarray, np.ndarray]]


def _operands(
    x: np.ndarray,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    training: bool,
) -> _Operands:
    mean, var = running_mean, running_var
    if not _fit(x.dtype, mean, var, weight, bias):
        mean, var = _vector("running_mean", running_mean), _vector("running_var", running_var)
        weight, bias = _vector("weight", weight), _vector("bias", bias)
        same_dtype(x=x, running_mean=mean, running_var=var, weight=weight, bias=bias)
    shapes = _shape(mean), _shape(var), _shape(weight), _shape(bias)
    copied: list[Any] = []
    if training and not (mean is running_mean and var is running_var):
        copied = [(old, new) for old, new in ((running_mean, mean), (running_var, var)) if new is not old]
    return _Operands((weight, bias, mean, var), shapes, copied)


def _copy_back(operands: _Operands) -> None:
    for stored, updated in operands.copied:
        doubt("running statistics were copied back")
        stored[...] = updated


def _like_rows(name: str, value: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Return a further operand of the input's shape as the matrix of its samples."""
    if value is None:
        return None
    matrix = _matrix(float_array(name, value))
    if matrix.dtype != rows.dtype:
        raise TypeError(f"{name}: {matrix.dtype} differs from the {rows.dtype} of x")
    return matrix.reshape(rows.shape)


def batch_norm_forward(
    x: np.ndarray,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: np.ndarray | None = None,
    moments: Moments | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `batch_norm` returns, and the mean and inverse deviation of each channel, for `batch_norm_backward`.

    Arguments, effects and errors as for `batch_norm`, and:

    Parameters
    ----------
    activation : {None, "relu"}
        Applied to the result in the same pass over memory.
    residual : numpy.ndarray, optional
        Of the shape of x; added to the result before the activation.
    moments : Moments, optional
        Of x, from the convolution that computed it: with `training` it is not read for its statistics then.
    """
    x = float_array("x", x)
    if activation is not None:
        choice("activation", activation, ("relu",))
    if training is False and type(eps) is type(momentum) is float and eps >= 0 and type(residual) is not DeviceArray:
        kept = _kept(x, running_mean, running_var, weight, bias, eps)
        if kept is not None:
            mean, inverse, coefficients = kept
            return _applied(x, coefficients, residual, activation), mean, inverse
    if flag("training", training):
        _check_updated(running_mean, running_var)
    operands = (x, running_mean, running_var, weight, bias, residual)
    if moments is None:
        return _forward(*operands, training, momentum, eps, activation)
    return _forward(*operands, training, momentum, eps, activation, moments=moments)


@steady(6)
def _forward(
    x: np.ndarray, running_mean: Any, running_var: Any, weight: Any, bias: Any, residual: Any, training: bool,
    momentum: float, eps: float, activation: str | None, moments: Moments | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return `batch_norm_forward`, whose statistics are worked out."""
    operands = _operands(x, running_mean, running_var, weight, bias, training)
    numbers = _numbers(eps, momentum, training)
    residual = None if residual is None else float_array("residual", residual)
    added = None if residual is None else residual.shape
    plan = _plan("forward", x.dtype, x.shape, training, *operands.shapes, activation, added)
    channels = plan.problem.channels
    y = memory.empty(plan.memory, x.dtype, x)
    if not x.size:
        # Nothing to learn from: the running statistics stay.
        return y.transpose(plan.back), memory.zeros(channels, x.dtype, x), memory.zeros(channels, x.dtype, x)
    mean, inverse = memory.vector(channels, x.dtype, x), memory.vector(channels, x.dtype, x)
    matrix = contiguous(x.transpose(plan.order)).reshape(plan.matrix)
    inputs: tuple[Any, ...] = (matrix, *operands.vectors, numbers, _like_rows("residual", residual, matrix))
    if training and moments is not None and moments.parts is not None:
        inputs = (*inputs, moments.parts)
    dispatch.run(plan.problem, inputs, (y.reshape(plan.matrix), mean, inverse))
    _copy_back(operands)
    return y.transpose(plan.back), mean, inverse


def batch_norm_statistics(
    x: np.ndarray,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean and inverse deviation of each channel, and the coefficients that `batch_norm_apply` takes.

    It is the first half of `batch_norm_forward`; arguments, effects on the running statistics and errors as there.
    `x` must have at least one value a channel.
    """
    x = float_array("x", x)
    if flag("training", training):
        _check_updated(running_mean, running_var)
    operands = _operands(x, running_mean, running_var, weight, bias, training)
    problem = batch_norm_problem("statistics", dtype_name(x.dtype), x.shape, training, *operands.shapes)
    if not x.size:
        raise ValueError(f"x must have at least one value per channel, got shape {x.shape}")
    mean, inverse = memory.vector(problem.channels, x.dtype, x), memory.vector(problem.channels, x.dtype, x)
    coefficients = memory.vector((3, problem.channels), x.dtype, x)
    matrix = _matrix(x).reshape(problem.rows, problem.channels)
    numbers = _numbers(eps, momentum, training)
    dispatch.run(problem, (matrix, *operands.vectors, numbers), (mean, inverse, coefficients))
    _copy_back(operands)
    return mean, inverse, coefficients


def batch_norm_apply(
    x: np.ndarray, coefficients: np.ndarray, activation: str | None = None, residual: np.ndarray | None = None
) -> np.ndarray:
    """Return activation((x - mean) * scale + shift + residual), channel by channel.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, ...); float32 or float64.
    coefficients : numpy.ndarray
        Shape (3, C): mean, scale and shift of each channel, such as `batch_norm_statistics` returns.
    activation : {None, "relu"}
    residual : numpy.ndarray, optional
        Of the shape of x.

    Returns
    -------
    numpy.ndarray
        Shape of x; channels lie side by side in memory.

    Raises
    ------
    ValueError
        If a shape does not fit, or there is no such activation.
    TypeError
        If dtypes differ or are not float32 or float64.
    """
    x, coefficients = float_array("x", x), contiguous(float_array("coefficients", coefficients))
    same_dtype(x=x, coefficients=coefficients)
    return _applied(x, coefficients, residual, optional_choice("activation", activation, ("relu",)))


@steady(3)
def _applied(
    x: np.ndarray, coefficients: np.ndarray | PreparedWeight, residual: Any, activation: str | None
) -> np.ndarray:
    """Return `batch_norm_apply` of operands of one dtype."""
    residual = None if residual is None else float_array("residual", residual)
    added = None if residual is None else residual.shape
    plan = _plan("apply", x.dtype, x.shape, False, None, None, None, None, activation, added)
    if coefficients.shape != (3, plan.problem.channels):
        raise ValueError(f"coefficients must have shape (3, {plan.problem.channels}), got {coefficients.shape}")
    y = memory.empty(plan.memory, x.dtype, x)
    if x.size:
        matrix = contiguous(x.transpose(plan.order)).reshape(plan.matrix)
        inputs = (matrix, coefficients, _like_rows("residual", residual, matrix))
        dispatch.run(plan.problem, inputs, (y.reshape(plan.matrix),))
    return y.transpose(plan.back)


def _kept(
    x: np.ndarray, mean: Any, var: Any, weight: Any, bias: Any, eps: float
) -> tuple[np.ndarray, np.ndarray, PreparedWeight] | None:
    """Return `batch_norm_statistics` of running statistics, computed once; None where that is not worth while.

    What is kept belongs to the values of the vectors, not to the arrays: those of buffers may change unnoticed.
    """
    shape, dtype = x.shape[1:2], x.dtype
    if type(x) is not np.ndarray or not x.size or mean is None or var is None or shape > _FEW or memory.in_arena():
        return None
    contents: list[bytes | None] = []
    for vector in (mean, var, weight, bias):
        if vector is None:
            contents.append(None)
        elif type(vector) is np.ndarray and vector.shape == shape and vector.dtype == dtype:
            contents.append(vector.tobytes())
        else:
            return None  # what does not fit is refused there, and what is on a GPU is not looked at
    return _statistics_of(dtype, eps, *contents, *dispatch.conditions())


@lru_cache(maxsize=256)
def _statistics_of(
    dtype: np.dtype, eps: float, mean: bytes, var: bytes, weight: bytes | None, bias: bytes | None, *conditions: Any
) -> tuple[np.ndarray, np.ndarray, PreparedWeight]:
    m, v, w, b = (None if values is None else np.frombuffer(values, dtype) for values in (mean, var, weight, bias))
    nothing = np.zeros((1, len(mean) // dtype.itemsize), dtype)
    found = batch_norm_statistics(nothing, m, v, w, b, eps=eps)
    for array in found:
        array.flags.writeable = False
    return *found[:2], PreparedWeight(found[2])


def batch_norm(
    x: np.ndarray,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> np.ndarray:
    """Return (x - mean) / sqrt(var + eps) * weight + bias, channel by channel.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C), (N, C, L), (N, C, H, W) or with more dimensions; float32 or float64.
    running_mean, running_var : numpy.ndarray, optional
        Shape (C,). Where `training` is False they are the statistics; else they are updated in place:
        ``running = (1 - momentum) * running + momentum * batch``, with the unbiased variance.
    weight, bias : numpy.ndarray, optional
        Shape (C,); 1 and 0 if None.
    training : bool
        Whether the statistics are those of the batch (the biased variance).
    momentum : float
    eps : float
        Not negative, and with `training` not 0.

    Returns
    -------
    numpy.ndarray
        Same shape; channels lie side by side in memory.

    Raises
    ------
    ValueError
        If a shape does not fit, `training` has a single value per channel, or running statistics are missing.
    TypeError
        If dtypes differ or are not float32 or float64.
    """
    return batch_norm_forward(x, running_mean, running_var, weight, bias, training, momentum, eps)[0]


def batch_norm_backward(
    grad: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | None,
    mean: np.ndarray,
    inverse: np.ndarray,
    training: bool,
    activation: str | None = None,
    y: np.ndarray | None = None,
    residual: bool = False,
) -> tuple[np.ndarray, ...]:
    """Return the gradients of `batch_norm` with respect to x, weight and bias; with `residual` that of it too.

    Parameters
    ----------
    grad : numpy.ndarray
        The gradient of the result, of the shape of x.
    x, weight : numpy.ndarray
        As given to `batch_norm_forward`.
    mean, inverse : numpy.ndarray
        As returned by it.
    training, activation
        As given to it.
    y : numpy.ndarray, optional
        Its result, which an activation needs.
    residual : bool
        Whether it was given one.
    """
    return _backward(grad, x, weight, mean, inverse, y, training, activation, residual)


@steady(6)
def _backward(
    grad: np.ndarray, x: np.ndarray, weight: Any, mean: np.ndarray, inverse: np.ndarray, y: Any, training: bool,
    activation: str | None, residual: bool,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return `batch_norm_backward`."""
    x, grad = float_array("x", x), float_array("grad", grad)
    if not (grad.dtype == x.dtype and _fit(x.dtype, weight, mean, inverse)):
        weight = _vector("weight", weight)
        mean, inverse = (contiguous(float_array(name, v)) for name, v in (("mean", mean), ("inverse", inverse)))
    if x.ndim > 1 and not mean.shape == inverse.shape == x.shape[1:2]:
        raise ValueError(f"mean and inverse must have shape {x.shape[1:2]}, got {mean.shape} and {inverse.shape}")
    y = None if y is None else float_array("y", y)
    activation = optional_choice("activation", activation, ("relu",))
    if grad.shape != x.shape:
        raise ValueError(f"grad must have the shape of x, {x.shape}, got {grad.shape}")
    if activation is not None and (y is None or y.shape != x.shape):
        raise ValueError(f"y must be the result, of the shape {x.shape} of x, got {None if y is None else y.shape}")
    if not (grad.dtype == x.dtype and _fit(x.dtype, weight, mean, inverse)):
        same_dtype(grad=grad, x=x, weight=weight, mean=mean, inverse=inverse)
    added = x.shape if residual else None
    plan = _plan(
        "backward", x.dtype, x.shape, flag("training", training), None, None, _shape(weight), None, activation, added
    )  # fmt: skip
    channels = plan.problem.channels
    gradient = contiguous(grad.transpose(plan.order))
    dx = memory.empty(plan.memory, x.dtype, x)
    # Without an activation the residual's gradient is that of the result.
    masked = memory.empty(plan.memory, x.dtype, x) if residual and activation is not None else None
    last = ((gradient if masked is None else masked).transpose(plan.back),) if residual else ()
    if not x.size:
        nothing = (memory.zeros(channels, x.dtype, x) for _ in range(2))
        return dx.transpose(plan.back), *nothing, *last
    dweight, dbias = memory.vector(channels, x.dtype, x), memory.vector(channels, x.dtype, x)
    matrix = contiguous(x.transpose(plan.order)).reshape(plan.matrix)
    result = None if activation is None else _like_rows("y", y, matrix)
    inputs = (gradient.reshape(plan.matrix), matrix, weight, mean, inverse, result)
    outputs = (dx.reshape(plan.matrix), dweight, dbias, None if masked is None else masked.reshape(plan.matrix))
    dispatch.run(plan.problem, inputs, outputs)
    return dx.transpose(plan.back), dweight, dbias, *last
