"""Barriers in shared memory (mbarrier), who waits for them, and what warpgroups hand each other (PTX ISA, 9.7.13).

A copy that a barrier counts lands only when somebody waits for its phase: as late as it may. Threads that a barrier
releases run on at once, and as far as they can: as early as they may.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.cuda.ptx.instructions import operation
from tests.cuda.ptx.machine import Lanes, Machine
from tests.cuda.ptx.memory import Fault
from tests.cuda.ptx.parse import Instruction
from tests.cuda.ptx.warpgroup import groups_of

_REGISTERS = 65536  # of a multiprocessor
_MOST_BYTES = (1 << 20) - 1  # that a phase may expect


@dataclass
class Barrier:
    """A barrier: arrivals and bytes that its phase still waits for."""

    count: int
    number: int  # of the phase, in shared memory's list
    pending: int = 0
    bytes: int = 0
    phase: int = 0
    former: int = 0  # the number of the phase before
    seen: bool = True  # somebody knows of the end of the phase before
    visible: bool = False  # to the copy engine
    copies: list[Any] = field(default_factory=list)

    def missing(self) -> str:
        return f"{self.pending} arrivals and {self.bytes} bytes missing"


class Waiting:
    """The barriers of all blocks, and the lanes that wait for them."""

    def __init__(self, m: Machine):
        self._m = m
        self.barriers: dict[int, Barrier] = {}  # by their place in the memory of all blocks
        self._asleep, self._hurried = np.zeros(m.count, bool), np.zeros(m.count, bool)
        self._sleepers: dict[int, np.ndarray] = {}
        self.registers: dict[int, int] = {}  # of a thread, of each warpgroup that changed it
        self.maps: set[tuple[int, int]] = set()  # (block, map) after the fence

    def ready(self, running: np.ndarray) -> np.ndarray:
        """Return which lanes may run next."""
        awake = running & ~self._asleep
        while running.any() and not awake.any() and self._land_one():
            awake = running & ~self._asleep
        if running.any() and not awake.any():
            reasons = {self.barriers[place].missing() for place in self._sleepers}
            raise Fault(f"deadlock: every thread waits for the end of a phase ({'; '.join(sorted(reasons))})")
        hurried = awake & self._hurried
        return hurried if hurried.any() else awake

    def calm(self, lanes: Lanes) -> bool:
        """Let the others catch up with lanes that were in a hurry; return whether they were."""
        found = bool(self._hurried[lanes].any())
        self._hurried[:] = False
        return found

    def meet(self, blocks: np.ndarray) -> None:
        """Threads of blocks met at a barrier of the block."""
        self._m.shared.meet(blocks)

    def sleep(self, place: int, lanes: np.ndarray) -> None:
        """Let lanes wait until a phase of a barrier ends."""
        self._asleep[lanes], self._hurried[lanes] = True, False
        self._sleepers[place] = np.append(self._sleepers.get(place, np.zeros(0, int)), lanes)
        self._m.interrupted = True

    def _land_one(self) -> bool:
        """Let the copies land that a barrier counts which somebody waits for; return whether there are any."""
        for place in self._sleepers:
            if self.barriers[place].copies:
                self.land(place)
                return True
        return False

    def land(self, place: int) -> None:
        """Let the copies land that a barrier counts."""
        barrier = self.barriers[place]
        for land in barrier.copies:
            barrier.bytes -= land(barrier.number)
        barrier.copies.clear()
        self.settle(place)

    def settle(self, place: int) -> None:
        """End the phase of a barrier if nothing is missing, and wake those that wait for it."""
        barrier = self.barriers[place]
        if barrier.pending or barrier.bytes > 0:
            return
        if barrier.bytes < 0:
            raise Fault(f"copies brought {-barrier.bytes} bytes more than the phase of their barrier expects")
        barrier.phase += 1
        barrier.pending = barrier.count
        barrier.former, barrier.number, barrier.seen = barrier.number, self._m.shared.phase(), False
        lanes = self._sleepers.pop(place, None)
        if lanes is not None:
            self._asleep[lanes], self._hurried[:] = False, False
            self._hurried[lanes] = True  # before those that ended the phase, too
            self._m.interrupted = True

    def finish(self) -> None:
        """Check what the end of the program leaves behind."""
        if any(barrier.copies for barrier in self.barriers.values()):
            raise Fault("the program ended before a tensor copy did")
        if any(barrier.pending != barrier.count or barrier.bytes for barrier in self.barriers.values()):
            raise Fault("the program ended in the middle of a phase")
        m = self._m
        launched = _launched(m)
        for block in {group // m.threads for group in self.registers}:
            groups = range(block * m.threads, (block + 1) * m.threads, 128)
            if sum(self.registers.get(group, launched) for group in groups) > launched * len(groups):
                raise Fault("setmaxnreg takes more registers than the block has: it waits for ever")


def _launched(m: Machine) -> int:
    """Return the registers of a thread that a launch gives."""
    return min(_REGISTERS // (m.program.threads * m.program.blocks) // 8 * 8, 248)


def waiting(m: Machine) -> Waiting:
    """Return the machine's barriers."""
    if m.waiting is None:
        m.waiting = Waiting(m)
    found: Waiting = m.waiting
    return found


