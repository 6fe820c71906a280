"""What PyTorch refuses of values that are good by themselves: the rules that several functions share."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.parity.grid.values import OMIT, T


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, and that of numbers."""
    return value.shape if isinstance(value, T) else ()


def beyond(input: T, dim: Any) -> bool:
    """Whether a tensor has not all these dimensions; a number has one, for which 0 and -1 stand."""
    count = max(1, len(input.shape))
    dims = dim if isinstance(dim, (tuple, list)) else [dim]
    return any(isinstance(d, int) and not -count <= d < count for d in dims)


def apart(*values: Any) -> bool:
    """Whether tensors have shapes that do not go together elementwise."""
    try:
        np.broadcast_shapes(*(shape_of(value) for value in values))
    except ValueError:
        return True
    return False


def given(*values: Any) -> bool:
    """Whether none of these values is left to its default."""
    return all(value is not OMIT and value is not None for value in values)


def twice(input: T, dim: Any) -> bool:
    """Whether a dimension is named twice, once from each end."""
    dims = [d % max(1, len(input.shape)) for d in dim] if isinstance(dim, (tuple, list)) else []
    return len(set(dims)) < len(dims)


DIM_BEYOND = {
    "there is no such dimension": lambda input, dim: beyond(input, dim),
}
MIXED = {
    "float64 has no float32 weight": lambda dtype, weight: (dtype, weight) == ("float64", "float32"),
    "float64 has no float32 bias": lambda dtype, bias: (dtype, bias) == ("float64", "float32"),
}
APART = {"the shapes do not go together": lambda input, other: apart(input, other)}
