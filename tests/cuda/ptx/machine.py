"""The machine that runs a program: registers, the order of threads, barriers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tests.cuda.ptx.batches import Stretch, tiled
from tests.cuda.ptx.memory import Fault, GlobalMemory, SharedMemory
from tests.cuda.ptx.parse import REGISTERS, Instruction, Program

Lanes = np.ndarray
Operation = Callable[["Machine", Instruction, Lanes], None]

DTYPES = {**REGISTERS, "s16": np.dtype(np.int16), "s32": np.dtype(np.int32), "s64": np.dtype(np.int64),
          "u8": np.dtype(np.uint8), "b8": np.dtype(np.uint8), "s8": np.dtype(np.int8)}  # fmt: skip
_MOST_STEPS = 20_000_000
_MOST_NUMBERS = 1 << 17  # of a batch's operand: with more, memory takes longer than Python


class Machine:
    """One launch of a program.

    Parameters
    ----------
    program : Program
    grid : tuple of int
        Blocks along x, y, z.
    threads : int
        Threads a block.
    parameters : sequence
        A NumPy scalar for each parameter.
    memory : GlobalMemory
    dynamic_bytes : int
        Dynamic shared memory.
    """

    def __init__(self, program: Program, grid: tuple[int, int, int], threads: int, parameters: Sequence[np.generic],
                 memory: GlobalMemory, dynamic_bytes: int = 0):  # fmt: skip
        if threads > program.threads:
            raise Fault(f"{threads} threads a block, compiled for {program.threads}")
        blocks = grid[0] * grid[1] * grid[2]
        self.program, self.grid, self.threads = program, grid, threads
        self.count = blocks * threads
        self.memory = memory
        self.shared = SharedMemory(blocks, program.static_bytes + dynamic_bytes, threads, program.cell)
        self.parameters = {name: value for (_, name), value in zip(program.parameters, parameters)}
        self.registers: dict[str, np.ndarray] = {}
        self.known: dict[str, np.ndarray] = {}  # of registers that only some lanes have written
        lane = self.everyone = np.arange(self.count)
        block = lane // threads
        self.special = {
            "%tid.x": lane % threads, "%tid.y": lane * 0, "%tid.z": lane * 0,
            "%ntid.x": lane * 0 + threads, "%ntid.y": lane * 0 + 1, "%ntid.z": lane * 0 + 1,
            "%ctaid.x": block % grid[0], "%ctaid.y": block // grid[0] % grid[1],
            "%ctaid.z": block // grid[0] // grid[1],
            "%nctaid.x": lane * 0 + grid[0], "%nctaid.y": lane * 0 + grid[1], "%nctaid.z": lane * 0 + grid[2],
            "%laneid": lane % threads % 32, "%warpid": lane % threads // 32,
            "%dynamic_smem_size": lane * 0 + dynamic_bytes,
        }  # fmt: skip
        self.copies = CopyGroups(self.count)
        self.products: Any = None  # what warpgroups multiply: see `tests.cuda.ptx.warpgroup`
        self.pending: dict[str, np.ndarray] = {}  # registers whose product, of this number, has not been waited for
        self.alive = np.ones(self.count, bool)
        self.members = self.everyone  # the lanes of each member of a batch
        self.waiting: Any = None  # who waits for copies and other threads: see `tests.cuda.ptx.barriers`
        self.interrupted = False  # an instruction changed who waits
        self.steps = 0

    # Operands ---------------------------------------------------------------------------------------------------------

    def read(self, operand: str, kind: str, lanes: Lanes) -> np.ndarray:
        """Return an operand's value in each lane, as a type such as ``"s32"``."""
        dtype = DTYPES[kind]
        value = self.registers.get(operand)
        if value is not None:
            if operand in self.pending and self.pending[operand][lanes].any():
                raise Fault(f"register {operand} was read while a product into it was under way")
            known = self.known.get(operand)
            if known is not None and not known[lanes].all():
                raise Fault(f"register {operand} was read before it was written")
            if lanes is not self.everyone:
                value = value[lanes]
            return value if value.dtype == dtype else _reinterpret(value, dtype)
        if operand in self.program.joined:
            return np.concatenate([self.read(part, kind, self.members) for part in self.program.joined[operand]])
        if operand in self.special:
            return self.special[operand][lanes].astype(dtype)
        if operand in self.program.shared:
            return np.full(len(lanes), self.program.shared[operand], dtype)
        if operand in self.program.registers:
            raise Fault(f"register {operand} was read before it was written")
        return np.full(len(lanes), _literal(operand, dtype), dtype)

    def write(self, register: str, value: np.ndarray, lanes: Lanes) -> None:
        """Set a register in some lanes."""
        if register == "_":
            return
        if register in self.program.joined:
            self._write_parts(self.program.joined[register], value)
            return
        if register in self.pending:
            self.pending[register][lanes] = 0
        dtype = self.program.registers[register]
        if value.dtype != dtype:
            value = _reinterpret(value, dtype)
        if lanes is self.everyone:  # whole arrays are never changed in place, so that registers may share one
            self.registers[register] = value
            self.known.pop(register, None)
            return
        former = self.registers.get(register)
        if former is None:
            former, self.known[register] = np.zeros(self.count, dtype), np.zeros(self.count, bool)
        else:
            former = former.copy()
        former[lanes] = value
        self.registers[register] = former
        if register in self.known:
            self.known[register][lanes] = True

    def _write_parts(self, registers: tuple[str, ...], value: np.ndarray) -> None:
        """Set the registers of a batch."""
        for name, part in zip(registers, value.reshape(len(registers), -1), strict=True):
            self.write(name, part, self.members)

    def address(self, operand: str, lanes: Lanes) -> np.ndarray:
        """Return the address that ``[base+offset]`` names in each lane."""
        if operand in self.program.joined:
            return np.concatenate([self.address(part, self.members) for part in self.program.joined[operand]])
        base, offset = _base_and_offset(operand)
        if base in self.program.registers:
            kind = "u64" if self.program.registers[base].itemsize == 8 else "u32"
            return self.read(base, kind, lanes).astype(np.int64) + offset
        return self.read(base, "u64", lanes).astype(np.int64) + offset

    # Order ------------------------------------------------------------------------------------------------------------

    def run(self, operations: dict[str, Operation]) -> int:
        """Run all threads to their end; return the number of steps.

        The lanes at the lowest place in the code go first, so that those that parted meet again; but before them, those
        that a barrier has just released, so that they run as far ahead of the others as a GPU may let them.
        """
        with np.errstate(all="ignore"):
            return self._run(operations)

    def _run(self, operations: dict[str, Operation]) -> int:
        code, end, stretches = self.program.code, len(self.program.code), self.program.stretches
        actions = [operations.get(instruction.opcode[0]) for instruction in code]
        place = np.zeros(self.count, np.int64)
        while True:
            lanes, here, stop = self._turn(place, end)
            if here >= end:
                break
            while here < stop:
                stretch = stretches.get(here)
                if stretch is not None and stretch.end <= stop and not self.pending:
                    self._batches(stretch, lanes, operations)
                    here = stretch.end
                    continue
                instruction = code[here]
                self.steps += 1
                if self.steps > _MOST_STEPS:
                    raise Fault("the program does not end")
                name = instruction.opcode[0]
                if name in ("bra", "ret", "exit"):
                    self._jump(instruction, lanes, place, here)
                    break
                action = actions[here]
                if action is None:
                    raise NotImplementedError(f"PTX opcode: {instruction.text}")
                if self.waiting is not None and name in ("bar", "barrier") and self.waiting.calm(lanes):
                    place[lanes] = here
                    break
                active = self._guarded(instruction, lanes)
                if len(active):
                    action(self, instruction, active)
                here += 1
                if self.interrupted:
                    place[lanes] = here
                    break
            else:
                place[lanes] = here
        if self.waiting is not None:
            self.waiting.finish()
        return self.steps

    def _batches(self, stretch: Stretch, lanes: Lanes, operations: dict[str, Operation]) -> None:
        """Run a stretch: each batch at once, or its members one by one where that is no slower."""
        self.members = lanes
        for batch in stretch.batches:
            action, count = operations[batch.whole.opcode[0]], len(batch.members)
            self.steps += count
            if 1 < count <= _MOST_NUMBERS // len(lanes):
                action(self, batch.whole, tiled(lanes, count))
            else:
                for member in batch.members:
                    action(self, member, lanes)

    def _turn(self, place: np.ndarray, end: int) -> tuple[Lanes, int, int]:
        """Return the lanes that run next, where they are, and where others wait for them to come."""
        self.interrupted = False
        if self.waiting is None:
            here = int(place.min())
            lanes, ahead = np.flatnonzero(place == here), place[place != here]
        else:
            ready = self.waiting.ready(place < end)
            here = int(place[ready].min(initial=end))
            turn = ready & (place == here)
            lanes, ahead = np.flatnonzero(turn), place[ready & ~turn]
        return (self.everyone if len(lanes) == self.count else lanes), here, int(ahead.min()) if len(ahead) else end

    def _jump(self, instruction: Instruction, lanes: Lanes, place: np.ndarray, here: int) -> None:
        place[lanes] = here + 1
        taken = self._guarded(instruction, lanes)
        if instruction.opcode[0] == "bra":
            if not set(instruction.opcode[1:]) <= {"uni"}:
                raise NotImplementedError(f"PTX opcode: {instruction.text}")
            place[taken] = self.program.labels[instruction.operands[0]]
        else:
            place[taken] = len(self.program.code)
            self.alive[taken] = False

    def _guarded(self, instruction: Instruction, lanes: Lanes) -> Lanes:
        if not instruction.guard:
            return lanes
        chosen = self.read(instruction.guard, "pred", lanes) != instruction.negated
        return lanes if chosen.all() else lanes[chosen]

    def barrier(self, lanes: Lanes) -> None:
        """All threads of a block that still run have arrived."""
        blocks = np.arange(self.count // self.threads) if lanes is self.everyone else np.unique(lanes // self.threads)
        expected = int(self.alive.reshape(-1, self.threads)[blocks].sum())
        if expected != len(lanes):
            raise Fault("divergent barrier: some threads of a block did not reach it")
        self.shared.pass_blocks(blocks)
        if self.waiting is not None:
            self.waiting.meet(blocks)

    def warp_barrier(self, lanes: Lanes) -> None:
        """All threads of a warp have arrived."""
        self.shared.pass_warps(np.unique(self.full_warps(lanes)))

    def full_warps(self, lanes: Lanes) -> np.ndarray:
        """Return the lanes as rows of whole warps' numbers.

        Raises
        ------
        Fault
            If a warp is not complete: what all its threads must do together, only some did.
        """
        if self.threads % 32 or len(lanes) % 32 or np.any(lanes.reshape(-1, 32) != lanes[::32, None] + np.arange(32)):
            raise Fault("a warp diverged before an instruction that all its threads must reach together")
        return lanes[::32] // 32


@dataclass
class _Copies:
    """What some threads copy, one piece each, and the number of the group of each that it is part of."""

    lanes: Lanes
    places: np.ndarray
    content: np.ndarray
    groups: np.ndarray


class CopyGroups:
    """Asynchronous copies: they land only when their thread waits for their group."""

    def __init__(self, count: int):
        self._closed = np.zeros(count, np.int64)  # groups of each thread
        self._under_way: list[_Copies] = []

    def add(self, lanes: Lanes, places: np.ndarray, content: np.ndarray) -> None:
        """Add a copy to the open group of each thread."""
        self._under_way.append(_Copies(lanes, places, content, self._closed[lanes]))

    def commit(self, lanes: Lanes) -> None:
        """Close the open group of each thread."""
        self._closed[lanes] += 1

    def wait(self, lanes: Lanes, pending: int) -> Iterator[tuple[Lanes, np.ndarray, np.ndarray]]:
        """Yield (lanes, places, content) of the copies of all but the last `pending` groups of each thread."""
        until = np.zeros(len(self._closed), np.int64)
        until[lanes] = self._closed[lanes] - pending
        for copies in self._under_way:
            lands = copies.groups < until[copies.lanes]
            if lands.any():
                yield copies.lanes[lands], copies.places[lands], copies.content[lands]
                stay = ~lands
                copies.lanes, copies.places = copies.lanes[stay], copies.places[stay]
                copies.content, copies.groups = copies.content[stay], copies.groups[stay]
        self._under_way = [copies for copies in self._under_way if len(copies.lanes)]


@lru_cache(maxsize=4096)
def _base_and_offset(operand: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[([\w%$]+)\s*(?:\+\s*(-?\d+))?\]", operand)
    if match is None:
        raise NotImplementedError(f"PTX address: {operand}")
    return match[1], int(match[2] or 0)


@lru_cache(maxsize=4096)
def _literal(text: str, dtype: np.dtype) -> Any:
    if text.startswith("0f"):
        return np.uint32(int(text[2:], 16)).view(np.float32).astype(dtype) if dtype.kind == "f" else int(text[2:], 16)
    if text.startswith("0d"):
        return np.uint64(int(text[2:], 16)).view(np.float64).astype(dtype)
    if not re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)", text):
        raise NotImplementedError(f"PTX operand: {text}")
    if dtype.kind == "b":
        return bool(int(text, 0))
    bits = int(text, 0) & ((1 << dtype.itemsize * 8) - 1)
    return np.array(bits, f"u{dtype.itemsize}").view(dtype)[()]


def _reinterpret(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the same bits as another type; a wider integer register is cut, a narrower one extended."""
    if "b" in (value.dtype.kind, dtype.kind):
        raise Fault(f"a predicate and a number were mixed ({value.dtype} as {dtype})")
    if value.dtype.itemsize == dtype.itemsize:
        return value.view(dtype)
    if value.dtype.kind in "iu" and dtype.kind in "iu":
        return value.astype(dtype)
    raise Fault(f"a register of type {value.dtype} was used as {dtype}")