def barrier_at(m: Machine, place: int) -> Barrier:
    """Return a barrier that has been initialised."""
    found = waiting(m).barriers.get(place)
    if found is None:
        raise Fault("a barrier was used before it was initialised")
    return found


@operation("mbarrier")
def _barriers(m: Machine, i: Instruction, lanes: Lanes) -> None:
    known, opcode = waiting(m), i.opcode[1:]
    if opcode == ("init", "shared::cta", "b64"):
        places = m.shared.index(m.address(i.operands[0], lanes), 8, lanes)
        m.shared.write(places, 8, lanes)
        for place, count in zip(places.tolist(), m.read(i.operands[1], "u32", lanes).tolist()):
            known.barriers[place] = Barrier(count, m.shared.phase(), count)
    elif opcode == ("arrive", "expect_tx", "shared::cta", "b64") and i.operands[0] == "_":
        bytes_ = m.read(i.operands[2], "u32", lanes).tolist()
        for place, count in zip(_places(m, i.operands[1], lanes), bytes_):
            if count > _MOST_BYTES:
                raise Fault(f"a phase can't expect {count} bytes")
            _arrive(m, place, count)
    elif opcode == ("arrive", "shared::cta", "b64") and i.operands[0] == "_":
        for place, lane in zip(_places(m, i.operands[1], lanes), lanes):
            m.shared.hand_back(lane[None], barrier_at(m, place).number)
            _arrive(m, place, 0)
    elif opcode == ("try_wait", "parity", "shared::cta", "b64"):
        m.write(i.operands[0], _try(m, i, lanes), lanes)
    else:
        raise NotImplementedError(f"PTX opcode: {i.text}")


def _places(m: Machine, operand: str, lanes: Lanes) -> list[int]:
    """Return the barriers' places; no bar.sync since they were initialised is a race."""
    places = m.shared.index(m.address(operand, lanes), 8, lanes)
    for place in set(places.tolist()):
        barrier_at(m, place)
    m.shared.read(places, 8, lanes)
    return places.tolist()


def _arrive(m: Machine, place: int, bytes_: int) -> None:
    barrier = barrier_at(m, place)
    if not barrier.pending:
        raise Fault("more arrivals than a phase counts")
    if not barrier.seen:
        raise Fault("an arrival at a barrier before anybody saw the end of its former phase")
    barrier.pending -= 1
    barrier.bytes += bytes_
    waiting(m).settle(place)


def _try(m: Machine, i: Instruction, lanes: Lanes) -> np.ndarray:
    places, parity = np.array(_places(m, i.operands[1], lanes)), m.read(i.operands[2], "u32", lanes)
    result = np.zeros(len(lanes), bool)
    for place in np.unique(places).tolist():
        barrier, here = barrier_at(m, place), places == place
        if (barrier.phase & 1 == parity[here]).any():  # somebody waits for this phase: what it counts may land
            waiting(m).land(place)
        ended = here & (barrier.phase & 1 != parity)
        result |= ended
        m.shared.see(barrier.former, lanes[ended])
        barrier.seen |= bool(ended.any())
        if not ended[here].all():
            waiting(m).sleep(place, lanes[here & ~ended])
    return result


@operation("setmaxnreg")
def _registers(m: Machine, i: Instruction, lanes: Lanes) -> None:
    if i.opcode[2:] != ("sync", "aligned", "u32") or i.opcode[1] not in ("dec", "inc"):
        raise NotImplementedError(f"PTX opcode: {i.text}")
    count, known = int(i.operands[0]), waiting(m).registers
    if not 24 <= count <= 256 or count % 8:
        raise Fault(f"setmaxnreg takes a multiple of 8 from 24 to 256, got {count}")
    for group in groups_of(m, lanes).tolist():
        former = known.get(group, _launched(m))
        if count > former if i.opcode[1] == "dec" else count < former:
            raise Fault(f"setmaxnreg.{i.opcode[1]} from {former} to {count} registers")
        known[group] = count


@operation("elect")
def _elect(m: Machine, i: Instruction, lanes: Lanes) -> None:
    target, chosen = i.operands[0].split("|")
    if i.opcode != ("elect", "sync") or target != "_" or i.operands[1] != "-1":
        raise NotImplementedError(f"PTX opcode: {i.text}")
    m.full_warps(lanes)
    m.write(chosen, lanes % 32 == 0, lanes)
