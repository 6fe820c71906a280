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

    The passes: ``"statistics"`` (of which `mean`, 1 / deviation, and coefficients of the next), ``"apply"``:
    y = activation((x - mean) * scale + shift + residual), ``"forward"``: the two in one, and ``"backward"``.

    Attributes
    ----------
    rows : int
        Samples of a channel: batch size times positions.
    channels : int
    training : bool
        Whether the statistics are those of the batch.
    activation : {None, "relu"}
        What follows in the same pass.
    residual : bool
        Whether another array of the input's shape is added before the activation.
    """

    operation: ClassVar[str] = "batch_norm"
    host: ClassVar[tuple[int, ...]] = (5,)
    rows: int
    channels: int
    training: bool
    activation: str | None = None
    residual: bool = False


Shape = tuple[int, ...]


def check_vectors(argument: str, shape: Shape, **vectors: Shape | None) -> None:
    """Raise ValueError unless the vectors that are there have one number for each channel of an input of `shape`.

    Where they agree with each other it is the input that does not fit them: they are those of a layer, whose `argument`
    tells how many channels it takes.
    """
    given = {name: found for name, found in vectors.items() if found is not None}
    expected, lengths = (shape[1],), set(given.values())
    if len(given) > 1 and len(lengths) == 1 and expected not in lengths and len(*lengths) == 1:
        raise ValueError(
            f"input must have {lengths.pop()[0]} channels, as many as {' and '.join(given)} have numbers "
            f"({argument} of a layer), got {shape[1]} in shape {shape}"
        )
    for name, found in given.items():
        if found != expected:
            raise ValueError(f"{name} must have shape {expected}, one number a channel of input, got {found}")


@lru_cache(maxsize=4096)
def batch_norm_problem(
    which: str,
    dtype: str,
    shape: Shape,
    training: bool,
    running_mean: Shape | None = None,
    running_var: Shape | None = None,
    weight: Shape | None = None,
    bias: Shape | None = None,
    activation: str | None = None,
    residual: Shape | None = None,
) -> BatchNormProblem:
    """Return the problem for an input of shape (N, C), (N, C, L) or (N, C, H, W), from the shapes of all operands.

    Raises
    ------
    ValueError
        If the input has fewer than two dimensions, training has a single value per channel, a vector does not have one
        number a channel, the running statistics are not given together, or missing where they are needed (an empty
        input needs none), the residual does not have the input's shape.
    """
    if len(shape) < 2:
        raise ValueError(f"input must have at least 2 dimensions (N, C, ...), got shape {shape}")
    rows, channels = shape[0] * math.prod(shape[2:]), shape[1]
    if training and rows == 1:
        raise ValueError(f"input: expected more than 1 value per channel when training, got shape {shape}")
    check_vectors("num_features", shape, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must be given together, or both be None")
    if residual not in (None, shape):
        raise ValueError(f"residual must have the shape of input, {shape}, got {residual}")
    if which in ("forward", "statistics") and rows and not training and running_mean is None:
        raise ValueError("running_mean and running_var must be given when training is False, got None")
    return BatchNormProblem(which, dtype, rows, channels, training, activation, residual is not None)
