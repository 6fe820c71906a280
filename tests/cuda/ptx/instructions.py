"""What the instructions of PTX do that compute (PTX ISA 9.0, 9.7). A modifier that is not listed is an error."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tests.cuda.ptx.machine import DTYPES, Lanes, Machine, Operation
from tests.cuda.ptx.memory import Fault
from tests.cuda.ptx.parse import Instruction, split_operands

OPERATIONS: dict[str, Operation] = {}
_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip


def operation(*names: str) -> Callable[[Operation], Operation]:
    """Register what an opcode does."""

    def add(function: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return add


def modifiers(i: Instruction, *allowed: str) -> set[str]:
    """Return the parts of the opcode between its name and its type; raise for one that is not allowed."""
    found = set(i.opcode[1:-1])
    if not found <= set(allowed):
        raise NotImplementedError(f"PTX modifier {sorted(found - set(allowed))}: {i.text}")
    return found


@lru_cache(maxsize=4096)
def elements(operand: str) -> tuple[str, ...]:
    """Return the registers of a vector operand."""
    return split_operands(operand[1:-1]) if operand.startswith("{") else (operand,)


def kind_of(i: Instruction) -> str:
    if i.opcode[-1] not in DTYPES:
        raise NotImplementedError(f"PTX type: {i.text}")
    return i.opcode[-1]


def _flushed(i: Instruction, value: np.ndarray) -> np.ndarray:
    if "ftz" in i.opcode and value.dtype == np.float32:
        return np.where(np.abs(value) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), value), value)
    return value


def _sources(m: Machine, i: Instruction, lanes: Lanes, count: int) -> list[np.ndarray]:
    kind = kind_of(i)
    return [_flushed(i, m.read(operand, kind, lanes)) for operand in i.operands[1 : 1 + count]]


# Arithmetic -----------------------------------------------------------------------------------------------------------


@operation("add", "sub")
def _add(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "rn", "rm", "rp", "rz", "ftz")
    a, b = _sources(m, i, lanes, 2)
    result = a + b if i.opcode[0] == "add" else a - b
    if how & {"rm", "rp", "rz"}:
        exact = a.astype(np.longdouble) + (b if i.opcode[0] == "add" else -b)
        result = _directed(result, exact, how)
    m.write(i.operands[0], _flushed(i, result), lanes)


def _wide(kind: str) -> np.dtype:
    return DTYPES[f"{kind[0]}{2 * int(kind[1:])}"]


@operation("mul", "mad")
def _multiply(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "lo", "wide", "hi", "rn", "ftz")
    kind = kind_of(i)
    a, b = _sources(m, i, lanes, 2)
    if kind[0] == "f" and i.opcode[0] == "mad":
        raise NotImplementedError(f"PTX opcode: {i.text}")
    if "wide" in how:
        product = a.astype(_wide(kind)) * b.astype(_wide(kind))
        added_kind = f"{kind[0]}{2 * int(kind[1:])}"
    elif "hi" in how:
        if kind[1:] != "32":
            raise NotImplementedError(f"PTX opcode: {i.text}")
        product = (a.astype(_wide(kind)) * b.astype(_wide(kind)) >> np.array(32, _wide(kind))).astype(DTYPES[kind])
        added_kind = kind
    else:
        product, added_kind = a * b, kind
    if i.opcode[0] == "mad":
        product = product + m.read(i.operands[3], added_kind, lanes)
    m.write(i.operands[0], _flushed(i, product), lanes)


def _directed(nearest: np.ndarray, exact: np.ndarray, how: set[str]) -> np.ndarray:
    """Return what is nearest, or for a directed rounding its neighbour where it lies on the wrong side."""
    if not how & {"rm", "rp", "rz"}:
        return nearest
    down, up = np.nextafter(nearest, -np.inf), np.nextafter(nearest, np.inf)
    lower, upper = np.where(nearest > exact, down, nearest), np.where(nearest < exact, up, nearest)
    if "rm" in how:
        return lower.astype(nearest.dtype)
    if "rp" in how:
        return upper.astype(nearest.dtype)
    return np.where(exact > 0, lower, upper).astype(nearest.dtype)


@operation("fma")
def _fma(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "rn", "rm", "rp", "rz", "ftz")
    a, b, c = _sources(m, i, lanes, 3)
    # A product of two float32 is exact in float64, one of two float64 nearly so in long double.
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    exact = a.astype(wide)
    exact *= b
    exact += c
    m.write(i.operands[0], _flushed(i, _directed(exact.astype(a.dtype), exact, how)), lanes)


@operation("div", "rem")
def _divide(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i, "rn", "full", "approx", "ftz")
    a, b = _sources(m, i, lanes, 2)
    if a.dtype.kind == "f":
        if i.opcode[0] == "rem":
            raise NotImplementedError(f"PTX opcode: {i.text}")
        m.write(i.operands[0], _flushed(i, a / b), lanes)
        return
    if np.any(b == 0):
        raise Fault(f"division by zero: {i.text}")
    # Python's integers divide towards minus infinity, PTX towards zero.
    quotient = np.where((a < 0) != (b < 0), -(np.abs(a) // np.abs(b)), np.abs(a) // np.abs(b)).astype(a.dtype)
    m.write(i.operands[0], quotient if i.opcode[0] == "div" else a - quotient * b, lanes)


@operation("abs", "neg", "not", "cnot", "popc", "clz", "brev")
def _unary(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i, "ftz")
    (a,) = _sources(m, i, lanes, 1)
    name = i.opcode[0]
    if name == "abs":
        result = np.abs(a)
    elif name == "neg":
        result = -a
    elif name == "not":
        result = ~a
    elif name == "cnot":
        result = (a == 0).astype(a.dtype)
    else:
        width = a.dtype.itemsize * 8
        bits = (a[:, None] >> np.arange(width, dtype=a.dtype)) & a.dtype.type(1)
        if name == "brev":
            result = (bits[:, ::-1] << np.arange(width, dtype=a.dtype)).sum(1, dtype=a.dtype)
        else:
            high = np.where(bits.any(1), bits[:, ::-1].argmax(1), width)
            result = (bits.sum(1) if name == "popc" else high).astype(np.uint32)
    m.write(i.operands[0], result, lanes)


@operation("min", "max")
def _extremum(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "ftz", "NaN")
    a, b = _sources(m, i, lanes, 2)
    keeps_nan = "NaN" in how or a.dtype.kind != "f"
    function = {("min", True): np.minimum, ("max", True): np.maximum, ("min", False): np.fmin, ("max", False): np.fmax}
    m.write(i.operands[0], function[i.opcode[0], keeps_nan](a, b), lanes)


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "rcp": lambda x: 1 / x, "ex2": np.exp2, "lg2": np.log2,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
}  # fmt: skip


@operation(*_FUNCTIONS)
def _function(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i, "rn", "approx", "ftz")
    (a,) = _sources(m, i, lanes, 1)
    wide = a.astype(np.float64) if a.dtype == np.float32 else a
    m.write(i.operands[0], _flushed(i, _FUNCTIONS[i.opcode[0]](wide).astype(a.dtype)), lanes)


@operation("copysign")
def _copysign(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a, b = _sources(m, i, lanes, 2)
    m.write(i.operands[0], np.copysign(b, a), lanes)


# Bits -----------------------------------------------------------------------------------------------------------------


@operation("and", "or", "xor")
def _logic(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a, b = _sources(m, i, lanes, 2)
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[i.opcode[0]]
    m.write(i.operands[0], function(a, b), lanes)


@operation("shl", "shr")
def _shift(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a = m.read(i.operands[1], kind_of(i), lanes)
    by = m.read(i.operands[2], "u32", lanes).astype(np.int64)
    width = a.dtype.itemsize * 8
    inside = np.minimum(by, width - 1).astype(a.dtype)
    if i.opcode[0] == "shl":
        result = np.where(by >= width, a.dtype.type(0), a << inside)
    else:  # a signed value keeps its sign, so that a shift by all bits leaves the sign everywhere
        result = np.where((by >= width) & (a.dtype.kind == "u"), a.dtype.type(0), a >> inside)
    m.write(i.operands[0], result, lanes)


@operation("shf")
def _funnel(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "l", "r", "wrap", "clamp")
    low, high, by = (m.read(operand, "u32", lanes).astype(np.uint64) for operand in i.operands[1:4])
    by = by % np.uint64(32) if "wrap" in how else np.minimum(by, np.uint64(32))
    both = (high << np.uint64(32)) | low
    result = (both << by) >> np.uint64(32) if "l" in how else both >> by
    m.write(i.operands[0], (result & np.uint64(0xFFFFFFFF)).astype(np.uint32), lanes)


@operation("bfe")
def _extract(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a = m.read(i.operands[1], kind_of(i), lanes)
    start, length = (m.read(operand, "u32", lanes).astype(np.int64) & 255 for operand in i.operands[2:4])
    width = a.dtype.itemsize * 8
    if np.any(start + length > width):
        raise NotImplementedError(f"PTX bfe beyond its operand: {i.text}")
    left = (width - start - length).astype(a.dtype)
    kept = np.where(length > 0, (a << left) >> (width - length).clip(0, width - 1).astype(a.dtype), a.dtype.type(0))
    m.write(i.operands[0], kept, lanes)


@operation("bfi")
def _insert(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a, b = (m.read(operand, kind_of(i), lanes).astype(np.uint64) for operand in i.operands[1:3])
    start, length = (m.read(operand, "u32", lanes).astype(np.uint64) for operand in i.operands[3:5])
    mask = ((np.uint64(1) << length) - np.uint64(1)) << start
    m.write(i.operands[0], ((b & ~mask) | ((a << start) & mask)).astype(DTYPES[kind_of(i)]), lanes)


@operation("prmt")
def _permute(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a, b, choice = (m.read(operand, "b32", lanes) for operand in i.operands[1:4])
    both = (b.astype(np.uint64) << np.uint64(32)) | a
    result = np.zeros(len(lanes), np.uint32)
    for byte in range(4):
        pick = (choice >> np.uint32(4 * byte)) & np.uint32(15)
        value = (both >> (np.uint64(8) * (pick & np.uint32(7)).astype(np.uint64))).astype(np.uint32) & np.uint32(255)
        value = np.where(pick & np.uint32(8), np.where(value & np.uint32(128), 255, 0), value).astype(np.uint32)
        result |= value << np.uint32(8 * byte)
    m.write(i.operands[0], result, lanes)


# Moves, comparisons, conversions --------------------------------------------------------------------------------------


@operation("mov")
def _move(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    target, source = i.operands
    if target.startswith("{") or source.startswith("{"):
        _move_parts(m, i, lanes)
    else:
        under_way = m.pending.pop(source, None)  # a move to another name touches nothing
        m.write(target, m.read(source, kind_of(i), lanes), lanes)
        if under_way is not None:
            m.pending[source] = under_way
            m.pending.setdefault(target, np.zeros(m.count, np.int64))[lanes] = under_way[lanes]


def _move_parts(m: Machine, i: Instruction, lanes: Lanes) -> None:
    """Pack a vector of small registers into one, or unpack it."""
    kind = f"b{kind_of(i)[1:]}"
    targets, sources = elements(i.operands[0]), elements(i.operands[1])
    part = DTYPES[f"b{int(kind[1:]) // max(len(targets), len(sources))}"]
    name = f"b{part.itemsize * 8}"
    if len(targets) > 1:
        parts = m.read(sources[0], kind, lanes).reshape(-1, 1).view(part)
        for number, target in enumerate(targets):
            m.write(target, np.ascontiguousarray(parts[:, number]), lanes)
    else:
        parts = np.stack([m.read(source, name, lanes) for source in sources], 1)
        m.write(targets[0], np.ascontiguousarray(parts).view(DTYPES[kind])[:, 0], lanes)


@operation("cvta")
def _to_space(m: Machine, i: Instruction, lanes: Lanes) -> None:
    # Generic addresses of global memory are global addresses; shared memory has a window of its own, which kernels
    # reach by 32-bit shared addresses.
    if modifiers(i, "to", "global", "shared") & {"shared"}:
        raise NotImplementedError(f"PTX generic address of shared memory: {i.text}")
    m.write(i.operands[0], m.read(i.operands[1], "u64", lanes), lanes)


@operation("setp")
def _compare(m: Machine, i: Instruction, lanes: Lanes) -> None:
    parts = [part for part in i.opcode[1:-1] if part != "ftz"]
    joined = [part for part in parts if part in ("and", "or", "xor")]
    (word,) = [part for part in parts if part not in joined]
    a, b = (_flushed(i, m.read(operand, kind_of(i), lanes)) for operand in i.operands[1:3])
    if word in ("num", "nan"):
        unordered = np.isnan(a) | np.isnan(b)
        result = unordered if word == "nan" else ~unordered
    elif word in _COMPARE:
        result = _COMPARE[word](a, b)
        if word == "ne" and a.dtype.kind == "f":
            result &= ~(np.isnan(a) | np.isnan(b))
    elif word.endswith("u") and word[:-1] in _COMPARE and a.dtype.kind == "f":
        result = _COMPARE[word[:-1]](a, b) | np.isnan(a) | np.isnan(b)
    else:
        raise NotImplementedError(f"PTX comparison: {i.text}")
    if joined:
        other = m.read(i.operands[3].lstrip("!"), "pred", lanes) != i.operands[3].startswith("!")
        result = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[joined[0]](result, other)
    targets = i.operands[0].split("|")
    m.write(targets[0], result, lanes)
    if len(targets) > 1:
        raise NotImplementedError(f"PTX second predicate: {i.text}")


@operation("selp")
def _select(m: Machine, i: Instruction, lanes: Lanes) -> None:
    modifiers(i)
    a, b = _sources(m, i, lanes, 2)
    m.write(i.operands[0], np.where(m.read(i.operands[3], "pred", lanes), a, b), lanes)


@operation("testp")
def _test(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "notanumber", "infinite", "finite")
    (a,) = _sources(m, i, lanes, 1)
    test = {"notanumber": np.isnan, "infinite": np.isinf, "finite": np.isfinite}[how.pop()]
    m.write(i.operands[0], test(a), lanes)


_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def round_to_bfloat16(value: np.ndarray) -> np.ndarray:
    """Return the bits of the nearest bfloat16 (ties to even) as uint16; NaN becomes the quiet 0x7FFF."""
    bits = value.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(value), np.uint32(0x7FFF), rounded).astype(np.uint16)


@operation("cvt")
def _convert(m: Machine, i: Instruction, lanes: Lanes) -> None:
    *how, to, source = i.opcode[1:]
    unknown = set(how) - {"rn", "rna", "rz", "ftz", "sat", *_ROUND}
    if unknown:
        raise NotImplementedError(f"PTX modifier {sorted(unknown)}: {i.text}")
    if to == "tf32":
        bits = m.read(i.operands[1], "b32", lanes)  # round to nearest, ties away: 10 bits of the fraction stay
        m.write(i.operands[0], (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), lanes)
        return
    if to in ("bf16x2", "f16x2"):
        high, low = (m.read(operand, "f32", lanes) for operand in i.operands[1:3])
        both = [_half_bits(to[:-2], value).astype(np.uint32) for value in (high, low)]
        m.write(i.operands[0], (both[0] << np.uint32(16)) | both[1], lanes)
        return
    if source in ("bf16", "f16"):
        bits16 = m.read(i.operands[1], "b16", lanes)
        value: Any = bits16.view(np.float16).astype(np.float32) if source == "f16" else _widen(bits16)
    else:
        value = _flushed(i, m.read(i.operands[1], source, lanes))
    if to in ("bf16", "f16"):
        m.write(i.operands[0], _half_bits(to, value), lanes)
        return
    target = DTYPES[to]
    rounding = [_ROUND[word] for word in how if word in _ROUND]
    if rounding:
        value = rounding[0](value)
    if value.dtype.kind == "f" and target.kind in "iu":
        limits = np.iinfo(target)
        value = np.where(np.isnan(value), 0, value)
        top = np.nextafter(value.dtype.type(limits.max), value.dtype.type(0))
        value = np.where(value > top, limits.max, np.clip(value, limits.min, top).astype(target))
    result = _flushed(i, value.astype(target))
    if "sat" in how:
        result = np.clip(result, 0, 1)
    register = m.program.registers[i.operands[0]]
    if register.itemsize > target.itemsize and register.kind == "u":  # a small integer in a larger register
        result = result.astype(f"{target.kind}{register.itemsize}")
    m.write(i.operands[0], result, lanes)


def _half_bits(kind: str, value: np.ndarray) -> np.ndarray:
    return round_to_bfloat16(value) if kind == "bf16" else value.astype(np.float16).view(np.uint16)


def _widen(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
