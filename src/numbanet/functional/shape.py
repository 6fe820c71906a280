"""Differentiable functions that change shapes, as in torch; views cost nothing where NumPy gives a view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import settings
from numbanet.functional.index import index_steps
from numbanet.names import numpy_names
from numbanet.ops import shape as ops
from numbanet.ops.reduce import sum as total
from numbanet.problem.base import float_name, integer
from numbanet.problem.shape import dimension, dimensions, reshaped
from numbanet.tape import record
from numbanet.tensor import Tensor, values
from numbanet.watch import doubt


def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the same elements, in row-major order of the shape, with another shape (one size may be -1).

    Raises
    ------
    TypeError, ValueError
        If the sizes are not integers, or do not fit the number of elements.
    """
    x = values("input", input)
    return _with_sizes(input, x, reshaped(x.shape, shape))


def _with_sizes(input: Tensor, x: np.ndarray, target: tuple[int, ...]) -> Tensor:
    """Return `reshape` of a tensor, whose array is x, to sizes that are known to fit."""
    y = ops.with_sizes(x, target)
    # The gradient returns in the memory order of x, for that is what the operation before wants.
    return record(y, (input,), lambda grad: (ops.copy_like(ops.with_sizes(grad, x.shape), x),))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Return the tensor with the dimensions from `start_dim` to `end_dim` made one.

    Raises
    ------
    TypeError, ValueError
        If there are no such dimensions, or they come in the wrong order.
    """
    x = values("input", input)
    shape = x.shape
    start, end = dimension("start_dim", start_dim, len(shape)), dimension("end_dim", end_dim, len(shape))
    if start > end:
        raise ValueError(f"start_dim must not come after end_dim, got {start_dim} and {end_dim} for shape {shape}")
    if not shape:
        return _with_sizes(input, x, (1,))
    if start == end:
        return input
    return _with_sizes(input, x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Return the tensor with dimension `dim` split into several (one of `sizes` may be -1).

    Raises
    ------
    TypeError, ValueError
        If there is no such dimension, or the sizes do not fit it.
    """
    axis = dimension("dim", dim, values("input", input).ndim)
    split = reshaped((input.shape[axis],), sizes, "sizes")
    return reshape(input, (*input.shape[:axis], *split, *input.shape[axis + 1 :]))


def permute(input: Tensor, dims: Sequence[int]) -> Tensor:
    """Return a view with the dimensions in another order.

    Raises
    ------
    TypeError, ValueError
        If `dims` does not name each dimension once.
    """
    order = dimensions("dims", dims, values("input", input).ndim)
    if len(order) != input.ndim:
        raise ValueError(f"dims must name each of {input.ndim} dimensions once, got {tuple(dims)}")
    inverse = tuple(order.index(axis) for axis in range(len(order)))
    return record(values("input", input).transpose(order), (input,), lambda grad: (grad.transpose(inverse),))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Return a view with two dimensions swapped.

    Raises
    ------
    TypeError, ValueError
        If there are no such dimensions.
    """
    a, b = dimension("dim0", dim0, values("input", input).ndim), dimension("dim1", dim1, input.ndim)
    if not input.ndim:
        return input
    return record(values("input", input).swapaxes(a, b), (input,), lambda grad: (grad.swapaxes(a, b),))


@numpy_names()
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Return a view without the dimensions of size 1, or without those of `dim` that have size 1.

    Raises
    ------
    TypeError, ValueError
        If there are no such dimensions.
    """
    shape = values("input", input).shape
    named = range(len(shape)) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    gone = tuple(axis for axis in dimensions("dim", named, len(shape)) if shape and shape[axis] == 1)
    return record(values("input", input).squeeze(gone), (input,), lambda grad: (np.expand_dims(grad, gone),))


@numpy_names()
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Return a view with a new dimension of size 1 at `dim`.

    Raises
    ------
    TypeError, ValueError
        If `dim` is out of range.
    """
    axis = dimension("dim", dim, values("input", input).ndim + 1)
    return record(np.expand_dims(values("input", input), axis), (input,), lambda grad: (grad.squeeze(axis),))


def expand(input: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return a read-only view with dimensions of size 1 repeated (a size of -1 leaves one as it is).

    Raises
    ------
    TypeError, ValueError
        If the sizes are not integers, or do not fit the shape.
    """
    x = values("input", input)
    if not isinstance(sizes, (tuple, list)):
        raise TypeError(f"sizes must be a sequence of sizes, got {sizes!r}")
    target = [integer("sizes", size) for size in sizes]
    extra = len(target) - x.ndim
    target[max(extra, 0) :] = [own if size == -1 else size for size, own in zip(target[max(extra, 0) :], x.shape)]
    if (
        extra < 0
        or any(size < 0 for size in target)
        or any(own not in (1, size) for size, own in zip(target[extra:], x.shape))
    ):
        raise ValueError(f"sizes must be those of the shape {x.shape}, or others where it is 1, got {tuple(sizes)}")
    axes = [axis for axis, size in enumerate(target) if axis < extra or x.shape[axis - extra] != size]
    try:
        view = np.broadcast_to(x, target)
    except ValueError as error:  # more elements, or dimensions, than NumPy counts
        raise ValueError(f"sizes must be those of an array, got {tuple(sizes)}: {error}") from None

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        return ((total(grad, axes, keepdim=True) if axes else grad).reshape(x.shape),)

    return record(view, (input,), backward)


