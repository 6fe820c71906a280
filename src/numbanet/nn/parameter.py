"""Parameter: a tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

import numpy as np

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
