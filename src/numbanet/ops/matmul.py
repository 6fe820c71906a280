"""Matrix products on arrays."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.elementwise import add
from numbanet.ops.shape import contiguous
from numbanet.ops.steady import steady
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
    return memory.row_major(x), True


@lru_cache(maxsize=4096)
def _problem(
    dtype: np.dtype, m: int, n: int, k: int, a_rows: bool, b_rows: bool, bias: bool, residual: bool,
    activation: str | None, batch: int = 1,
) -> MatmulProblem:  # fmt: skip
    then = epilogue(bias, residual, activation)
    return MatmulProblem("forward", dtype_name(dtype), m, n, k, a_rows, b_rows, then, batch)


def _product(a: np.ndarray, b: np.ndarray, out: np.ndarray, known: np.ndarray | None = None) -> None:
    """Write the product of two matrices, plus `known`, to `out`."""
    (m, k), n = a.shape, b.shape[1]
    if out.size == 0:
        return
    a, a_rows = _stack(a)
    b, b_rows = _stack(b)
    problem = _problem(a.dtype, m, n, k, a_rows, b_rows, False, known is not None, None)
    dispatch.run(problem, (a, b, None, known), (out,))


class _Form(NamedTuple):
    """What the shapes of two operands make: checked when they first meet."""

    stacked: bool  # several products: else one, of matrices
    left: tuple[int, ...]  # the shapes of the operands, none of which is one-dimensional
    right: tuple[int, ...]
    batch: tuple[int, ...]  # what their leading dimensions broadcast to
    out: tuple[int, ...]
    result: tuple[int, ...]  # as it is returned


@lru_cache(maxsize=4096)
def _form(a: tuple[int, ...], b: tuple[int, ...]) -> _Form:
    if not a or not b:
        raise ValueError(f"input and other must have at least one dimension, got shapes {a} and {b}")
    left, right = ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)
    if left[-1] != right[-2]:
        raise ValueError(f"the last dimension of input and the last but one of other must be equal, got {a} and {b}")
    try:
        batch = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        raise ValueError(f"the leading dimensions of input and other do not broadcast, got {a} and {b}") from None
    n = right[-1]
    result = (*batch, *left[-2:-1] * (len(a) > 1), *right[-1:] * (len(b) > 1))
    if len(right) > 2 and math.prod(batch) != 1:
        return _Form(True, left, right, batch, (*batch, left[-2], n), result)
    rows = math.prod(left[:-1])  # one matrix for all: a single tall product
    return _Form(False, (rows, left[-1]), right[-2:], batch, (rows, n), result)


def _products(a: np.ndarray, b: np.ndarray, form: _Form, out: np.ndarray) -> None:
    """Write the products of two stacks of matrices to `out`."""
    if out.size == 0:
        return
    (m, n), k = out.shape[-2:], a.shape[-1]
    if k == 0:
        out[...] = 0  # sums of nothing
        return
    (a, a_rows), (b, b_rows) = _stack(_shaped(a, form.left)), _stack(_shaped(b, form.right))
    left, right, out = (x if x.ndim == 3 else x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in (a, b, out))
    problem = _problem(a.dtype, m, n, k, a_rows, b_rows, False, False, None, len(out))
    dispatch.run(problem, (left, right, None, None, _index(form)), (out,))


def _shaped(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return x if x.shape == shape else x.reshape(shape)


@lru_cache(maxsize=16)
def _index(form: _Form) -> np.ndarray:
    """Return which matrices of two stacks each product takes."""
    index = np.empty((2, math.prod(form.batch)), np.int64)
    for numbers, shape in zip(index, (form.left[:-2], form.right[:-2])):
        numbers.reshape(form.batch)[...] = np.arange(math.prod(shape)).reshape(shape)
    return index


@steady(2)
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
    if a.dtype != b.dtype:
        same_dtype(input=a, other=b)  # which raises
    form = _form(a.shape, b.shape)
    out = memory.empty(form.out, a.dtype, a)
    if form.stacked:
        _products(a, b, form, out)
    else:
        _product(_shaped(a, form.left), _shaped(b, form.right), out)
    return _shaped(out, form.result)


@steady(3)
def add_matmul(known: np.ndarray, input: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return ``known + input @ other`` of matrices; the sum is formed as the product is stored.

    Parameters
    ----------
    known : numpy.ndarray
        Shape (m, n).
    input, other : numpy.ndarray
        Shapes (m, k) and (k, n).

    Returns
    -------
    numpy.ndarray
        Shape (m, n).

    Raises
    ------
    TypeError, ValueError
        If dtypes differ or the shapes do not fit.
    """
    known, a, b = (float_array(*x) for x in (("known", known), ("input", input), ("other", other)))
    same_dtype(known=known, input=a, other=b)
    if not a.ndim == b.ndim == 2 or a.shape[1] != b.shape[0] or known.shape != (a.shape[0], b.shape[1]):
        raise ValueError(f"known, input and other must have shapes (m, n), (m, k) and (k, n), got "
                         f"{known.shape}, {a.shape} and {b.shape}")
    out = memory.empty(known.shape, a.dtype, a)
    _product(a, b, out, contiguous(known))
    return out


