"""Reverse-mode differentiation over whole operations.

An operation computes its result with `numbanet.ops` and calls `record` with a function from the gradient of the result
to the gradients of its parents; the function closes over what it needs, and over nothing else. `run_backward` walks the
recorded nodes from the newest to the oldest (a node's number is larger than those of its parents) and frees them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numbanet.tensor import Tensor

Backward = Callable[[np.ndarray], Sequence["np.ndarray | None"]]

_enabled: ContextVar[bool] = ContextVar("numbanet_grad_enabled", default=True)
_numbers = itertools.count()


class Node:
    """One recorded operation: its parents, their versions at the time, and its backward function."""

    __slots__ = ("backward", "number", "parents", "versions")

    def __init__(self, parents: tuple[Tensor, ...], backward: Backward):
        self.parents = parents
        self.versions = tuple(p._version for p in parents)
        self.backward: Backward | None = backward
        self.number = next(_numbers)

    def free(self) -> None:
        """Drop the backward function and everything it closes over."""
        self.backward = None
        self.parents = ()


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

    def _recreate_cm(self) -> _GradMode:
        return type(self)()  # a decorated function may run in several threads at once


class no_grad(_GradMode):  # noqa: N801 - torch's name
    """Within a ``with no_grad():`` block, and in functions that it decorates, nothing is recorded."""

    _value = False


class enable_grad(_GradMode):  # noqa: N801 - torch's name
    """The contrary of `no_grad`, and inside it."""

    _value = True


def needs_grad(*tensors: Tensor | None) -> bool:
    """Return whether an operation on these tensors will be recorded."""
    return _enabled.get() and any(t is not None and t.requires_grad for t in tensors)


def record(data: np.ndarray, parents: Sequence[Tensor | None], backward: Backward) -> Tensor:
    """Wrap the result of an operation in a Tensor and, where a parent needs it, record how to differentiate it.

    Parameters
    ----------
    data : numpy.ndarray
        The result.
    parents : sequence of Tensor or None
        The operands. None stands for an operand that was not given; its gradient is ignored.
    backward : callable
        ``backward(grad)`` takes the gradient of the result (same shape) and returns a sequence with the gradient of
        each parent (same shape as the parent, or None for a parent with ``requires_grad`` False or that is None).

    Returns
    -------
    Tensor
    """
    from numbanet.tensor import Tensor

    result = Tensor(data)
    if needs_grad(*parents):
        kept = tuple(p for p in parents if p is not None)
        if len(kept) == len(parents):
            pruned = backward
        else:
            present = [p is not None for p in parents]

            def pruned(grad: np.ndarray) -> Sequence[np.ndarray | None]:
                return [g for g, there in zip(backward(grad), present) if there]

        result.requires_grad = True
        result._node = Node(kept, pruned)
    return result


def run_backward(root: Tensor, grad: np.ndarray, retain_graph: bool = False) -> None:
    """Accumulate the gradients of `root` with respect to every leaf that requires one.

    Raises
    ------
    RuntimeError
        If the tape was freed by an earlier backward, or an operand was changed in place since it was recorded.
    """
    if root._node is None or root._retains_grad:
        root._accumulate(grad)
    if root._node is None:
        return
    pending: dict[int, np.ndarray] = {root._node.number: grad}
    nodes = {root._node.number: root._node}
    heap = [-root._node.number]
    while heap:
        number = -heapq.heappop(heap)
        node = nodes.pop(number)
        if node.backward is None:
            raise RuntimeError(
                "backward through operations whose tape was freed: call backward(retain_graph=True) the first time, "
                "or compute the result again"
            )
        if any(p._version != v for p, v in zip(node.parents, node.versions)):
            raise RuntimeError("a tensor that this backward needs was changed in place after it was used")
        gradients = node.backward(pending.pop(number))
        for parent, gradient in zip(node.parents, gradients):
            if gradient is None or not parent.requires_grad:
                continue
            if parent._node is None:
                parent._accumulate(gradient)
                continue
            if parent._retains_grad:
                parent._accumulate(gradient)
            key = parent._node.number
            if key in pending:
                pending[key] = _sum(pending[key], gradient)
            else:
                pending[key], nodes[key] = gradient, parent._node
                heapq.heappush(heap, -key)
        if not retain_graph:
            node.free()


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from numbanet import ops

    return ops.add(a, b)
