"""Results that wait: what a layer computes is put off until somebody reads it, so that what follows can join in.

In a model that `numbanet.nn.fuse` made, a convolution returns a `Deferred`; within `numbanet.capture`, so does a batch
norm. A batch norm, an addition or a ReLU that gets it returns another, which computes all in the layer's own pass;
whatever else gets it reads its values, and only then the kernel runs. So nothing has to be known about the code between
the layers.

A result that was joined and then is read as well costs its pass twice. Its layer notes that, and from then on its
results are computed at that stage.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, NamedTuple, Protocol

import numpy as np

from numbanet.tape import Version, needs_grad
from numbanet.tensor import Tensor
from numbanet.tensor_methods import functional


class Work(NamedTuple):
    """What is to be computed: activation(norm(layer(x)) + residual), without what is None."""

    x: Tensor
    norm: Any = None
    residual: Tensor | None = None
    activation: str | None = None


class Layer(Protocol):
    """What can put off its result."""

    stages: int
    """How many steps may join: 0 for none."""
    recorded: bool
    """Whether its results have gradients."""
    activations: tuple[str, ...]
    """Which may join."""

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute; `again` if some of it was computed before, and what it changes has changed."""


class Deferred(Tensor):
    """A tensor whose values are computed when they are first read, under the settings of the moment it was made.

    Parameters
    ----------
    layer : Layer
    work : Work
        Before its operands are changed in place, the values are computed.
    shape : tuple of int
    requires_grad : bool
    """

    __slots__ = ("_begun", "_context", "_joined", "_layer", "_parent", "_shape", "_stage", "_step", "_work")

    def __init__(self, layer: Layer, work: Work, shape: tuple[int, ...], requires_grad: bool = False):
        # Not Tensor.__init__, which wants the values: the slots `data` and `_node` stay empty, and so Python asks
        # __getattr__ for them.
        self.requires_grad, self._grad, self._memory = requires_grad, None, Version()
        self._layer, self._work, self._shape = layer, work, shape
        self._context: Any = copy_context()
        self._parent: Deferred | None = None
        self._step: Callable[[Any], Tensor] | None = None
        self._stage, self._joined, self._begun = 0, False, [False]
        self._watch()

    def _watch(self) -> None:
        for source in (self._work.x, self._work.residual):
            if source is not None:
                source._memory.add_reader(weakref.ref(self))

    def __getattr__(self, name: str) -> Any:
        if name not in ("data", "_node"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._joined:
            self._layer.stages = min(self._layer.stages, self._stage)
        result = self._context.run(self._compute)
        self.data, self._node, self._memory = result.data, result._node, result._memory
        self._work, self._context, self._parent, self._step = Work(result), None, None, None
        return getattr(self, name)

    def _compute(self) -> Tensor:
        ancestor = self._parent
        while ancestor is not None and ancestor.pending:
            ancestor = ancestor._parent
        if ancestor is not None and self._step is not None:
            return self._step(self._parent)
        again, self._begun[0] = self._begun[0], True
        return self._layer.execute(self._work, again)

    @property
    def pending(self) -> bool:
        """Whether the values are yet to be computed."""
        return self._context is not None

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

    def _join(self, step: Callable[[Any], Tensor], work: Work) -> Deferred | None:
        if self._stage >= self._layer.stages:
            return None
        needed = self.requires_grad or needs_grad(work.residual)
        later = Deferred(self._layer, work, self._shape, needed)
        later._parent, later._step, later._stage, later._begun = self, step, self._stage + 1, self._begun
        self._joined = True
        return later

    def normalised(self, norm: Any) -> Deferred | None:
        """Return the result of a batch norm, if that is still possible."""
        work = self._work
        if not self.pending or work.norm is not None or work.residual is not None or work.activation is not None:
            return None
        return self._join(norm, work._replace(norm=norm))

    def plus(self, other: Tensor) -> Deferred | None:
        """Return the sum with a tensor of this shape and dtype, if that is still possible."""
        work = self._work
        if not self.pending or work.residual is not None or work.activation is not None:
            return None
        settle(other)
        return self._join(lambda parent: functional().add(parent, other), work._replace(residual=other))

    def activated(self, activation: str) -> Deferred | None:
        """Return the result of ``"relu"`` or ``"relu6"``, if that is still possible."""
        if not self.pending or self._work.activation is not None:
            return None
        function = getattr(functional(), activation)
        return self._join(function, self._work._replace(activation=activation))

    def become(self, later: Deferred) -> Deferred:
        """Take over what another, which joined this one, is to compute: a change in place."""
        self._work, self._stage, self.requires_grad = later._work, later._stage, later.requires_grad
        self._parent, self._step, self._joined = None, None, False
        self._watch()
        return self


def activated(input: Any, activation: str, inplace: bool) -> Tensor | None:
    """Let a ReLU join its operand; None if it can't."""
    if type(input) is not Deferred or activation not in input._layer.activations:
        return None
    later = input.activated(activation)
    return later if later is None or not inplace else input.become(later)


def added(a: Any, b: Any) -> Deferred | None:
    """Let an addition join one of its operands; None if it can't."""
    for first, second in ((a, b), (b, a)):
        if type(first) is not Deferred or not isinstance(second, Tensor) or second is first:
            continue
        if second.shape != first.shape or second.dtype != first.dtype:
            continue
        if first._layer.recorded or not needs_grad(second):
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
