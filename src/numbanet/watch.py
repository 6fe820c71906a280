"""What a call that is recorded takes and changes beside its operands, and reasons why it must not be replayed.

A replay repeats launches of kernels. Whatever Python does besides is reported here, by those who do it: a number read,
memory changed in place, a gradient set. Some of it a replay can do again (see `Again`): the next random draw, the next
step's count and learning rate. Such numbers reach kernels as `Live` arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from numbanet import memory


class Live(np.ndarray):
    """A few numbers of the host that a replay renews: a launch that is repeated reads them anew."""


class Again(Protocol):
    """What Python did in a call, and does again before the launches of each replay."""

    what: str
    """In words, for calls that may not do it."""

    def go_on(self) -> bool:
        """Do it; False, and nothing is done, where the launches that were recorded no longer fit."""

    def save(self) -> Callable[[], None]:
        """Return a function that brings back what is now."""

    def arrays(self) -> list[Any]:
        """Return the arrays that its launches change, and no tensor holds."""


class Watch:
    """The report of one run.

    Attributes
    ----------
    taken : dict
        The tensors whose values operations took from outside the arena in use, by their identity.
    formed : dict
        Those of which another form was kept, such as a packed weight: a replay does not make it anew.
    writes : bool
        Whether memory was changed in place.
    changed, updated : dict
        The tensors outside the arena whose memory was changed in place; and those that an optimizer updated.
    written : set of int
        The identities of that memory, but for what optimizers updated.
    graded : dict
        The leaves outside the arena whose gradient was read or set, each with whether it was read first. What it had
        before is not kept: the gradients of the call before shall go as soon as the function lets go of them.
    again : list of Again
        In the order in which it was done.
    whole : dict
        The operands on the CPU that hold whole numbers, by their identity.
    labels : list
        For each loss that took class indices of such an operand: the operand, the number of classes, and the index
        that is ignored.
    constants : list of numpy.ndarray
        What was made anew for kernels, and is no work of Python on values: see `constant`; and the `Live` arrays.
    doubts : list of str
        What a replay would not do.
    hold : callable or None
        Takes an optimizer's update, and returns whether it is held back: see `numbanet.capturing.trial`.
    """

    def __init__(self) -> None:
        self.taken: dict[int, Any] = {}
        self.formed: dict[int, Any] = {}
        self.writes = False
        self.changed: dict[int, Any] = {}
        self.updated: dict[int, Any] = {}
        self.written: set[int] = set()
        self.graded: dict[int, tuple[Any, bool]] = {}
        self.again: list[Again] = []
        self.whole: dict[int, Any] = {}
        self.labels: list[tuple[Any, int, int]] = []
        self.constants: list[np.ndarray] = []
        self.doubts: list[str] = []
        self.hold: Callable[[Any], bool] | None = None


WATCH: ContextVar[Watch | None] = ContextVar("numbanet_watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Within a ``with`` block, report to a `Watch`."""
    token = WATCH.set(watch)
    try:
        yield
    finally:
        WATCH.reset(token)


watcher = WATCH.get
"""Return the `Watch` of those who watch, or None."""


RECORD: ContextVar[Any] = ContextVar("numbanet_record", default=None)
recorder = RECORD.get
"""Return the `numbanet.cpu.parallel.Launches` of those who take launches, or None."""


def watched() -> bool:
    """Return whether somebody watches."""
    return WATCH.get() is not None


def doubt(reason: str) -> None:
    """Report what a replay would not do."""
    watch = WATCH.get()
    if watch is not None:
        watch.doubts.append(reason)


def _outside(tensor: Any) -> bool:
    """Return whether a tensor is none of those that a recording makes."""
    return memory.in_arena() and not tensor.planned()


def _computed_whole(tensor: Any) -> bool:
    """Return whether a tensor holds whole numbers on the CPU that come from a recording."""
    return tensor.dtype.kind != "f" and tensor.device == "cpu" and memory.in_arena() and tensor.planned()


def take(tensor: Any, whole: bool = False) -> None:
    """Report that an operation takes the values of a tensor, or a form prepared from them.

    With `whole`, those of whole numbers go into the result and nowhere else: they don't steer what Python does.
    """
    watch = WATCH.get()
    if watch is None:
        return
    if not whole and (id(tensor) in watch.whole or _computed_whole(tensor)):
        watch.doubts.append("an operation took whole numbers, which may steer Python")
    if _outside(tensor):
        watch.taken[id(tensor)] = tensor


def label(tensor: Any, classes: int, ignored: int) -> None:
    """Report that a loss takes class indices as they lie in a tensor's memory, and refuses those that are none."""
    watch = WATCH.get()
    if watch is not None and id(tensor) in watch.whole:
        watch.labels.append((tensor, classes, ignored))
        return
    take(tensor)
    if memory.in_arena():
        doubt("labels were looked at that are no operand")


def form(tensor: Any) -> None:
    """Report that another form of a tensor's values is kept, and used again as long as they stay."""
    watch = WATCH.get()
    if watch is not None and _outside(tensor):
        watch.formed[id(tensor)] = tensor


def write(tensor: Any) -> None:
    """Report that a tensor's memory was changed in place."""
    watch = WATCH.get()
    if watch is not None:
        watch.writes = True
        if _outside(tensor):
            watch.changed[id(tensor)] = tensor
            watch.written.add(id(tensor._memory))


def update(tensor: Any) -> None:
    """Report that an optimizer updated a tensor."""
    watch = WATCH.get()
    if watch is not None and _outside(tensor):
        watch.updated[id(tensor)] = tensor


def held(made: Any) -> bool:
    """Report an optimizer's update (see `numbanet.optim.again`); return whether it shall not be made."""
    watch = WATCH.get()
    return watch is not None and watch.hold is not None and watch.hold(made)


def peek(leaf: Any) -> None:
    """Report that the gradient of a leaf is read."""
    watch = WATCH.get()
    if watch is not None and _outside(leaf):
        watch.graded.setdefault(id(leaf), (leaf, True))
        if leaf._grad is not None and not leaf._grad.planned():
            watch.doubts.append("a gradient from before the call was read, or added to")


def grade(leaf: Any) -> None:
    """Report that a leaf is about to get another gradient."""
    watch = WATCH.get()
    if watch is not None and _outside(leaf):
        watch.graded.setdefault(id(leaf), (leaf, False))


def again(action: Again) -> None:
    """Report what Python did, and can do again."""
    watch = WATCH.get()
    if watch is not None:
        watch.again.append(action)


def live(values: Any, dtype: Any) -> np.ndarray:
    """Return numbers as an array, for launches to read: a `Live` one where somebody watches."""
    array = np.array(values, dtype)
    return constant(array.view(Live)) if watched() else array


def constant(array: np.ndarray) -> np.ndarray:
    """Return an array that is made anew for kernels, but is the same in every call of these shapes and options.

    Whatever else kernels of the CPU read must come from kernels, operands or tensors, or a recording is refused: what
    Python worked out of values would not be worked out again.
    """
    watch = WATCH.get()
    if watch is not None and isinstance(array, np.ndarray):
        watch.constants.append(array)
    return array