def contiguous(input: Tensor) -> Tensor:
    """Return the tensor in row-major order, itself where it is."""
    y = ops.contiguous(values("input", input))
    return input if y is input.data else record(y, (input,), lambda grad: (grad,))


def _several(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"tensors must be a sequence of Tensors, got {type(tensors).__name__}")
    return tensors


@numpy_names()
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along a dimension; tensors of shape (0,) are skipped.

    Raises
    ------
    TypeError, ValueError
        If there are no tensors, or their shapes differ elsewhere than in `dim`.
    """
    arrays = [values("tensors", tensor) for tensor in _several(tensors)]
    y = ops.cat(arrays, dim)
    axis = dimension("dim", dim, y.ndim)

    def backward(grad: np.ndarray) -> list[np.ndarray | None]:
        found, start = [], 0
        for tensor, array in zip(tensors, arrays):
            stop = start if array.shape == (0,) != grad.shape else start + array.shape[axis]
            part = grad[(slice(None),) * axis + (slice(start, stop),)]
            found.append(ops.to_dtype(part, array.dtype).reshape(array.shape) if tensor.requires_grad else None)
            start = stop
        return found

    return record(y, tuple(tensors), backward)


@numpy_names()
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new dimension.

    Raises
    ------
    TypeError, ValueError
        If there are no tensors, or their shapes differ.
    """
    shapes = [values("tensors", tensor).shape for tensor in _several(tensors)]
    if len(set(shapes)) > 1:
        raise ValueError(f"tensors must have equal shapes, got {', '.join(map(str, shapes))}")
    return cat([unsqueeze(tensor, dim) for tensor in tensors], dim)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Add elements at the ends of dimensions; see `numbanet.ops.pad` for the modes and errors.

    Parameters
    ----------
    input : Tensor
    pad : sequence of int
        (before, after) of the last dimension, then of the one before it, and so on; negative numbers take away.
    mode : {"constant", "reflect", "replicate", "circular"}
    value : float, optional
        What to add with ``mode="constant"``; zero if None.
    """
    shape, widths = values("input", input).shape, tuple(pad) if isinstance(pad, list) else pad
    y = ops.pad(values("input", input), widths, mode, value)
    return record(y, (input,), lambda grad: (ops.pad_backward(grad, shape, widths, mode),))


def clone(input: Tensor) -> Tensor:
    """Return a copy; gradients flow through it."""
    return record(ops.clone(values("input", input)), (input,), lambda grad: (grad,))


def to_dtype(input: Tensor, dtype: Any) -> Tensor:
    """Return the tensor in another dtype, itself where that is its own; gradients flow between floating dtypes.

    Raises
    ------
    TypeError
        If `dtype` is not that of booleans, integers, float32 or float64.
    """
    x = values("input", input, whole=True)
    source = x.dtype
    if dtype is source and float_name(source):
        return input  # as below, in less time
    y = ops.to_dtype(x, dtype)
    if y is x:
        return input
    if y.dtype.kind != "f":
        return Tensor(y)
    return record(y, (input,), lambda grad: (ops.to_dtype(grad, source),))


def to_device(input: Tensor, device: str) -> Tensor:
    """Return the tensor on a device, ``"cpu"`` or ``"cuda"``; itself if it is there. Gradients go back to where it was.

    Raises
    ------
    RuntimeError
        If the device can't be used.
    """
    x, source = values("input", input), input.device
    y = ops.to_device(x, settings.resolve_device(device))
    if y is x:
        return input
    doubt("a tensor was moved to another device")
    return record(y, (input,), lambda grad: (ops.to_device(grad, source),))


def getitem(input: Tensor, index: Any) -> Tensor:
    """Return ``input[index]``: a view for integers, slices, None and Ellipsis, a copy for arrays of indices or masks.

    Parameters
    ----------
    input : Tensor
    index : object
        As PyTorch takes it: a list of numbers counts as an array, a list with tensors or sequences in it as a tuple;
        what holds uint8 is a mask, with a warning.

    Raises
    ------
    IndexError
        If an index is out of range, or a tensor of another dtype than bool, uint8, int32 or int64.
    ValueError
        If a slice has a step below 1.
    """
    x = values("input", input)
    steps = index_steps(index)
    if len(steps) > 1:
        return getitem(getitem(input, steps[0]), steps[1])
    plain = steps[0]
    # An Ellipsis at the end changes nothing, but makes a single element an array and not a number.
    try:
        y = x[plain if any(part is Ellipsis for part in plain) else (*plain, ...)]
    except IndexError as error:
        raise IndexError(f"index {index!r} does not fit a tensor of shape {x.shape}: {error}") from None
    return record(y, (input,), lambda grad: (ops.getitem_backward(grad, plain, x.shape, x.dtype),))
