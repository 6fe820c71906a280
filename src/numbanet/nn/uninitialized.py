"""Parameters whose shape is not known yet, as torch.nn.parameter.UninitializedParameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import memory, ops, settings
from numbanet.device_array import DeviceArray
from numbanet.nn.parameter import Parameter, float_dtype
from numbanet.tape import Version
from numbanet.tensor import Tensor

_WAITS = (
    "a parameter that is not initialized: call the model once, on zeros for example, or load a state into it"
)


class UninitializedParameter(Parameter):
    """A parameter without values, which becomes a `Parameter` in place once its shape is known.

    A module or an optimizer that holds it so holds the parameter that it becomes. What needs its shape or its values
    raises RuntimeError or ValueError until then.

    Parameters
    ----------
    requires_grad : bool
        Whether gradients flow to it.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    shape : tuple of int or None, optional
        What is known of the shape: None stands for a size that is not, and for all of them.
    """

    __slots__ = ()

    def __init__(
        self,
        requires_grad: bool = True,
        device: str | None = None,
        dtype: Any = None,
        shape: tuple[int | None, ...] | None = None,
    ):
        self._awaited = float_dtype(dtype, device), shape, settings.resolve_device(device)
        self._grad, self._node, self._memory = None, None, Version()
        self.requires_grad = requires_grad
        self.expose()

    @property  # type: ignore[misc]
    def data(self) -> np.ndarray:
        """The values: ValueError, for there are none yet."""
        raise ValueError(f"no use can be made of {_WAITS}")

    @data.setter
    def data(self, value: np.ndarray | DeviceArray | Tensor) -> None:
        self._become(value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions: RuntimeError, for they are not known yet."""
        raise RuntimeError(f"there is no shape of {_WAITS}")

    @property
    def ndim(self) -> int:
        """Number of dimensions: RuntimeError, as for the shape."""
        return len(self.shape)

    def dim(self) -> int:
        """Raise ValueError: there are no values yet."""
        return self.data.ndim

    def numel(self) -> int:
        """Raise ValueError: there are no values yet."""
        return self.data.size

    def stamp(self) -> tuple[int, int]:
        """Return what differs from that of the parameter that it becomes."""
        return id(self), -1

    def prepared(self) -> None:
        """Return None: there is nothing to prepare."""

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the values to come."""
        return self._awaited[0]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a shape agrees with what is known."""
        known = self._awaited[1]
        return known is None or (
            len(known) == len(shape) and all(size in (None, given) for size, given in zip(known, shape))
        )

    def expected(self) -> str:
        """Return what is known of the shape, for messages."""
        known = self._awaited[1]
        return "any" if known is None else f"({', '.join('any' if size is None else str(size) for size in known)})"

    def convert(self, dtype: Any) -> None:
        """Change the dtype of the values to come."""
        self._awaited = float_dtype(dtype), *self._awaited[1:]

    def move(self, device: str) -> None:
        """Change the device of the values to come."""
        self._awaited = *self._awaited[:2], device

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._awaited[2]

    def materialize(self, shape: tuple[int, ...], device: str | None = None, dtype: Any = None) -> None:
        """Become a `Parameter` of a shape; the values are arbitrary. Filters get channels-last memory.

        Raises
        ------
        ValueError
            If the shape does not agree with what is known of it.
        TypeError, RuntimeError
            If the dtype is not float32 or float64, or the device can't be used.
        """
        chosen = float_dtype(self.dtype if dtype is None else dtype, device)
        make = memory.empty_channels_last if len(shape) == 4 else memory.empty
        place = self._awaited[2] if device is None else settings.resolve_device(device)
        self._become(ops.to_device(make(tuple(shape), chosen), place))

    def _become(self, array: np.ndarray | DeviceArray | Tensor) -> None:
        if not self.fits(array.shape):
            raise ValueError(f"shape must be {self.expected()}, got {array.shape}")
        del self._awaited
        self.__class__ = Parameter  # type: ignore[assignment]
        self.data = array

    def __repr__(self) -> str:
        return "<UninitializedParameter>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        dtype, shape, device = self._awaited
        return type(self), (self.requires_grad, device, dtype, shape)
