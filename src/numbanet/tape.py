"""Reverse-mode differentiation over whole operations.

An operation computes its result with `numbanet.ops` and calls `record` with a function from the gradient of the result
to the gradients of its parents; the function closes over what it needs, and over nothing else. `run_backward` walks the
recorded nodes from the newest to the oldest (a node's number is larger than those of its parents) and frees them.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar
from functools import cache, partial, wraps
from inspect import isgeneratorfunction
from typing import TYPE_CHECKING, Any

import numpy as np

from numbanet import memory
from numbanet.watch import doubt

if TYPE_CHECKING:
    from numbanet.tensor import Tensor

Backward = Callable[..., Sequence["np.ndarray | None"]]

_enabled: ContextVar[bool] = ContextVar("numbanet_grad_enabled", default=True)
_numbers = itertools.count()
# Bytes of a gradient that is added to in its own memory: in a cache that wins nothing, and what `numbanet.ops.steady`
# repeats has new memory for its results.
_LARGE = memory.SMALL


class Version:
    """Counts the changes in place of some memory; all tensors that view it share one."""

    __slots__ = ("changes", "readers")

    def __init__(self) -> None:
        self.changes = 0
        self.readers: Sequence[weakref.ref[Any]] = ()  # seldom any: an empty list takes time

    def __getstate__(self) -> tuple[int]:
        return (self.changes,)  # nobody waits for a copy

    def __setstate__(self, state: tuple[int]) -> None:
        (self.changes,), self.readers = state, ()

    def add_reader(self, reader: weakref.ref[Any]) -> None:
        """Note who will read the memory later; see `numbanet.deferred`."""
        others = [known for known in self.readers if known() is not None and known is not reader]
        self.readers = [*others, reader]

    def settle(self) -> None:
        """Let those who will read the memory do so now: it is about to change."""
        readers, self.readers = self.readers, ()
        for known in readers:
            reader = known()
            if reader is not None:
                reader.settle()


class Node:
    """One recorded operation.

    It refers to the nodes of its parents, and to the parents themselves only where they are leaves: so the values of a
    tensor that no backward function closes over can go while the tape lives.

    Attributes
    ----------
    sources : list of Node, Tensor or None
        For each parent where its gradient goes: the node that made it, a leaf, or nowhere.
    watched : list of (Version, int)
        The parents' memory, and the change of it that the operation saw.
    backward : callable or None
        None once the tape was freed.
    adds : bool
        Whether that takes what is known of the first parent's gradient; see `record`.
    number : int
        Larger than those of the sources.
    retained : weakref.ref or None
        The result, if its gradient shall be kept.
    """

    __slots__ = ("adds", "backward", "number", "retained", "sources", "watched")

    def __init__(self, parents: Sequence[Tensor | None], backward: Backward, adds: bool = False):
        sources: list[Node | Tensor | None] = []
        watched = []
        for parent in parents:
            if parent is None:
                sources.append(None)
                continue
            # The node first: where the parent's values wait, asking for it computes them, and gives it its memory.
            sources.append((parent._node or parent) if parent.requires_grad else None)
            shared = parent._memory
            watched.append((shared, shared.changes))
        self.sources, self.watched = sources, watched
        self.backward: Backward | None = backward
        self.adds = adds
        self.number = next(_numbers)
        self.retained: weakref.ref[Tensor] | None = None

    def checked(self) -> Backward:
        """Return the backward function; RuntimeError if the tape was freed, or a parent was changed in place."""
        if self.backward is None:
            raise RuntimeError(
                "backward through operations whose tape was freed: call backward(retain_graph=True) the first time, "
                "or compute the result again"
            )
        for shared, changes in self.watched:
            if shared.changes != changes:
                raise RuntimeError("a tensor that this backward needs was changed in place after it was used")
        return self.backward

    def free(self) -> None:
        """Drop the backward function and everything it closes over."""
        self.backward = None
        self.sources, self.watched = [], []


def is_grad_enabled() -> bool:
    """Return whether operations are recorded."""
    return _enabled.get()


class _GradMode(ContextDecorator):
    """Sets whether operations are recorded: a context manager, and a decorator with or without parentheses."""

    _value: bool

    def __new__(cls, function: Callable | None = None) -> Any:
        mode = super().__new__(cls)
        return mode if function is None else mode(function)

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_enabled.get())
        _enabled.set(self._value)

    def __exit__(self, *exception: object) -> None:
        _enabled.set(self._before.pop())

    def __call__(self, function: Callable) -> Any:
        if not isgeneratorfunction(function):
            return super().__call__(function)

        @wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator:
            return (yield from _within(type(self), function(*args, **kwargs)))

        return generator

    def _recreate_cm(self) -> _GradMode:
        return type(self)()  # a decorated function may run in several threads at once


def _within(mode: Callable[[], _GradMode], generator: Generator) -> Generator:
    """Run a generator's own code in a mode; who consumes it keeps theirs between the values."""
    resume: Callable[[], Any] = partial(next, generator)
    while True:
        try:
            with mode():
                item = resume()
        except StopIteration as stop:
            return stop.value
        try:
            sent = yield item
            resume = partial(generator.send, sent)
        except GeneratorExit:
            with mode():
                generator.close()
            raise
        except BaseException as error:
            resume = partial(generator.throw, error)


