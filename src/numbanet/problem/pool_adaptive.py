"""Adaptive maximum pooling: its checks are those of adaptive average pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar

from numbanet.problem.base import plain, sizes
from numbanet.problem.pool import PoolProblem, adaptive_avg_pool2d_problem


@dataclass(frozen=True)
class AdaptiveMaxPoolProblem(PoolProblem):
    """``y[n,c,p,q]`` = largest x over the rows floor(p*H/P) to ceil((p+1)*H/P) - 1, and the columns likewise.

    Beside it stand the positions ``row * W + column`` of the maxima, int64.
    """

    operation: ClassVar[str] = "adaptive_max_pool2d"


def adaptive_max_pool2d_problem(
    which: str, x_shape: Sequence[int], dtype: str, output_size: Any
) -> AdaptiveMaxPoolProblem:
    """Check the arguments of an adaptive maximum pooling and return its problem.

    Parameters
    ----------
    which : {"forward", "backward_input"}
    x_shape : (N, C, H, W)
    dtype : {"float32", "float64"}
    output_size : int or (int or None, int or None)
        (P, Q); None stands for the size of the input.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _problem(which, sizes("input", x_shape), dtype, plain("output_size", output_size))


@lru_cache(maxsize=1024, typed=True)
def _problem(which: str, x_shape: tuple[int, ...], dtype: str, output_size: Any) -> AdaptiveMaxPoolProblem:
    same = adaptive_avg_pool2d_problem(which, x_shape, dtype, output_size)
    return AdaptiveMaxPoolProblem(**{field.name: getattr(same, field.name) for field in fields(same)})
