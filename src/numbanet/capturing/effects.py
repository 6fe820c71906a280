"""What a captured training step changes, and a replay must change as well: gradients, state, and counts in Python.

Parameters, running averages and the states of optimizers lie where they always do, and the launches that are repeated
work on them. Gradients lie in memory of the recording: the next replay overwrites it, so nobody may hold them then.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from sys import getrefcount
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.optim.again import StepAgain, Update
from numbanet.tensor import Tensor, array_of
from numbanet.watch import Watch


class Effects:
    """The effects of one recorded call.

    Parameters
    ----------
    watch : Watch
        Its report.
    tensors : list of Tensor
        All that it takes or changes beside its operands.
    """

    def __init__(self, watch: Watch, tensors: list[Tensor]):
        self._again, self._changed = tuple(watch.again), [*watch.changed.values(), *watch.updated.values()]
        self._written = watch.written
        self._empty = [leaf for leaf, read in watch.graded.values() if read]
        self._leaves = [(leaf, _pinned(leaf)) for leaf, _ in watch.graded.values()]
        self._tensors, self._needs = tensors, [t.requires_grad for t in tensors]
        self._set_gradients()
        self._alone: list[tuple[int, ...]] = []
        self._undo: list[Callable[[], None]] = []

    def remember(self) -> None:
        """Take the gradients for held by nobody but their leaves."""
        gc.collect()  # nor by cycles of references, which exceptions and compilers leave
        self._alone = self._references()

    def _references(self) -> list[tuple[int, ...]]:
        """Return how many references others have to the arrays of gradients, to their memory, and to the tensors."""
        found: list[tuple[int, ...]] = []
        for leaf, array in self._leaves:
            if array is not None:
                grad = leaf._grad
                ours = grad is not None and array_of(grad) is array
                found.append((getrefcount(array) - ours, getrefcount(array.base), getrefcount(grad) if ours else _LONE))
        return found

    def holds(self) -> bool:
        """Return whether gradients flow to the same tensors as before."""
        return [t.requires_grad for t in self._tensors] == self._needs

    def obstacle(self) -> str | None:
        """Return why the launches may not be repeated now, though nothing of what they do has changed."""
        if any(leaf._grad is not None for leaf in self._empty):
            return "there is a gradient to which the function adds"
        return None if self._references() == self._alone else "a gradient of an earlier call is held"

    def go_on(self) -> bool:
        """Do what Python does before the launches; False, and nothing is done, where they no longer fit."""
        self._undo.clear()
        try:
            for action in self._again:
                self._undo.append(action.save())
                if not action.go_on():
                    self._go_back()
                    return False
        except BaseException:
            self._go_back()
            raise
        return True

    def _go_back(self) -> None:
        while self._undo:
            self._undo.pop()()

    def give_up(self, launched: bool) -> None:
        """Take back what Python did before launches that an error has ended; what kernels changed stays."""
        self._go_back()
        if not launched:
            return
        for leaf, _ in self._leaves:
            leaf._grad = None  # its memory was that of other values meanwhile
        for tensor in self._changed:
            tensor.bump_version()

    def finish(self) -> None:
        """Do what Python does after the launches."""
        self._undo.clear()
        self._set_gradients()
        for tensor in self._changed:
            tensor.bump_version()

    def _set_gradients(self) -> None:
        for leaf, array in self._leaves:
            leaf._grad = None if array is None else Tensor(array)

    # ------------------------------------------------------------------------------------------------ to try a replay

    def updates(self) -> list[Update]:
        """Return the updates of optimizers."""
        return [update for action in self._again if isinstance(action, StepAgain) for update in action.updates]

    def arrays(self) -> list[Any]:
        """Return the arrays that the call takes or changes beside its operands, but for those of gradients."""
        found = [*map(array_of, self._tensors), *(a for action in self._again for a in action.arrays())]
        return list({id(array): array for array in found}.values())

    def written(self) -> set[int]:
        """Return the identities of arrays that are not changed by updates alone."""
        return {id(array_of(t)) for t in self._tensors if id(t._memory) in self._written}

    def gradients(self) -> list[Any]:
        """Return the arrays of the gradients, None where there is none."""
        return [None if leaf._grad is None else array_of(leaf._grad) for leaf, _ in self._leaves]

    def forget_gradients(self) -> None:
        """Take the gradients in memory of the recording from their leaves: it is about to become others'."""
        for leaf, array in self._leaves:
            if array is not None and leaf._grad is not None and array_of(leaf._grad) is array:
                leaf._grad = None

    def save(self) -> Callable[[], None]:
        """Return a function that brings back counts and gradients, as often as it is called."""
        undo = [action.save() for action in self._again]
        gradients = [leaf._grad for leaf, _ in self._leaves]

        def restore() -> None:
            for back in undo:
                back()
            for (leaf, _), grad in zip(self._leaves, gradients):
                leaf._grad = grad
            for tensor in self._changed:
                tensor.bump_version()

        return restore


def _pinned(leaf: Tensor) -> np.ndarray | None:
    """Return the array of a leaf's gradient on the memory of the recording, which keeps it."""
    return None if leaf._grad is None else memory.pinned(array_of(leaf._grad))


def _lone() -> int:
    leaf = Tensor(np.zeros(1))
    leaf._grad = Tensor(np.zeros(1))
    grad = leaf._grad
    return getrefcount(grad)


_LONE = _lone()  # the count of a gradient that its leaf alone refers to, and a name
