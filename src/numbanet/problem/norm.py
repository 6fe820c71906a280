"""Batch normalisation: argument checks and the matrix that its kernels see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from numbanet.problem.base import Problem


@dataclass(frozen=True)
class BatchNormProblem(Problem):
    """Normalise the columns of a matrix of `rows` samples by `channels`.

    Attributes
    ----------
    rows : int
        Samples of a channel: batch size times positions.
    channels : int
    training : bool
        Whether the statistics are those of the batch.
    """

    operation: ClassVar[str] = "batch_norm"
    rows: int
    channels: int
    training: bool


@lru_cache(maxsize=4096)
def batch_norm_problem(which: str, dtype: str, shape: tuple[int, ...], training: bool) -> BatchNormProblem:
    """Return the problem for an input of shape (N, C), (N, C, L) or (N, C, H, W).

    Raises
    ------
    ValueError
        If the input has fewer than two dimensions, or training has a single value per channel.
    """
    if len(shape) < 2:
        raise ValueError(f"input must have at least 2 dimensions (N, C, ...), got shape {shape}")
    rows = shape[0] * math.prod(shape[2:])
    if training and rows == 1:
        raise ValueError(f"input: expected more than 1 value per channel when training, got shape {shape}")
    return BatchNormProblem(which, dtype, rows, shape[1], training)


def check_statistics(training: bool, has_mean: bool, has_var: bool) -> None:
    """Raise ValueError if the running statistics are not given together, or missing where they are needed."""
    if has_mean != has_var:
        raise ValueError("running_mean and running_var must be given together, or both be None")
    if not training and not has_mean:
        raise ValueError("running_mean and running_var must be given when training is False, got None")


def check_channels(channels: int, **vectors: tuple[int, ...] | None) -> None:
    """Raise ValueError unless each shape that is given is (channels,)."""
    for name, shape in vectors.items():
        if shape is not None and shape != (channels,):
            raise ValueError(f"{name} must have shape ({channels},), one number a channel of input, got {shape}")
