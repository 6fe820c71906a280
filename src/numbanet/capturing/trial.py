"""What a call changes while it is tried, as the function and as a replay, on other values: all of it is put back.

The updates of optimizers are held back in both: parameters and the states of optimizers are most of the memory of many
a step, and a copy of them more than it ever takes. What an update would be made of is compared instead: a kernel makes
the same of the same. In place of the update, some bits of each number are turned over, which turning them once more
undoes: what follows in the call finds other values, as it would, and what Python made of the old ones shows. Arrays
that only updates change are read-only meanwhile: nothing else changes them unnoticed. Those that share memory are
copied after all, as are those with gaps.

An error may come at any time, Ctrl-C among them: whatever is put back can be put back twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from numbanet import memory, ops
from numbanet.capturing.effects import Effects
from numbanet.capturing.nested import digest
from numbanet.cpu import parallel
from numbanet.cpu.replay import Recording
from numbanet.cpu.turn import Turn
from numbanet.cuda import launch as cuda
from numbanet.ops.shape import copy_into
from numbanet.optim.again import Update

_SMALL = 1 << 16  # bytes; arrays below are copied in any case
_ERRORS = 8  # that may come while something is put back


class Trial:
    """What the effects of a recorded call are, before and after it is tried.

    Parameters
    ----------
    effects : Effects or None
    recording : Recording or cuda.Recording
        Updates are held back on the CPU.

    Attributes
    ----------
    recording : Recording or cuda.Recording
        What shall be repeated: without the updates, if they are held back.
    places : set of int
        The addresses at which the launches of those find what is there in every call.
    """

    def __init__(self, effects: Effects | None, recording: Recording | cuda.Recording | None):
        self._effects, self._holding = effects, isinstance(recording, Recording)
        updates = effects.updates() if effects is not None and self._holding else []
        self._updates = {parallel.place(u.coefficients): u for u in updates}
        self._told: list[Any] = []
        self.places = {parallel.place(x) for u in self._updates.values() for x in u.written()}
        self.recording = self._without_updates(recording)
        self._changes: dict[int, Callable[[], None]] = {}  # in place of updates, by the address of what they write to
        self._still, self._copies = list[np.ndarray](), list[tuple[Any, Any]]()
        self._undo: list[Callable[[], object]] = []
        if effects is not None:
            self._prepare(effects, _distinct(x for u in updates for x in u.written() if x.size))

    def _prepare(self, effects: Effects, updated: list[np.ndarray]) -> None:
        """Copy what may change, guard or turn over the rest, and know how all of it is put back."""
        arrays = _distinct([*effects.arrays(), *updated])
        shared = _sharing(arrays) if self._holding else set()
        copied = effects.written() | shared
        turns: list[Turn] = []
        for array in updated:
            if id(array) not in shared and Turn.fits(array):
                turns.append(Turn(array, len(turns)))
                self._changes[parallel.place(array)] = turns[-1].over
            else:
                copied.add(id(array))
                self._changes[parallel.place(array)] = partial(_stir, array)
        for array in arrays:
            if type(array) is np.ndarray and not array.flags.writeable:
                continue
            if self._holding and id(array) not in copied and array.nbytes >= _SMALL and memory.owned(array):
                self._still.append(array)
            else:
                self._copies.append((array, ops.clone(array)))
        self._undo += [turn.back for turn in turns]
        self._undo += [partial(copy_into, *copy) for copy in self._copies]
        self._undo += [partial(array.setflags, write=True) for array in self._still]
        self._undo.append(effects.save())

    def hold(self, update: Update) -> bool:
        """Note an update of the function, which is not made then; False where it must be made."""
        if not self._holding:
            return False
        self._note(update)
        parallel.kept(update.gradients)  # the update would read them
        update.gradients.clear()  # and their memory goes with them
        return True

    def _note(self, update: Update) -> None:
        self._told.append(_told(update))
        for address in dict.fromkeys(map(parallel.place, update.written())):
            if address in self._changes:
                self._changes[address]()

    def guard(self) -> None:
        """Let nobody write to what is not copied, until all is put back."""
        for array in self._still:
            array.flags.writeable = False

    def _without_updates(self, recording: Any) -> Any:
        """Return the recording with notes of updates in their place."""
        return recording.changed(self._instead) if self._updates else recording

    def _instead(self, launch: parallel.Launch) -> parallel.Between | None:
        """Return what is done instead of an update's launch."""
        for array in launch.operands[1]:
            update = self._updates.get(parallel.place(array))
            if update is not None:
                self.places.update(map(parallel.place, launch.operands[1]))
                return parallel.Between(self._note, (update,))
        return None

    def outcome(self) -> list[Any]:
        """Return what tells the outcomes of runs apart; copies would take as much memory again."""
        told, self._told = self._told, []
        gradients = [] if self._effects is None else self._effects.gradients()
        return [*told, *(digest(array) for array, _ in self._copies), *map(_digest, gradients)]

    def put_back(self) -> None:
        """Bring back all that a run has changed, but for the gradients that a replay overwrites.

        Errors that come meanwhile are raised at the end.
        """
        errors, done = list[BaseException](), 0
        while done < len(self._undo):
            try:
                for undo in self._undo[done:]:
                    undo()
                    done += 1
            except BaseException as error:
                errors.append(error)
                done += len(errors) > _ERRORS  # it is no interrupt, but fails each time
        self._told = []
        if errors:
            raise errors[0]


def _distinct(arrays: Iterable[Any]) -> list[Any]:
    return list({id(array): array for array in arrays}.values())


def _sharing(arrays: list[np.ndarray]) -> set[int]:
    """Return the identities of the arrays of the CPU that lie where others do, or between elements of others."""
    found, last, end = set[int](), 0, 0
    for first, behind, identity in sorted((*_span(array), id(array)) for array in arrays if array.size):
        if first < end:
            found |= {last, identity}
        if behind > end:
            last, end = identity, behind
    return found


def _span(array: np.ndarray) -> tuple[int, int]:
    """Return the addresses of an array's first byte, and of the one behind its last."""
    ways = [(length - 1) * stride for length, stride in zip(array.shape, array.strides)]
    first = parallel.place(array)
    return first + sum(min(0, way) for way in ways), first + sum(max(0, way) for way in ways) + array.itemsize


def _stir(array: np.ndarray) -> None:
    """Change the numbers of an array of which there is a copy; equal numbers shall not stay equal."""
    array += np.linspace(0.25, 0.5, array.size).reshape(array.shape).astype(array.dtype)


def _digest(array: Any) -> bytes | None:
    return None if array is None else digest(array)


def _told(update: Update) -> Any:
    """Return what tells an update apart: where it writes, by which rule, and what it takes."""
    places = [parallel.place(array) for array in update.written()]
    return places, update.rule, update.options, update.coefficients.tobytes(), [*map(digest, update.gradients)]
