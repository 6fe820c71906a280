"""Arguments that are one array or a list of many, which kernels update together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet.device_array import DeviceArray

Arrays = np.ndarray | Sequence[np.ndarray]


def listed(name: str, arrays: Arrays) -> Sequence[np.ndarray]:
    """Return the arrays of an argument that is one array or a list of them, called `name` in the message otherwise."""
    if isinstance(arrays, (np.ndarray, DeviceArray)):
        return [arrays]
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(f"{name} must be an array or a list of arrays, got {type(arrays).__name__}")
    return arrays


def kind(x: np.ndarray) -> tuple[np.dtype, int]:
    """Return what arrays that are updated together have in common: dtype and device."""
    return x.dtype, x.memory.device if type(x) is DeviceArray else -1
