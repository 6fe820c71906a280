"""What warps do together: shuffles, votes, matrix fragments, tensor-core products; and asynchronous copies.

The layouts of fragments are those of the PTX ISA, section 9.7.15 (matrices) and 9.7.9 (copies).
"""

from __future__ import annotations

import numpy as np

from tests.cuda.ptx import tensor
from tests.cuda.ptx.instructions import elements, modifiers, operation
from tests.cuda.ptx.machine import Lanes, Machine
from tests.cuda.ptx.parse import Instruction

_GROUP, _QUAD = np.arange(32) // 4, np.arange(32) % 4


@operation("shfl")
def _shuffle(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "sync", "up", "down", "bfly", "idx")
    m.full_warps(lanes)
    targets = i.operands[0].split("|")
    value = m.read(i.operands[1], "b32", lanes).reshape(-1, 32)
    by = m.read(i.operands[2], "u32", lanes).reshape(-1, 32).astype(np.int64)
    limits = m.read(i.operands[3], "u32", lanes).reshape(-1, 32).astype(np.int64)
    lane, clamp, segment = np.arange(32), limits & 31, limits >> 8 & 31
    most = (lane & segment) | (clamp & ~segment)
    if "up" in how:
        source, inside = lane - by, lane - by >= most
    elif "down" in how:
        source, inside = lane + by, lane + by <= most
    elif "bfly" in how:
        source, inside = lane ^ by, (lane ^ by) <= most
    else:
        source = (lane & segment) | (by & ~segment)
        inside = source <= most
    source = np.where(inside, source, lane)
    m.write(targets[0], np.take_along_axis(value, source, 1).reshape(-1), lanes)
    if len(targets) > 1:
        m.write(targets[1], inside.reshape(-1), lanes)


