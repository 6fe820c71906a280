"""What a call changes while it is tried, as the function and as a replay, on other values: all of it is put back.

The updates of optimizers are held back in both: parameters and the states of optimizers are most of the memory of many
a step, and a copy of them more than it ever takes. What an update would be made of is compared instead: a kernel makes
the same of the same. In place of the update, some bits of each number are turned over, which turning them once more
undoes: what follows in the call finds other values, as it would, and what Python made of the old ones shows. Arrays
that only updates change are read-only meanwhile: nothing else changes them unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from numbanet import memory, ops
from numbanet.capturing.effects import Effects
from numbanet.capturing.nested import digest
from numbanet.cpu import parallel
from numbanet.cpu.replay import Recording
from numbanet.cuda import launch as cuda
from numbanet.ops.shape import copy_into
from numbanet.optim.again import Update

_SMALL = 1 << 16  # bytes; arrays below are copied in any case
# By the size of a number: what its bits are as a whole number, and by how much more they are shifted than a float32's.
_BITS: dict[int, tuple[Any, int]] = {4: (np.int32, 0), 8: (np.int64, 29)}
_BIT = 1 << 17  # of a float32's mantissa: turned over in all numbers, and some below it in each


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
        # Views of what updates write to, by address, and what is in the first place of each.
        self._bits = {parallel.place(x): _bits(x) for u in self._updates.values() for x in u.written() if x.size}
        self._first = {address: bits.flat[0] for address, bits in self._bits.items()}
        self._still, self._copies = list[np.ndarray](), list[tuple[Any, Any]]()
        self._back: Callable[[], None] | None = None
        if effects is not None:
            self._keep(effects.arrays(), effects.written())
            self._back = effects.save()

    def _keep(self, arrays: list[Any], written: set[int]) -> None:
        """Copy what may change, and leave the rest to be guarded."""
        for array in arrays:
            if type(array) is np.ndarray and not array.flags.writeable:
                continue
            if self._holding and id(array) not in written and array.nbytes >= _SMALL and memory.owned(array):
                self._still.append(array)
            else:
                self._copies.append((array, ops.clone(array)))

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
        for address in map(parallel.place, update.written()):
            if address in self._bits:
                self._turn(address)

    def _turn(self, address: int) -> None:
        """Turn over bits of an array, the same ones each time; equal numbers shall not stay equal."""
        bits = self._bits[address]
        kind, shift = _BITS[bits.itemsize]
        random = np.random.default_rng(list(self._bits).index(address))
        for axis, length in enumerate(bits.shape):
            masks = random.integers(0, _BIT, length) | (0 if axis else _BIT)
            bits ^= (masks << shift).astype(kind).reshape(-1, *[1] * (bits.ndim - 1 - axis))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Within a ``with`` block, nobody can write to what is not copied."""
        for array in self._still:
            array.flags.writeable = False
        try:
            yield
        finally:
            for array in self._still:
                array.flags.writeable = True

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
        """Bring back all that a run has changed, but for the gradients that a replay overwrites."""
        for address, bits in self._bits.items():
            if bits.flat[0] != self._first[address]:
                self._turn(address)
        for array, before in self._copies:
            copy_into(array, before)
        if self._back is not None:
            self._back()
        self._told.clear()


def _bits(array: np.ndarray) -> np.ndarray:
    return np.atleast_1d(array).view(_BITS[array.itemsize][0])


def _digest(array: Any) -> bytes | None:
    return None if array is None else digest(array)


def _told(update: Update) -> Any:
    """Return what tells an update apart: where it writes, by which rule, and what it takes."""
    places = [parallel.place(array) for array in update.written()]
    return places, update.rule, update.options, update.coefficients.tobytes(), [*map(digest, update.gradients)]
