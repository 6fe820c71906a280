"""What NumPy computes on the CPU, between kernels: a recording repeats it at the same place.

Whole numbers and booleans have few kernels. What Python makes of them is lost to a recording, unless it comes from
here: a function of arrays whose result lies in the recording's own memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.watch import watched


def by_numpy(function: Callable[..., Any], *operands: Any) -> np.ndarray:
    """Return ``function(*operands)`` as an array: new memory, and its shape and dtype follow from theirs alone.

    Parameters
    ----------
    function : callable
        Of NumPy arrays and numbers.
    *operands : numpy.ndarray or number
    """
    found = np.asarray(function(*operands))
    if not watched():
        return found
    out = memory.empty_like(found)

    def again(out: np.ndarray, *operands: Any) -> None:
        out[...] = function(*operands)

    _repeated(again, (out, *operands))
    return out


def look(function: Callable[[np.ndarray], object], x: np.ndarray) -> None:
    """Call a function with an array on the host; a recording calls it again, and ends where it raises an error."""
    _repeated(function, (memory.on_host(x),))  # those of GPUs can't stop to look: they are not made then


def _repeated(function: Callable[..., object], operands: tuple[Any, ...]) -> None:
    function(*operands)
    if watched():
        from numbanet.cpu import parallel  # with Numba: for those who record

        parallel.between(function, operands)
