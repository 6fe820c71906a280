"""Layer, group and instance normalisation of arrays.

Each ``..._forward`` function returns the result, and the mean and inverse deviation of each group, of shape
(samples, groups), for ``group_norm_backward`` or ``layer_norm_backward``; that of groups also their variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.response import from_pixels, pixels
from numbanet.ops.shape import contiguous
from numbanet.ops.steady import steady
from numbanet.problem.base import dtype_name, float_array, integer, same_dtype
from numbanet.problem.group_norm import GroupNormProblem, group_norm_problem, layer_norm_problem, normalized
from numbanet.problem.pointwise import number
from numbanet.watch import constant

Results = tuple[np.ndarray, np.ndarray, np.ndarray]
WithVariance = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _vector(name: str, value: np.ndarray | None) -> np.ndarray | None:
    return None if value is None else contiguous(float_array(name, value))


def _flat(vector: np.ndarray | None) -> np.ndarray | None:
    return None if vector is None else vector.reshape(-1)


def _shape(vector: np.ndarray | None) -> tuple[int, ...] | None:
    return None if vector is None else vector.shape


def _run_forward(
    problem: GroupNormProblem, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> WithVariance:
    """Normalise C-contiguous memory; the result has the shape of x."""
    y = memory.empty(x.shape, problem.dtype, x)
    make = memory.vector if y.size else memory.zeros
    mean, inverse, variance = (make((problem.n, problem.groups), problem.dtype, x) for _ in range(3))
    if y.size:
        matrix = (problem.n, problem.positions, problem.channels)
        inputs = (x.reshape(matrix), _flat(weight), _flat(bias), constant(np.array([number("eps", eps)])))
        dispatch.run(problem, inputs, (y.reshape(matrix), mean, inverse, variance))
    return y, mean, inverse, variance


def _run_backward(
    problem: GroupNormProblem, grad: np.ndarray, x: np.ndarray, weight: np.ndarray | None, *statistics: np.ndarray
) -> Results:
    dx = memory.empty(x.shape, problem.dtype, x)
    make = memory.vector if dx.size else memory.zeros
    dweight, dbias = (make(problem.channels, problem.dtype, x) for _ in range(2))
    if dx.size:
        matrix = (problem.n, problem.positions, problem.channels)
        inputs = (grad.reshape(matrix), x.reshape(matrix), _flat(weight), *statistics)
        dispatch.run(problem, inputs, (dx.reshape(matrix), dweight, dbias))
    return dx, dweight, dbias


def _gradient(grad: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grad, x = float_array("grad", grad), float_array("input", x)
    if grad.shape != x.shape:
        raise ValueError(f"grad must have the shape of the input, {x.shape}, got {grad.shape}")
    return grad, x


def _statistics(problem: GroupNormProblem, **given: np.ndarray) -> list[np.ndarray]:
    """Return mean and inverse deviation as the kernels read them: a number for each group of each sample."""
    found = []
    for name, value in given.items():
        statistic = contiguous(float_array(name, value))
        if dtype_name(statistic.dtype) != problem.dtype:
            raise TypeError(f"{name} must have the dtype {problem.dtype} of input, got {statistic.dtype}")
        if statistic.shape != (problem.n, problem.groups):
            raise ValueError(f"{name} must have shape {(problem.n, problem.groups)}, got {statistic.shape}")
        found.append(statistic)
    return found


@steady(1, "weight", "bias")
def group_norm_forward(
    x: np.ndarray,
    num_groups: int,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
) -> WithVariance:
    """Return what `group_norm` returns, and the statistics; arguments and errors as for `group_norm`."""
    x, weight, bias = float_array("input", x), _vector("weight", weight), _vector("bias", bias)
    dtype = same_dtype(input=x, weight=weight, bias=bias)
    groups = integer("num_groups", num_groups)
    problem = group_norm_problem("forward", dtype, x.shape, groups, _shape(weight), _shape(bias))
    y, mean, inverse, variance = _run_forward(problem, pixels(x), weight, bias, eps)
    return from_pixels(y), mean, inverse, variance


def group_norm(
    x: np.ndarray,
    num_groups: int,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
) -> np.ndarray:
    """Return (x - mean) / sqrt(var + eps) * weight + bias, mean and variance those of groups of a sample's channels.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (N, C, ...); float32 or float64.
    num_groups : int
        Divides C; group g are the C / num_groups channels from g C / num_groups on. C groups: instance normalisation.
    weight, bias : numpy.ndarray, optional
        Shape (C,); 1 and 0 if None.
    eps : float

    Returns
    -------
    numpy.ndarray
        Same shape; channels lie side by side in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    References
    ----------
    Wu and He, "Group normalization", arXiv:1803.08494.
    """
    return group_norm_forward(x, num_groups, weight, bias, eps)[0]


@steady(2, "weight", "mean", "inverse")
def group_norm_backward(
    grad: np.ndarray,
    x: np.ndarray,
    num_groups: int,
    weight: np.ndarray | None,
    mean: np.ndarray,
    inverse: np.ndarray,
) -> Results:
    """Return the gradients of `group_norm` with respect to x, weight and bias.

    Parameters
    ----------
    grad : numpy.ndarray
        Gradient of the result, of the shape of x.
    x, num_groups, weight
        As given to `group_norm_forward`.
    mean, inverse : numpy.ndarray
        As returned by it.
    """
    (grad, x), weight = _gradient(grad, x), _vector("weight", weight)
    dtype = same_dtype(grad=grad, input=x, weight=weight)
    problem = group_norm_problem("backward", dtype, x.shape, integer("num_groups", num_groups), _shape(weight))
    statistics = _statistics(problem, mean=mean, inverse=inverse)
    dx, dweight, dbias = _run_backward(problem, pixels(grad), pixels(x), weight, *statistics)
    return from_pixels(dx), dweight, dbias


@steady(1, "weight", "bias")
def layer_norm_forward(
    x: np.ndarray,
    normalized_shape: int | Sequence[int],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
) -> Results:
    """Return what `layer_norm` returns, and the statistics; arguments and errors as for `layer_norm`."""
    x, weight, bias = float_array("input", x), _vector("weight", weight), _vector("bias", bias)
    dtype = same_dtype(input=x, weight=weight, bias=bias)
    over = normalized(normalized_shape)
    problem = layer_norm_problem("forward", dtype, x.shape, over, _shape(weight), _shape(bias))
    return _run_forward(problem, contiguous(x), weight, bias, eps)[:3]


def layer_norm(
    x: np.ndarray,
    normalized_shape: int | Sequence[int],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
) -> np.ndarray:
    """Return (x - mean) / sqrt(var + eps) * weight + bias, mean and variance those of the last dimensions.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape that ends with `normalized_shape`; float32 or float64.
    normalized_shape : int or sequence of int
        Sizes of the dimensions that are normalised together.
    weight, bias : numpy.ndarray, optional
        Shape `normalized_shape`; 1 and 0 if None.
    eps : float

    Returns
    -------
    numpy.ndarray
        Same shape, row-major.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.

    References
    ----------
    Ba, Kiros and Hinton, "Layer normalization", arXiv:1607.06450.
    """
    return layer_norm_forward(x, normalized_shape, weight, bias, eps)[0]


@steady(2, "weight", "mean", "inverse")
def layer_norm_backward(
    grad: np.ndarray,
    x: np.ndarray,
    normalized_shape: int | Sequence[int],
    weight: np.ndarray | None,
    mean: np.ndarray,
    inverse: np.ndarray,
) -> Results:
    """Return the gradients of `layer_norm` with respect to x, weight and bias; arguments as `group_norm_backward`."""
    (grad, x), weight, over = _gradient(grad, x), _vector("weight", weight), normalized(normalized_shape)
    dtype = same_dtype(grad=grad, input=x, weight=weight)
    problem = layer_norm_problem("backward", dtype, x.shape, over, _shape(weight))
    statistics = _statistics(problem, mean=mean, inverse=inverse)
    dx, dweight, dbias = _run_backward(problem, contiguous(grad), contiguous(x), weight, *statistics)
    return dx, dweight.reshape(over), dbias.reshape(over)
