"""Element by element with broadcasting: the shape rules, and the loops that a kernel runs over strided memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from numbanet.problem.base import Problem

Layout = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides in bytes, and bytes of an element of an array."""

_CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class ElementwiseProblem(Problem):
    """result = function(operands), element by element.

    Attributes
    ----------
    function : str
        ``"add"``, ``"exp"``, ``"where"``, ...
    sizes : tuple of int
        The result's dimensions in the order in which they lie in memory, outermost first; neighbours that every
        operand walks through without a jump are merged, so dense operands of one layout have a single one.
    starts : tuple of int
        For each operand, the element where its walk begins (not 0 where strides are negative).
    steps : tuple of tuple of int
        For each operand, the distance in elements between neighbours along each of `sizes`; 0 where it is broadcast.
    """

    operation: ClassVar[str] = "elementwise"
    function: str
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of elements of the result."""
        return math.prod(self.sizes)


@dataclass(frozen=True)
class Plan:
    """A problem with the result's place in memory.

    Attributes
    ----------
    problem : ElementwiseProblem
    shape : tuple of int
        Shape of the result.
    memory_shape : tuple of int
        The same sizes, in the order of memory.
    axes : tuple of int
        ``buffer.transpose(axes)`` gives a buffer of `memory_shape` the result's shape.
    uneven : bool
        Whether an operand has strides that are no multiple of an element, as the fields of packed records have: no
        kernel walks them.
    """

    problem: ElementwiseProblem
    shape: tuple[int, ...]
    memory_shape: tuple[int, ...]
    axes: tuple[int, ...]
    uneven: bool


_NAMES = {"where": "input, other and condition", "clamp": "input, min and max", "prelu": "input and weight"}


def broadcast_shape(*shapes: tuple[int, ...], names: str = "input and target") -> tuple[int, ...]:
    """Return the common shape of operands: from the right, sizes must be equal or 1.

    Parameters
    ----------
    *shapes : tuple of int
    names : str
        Of the operands, for the message.

    Raises
    ------
    ValueError
        If two sizes differ and neither is 1.
    """
    ndim = max(map(len, shapes))
    result = [1] * ndim
    for shape in shapes:
        for axis, size in enumerate(shape, ndim - len(shape)):
            if size != 1 and result[axis] not in (1, size):
                raise ValueError(
                    f"{names}: shapes {', '.join(map(str, shapes))} must agree in each dimension, counted from the "
                    f"right, or be 1 there; sizes {result[axis]} and {size} meet in dimension {axis - ndim}"
                )
            if size != 1:
                result[axis] = size
    return tuple(result)


def _memory_axes(shape: tuple[int, ...], layouts: tuple[Layout, ...]) -> tuple[int, ...]:
    """Return the result's axes, outermost first: as the operands of its shape have them in memory.

    Where they differ, channels-last comes before the order of the first.
    """
    found = []
    for own, strides, _ in layouts:
        if own == shape and all(stride or size == 1 for size, stride in zip(shape, strides)):
            # Axes of size 1 have arbitrary strides: outermost, they change nothing.
            keys = [(-abs(s) if n > 1 else -math.inf, axis) for axis, (n, s) in enumerate(zip(shape, strides))]
            found.append(tuple(axis for _, axis in sorted(keys)))
    if len(shape) == 4 and (not found or _CHANNELS_LAST in found):
        return _CHANNELS_LAST
    return found[0] if found else tuple(range(len(shape)))


@lru_cache(maxsize=4096)
def elementwise_plan(function: str, dtype: str, *layouts: Layout) -> Plan:
    """Return the plan for operands with these layouts.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    """
    names = _NAMES.get(function, "input and other")
    shape = broadcast_shape(*(own for own, _, _ in layouts), names=names)
    order = _memory_axes(shape, layouts)
    starts: list[int] = []
    walks: list[list[int]] = []
    uneven = False
    for own, strides, itemsize in layouts:
        offset = len(shape) - len(own)
        walk = [0] * len(shape)
        for axis, (size, stride) in enumerate(zip(own, strides), offset):
            if size != 1:
                walk[axis], rest = divmod(stride, itemsize)
                uneven |= rest != 0
        starts.append(sum(-step * (shape[axis] - 1) for axis, step in enumerate(walk) if step < 0))
        walks.append(walk)
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in walks]
    for axis in order:
        if shape[axis] == 1:
            continue
        here = [walk[axis] for walk in walks]
        if sizes and all(known[-1] == step * shape[axis] for known, step in zip(steps, here)):
            sizes[-1] *= shape[axis]
            for known, step in zip(steps, here):
                known[-1] = step
        else:
            sizes.append(shape[axis])
            for known, step in zip(steps, here):
                known.append(step)
    problem = ElementwiseProblem("forward", dtype, function, tuple(sizes), tuple(starts), tuple(map(tuple, steps)))
    axes = tuple(order.index(axis) for axis in range(len(shape)))
    return Plan(problem, shape, tuple(shape[axis] for axis in order), axes, uneven)
