"""Matrix products on arrays."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.elementwise import add
from numbanet.ops.shape import contiguous
from numbanet.prepared import PreparedWeight
from numbanet.problem.base import dtype_name, float_array, integer, optional_choice, real_array, same_dtype
from numbanet.problem.conv import ACTIVATIONS, epilogue
from numbanet.problem.matmul import MatmulProblem


def _stack(x: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return a matrix, or a stack of them, as a C-contiguous array, and whether that holds rows (else columns)."""
    if x.flags.c_contiguous:
        return x, True
    turned = x.swapaxes(-1, -2)
    if turned.flags.c_contiguous:
        return turned, False
    copy = memory.empty(x.shape, x.dtype, x)
    copy[...] = x
    return copy, True


@lru_cache(maxsize=4096)
def _problem(
    dtype: np.dtype, m: int, n: int, k: int, a_rows: bool, b_rows: bool, bias: bool, residual: bool,
    activation: str | None, batch: int = 1,
) -> MatmulProblem:  # fmt: skip
    then = epilogue(bias, residual, activation)
    return MatmulProblem("forward", dtype_name(dtype), m, n, k, a_rows, b_rows, then, batch)


def _product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write the product of two matrices to `out`."""
    (m, k), n = a.shape, b.shape[1]
    if out.size == 0:
        return
    a, a_rows = _stack(a)
    b, b_rows = _stack(b)
    problem = _problem(a.dtype, m, n, k, a_rows, b_rows, False, False, None)
    dispatch.run(problem, (a, b, None, None), (out,))


def _products(a: np.ndarray, b: np.ndarray, batch: tuple[int, ...], out: np.ndarray) -> None:
    """Write the products of two stacks of matrices, whose leading dimensions broadcast to `batch`, to `out`."""
    if out.size == 0:
        return
    (m, n), k = out.shape[-2:], a.shape[-1]
    if k == 0:
        out[...] = 0  # sums of nothing
        return
    index = np.empty((2, math.prod(batch)), np.int64)
    for numbers, shape in zip(index, (a.shape[:-2], b.shape[:-2])):
        numbers.reshape(batch)[...] = np.arange(math.prod(shape)).reshape(shape)
    (a, a_rows), (b, b_rows) = _stack(a), _stack(b)
    left, right = (x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in (a, b))
    problem = _problem(a.dtype, m, n, k, a_rows, b_rows, False, False, None, index.shape[1])
    dispatch.run(problem, (left, right, None, None, index), (out.reshape(index.shape[1], m, n),))


def matmul(input: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the matrix product, with the rules of numpy.matmul and torch.matmul.

    Parameters
    ----------
    input, other : numpy.ndarray
        Shapes (..., m, k) and (..., k, n), the leading dimensions broadcast; a one-dimensional `input` is a row, a
        one-dimensional `other` a column, and the result lacks that dimension. float32, float64 or integers (computed by
        their definition in NumPy), both the same.

    Returns
    -------
    numpy.ndarray
        Shape (..., m, n).

    Raises
    ------
    TypeError
        If the dtypes differ, or are booleans.
    ValueError
        If an operand has no dimension or the shapes do not fit.
    """
    a, b = real_array("input", input), real_array("other", other)
    dtype = same_dtype(input=a, other=b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"input and other must have at least one dimension, got shapes {a.shape} and {b.shape}")
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"the last dimension of input and the last but one of other must be equal, got {a.shape} and {b.shape}"
        )
    try:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ValueError(
            f"the leading dimensions of input and other do not broadcast, got {a.shape} and {b.shape}"
        ) from None
    m, n = left.shape[-2], right.shape[-1]
    out = memory.empty((*batch, m, n), dtype, a)
    if math.prod(batch) == 1:
        _product(left.reshape(left.shape[-2:]), right.reshape(right.shape[-2:]), out.reshape(m, n))
    elif right.ndim == 2:  # one matrix for all: a single tall product
        rows = math.prod(left.shape[:-1])
        _product(left.reshape(rows, left.shape[-1]), right, out.reshape(rows, n))
    else:
        _products(left, right, batch, out)
    if b.ndim == 1:
        out = out[..., 0]
    return out[..., 0, :] if a.ndim == 1 and b.ndim > 1 else out[..., 0] if a.ndim == 1 else out


