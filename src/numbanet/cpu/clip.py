"""Clipping by the norm of many arrays together: kernels find what scales them, so that it can be replayed."""

from __future__ import annotations

import math

import numpy as np

from numbanet import memory
from numbanet.cpu.compile import F64, I64, Index, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers
from numbanet.watch import constant

_LARGEST, _LEAST, _COUNT, _POWER = range(4)
_KINDS = {math.inf: _LARGEST, -math.inf: _LEAST, 0.0: _COUNT}


@kernel
def factor(task: Index, ints: I64, sums: F64, numbers: F64, norm: F64, scale: F64):
    """norm[0] = the norm of all arrays, of whose elements' powers these are the sums; scale[0] = what scales them."""
    count, kind = integers(ints, 2)
    order, most = numbers[0], numbers[1]
    total = sums[0] if kind == _LARGEST or kind == _LEAST else 0.0
    for i in range(count):
        value = sums[i]
        if kind == _LARGEST:
            total = value if value > total or value != value else total
        elif kind == _LEAST:
            total = value if value < total or value != value else total
        elif kind == _COUNT:
            total += 1.0 if value != 0.0 else 0.0
        else:
            total += value
    if kind == _POWER:
        total = math.sqrt(total) if order == 2.0 else total ** (1.0 / order)
    norm[0] = total
    share = most / (total + 1e-6)
    scale[0] = 1.0 if share >= 1.0 else share  # NaN scales, too
    scale[1] = 0.0


def norm_and_factor(sums: np.ndarray, most: float, order: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the norm of many arrays together, of no dimension, and what scales them to one of at most `most`; float64.

    Parameters
    ----------
    sums : numpy.ndarray
        Of each array what `VectorNormProblem` gives.
    most, order : float

    Returns
    -------
    norm : numpy.ndarray
    scale : numpy.ndarray
        Coefficients of a `ClipProblem` that scales.
    """
    norm, scale = memory.vector(1, np.float64, sums), memory.vector(2, np.float64, sums)
    numbers = (sums.size, _KINDS.get(order, _POWER))
    launch(factor, 1, (sums, constant(np.array([order, most])), norm, scale), numbers, "float64")
    return norm.reshape(()), scale