class no_grad(_GradMode):  # noqa: N801 - torch's name
    """Within a ``with no_grad():`` block, and in functions and generators that it decorates, nothing is recorded."""

    _value = False


class enable_grad(_GradMode):  # noqa: N801 - torch's name
    """The contrary of `no_grad`, and inside it."""

    _value = True


_follow: Callable[[Backward, np.ndarray], None] | None = None


def follow(function: Callable[[Backward, np.ndarray], None] | None) -> None:
    """Have a function called with each backward function that is recorded, and the result of its operation."""
    global _follow
    _follow = function


def needs_grad(*tensors: Tensor | None) -> bool:
    """Return whether an operation on these tensors will be recorded."""
    for tensor in tensors:
        if tensor is not None and tensor.requires_grad:
            return _enabled.get()
    return False


@cache
def _tensors() -> tuple[type[Tensor], Callable[[Tensor], np.ndarray]]:
    """Return the class of tensors, and the function that reads the array of one."""
    from numbanet.tensor import Tensor, array_of  # which imports this module

    return Tensor, array_of


def record(data: np.ndarray, parents: Sequence[Tensor | None], backward: Backward, adds: bool = False) -> Tensor:
    """Wrap the result of an operation in a Tensor and, where a parent needs it, record how to differentiate it.

    Parameters
    ----------
    data : numpy.ndarray
        The result.
    parents : sequence of Tensor or None
        The operands. None stands for an operand that was not given; its gradient is ignored.
    backward : callable
        ``backward(grad)`` takes the gradient of the result (same shape) and returns a sequence with the gradient of
        each parent (same shape as the parent, or None for a parent with ``requires_grad`` False or that is None). It
        should close over arrays and not over tensors, which would keep the tape before them alive.
    adds : bool
        Whether it can also be called as ``backward(grad, known, into)``, with the gradient that the first parent has
        got from operations after this one: it then returns the sum of both, which a kernel forms as it stores; `into`
        says whether that may take the memory of `known`.

    Returns
    -------
    Tensor
    """
    tensor, array_of = _tensors()
    result, base = tensor(data), data.base
    if base is not None:
        for parent in parents:
            if parent is not None and (base is (array := array_of(parent)) or base is array.base):
                result._memory = parent._memory  # a view: what changes one changes both
                parent.expose()
    if needs_grad(*parents):
        result.requires_grad = True
        result._node = Node(parents, backward, adds)
        follower = _follow  # looked at once: a signal handler may clear it
        if follower is not None:
            follower(backward, data)
    return result


def run_backward(root: Tensor, grad: np.ndarray, retain_graph: bool = False) -> None:
    """Accumulate the gradients of `root` with respect to every leaf that requires one.

    Raises
    ------
    RuntimeError
        If the tape was freed by an earlier backward, or an operand was changed in place since it was recorded.
    """
    if root._node is None:
        root._accumulate([grad], 0)
        return
    nodes, gradients = {root._node.number: root._node}, {root._node.number: grad}
    heap = [-root._node.number]
    while heap:
        number = -heapq.heappop(heap)
        node, total = nodes.pop(number), gradients.pop(number)
        kept = None if node.retained is None else node.retained()
        if kept is not None:
            kept._accumulate([total], 0)
        # From here on the list alone holds the gradients, and where the tape may go, nothing the values saved for them:
        # memory is given back as early as it can be, and a gradient that nobody shares is handed on without a copy.
        backward, sources = node.checked(), node.sources
        sums = _added(backward, total, sources[0], gradients) if node.adds else None
        added = sums is not None
        found: list[Any] = list(backward(total) if sums is None else sums)
        del total, backward, sums
        if memory.in_arena() and any(type(g) is np.ndarray and not memory.planned(g) for g in found):
            doubt("a gradient was not computed by kernels")
        if len(found) != len(sources):
            raise ValueError(f"a backward function gave {len(found)} gradients for {len(sources)} operands")
        if not retain_graph:
            node.free()
        for position, source in enumerate(sources):
            if source is None or found[position] is None:
                continue
            if not isinstance(source, Node):
                source._accumulate(found, position)
            elif added and position == 0:
                gradients[source.number] = found[0]
            elif source.number in gradients:
                gradients[source.number] = _sum(gradients[source.number], found[position])
            else:
                nodes[source.number], gradients[source.number] = source, found[position]
                heapq.heappush(heap, -source.number)
            found[position] = None


def _added(
    backward: Backward, total: np.ndarray, first: Node | Tensor | None, gradients: dict[int, np.ndarray]
) -> Sequence[Any] | None:
    """Return what a backward function makes of a gradient and of what is known of that of its first parent.

    None if nothing is known, or it does not fit. Of `gradients`, that of the parent is taken.
    """
    if not isinstance(first, Node) or first.number not in gradients or gradients[first.number].dtype != total.dtype:
        return None
    known = [gradients.pop(first.number)]
    into = known[0].nbytes >= _LARGE and memory.alone_in(known, 0)
    return backward(total, known.pop(), into)


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from numbanet import ops

    return ops.add(a, b)