def linear(
    x: np.ndarray,
    weight: np.ndarray | PreparedWeight,
    bias: np.ndarray | None = None,
    *,
    residual: np.ndarray | None = None,
    activation: str | None = None,
) -> np.ndarray:
    """Return ``x @ weight.T + bias``, and what a following sum and activation make of it.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (..., in_features).
    weight : numpy.ndarray or PreparedWeight
        Shape (out_features, in_features), or (in_features,); or what `prepare_linear` made of it.
    bias : numpy.ndarray, optional
        Shape (out_features,), or any that broadcasts to the result.
    residual : numpy.ndarray, optional
        Added to the result as it is stored: the result's shape, dtype of `x`.
    activation : {None, "relu", "relu6"}
        Applied last, as the result is stored: max(y, 0), or min(max(y, 0), 6); NaN stays NaN.

    Returns
    -------
    numpy.ndarray
        Shape (..., out_features), or (...) for a one-dimensional weight.

    Raises
    ------
    TypeError
        If the dtypes differ, or are booleans.
    ValueError
        If the shapes do not fit.
    """
    x = real_array("input", x)
    if not isinstance(weight, PreparedWeight):
        weight = real_array("weight", weight)
    bias = None if bias is None else contiguous(real_array("bias", bias))
    residual = None if residual is None else contiguous(float_array("residual", residual))
    activation = optional_choice("activation", activation, ACTIVATIONS)
    dtype = x.dtype
    if residual is not None or not dtype == weight.dtype == (bias if bias is not None else x).dtype:
        same_dtype(input=x, weight=weight, bias=bias, residual=residual)
    if len(weight.shape) not in (1, 2):
        raise ValueError(f"weight must have shape (out_features, in_features), got {weight.shape}")
    (*_, columns), before = weight.shape, weight.shape[:-1]
    if x.ndim == 0 or x.shape[-1] != columns:
        fits = x.ndim > 2 and math.prod(x.shape[1:]) == columns
        flat = f": nn.Flatten() makes {(len(x), columns)} of that" if fits else ""
        raise ValueError(f"input must have shape (..., {columns}) for weight {weight.shape}, got {x.shape}{flat}")
    shape = (*x.shape[:-1], *before)
    if bias is not None and bias.shape != before and not _broadcasts(bias.shape, shape):
        raise ValueError(f"bias must have shape {weight.shape[:-1]} or broadcast to {shape}, got {bias.shape}")
    if residual is not None and residual.shape != shape:
        raise ValueError(f"residual must have the result's shape {shape}, got {residual.shape}")
    if bias is not None and bias.shape != (before or (1,)):  # a bias that is no number a column is a residual
        wide = np.broadcast_to(bias, shape)
        bias, residual = None, contiguous(wide) if residual is None else add(wide, residual)
    rows = x.shape[0] if x.ndim == 2 else math.prod(x.shape[:-1])
    out = memory.empty((rows, *(before or (1,))), dtype, x)
    if out.size:
        a, a_rows = _stack(x if x.ndim == 2 else contiguous(x).reshape(rows, columns))
        b: np.ndarray | PreparedWeight
        if isinstance(weight, PreparedWeight):
            b, b_rows = weight, False  # row by row, so its transpose column by column
        else:
            b, b_rows = _stack((weight if weight.ndim == 2 else weight[None]).T)
        fused = bias is not None, residual is not None
        problem = _problem(dtype, rows, out.shape[1], columns, a_rows, b_rows, *fused, activation)
        dispatch.run(problem, (a, b, bias, None if residual is None else residual.reshape(out.shape)), (out,))
    return out.reshape(shape)


def prepare_linear(weight: np.ndarray, rows: int = 1) -> PreparedWeight:
    """Pack a weight once for many calls of `linear`.

    Parameters
    ----------
    weight : numpy.ndarray
        Shape (out_features, in_features). It must not be changed as long as the result is used.
    rows : int
        Of the inputs, about.

    Returns
    -------
    PreparedWeight
        To be given to `linear` in place of the weight.

    Raises
    ------
    TypeError, ValueError
        If the weight is no matrix of floats.
    """
    weight = float_array("weight", weight)
    if weight.ndim != 2:
        raise ValueError(f"weight must have shape (out_features, in_features), got {weight.shape}")
    prepared = PreparedWeight(weight)
    out, columns = weight.shape
    problem = _problem(weight.dtype, integer("rows", rows, 1), out, columns, True, False, False, False, None)
    if weight.size:
        prepared.form(dispatch.choose(problem), problem)
    return prepared


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether an array of `shape` can be added to one of `target` without changing its shape."""
    if len(shape) > len(target):
        return False
    return all(n in (1, m) for n, m in zip(reversed(shape), reversed(target)))
