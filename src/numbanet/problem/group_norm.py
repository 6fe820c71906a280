"""Normalisation of groups of numbers within a sample: layer, group and instance normalisation are one operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from numbanet.problem.base import Problem, integer, sizes
from numbanet.problem.norm import check_vectors

Shape = tuple[int, ...]


@dataclass(frozen=True)
class GroupNormProblem(Problem):
    """y = (x - mean) / sqrt(var + eps) * weight[c] + bias[c], x of shape (n, positions, channels).

    The statistics are those of the positions and the channels / groups neighbouring channels of each group.

    Attributes
    ----------
    n, positions, channels, groups : int
    """

    operation: ClassVar[str] = "group_norm"
    host: ClassVar[tuple[int, ...]] = (3,)
    n: int
    positions: int
    channels: int
    groups: int

    @property
    def count(self) -> int:
        """Numbers of a group."""
        return self.positions * (self.channels // self.groups)


@lru_cache(maxsize=1024, typed=True)
def group_norm_problem(
    which: str, dtype: str, shape: Shape, groups: Any, weight: Shape | None = None, bias: Shape | None = None
) -> GroupNormProblem:
    """Return the problem for an input of shape (N, C, ...).

    Raises
    ------
    TypeError, ValueError
        If the input has fewer than two dimensions, the groups do not divide the channels, or a vector does not have one
        number a channel.
    """
    if len(shape) < 2:
        raise ValueError(f"input must have at least 2 dimensions (N, C, ...), got shape {shape}")
    n, channels = shape[:2]
    count = integer("num_groups", groups, 1)
    if channels % count:
        raise ValueError(f"num_groups must divide the {channels} channels of input, got {count}")
    check_vectors("num_channels", shape, weight=weight, bias=bias)
    return GroupNormProblem(which, dtype, n, math.prod(shape[2:]), channels, count)


def normalized(shape: Sequence[int] | int) -> Shape:
    """Return `normalized_shape` as a tuple; an integer stands for one dimension."""
    if isinstance(shape, (int, np.integer)):
        return (integer("normalized_shape", shape, 0),)
    return sizes("normalized_shape", shape)


@lru_cache(maxsize=1024, typed=True)
def layer_norm_problem(
    which: str, dtype: str, shape: Shape, over: Shape, weight: Shape | None = None, bias: Shape | None = None
) -> GroupNormProblem:
    """Return the problem for an input whose last dimensions are those of `over`.

    Raises
    ------
    ValueError
        If they are not, or if weight or bias have another shape.
    """
    if not over or shape[len(shape) - len(over) :] != over or len(shape) < len(over):
        raise ValueError(f"normalized_shape must be the last dimensions of input of shape {shape}, got {over}")
    for name, given in (("weight", weight), ("bias", bias)):
        if given not in (None, over):
            raise ValueError(f"{name} must have shape {over}, got {given}")
    return GroupNormProblem(which, dtype, math.prod(shape[: len(shape) - len(over)]), 1, math.prod(over), 1)
