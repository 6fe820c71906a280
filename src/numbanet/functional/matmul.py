"""Differentiable matrix products, as torch.matmul and torch.nn.functional.linear."""

from __future__ import annotations

import math

import numpy as np

from numbanet import ops
from numbanet.tape import needs_grad, record
from numbanet.tensor import Tensor, values


def _reduced(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a gradient over the leading dimensions that its operand was broadcast over."""
    extra = grad.ndim - len(shape)
    dims = (*range(extra), *(d + extra for d, n in enumerate(shape) if n == 1 and grad.shape[d + extra] != 1))
    return (ops.sum(grad, dims, True) if dims else grad).reshape(shape)


def _rows(x: np.ndarray) -> np.ndarray:
    """Return x with all but the last dimension made one (reshape can't find that size where there is nothing)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Return the matrix product; see `numbanet.ops.matmul` for shapes and errors."""
    a, b = values("input", input), values("other", other)
    y = ops.matmul(a, b)
    if not needs_grad(input, other):
        return Tensor(y)
    need_a, need_b = input.requires_grad, other.requires_grad

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        # As matrices: a row for a one-dimensional a, a column for a one-dimensional b.
        left = a[None] if a.ndim == 1 else a
        right = b[:, None] if b.ndim == 1 else b
        full = grad[..., None] if b.ndim == 1 else grad
        full = full[..., None, :] if a.ndim == 1 else full
        da = _reduced(ops.matmul(full, right.swapaxes(-1, -2)), left.shape).reshape(a.shape) if need_a else None
        if not need_b:
            return da, None
        if right.ndim == 2:  # one tall product does the sum over the leading dimensions too
            return da, ops.matmul(_rows(left).T, _rows(full)).reshape(b.shape)
        return da, _reduced(ops.matmul(left.swapaxes(-1, -2), full), right.shape).reshape(b.shape)

    return record(y, (input, other), backward)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``input @ weight.T + bias``.

    Parameters
    ----------
    input : Tensor
        Shape (..., in_features).
    weight : Tensor
        Shape (out_features, in_features), or (in_features,).
    bias : Tensor, optional
        Shape (out_features,), or any that broadcasts to the result.

    Returns
    -------
    Tensor
        Shape (..., out_features).
    """
    x, b = values("input", input), None if bias is None else values("bias", bias)
    if isinstance(weight, Tensor) and not needs_grad(input, weight, bias):
        return Tensor(ops.linear(x, (weight.prepared() if weight.ndim == 2 else None) or values("weight", weight), b))
    w = values("weight", weight)
    y = ops.linear(x, w, b)
    need_x, need_w, need_b = input.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad

    def backward(
        grad: np.ndarray, known: np.ndarray | None = None, into: bool = False
    ) -> tuple[np.ndarray | None, ...]:
        matrix = w[None] if w.ndim == 1 else w
        rows, dx = _rows(grad[..., None] if w.ndim == 1 else grad), None
        if known is not None:
            dx = ops.add_matmul(_rows(known), rows, matrix).reshape(x.shape)
        elif need_x:
            dx = ops.matmul(rows, matrix).reshape(x.shape)
        return (
            dx,
            ops.matmul(rows.T, _rows(x)).reshape(w.shape) if need_w else None,
            _reduced(grad, bias.shape) if need_b and bias is not None else None,
        )

    return record(y, (input, weight, bias), backward, adds=True)