@operation("vote")
def _vote(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "sync", "any", "all", "ballot")
    m.full_warps(lanes)
    said = (m.read(i.operands[1].lstrip("!"), "pred", lanes) != i.operands[1].startswith("!")).reshape(-1, 32)
    if "ballot" in how:
        result = (said.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(1, keepdims=True).astype(np.uint32)
    else:
        result = said.any(1, keepdims=True) if "any" in how else said.all(1, keepdims=True)
    m.write(i.operands[0], np.broadcast_to(result, said.shape).reshape(-1), lanes)


@operation("cp")
def _copy(m: Machine, i: Instruction, lanes: Lanes) -> None:
    opcode = i.opcode
    if opcode == ("cp", "async", "commit_group"):
        m.copies.commit(lanes)
    elif opcode == ("cp", "async", "wait_group"):
        _land(m, lanes, int(i.operands[0]))
    elif opcode == ("cp", "async", "wait_all"):
        m.copies.commit(lanes)
        _land(m, lanes, 0)
    elif opcode in (("cp", "async", "cg", "shared", "global"), ("cp", "async", "ca", "shared", "global")):
        _start_copy(m, i, lanes)
    elif tensor.is_copy(i):
        tensor.start(m, i, lanes)
    else:
        raise NotImplementedError(f"PTX opcode: {i.text}")


def _start_copy(m: Machine, i: Instruction, lanes: Lanes) -> None:
    size = int(i.operands[2])
    if size not in ((16,) if "cg" in i.opcode else (4, 8, 16)):
        raise NotImplementedError(f"PTX copy size: {i.text}")
    target = m.shared.index(m.address(i.operands[0], lanes), size, lanes)
    taken = m.read(i.operands[3], "u32", lanes) if len(i.operands) > 3 else np.full(len(lanes), size)
    content = np.zeros((len(lanes), size), np.uint8)
    some = taken > 0
    if some.any():
        at = m.memory.index(m.address(i.operands[1], lanes)[some], size)
        content[some] = m.memory.bytes[at[:, None] + np.arange(size)]
    content[np.arange(size) >= taken[:, None]] = 0
    m.shared.write(target, size, lanes)  # the race is with the copy's start as well as with its end
    m.shared.forget(target, size)
    m.copies.add(lanes, target, content)


def _land(m: Machine, lanes: Lanes, pending: int) -> None:
    for waited, at, content in m.copies.wait(lanes, pending):
        size = content.shape[1]
        m.shared.write(at, size, waited)
        m.shared.bytes[at[:, None] + np.arange(size)] = content


@operation("ldmatrix")
def _load_matrix(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared")
    m.full_warps(lanes)
    targets = elements(i.operands[0])
    used = np.tile(np.arange(32) < 8 * len(targets), len(lanes) // 32)
    addresses = m.address(i.operands[1], lanes)
    at = m.shared.index(addresses[used], 16, lanes[used])
    m.shared.read(at, 16, lanes[used])
    rows = m.shared.bytes[at[:, None] + np.arange(16)].view(np.uint16).reshape(-1, len(targets), 8, 8)
    if "trans" in how:
        rows = rows.swapaxes(2, 3)
    pairs = np.ascontiguousarray(rows).view(np.uint32).reshape(-1, len(targets), 32)
    for number, target in enumerate(targets):
        m.write(target, np.ascontiguousarray(pairs[:, number]).reshape(-1), lanes)


def _tf32(bits: np.ndarray) -> np.ndarray:
    """The tensor core drops the 13 low bits of the fraction."""
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def _halves(bits: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind == "bf16":
        return (bits << np.uint32(16)).view(np.float32), (bits & np.uint32(0xFFFF0000)).view(np.float32)
    pair = np.ascontiguousarray(bits)[..., None].view(np.float16).astype(np.float32)
    return pair[..., 0], pair[..., 1]


@operation("mma")
def _multiply_matrices(m: Machine, i: Instruction, lanes: Lanes) -> None:
    shapes = {"tf32": "m16n8k8", "bf16": "m16n8k16", "f16": "m16n8k16"}
    kind = i.opcode[-2]
    expected = ("mma", "sync", "aligned", shapes.get(kind), "row", "col", "f32", kind, kind, "f32")
    if i.opcode != expected:
        raise NotImplementedError(f"PTX opcode: {i.text}")
    m.full_warps(lanes)
    bits_a, bits_b = (
        np.stack([m.read(name, "b32", lanes) for name in elements(operand)], -1).reshape(-1, 32, count)
        for operand, count in zip(i.operands[1:3], (4, 2))
    )
    c_in = np.stack([m.read(name, "f32", lanes) for name in elements(i.operands[3])], -1).reshape(-1, 32, 4)
    warps, g, q = len(bits_a), _GROUP, _QUAD
    if kind == "tf32":
        a, b = np.zeros((warps, 16, 8), np.float32), np.zeros((warps, 8, 8), np.float32)
        left, right = _tf32(bits_a), _tf32(bits_b)
        for number, (row, column) in enumerate(((0, 0), (8, 0), (0, 4), (8, 4))):
            a[:, g + row, q + column] = left[..., number]
        b[:, q, g], b[:, q + 4, g] = right[..., 0], right[..., 1]
    else:
        a, b = np.zeros((warps, 16, 16), np.float32), np.zeros((warps, 16, 8), np.float32)
        for half, (left, right) in enumerate(zip(_halves(bits_a, kind), _halves(bits_b, kind))):
            for number, (row, column) in enumerate(((0, 0), (8, 0), (0, 8), (8, 8))):
                a[:, g + row, 2 * q + column + half] = left[..., number]
            b[:, 2 * q + half, g], b[:, 2 * q + 8 + half, g] = right[..., 0], right[..., 1]
    product = np.matmul(a, b)
    places = ((0, 0), (0, 1), (8, 0), (8, 1))
    for number, (target, (row, column)) in enumerate(zip(elements(i.operands[0]), places)):
        result = c_in[..., number] + product[:, g + row, 2 * q + column]
        m.write(target, result.astype(np.float32).reshape(-1), lanes)
