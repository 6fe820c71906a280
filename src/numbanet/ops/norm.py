"""Batch normalisation of arrays (Ioffe and Szegedy, "Batch Normalization", 2015)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet import dispatch, memory
from numbanet.problem.base import float_array, same_dtype
from numbanet.problem.norm import batch_norm_problem


def _matrix(x: np.ndarray) -> np.ndarray:
    """Return x of shape (N, C, ...) as a C-contiguous array of shape (N, ..., C), copied only if it must be."""
    moved = x.transpose(0, *range(2, x.ndim), 1)
    if moved.flags.c_contiguous:
        return moved
    out = memory.empty(moved.shape, x.dtype)
    out[...] = moved
    return out


def _restored(matrix: np.ndarray) -> np.ndarray:
    """Undo `_matrix`."""
    return matrix.transpose(0, matrix.ndim - 1, *range(1, matrix.ndim - 1))


@lru_cache(maxsize=64)
def _numbers(eps: float, momentum: float) -> np.ndarray:
    return np.array([eps, momentum], np.float64)


def _vector(name: str, value: np.ndarray | None) -> np.ndarray | None:
    return None if value is None else np.ascontiguousarray(float_array(name, value))


def batch_norm_forward(
    x: np.ndarray,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `batch_norm` returns, and the mean and inverse deviation of each channel, for `batch_norm_backward`.

    Arguments, effects and errors as for `batch_norm`.
    """
    x = float_array("x", x)
    stored_mean, stored_var = running_mean, running_var
    running_mean, running_var = _vector("running_mean", running_mean), _vector("running_var", running_var)
    weight, bias = _vector("weight", weight), _vector("bias", bias)
    dtype = same_dtype(x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    shapes = [None if a is None else a.shape for a in (running_mean, running_var, weight, bias)]
    problem = batch_norm_problem("forward", dtype, x.shape, bool(training), *shapes)
    rows = _matrix(x)
    y = memory.empty(rows.shape, x.dtype)
    if not problem.rows:
        # Nothing to learn from: the running statistics stay.
        return _restored(y), np.zeros(problem.channels, x.dtype), np.zeros(problem.channels, x.dtype)
    mean, inverse = np.empty(problem.channels, x.dtype), np.empty(problem.channels, x.dtype)
    shape = (problem.rows, problem.channels)
    inputs = (rows.reshape(shape), weight, bias, running_mean, running_var, _numbers(eps, momentum))
    dispatch.run(problem, inputs, (y.reshape(shape), mean, inverse))
    if training:
        for stored, updated in ((stored_mean, running_mean), (stored_var, running_var)):
            if stored is not None and updated is not None and updated is not stored:
                stored[...] = updated
    return _restored(y), mean, inverse


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
    momentum, eps : float

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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of `batch_norm` with respect to x, weight and bias.

    Parameters
    ----------
    grad : numpy.ndarray
        The gradient of the result, of the shape of x.
    x, weight : numpy.ndarray
        As given to `batch_norm_forward`.
    mean, inverse : numpy.ndarray
        As returned by it.
    training : bool
        As given to it.
    """
    x, grad, weight = float_array("x", x), float_array("grad", grad), _vector("weight", weight)
    if grad.shape != x.shape:
        raise ValueError(f"grad must have the shape of x, {x.shape}, got {grad.shape}")
    dtype = same_dtype(grad=grad, x=x, weight=weight, mean=mean, inverse=inverse)
    weight_shape = None if weight is None else weight.shape
    problem = batch_norm_problem("backward", dtype, x.shape, bool(training), weight=weight_shape)
    rows, gradient = _matrix(x), _matrix(grad)
    dx = memory.empty(rows.shape, x.dtype)
    if not problem.rows:
        return _restored(dx), np.zeros(problem.channels, x.dtype), np.zeros(problem.channels, x.dtype)
    dweight, dbias = np.empty(problem.channels, x.dtype), np.empty(problem.channels, x.dtype)
    shape = (problem.rows, problem.channels)
    inputs = (gradient.reshape(shape), rows.reshape(shape), weight, mean, inverse)
    dispatch.run(problem, inputs, (dx.reshape(shape), dweight, dbias))
    return _restored(dx), dweight, dbias
