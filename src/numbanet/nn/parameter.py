"""Parameter: a tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import settings
from numbanet.problem.base import FLOATS
from numbanet.tensor import Tensor, tensor


class Parameter(Tensor):
    """A leaf tensor that becomes a parameter of the `Module` whose attribute it is.

    Parameters
    ----------
    data : Tensor or array_like
        A Tensor or a NumPy array shares its memory with the parameter; other values are copied.
    requires_grad : bool
        Whether gradients flow to it.

    Raises
    ------
    RuntimeError
        If it shall require a gradient and its dtype has none.
    TypeError
        If the values are not numbers.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        source = data.data if isinstance(data, Tensor) else data
        shared = isinstance(source, np.ndarray) and source.dtype.kind in "biuf" and source.flags.writeable
        super().__init__(source if shared else tensor(source).data)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def float_dtype(dtype: Any = None, device: str | None = None) -> np.dtype:
    """Return the dtype of a new parameter: float32 if None; check that it can live on the device.

    Raises
    ------
    TypeError
        If it is not float32 or float64.
    RuntimeError
        If the device can't be used.
    """
    settings.resolve_device(device)
    try:
        chosen = np.dtype(np.float32 if dtype is None else dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
    if chosen.name not in FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {chosen}")
    return chosen
