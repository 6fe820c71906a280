"""Instructions that are done at once: of one opcode, none of which needs what another of them leaves.

A step of the interpreter takes Python some microseconds, whatever the number of lanes. Between two instructions that
others may notice, only what one leaves in a register for another gives those that compute, or read memory, an order.
So a program's stretches of them are cut into batches; a batch is an instruction whose operands each stand for as many
registers as it has members: their names, with spaces between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.cuda.ptx.parse import Instruction, Program

_COMPUTING = frozenset((
    "add", "sub", "mul", "mad", "fma", "div", "rem", "abs", "neg", "not", "cnot", "popc", "clz", "brev", "min", "max",
    "sqrt", "rsqrt", "rcp", "ex2", "lg2", "sin", "cos", "tanh", "copysign", "and", "or", "xor", "shl", "shr", "shf",
    "bfe", "bfi", "prmt", "mov", "cvta", "setp", "selp", "testp", "cvt", "mma",
))  # fmt: skip
_NOTICED = {"volatile", "relaxed", "param"}  # loads that wait for others, or that aren't any
_MOST = 32  # members: of more, the operands leave the cache
_NAME = re.compile(r"%[\w.]+")


@dataclass(frozen=True)
class Batch:
    """Some instructions, and the one that does what they do."""

    members: tuple[Instruction, ...]
    whole: Instruction


@dataclass(frozen=True)
class Stretch:
    """Instructions up to the place `end`, in the order of batches."""

    end: int
    batches: tuple[Batch, ...]


def stretches(program: Program) -> dict[int, Stretch]:
    """Return the stretches of a program by the places where they begin, and add their operands to the program."""
    found, start, marks = {}, 0, set(program.labels.values())
    for place in range(len(program.code) + 1):
        inside = place < len(program.code) and _may_move(program, program.code[place])
        if inside and place not in marks:
            continue
        if place - start > 1:
            found[start] = Stretch(place, tuple(_batches(program, program.code[start:place])))
        start = place if inside else place + 1
    return found


def _may_move(program: Program, i: Instruction) -> bool:
    if i.guard or not i.operands or "|" in i.operands[0]:
        return False
    if i.opcode[0] in ("ld", "ldmatrix"):
        return not _NOTICED & {*i.opcode}
    return i.opcode[0] in _COMPUTING and not (i.opcode[0] == "mov" and any("{" in operand for operand in i.operands))


def _batches(program: Program, code: list[Instruction]) -> Iterator[Batch]:
    """Yield batches: instructions are as early as what they read allows, and those that are alike come together."""
    written: dict[str, int] = {}
    seen: dict[str, int] = {}  # of a register, the last step that reads it
    steps: dict[tuple[object, ...], list[Instruction]] = {}
    for i in code:
        targets = _NAME.findall(i.operands[0])
        sources = [name for operand in i.operands[1:] for name in _NAME.findall(operand)]
        step = 1 + max(
            max((written.get(name, 0) for name in (*targets, *sources)), default=0),
            max((seen.get(name, 0) for name in targets), default=0),
        )
        written.update(dict.fromkeys(targets, step))
        for name in sources:
            seen[name] = max(seen.get(name, 0), step)
        steps.setdefault((step, *_kind(program, i, targets)), []).append(i)
    for _, members in sorted(steps.items(), key=lambda item: item[0][0]):  # type: ignore[arg-type, return-value]
        for first in range(0, len(members), _MOST):
            some = members[first : first + _MOST]
            yield Batch(tuple(some), some[0] if len(some) == 1 else _joined(program, some))


def _kind(program: Program, i: Instruction, targets: list[str]) -> tuple[object, ...]:
    """Return what instructions of a batch have in common."""
    vectors = tuple(operand.count(",") for operand in i.operands)
    negated = tuple(operand.startswith("!") for operand in i.operands)
    return i.opcode, vectors, negated, tuple(program.registers.get(name) for name in targets)


def _joined(program: Program, members: list[Instruction]) -> Instruction:
    from tests.cuda.ptx.parse import Instruction, split_operands

    operands = []
    for same in zip(*(member.operands for member in members), strict=True):
        if same[0].startswith("{"):
            parts = zip(*(split_operands(operand[1:-1]) for operand in same), strict=True)
            operands.append("{" + ",".join(_name(program, part) for part in parts) + "}")
        elif same[0].startswith("!"):
            operands.append("!" + _name(program, tuple(operand[1:] for operand in same)))
        else:
            operands.append(_name(program, same))
    return Instruction(members[0].opcode, tuple(operands), "", False, members[0].text)


def _name(program: Program, parts: tuple[str, ...]) -> str:
    """Return the name of operands that are one; the program knows it."""
    name = " ".join(parts)
    program.joined[name] = parts
    if parts[0] in program.registers:
        program.registers[name] = program.registers[parts[0]]
    return name


def tiled(lanes: np.ndarray, count: int) -> np.ndarray:
    """Return the lanes of a batch: those of its members, one after the other."""
    return np.tile(lanes, count)
