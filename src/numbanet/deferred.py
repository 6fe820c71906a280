"""Results that wait: what a layer computes is put off until somebody reads it, so that what follows can join in.

In a model that `numbanet.nn.fuse` made, a convolution returns a `Deferred`. A batch norm, an addition or a ReLU that
gets it returns another, which computes all in the convolution's own pass; whatever else gets it reads its values, and
only then the kernel runs. So nothing has to be known about the code between the layers.

A result that was joined and then is read as well costs its pass twice. Its layer notes that, and from then on its
results are computed at that stage.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from numbanet.tape import needs_grad
from numbanet.tensor import Tensor, values


class Layer(Protocol):
    """What can put off its result."""

    stages: int
    """How many steps may join: 0 for none."""

    def execute(self, work: Work) -> np.ndarray:
        """Compute."""


class Work(NamedTuple):
    """What is to be computed: activation(norm(layer(x)) + residual), without what is None."""

    x: np.ndarray
    norm: Any = None
    residual: np.ndarray | None = None
    activation: str | None = None


class Deferred(Tensor):
    """A tensor whose values are computed when they are first read.

    Parameters
    ----------
    layer : Layer
    work : Work
    shape : tuple of int
    sources : tuple of Tensor
        Whose memory the work reads: before it is changed in place, the values are computed.
    stage : int
        How many steps have joined.
    """

    __slots__ = ("_joined", "_layer", "_shape", "_sources", "_stage", "_work")

    def __init__(self, layer: Layer, work: Work, shape: tuple[int, ...], sources: tuple[Tensor, ...], stage: int = 0):
        # Not Tensor.__init__, which wants the values: the slot `data` stays empty, and Python asks __getattr__ for it.
        self.requires_grad, self._grad, self._node = False, None, None
        self._memory = type(sources[0]._memory)()
        self._layer, self._work, self._shape, self._sources, self._stage = layer, work, shape, sources, stage
        self._joined = False
        for source in sources:
            source._memory.add_reader(weakref.ref(self))

    def __getattr__(self, name: str) -> Any:
        if name != "data":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._joined:
            self._layer.stages = min(self._layer.stages, self._stage)
        self.data = self._layer.execute(self._work)
        self._work, self._sources = Work(self.data), ()
        return self.data

    @property
    def pending(self) -> bool:
        """Whether the values are yet to be computed."""
        return bool(self._sources)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self._shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._shape)

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the values."""
        return self._work.x.dtype

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self._shape)

    def numel(self) -> int:
        """Return the number of elements."""
        return int(np.prod(self._shape))

    def _join(self, work: Work, *sources: Tensor) -> Deferred | None:
        if self._stage >= self._layer.stages:
            return None
        self._joined = True
        return Deferred(self._layer, work, self._shape, (*self._sources, *sources), self._stage + 1)

    def normalised(self, norm: Any) -> Deferred | None:
        """Return the result of a batch norm, if that is still possible."""
        work = self._work
        if not self.pending or work.norm is not None or work.residual is not None or work.activation is not None:
            return None
        return self._join(work._replace(norm=norm))

    def plus(self, other: Tensor) -> Deferred | None:
        """Return the sum with a tensor of this shape and dtype, if that is still possible."""
        if not self.pending or self._work.residual is not None or self._work.activation is not None:
            return None
        return self._join(self._work._replace(residual=values("other", other)), other)

    def activated(self, activation: str) -> Deferred | None:
        """Return the result of ``"relu"`` or ``"relu6"``, if that is still possible."""
        if not self.pending or self._work.activation is not None:
            return None
        return self._join(self._work._replace(activation=activation))

    def become(self, later: Deferred) -> Deferred:
        """Take over what another is to compute: a change in place."""
        self._work, self._sources, self._stage = later._work, later._sources, later._stage
        self._joined = False
        for source in self._sources:
            source._memory.add_reader(weakref.ref(self))
        return self


def activated(input: Any, activation: str, inplace: bool) -> Tensor | None:
    """Let a ReLU join its operand; None if it can't."""
    if type(input) is not Deferred:
        return None
    later = input.activated(activation)
    return later if later is None or not inplace else input.become(later)


def added(a: Any, b: Any) -> Deferred | None:
    """Let an addition join one of its operands; None if it can't."""
    for first, second in ((a, b), (b, a)):
        if type(first) is not Deferred or not isinstance(second, Tensor) or second is first or needs_grad(second):
            continue
        if second.shape == first.shape and second.dtype == first.dtype:
            later = first.plus(second)
            if later is not None:
                return later
    return None


def settle(result: Any) -> None:
    """Compute the results that wait in a tensor, or in a tuple, list or mapping of them."""
    if type(result) is Deferred:
        result.data  # noqa: B018 - reading computes
    elif isinstance(result, (tuple, list)):
        for item in result:
            settle(item)
    elif isinstance(result, Mapping):
        for item in result.values():
            settle(item)

