"""What an inference that is recorded takes beside its operands, and reasons why it must not be replayed.

A replay repeats launches of kernels and nothing else. Whatever Python does besides with the values is reported here, by
those who do it: a number read, memory changed in place, a random draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numbanet import memory


class Watch:
    """The report of one run.

    Attributes
    ----------
    taken : dict
        The tensors whose values operations took from outside the arena in use, by their identity.
    doubts : list of str
        What a replay would not do.
    """

    def __init__(self) -> None:
        self.taken: dict[int, Any] = {}
        self.doubts: list[str] = []


_watch: ContextVar[Watch | None] = ContextVar("numbanet_watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Within a ``with`` block, report to a `Watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def doubt(reason: str) -> None:
    """Report what a replay would not do."""
    watch = _watch.get()
    if watch is not None:
        watch.doubts.append(reason)


def take(tensor: Any) -> None:
    """Report that an operation takes the values of a tensor, or a form prepared from them."""
    watch = _watch.get()
    if watch is not None and memory.in_arena() and not tensor.planned():
        watch.taken[id(tensor)] = tensor