@steady(3, "residual")
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
    if bias is not None:
        bias = contiguous(real_array("bias", bias))
    if residual is not None:
        residual = contiguous(float_array("residual", residual))
    activation = optional_choice("activation", activation, ACTIVATIONS)
    if residual is not None or x.dtype != weight.dtype or (bias is not None and x.dtype != bias.dtype):
        same_dtype(input=x, weight=weight, bias=bias, residual=residual)
    rows, columns, features, shape, wide = _linear_form(
        x.shape, weight.shape, None if bias is None else bias.shape, None if residual is None else residual.shape
    )  # fmt: skip
    if wide and bias is not None:  # a bias that is no number a column is a residual
        whole = np.broadcast_to(bias, shape)
        bias, residual = None, contiguous(whole) if residual is None else add(whole, residual)
    out = memory.empty((rows, features), x.dtype, x)
    if out.size:
        a, a_rows = _stack(x if len(x.shape) == 2 else contiguous(x).reshape(rows, columns))
        b: np.ndarray | PreparedWeight
        if isinstance(weight, PreparedWeight) or (len(weight.shape) == 2 and weight.flags.c_contiguous):
            b, b_rows = weight, False  # row by row, so its transpose column by column
        else:
            b, b_rows = _stack((weight if weight.ndim == 2 else weight[None]).T)
        fused = bias is not None, residual is not None
        problem = _problem(x.dtype, rows, features, columns, a_rows, b_rows, *fused, activation)
        dispatch.run(problem, (a, b, bias, None if residual is None else residual.reshape(out.shape)), (out,))
    return _shaped(out, shape)


@lru_cache(maxsize=4096)
def _linear_form(
    x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None, residual: tuple[int, ...] | None
) -> tuple[int, int, int, tuple[int, ...], bool]:  # fmt: skip
    """Check the shapes of `linear` when they first meet.

    Return the rows of the input, its features, those of the result, the result's shape, and whether the bias is more
    than a number for each of them.
    """
    if len(weight) not in (1, 2):
        raise ValueError(f"weight must have shape (out_features, in_features), got {weight}")
    (*_, columns), before = weight, weight[:-1]
    if not x or x[-1] != columns:
        fits = len(x) > 2 and math.prod(x[1:]) == columns
        flat = f": nn.Flatten() makes {(x[0], columns)} of that" if fits else ""
        raise ValueError(f"input must have shape (..., {columns}) for weight {weight}, got {x}{flat}")
    shape = (*x[:-1], *before)
    if bias is not None and not _broadcasts(bias, shape):
        raise ValueError(f"bias must have shape {before} or broadcast to {shape}, got {bias}")
    if residual is not None and residual != shape:
        raise ValueError(f"residual must have the result's shape {shape}, got {residual}")
    wide = bias is not None and bias != (before or (1,))
    return math.prod(x[:-1]), columns, before[0] if before else 1, shape, wide


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
