"""Read PTX text into instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from tests.cuda.ptx import batches
from tests.cuda.ptx.calls import expand

# Register classes of a ``.reg`` declaration.
REGISTERS = {
    "pred": np.dtype(bool), "b16": np.dtype(np.uint16), "b32": np.dtype(np.uint32), "b64": np.dtype(np.uint64),
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "s16": np.dtype(np.uint16), "u16": np.dtype(np.uint16),
    "s32": np.dtype(np.uint32), "u32": np.dtype(np.uint32), "s64": np.dtype(np.uint64), "u64": np.dtype(np.uint64),
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes
    ----------
    opcode : tuple of str
        The parts between dots, such as ``("ld", "global", "v4", "f32")``.
    operands : tuple of str
        As they are written; a vector keeps its braces, an address its brackets.
    guard : str
        The predicate register of ``@%p1`` or ``@!%p1``, else empty.
    negated : bool
        The guard has an exclamation mark.
    text : str
        The line, for error messages.
    """

    opcode: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str
    negated: bool
    text: str


@dataclass
class Program:
    """A kernel.

    Attributes
    ----------
    parameters : list of (type, name)
    code : list of Instruction
    labels : dict
        Index of the instruction that a label stands before.
    registers : dict
        dtype of each register.
    shared : dict
        Offset of each static shared variable.
    static_bytes : int
        Size of static shared memory.
    threads : int
        Threads a block at most.
    blocks : int
        That shall share a multiprocessor.
    joined : dict
        Of each operand of a batch, what it stands for.
    stretches : dict
        Of each place where instructions in batches begin, those.
    cell : int
        Bytes of shared memory that are always reached together.
    """

    parameters: list[tuple[str, str]] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    registers: dict[str, np.dtype] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    static_bytes: int = 0
    threads: int = 0
    blocks: int = 1
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stretches: dict[int, batches.Stretch] = field(default_factory=dict)
    cell: int = 2


def split_operands(text: str) -> tuple[str, ...]:
    """Split at the commas that are outside of braces and brackets."""
    found, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            found.append(current.strip())
            current = ""
        else:
            current += character
    if current.strip():
        found.append(current.strip())
    return tuple(found)


def _declare(program: Program, line: str) -> None:
    match = re.fullmatch(r"\.reg \.(\w+)\s+(.*)", line)
    if match is None:
        if re.match(r"\.(loc|pragma|file|section)\b", line):
            return
        raise NotImplementedError(f"PTX directive: {line}")
    for name in split_operands(match[2]):
        numbered = re.fullmatch(r"(%\w+?)<(\d+)>", name)
        names = [f"{numbered[1]}{i}" for i in range(int(numbered[2]))] if numbered else [name]
        for register in names:
            program.registers[register] = REGISTERS[match[1]]


def _shared_variables(program: Program, text: str) -> None:
    for align, name, size in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d*)\]", text):
        if not size:  # dynamic shared memory begins after the static variables
            continue
        start = -(-program.static_bytes // int(align)) * int(align)
        program.shared[name] = start
        program.static_bytes = start + int(size)
    for align, name in re.findall(r"\.extern \.shared \.align (\d+) \.b8 (\w+)\[\]", text):
        unit = max(16, int(align))  # all that is certain of where it begins: it may be no multiple of more
        program.shared[name] = (-(-program.static_bytes // unit) | 1) * unit
        program.static_bytes = program.shared[name]


def parse(text: str) -> Program:
    """Read the only entry point of a PTX text."""
    text = re.sub(r"//.*", "", expand(text))
    if ".local" in text:
        raise NotImplementedError("local memory: the kernel's arrays did not fit into registers")
    program = Program()
    _shared_variables(program, text)
    head, body = re.search(r"\.visible \.entry \w+\((.*?)\)(.*)", text, re.S).groups()  # type: ignore[union-attr]
    program.parameters = re.findall(r"\.param \.(\w+) (\w+)", head)
    threads = re.search(r"\.maxntid (\d+)", body)
    program.threads = int(threads[1]) if threads else 1024
    blocks = re.search(r"\.minnctapersm (\d+)", body)
    program.blocks = int(blocks[1]) if blocks else 1
    body = body[body.index("{") + 1 : body.rindex("}")]
    for statement in re.split(r";|(?<=:)\s", _scoped(body)):
        line = " ".join(statement.split())
        if not line:
            continue
        if line.endswith(":"):
            program.labels[line[:-1]] = len(program.code)
        elif line.startswith("."):
            _declare(program, line)
        else:
            program.code.append(_instruction(line))
    program.stretches = batches.stretches(program)
    program.cell = min((_shared_bytes(i) for i in program.code), default=16)
    return program


def _shared_bytes(i: Instruction) -> int:
    """Return how many bytes of shared memory an instruction reaches at once: at most 16, and no fewer than 2."""
    kind = re.fullmatch(r"[a-z]+(\d+)", i.opcode[-1])
    if i.opcode[0] in ("ld", "st") and kind is not None:
        vector = next((int(part[1]) for part in i.opcode if part in ("v2", "v4")), 1)
        return int(kind[1]) // 8 * vector if "shared" in i.opcode else 16
    if i.opcode[:2] == ("cp", "async") and i.opcode[-2:] == ("shared", "global"):
        return int(i.operands[2])
    return 8 if i.opcode[0] == "mbarrier" else 16


def _scoped(body: str) -> str:
    """Remove the braces of nested scopes (inline assembly), giving their registers names of their own."""
    count = 0
    while True:
        match = re.search(r"(?<=[;{}:\n])\s*\{\s*(\.reg[^{}]*(?:\{[^{}]*\}[^{}]*)*?)\}\s*(?=[^;,\]\s]|$)", body)
        if match is None:
            return body
        inner = match[1]
        for name in re.findall(r"\.reg \.\w+\s+(\w+);", inner):
            inner = re.sub(rf"\b{name}\b", f"%scope{count}_{name}", inner)
        body = body[: match.start()] + "\n" + inner + "\n" + body[match.end() :]
        count += 1


def _instruction(line: str) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?([\w.:]+)\s*(.*)", line)
    if match is None:
        raise NotImplementedError(f"PTX statement: {line}")
    return Instruction(
        tuple(match[3].split(".")), split_operands(match[4]), match[2] or "", match[1] == "!", line
    )
