"""Sums and means over dimensions: checks, result shapes, and the one-dimensional steps that a kernel takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from numbanet.problem.base import Problem, integer


@dataclass(frozen=True)
class ReduceProblem(Problem):
    """result[a, b] = scale * sum over r of x[a, r, b], where x is dense.

    Attributes
    ----------
    outer, reduced, inner : int
        The sizes of a, r and b.
    scale : float
        1 for sums, 1 / count for means.
    """

    operation: ClassVar[str] = "reduce"
    outer: int
    reduced: int
    inner: int
    scale: float


@dataclass(frozen=True)
class ReducePlan:
    """A reduction as steps over dense memory.

    Attributes
    ----------
    steps : tuple of ReduceProblem
        To be solved one after the other; the input of the first is x in the order of its memory.
    memory_shape : tuple of int
        Shape of the result's buffer: the kept dimensions in the order of memory.
    axes : tuple of int
        ``buffer.transpose(axes)`` has the kept dimensions in their own order.
    shape : tuple of int
        Shape of the result, with dimensions of size 1 where they are kept.
    """

    steps: tuple[ReduceProblem, ...]
    memory_shape: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]


def reduced_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """Return the dimensions to reduce, each from 0 to ndim - 1, in ascending order.

    Parameters
    ----------
    dim : int, tuple or list of int, or None
        None and the empty tuple stand for all dimensions.

    Raises
    ------
    TypeError
        If it holds something else than integers.
    ValueError
        If a dimension does not exist or appears twice.
    """
    if dim is None:
        return tuple(range(ndim))
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    found = []
    for value in given:
        number = integer("dim", value)
        # An array of no dimension is taken as one of a single dimension.
        if not -max(ndim, 1) <= number < max(ndim, 1):
            raise ValueError(f"dim must be between {-max(ndim, 1)} and {max(ndim, 1) - 1}, got {number}")
        found.append(number % max(ndim, 1))
    if len(set(found)) != len(found):
        raise ValueError(f"dim must name each dimension once, got {dim}")
    return tuple(sorted(found or range(ndim)))


def kept_shape(shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """Return the shape of the result of a reduction over `dims`."""
    if keepdim:
        return tuple(1 if axis in dims else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in dims)


@lru_cache(maxsize=4096)
def reduce_plan(
    dtype: str, shape: tuple[int, ...], order: tuple[int, ...], dims: tuple[int, ...], keepdim: bool, mean: bool
) -> ReducePlan:
    """Return the steps of a sum or mean.

    Parameters
    ----------
    dtype : str
    shape : tuple of int
        Shape of the input.
    order : tuple of int
        Its axes in the order in which they lie in memory, outermost first.
    dims : tuple of int
        As `reduced_dims` returns them.
    keepdim : bool
        Whether reduced dimensions stay, with size 1.
    mean : bool
        Divide by the number of elements; the mean of none is NaN.
    """
    count = math.prod(shape[axis] for axis in dims if axis < len(shape))
    scale = 1.0 if not mean else 1.0 / count if count else math.nan
    # Neighbours in memory that are both kept or both reduced are one run.
    runs: list[tuple[int, bool]] = []
    for axis in order:
        reduce = axis in dims
        if runs and runs[-1][1] == reduce:
            runs[-1] = (runs[-1][0] * shape[axis], reduce)
        elif shape[axis] != 1:
            runs.append((shape[axis], reduce))
    steps = []
    # The innermost reduction goes first: it reads the whole input in order, and the others find little left.
    while any(reduce for _, reduce in runs):
        position = max(i for i, (_, reduce) in enumerate(runs) if reduce)
        outer = math.prod(size for size, _ in runs[:position])
        inner = math.prod(size for size, _ in runs[position + 1 :])
        reduced = runs.pop(position)[0]
        steps.append(ReduceProblem("forward", dtype, outer, reduced, inner, scale))
        if count:  # the NaN of an empty mean stays: the result of this step may be empty as well
            scale = 1.0
    if not steps:
        steps.append(ReduceProblem("forward", dtype, 1, 1, math.prod(shape), scale))
    kept = [axis for axis in order if axis not in dims]
    axes = tuple(kept.index(axis) for axis in sorted(kept))
    return ReducePlan(tuple(steps), tuple(shape[axis] for axis in kept), axes, kept_shape(shape, dims, keepdim))
