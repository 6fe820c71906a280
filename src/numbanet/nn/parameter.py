"""Parameter: a tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from sys import getrefcount
from typing import Any

import numpy as np

from numbanet import memory, ops, settings
from numbanet.changes import changed
from numbanet.creation import tensor
from numbanet.device_array import DeviceArray
from numbanet.prepared import PreparedWeight
from numbanet.problem.base import FLOATS
from numbanet.tape import Version
from numbanet.tensor import Tensor, array_of
from numbanet.watch import form, take

_left: ContextVar[list[int] | None] = ContextVar("numbanet_parameters_left", default=None)
_set_array = Tensor.__dict__["data"].__set__


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

    __slots__ = ("_awaited", "_counts", "_exposures", "_prepared", "_shared")

    _awaited: tuple[np.dtype, tuple[int | None, ...] | None, str]  # only while it is an `UninitializedParameter`
    _prepared: PreparedWeight | None
    _counts: tuple[int, int, int]
    _shared: bool  # whether the values are those of a Tensor that was assigned

    def __init__(self, data: Any, requires_grad: bool = True):
        source = data.data if isinstance(data, Tensor) else data
        known = isinstance(source, (np.ndarray, DeviceArray))
        shared = known and source.dtype.kind in "biuf" and source.flags.writeable
        super().__init__(source if shared else tensor(source).data)
        if shared and isinstance(data, Tensor):
            self._memory = data._memory  # what changes one changes both
        self.requires_grad_(requires_grad)
        left = _left.get()
        if left is not None:
            left[0] -= array_of(self).size
            if left[0] < 0:
                raise ValueError("the parameters hold more numbers than they may")

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        """The values."""
        self.expose()
        return array_of(self)

    @data.setter
    def data(self, value: np.ndarray | DeviceArray | Tensor) -> None:
        array = value.data if isinstance(value, Tensor) else value
        if not isinstance(array, (np.ndarray, DeviceArray)):
            raise TypeError(f"data must be an array or a Tensor, got {type(value).__name__}")
        self.expose()
        if isinstance(value, Tensor):
            self._memory = value._memory  # what changes one changes both
        elif getattr(self, "_shared", False) and array_of(self) is not array:
            self._memory = Version()
        self._shared = isinstance(value, Tensor)
        _set_array(self, array)
        changed()

    def expose(self) -> None:
        """Drop what was prepared: who gets the values may change them."""
        self._prepared = None
        self._exposures = getattr(self, "_exposures", 0) + 1
        changed()
        shared = getattr(self, "_memory", None)
        if shared is not None and shared.readers:
            shared.settle()

    def stamp(self) -> tuple[int, int]:
        """Return what differs after each change of the values, and whenever someone got them to change them."""
        return id(array_of(self)), self._version + self._exposures

    def prepared(self) -> PreparedWeight | None:
        """Return the prepared forms of the values, where nobody can change them unnoticed, else None.

        No one can where this parameter alone refers to the array: a change then goes through `data`, which drops the
        forms, or through `bump_version`. Arrays and tensors that view the memory hold references to it, so the counts
        of references show them.

        The graph of a captured training step holds the array, too: beside one there are no forms. Each replay does say
        that it changed the values, but from its references those of others can't be told, who would not; and a count
        of its own that is ever too high, as while a graph is being dropped, would hide such a one.
        """
        take(self)
        form(self)
        found, counts = self._prepared, self._references()
        if found is not None and counts == self._counts:
            return found
        array = array_of(self)
        if counts[:2] != _ALONE[array.base is not None] or not memory.owned(array):
            self._prepared = None
            return None
        found = self._prepared = PreparedWeight(array)
        del array
        self._counts = self._references()
        return found

    def _references(self) -> tuple[int, int, int]:
        """Return how many references there are to the array and to the memory that it views, and its version."""
        array = array_of(self)
        base = array.base
        return getrefcount(array), 0 if base is None else getrefcount(base), self._version

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


# The counts of references where a parameter alone has its array: one with memory of its own, and one that is a view.
_ALONE = tuple(Parameter(make())._references()[:2] for make in (lambda: np.zeros(1), lambda: np.zeros((1, 1)).T))


def placed(values: np.ndarray, device: str | None) -> np.ndarray:
    """Return first values on the device of a new parameter or buffer: the chosen one if None."""
    return ops.to_device(values, settings.resolve_device(device))


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """Within the block, parameters that are made may hold `count` numbers in all; ValueError beyond.

    For models that a file describes: they are refused before their memory is touched.
    """
    token = _left.set([count])
    try:
        yield
    finally:
        _left.reset(token)


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
