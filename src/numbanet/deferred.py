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
from contextvars import Context, copy_context
from typing import Any, NamedTuple, Protocol

import numpy as np

from numbanet.locks import FreshLock
from numbanet.tape import Version, is_grad_enabled, needs_grad
from numbanet.tensor import Tensor, array_of
from numbanet.tensor_methods import functional
from numbanet.watch import take

_set_array = Tensor.__dict__["data"].__set__


class Work(NamedTuple):
    """What is to be computed: activation(norm(layer(x)) + residual), without what is None."""

    x: Tensor
    norm: Any = None
    residual: Tensor | None = None
    activation: str | None = None


class Layer(Protocol):
    """One call of a layer that can put off its result: what it takes besides its input is settled."""

    stages: int
    """How many steps may join: 0 for none."""
    recorded: bool
    """Whether its results have gradients."""
    activations: tuple[str, ...]
    """Which may join."""
    norm_dims: tuple[int, ...]
    """Of how many dimensions its result must be for a batch norm to join."""
    data_format: str
    """Where the channels of its result are: a batch norm that joins must look for them there."""

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute; `again` if some of it was computed before, and what it changes has changed."""


class _Family:
    """A result that waits, and those that joined it.

    All of them are computed before memory that one will read is changed in place. The members keep their family as
    long as they wait, and so it is gone when none does.
    """

    __slots__ = ("__weakref__", "begun", "lock", "members", "recording")

    def __init__(self) -> None:
        self.members: list[weakref.ref[Deferred]] = []
        self.lock = FreshLock()
        self.begun = False
        self.recording = is_grad_enabled()

    def watch(self, *tensors: Tensor | None) -> None:
        """Note that the members will read these tensors."""
        for tensor in tensors:
            if tensor is not None:
                take(tensor)
                tensor._memory.add_reader(weakref.ref(self))

    def settle(self) -> None:
        """Compute the members, the last first: those before it that nobody else refers to are gone then."""
        for member in reversed(self.members):
            waiting = member()
            if waiting is not None:
                waiting.data  # noqa: B018 - reading computes


class Deferred(Tensor):
    """A tensor whose values are computed when they are first read, under the settings of the moment it was made.

    Parameters
    ----------
    layer : Layer
    work : Work
        Before its operands are changed in place, the values are computed.
    shape : tuple of int
    requires_grad : bool
    parent : Deferred, optional
        What it joins.
    step : callable, optional
        Computes it from the parent, where that was computed before.
    """

    __slots__ = ("_context", "_family", "_joined", "_layer", "_parent", "_seen", "_shape", "_stage", "_step", "_work")

    def __init__(
        self,
        layer: Layer,
        work: Work,
        shape: tuple[int, ...],
        requires_grad: bool = False,
        parent: Deferred | None = None,
        step: Callable[[Tensor], Tensor] | None = None,
    ):
        # Not Tensor.__init__, which wants the values: the slots `data` and `_node` stay empty, and so Python asks
        # __getattr__ for them.
        self.requires_grad, self._grad, self._memory = requires_grad, None, Version()
        self._layer, self._work, self._shape = layer, work, shape
        self._parent, self._step, self._joined = parent, step, False
        family = None if parent is None else parent._family
        if parent is None or family is None:
            self._stage, self._family, self._context = 0, _Family(), copy_context()
            self._family.watch(work.x)
        else:
            self._stage, self._family, self._context = parent._stage + 1, family, parent._context.copy()
            parent._joined = True
        self._family.members.append(weakref.ref(self))

    _family: _Family | None
    _context: Context
    _seen: tuple[int, int]

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        """The values."""
        return array_of(self)  # where there are none yet, Python asks __getattr__

    @data.setter
    def data(self, value: np.ndarray) -> None:
        settle(self)
        self._memory.settle()
        _set_array(self, value)

    def __getattr__(self, name: str) -> Any:
        if name not in ("data", "_node"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        family = self._family
        if family is not None:
            with family.lock:  # two threads may read it
                if self._family is not None:
                    self._settle(family)
        return getattr(self, name)

    def _settle(self, family: _Family) -> None:
        if self._joined:
            self._layer.stages = min(self._layer.stages, self._stage)
        result = self._context.run(self._compute, family)
        if self._awaited():
            result._memory.add_reader(weakref.ref(family))
        self._node, self._memory = result._node, result._memory
        _set_array(self, array_of(result))
        self._seen, self._work = self.stamp(), Work(result)
        self._parent = self._step = self._family = None
        self._context = Context()

    def _compute(self, family: _Family) -> Tensor:
        ancestor = parent = self._parent
        while ancestor is not None and ancestor.pending:
            ancestor = ancestor._parent
        # One that was changed in place, if only unnoticed until now, no longer has the values that were joined.
        step = None if ancestor is None or ancestor.stamp() != ancestor._seen else self._step
        if step is not None and parent is not None:
            settle(parent)
            result = step(parent)
        else:
            again, family.begun = family.begun, True
            result = self._layer.execute(self._work, again)
        settle(result)
        return result

    def _awaited(self) -> bool:
        """Return whether a result that joined this one waits."""
        members = [] if self._family is None else [member() for member in self._family.members]
        return any(member is not None and member.pending and member._parent is self for member in members)

    def watch(self, *tensors: Tensor | None) -> None:
        """Note that the values depend on these tensors as well."""
        if self._family is not None:
            self._family.watch(*tensors)

    def let_go(self) -> None:
        """Compute the values if others that joined have to: those will be computed from them before they change."""
        if self._joined and self._awaited():
            settle(self)

    @property
    def pending(self) -> bool:
        """Whether the values are yet to be computed."""
        return self._family is not None

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

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._work.x.device

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self._shape)

    def planned(self) -> bool:
        """Return whether the values are yet to be computed, or lie in an arena; see `numbanet.memory.arena`."""
        return self.pending or super().planned()

    def numel(self) -> int:
        """Return the number of elements."""
        return int(np.prod(self._shape))

    def _join(self, step: Callable[[Any], Tensor], work: Work, *others: Tensor | None) -> Deferred | None:
        family = self._family
        if family is None or self._stage >= self._layer.stages or family.recording is not is_grad_enabled():
            return None
        family.watch(*others)
        return Deferred(self._layer, work, self._shape, needs_grad(self, work.residual), self, step)

    def normalised(self, norm: Any) -> Deferred | None:
        """Return the result of a batch norm, if that is still possible.

        Parameters
        ----------
        norm : callable
            Normalises a tensor with its ``data_format``; its ``parts`` are the tensors that it reads.
        """
        work, layer = self._work, self._layer
        if len(self._shape) not in layer.norm_dims or norm.data_format != layer.data_format:
            return None
        if work[1:] != (None, None, None):
            return None
        return self._join(norm, work._replace(norm=norm), *norm.parts)

    def plus(self, other: Tensor) -> Deferred | None:
        """Return the sum with a tensor of this shape and dtype, if that is still possible."""
        work = self._work
        if not self.pending or work.residual is not None or work.activation is not None:
            return None
        if self._stage >= self._layer.stages:
            return None  # before the other one must be computed, which may take it instead
        settle(other)
        return self._join(lambda parent: functional().add(parent, other), work._replace(residual=other), other)

    def activated(self, activation: str) -> Deferred | None:
        """Return the result of ``"relu"`` or ``"relu6"``, if that is still possible."""
        if self._work.activation is not None:
            return None
        function = getattr(functional(), activation)
        return self._join(function, self._work._replace(activation=activation))

    def become(self, later: Deferred) -> Deferred:
        """Take over what another, which joined this one, is to compute: a change in place."""
        self._work, self._stage, self.requires_grad = later._work, later._stage, later.requires_grad
        self._parent, self._step, self._joined = None, None, False
        return self


def activated(input: Any, activation: str, inplace: bool) -> Tensor | None:
    """Let a ReLU join its operand; None if it can't."""
    if type(input) is not Deferred or activation not in input._layer.activations:
        return None
    if inplace:
        input.let_go()
    later = input.activated(activation)
    return later if later is None or not inplace else input.become(later)


def added(a: Any, b: Any, first_only: bool = False) -> Deferred | None:
    """Let an addition join one of its operands, or only the first; None if it can't."""
    for first, second in ((a, b),) if first_only else ((a, b), (b, a)):
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
