"""What four warps do together on sm_90a: asynchronous products of matrices in shared memory (PTX ISA, 9.7.16).

Results are in their registers at once, but nobody may read them, or overwrite the operands, before their group has been
waited for; operands must have been fenced for the asynchronous proxy, and registers by ``wgmma.fence``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from tests.cuda.ptx.instructions import elements, operation
from tests.cuda.ptx.machine import Lanes, Machine
from tests.cuda.ptx.memory import Fault
from tests.cuda.ptx.parse import Instruction

_SIZE = 128  # threads of a warpgroup


def _bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _f16(bits: np.ndarray) -> np.ndarray:
    return bits.view(np.float16).astype(np.float32)


def _tf32(bits: np.ndarray) -> np.ndarray:
    return (bits.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)  # the tensor core drops the lowest bits


# Of each pair of operands: the depth, and what 16 bytes of shared memory hold.
_KINDS = {("bf16", "bf16"): (16, _bf16), ("f16", "f16"): (16, _f16), ("tf32", "tf32"): (8, _tf32)}


@dataclass
class Products:
    """The products of each warpgroup: their numbers and the cells of shared memory that they read."""

    last: int = 0
    fenced: set[int] = field(default_factory=set)
    open: dict[int, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    closed: dict[int, list[list[tuple[int, np.ndarray]]]] = field(default_factory=dict)


def groups_of(m: Machine, lanes: Lanes) -> np.ndarray:
    """Return the first lanes of the warpgroups."""
    if m.threads % _SIZE or len(lanes) % _SIZE or np.any(lanes.reshape(-1, _SIZE)[:, 0] % _SIZE):
        raise Fault("a warpgroup diverged before an instruction that all its threads must reach together")
    m.full_warps(lanes)
    return lanes[::_SIZE]


@operation("wgmma")
def _wgmma(m: Machine, i: Instruction, lanes: Lanes) -> None:
    if m.products is None:
        m.products = Products()
    groups, opcode = groups_of(m, lanes), i.opcode
    if opcode == ("wgmma", "fence", "sync", "aligned"):
        m.products.fenced.update(groups.tolist())
    elif opcode == ("wgmma", "commit_group", "sync", "aligned"):
        for group in groups.tolist():
            m.products.closed.setdefault(group, []).append(m.products.open.pop(group, []))
    elif opcode == ("wgmma", "wait_group", "sync", "aligned"):
        for group in groups.tolist():
            _wait(m, group, int(i.operands[0]))
    elif opcode[1:4] == ("mma_async", "sync", "aligned") and opcode[5] == "f32" and opcode[6:] in _KINDS:
        depth, _ = _KINDS[opcode[6:]]
        if not re.fullmatch(rf"m64n\d+k{depth}", opcode[4]):
            raise NotImplementedError(f"PTX opcode: {i.text}")
        for group in groups.tolist():
            _multiply(m, i, group)
    else:
        raise NotImplementedError(f"PTX opcode: {i.text}")


def _wait(m: Machine, group: int, pending: int) -> None:
    m.products.fenced.discard(group)
    closed = m.products.closed.get(group, [])
    lanes = slice(group, group + _SIZE)
    while len(closed) > pending:
        for number, cells in closed.pop(0):
            m.shared.end(cells, np.arange(group, group + _SIZE))
            for register in m.pending.values():
                register[lanes][register[lanes] == number] = 0


def _multiply(m: Machine, i: Instruction, group: int) -> None:
    lanes = np.arange(group, group + _SIZE)
    if group not in m.products.fenced:
        raise Fault("a product without wgmma.fence before it")
    columns = int(i.opcode[4].split("n")[1].split("k")[0])
    if i.operands[3:6] != ("1", "1", "1"):
        raise NotImplementedError(f"PTX scales of a product: {i.text}")
    turned = [operand == "1" for operand in i.operands[6:]] or [False, False]
    a, cells_a = _operand(m, i, i.operands[1], turned[0], 64, lanes)
    b, cells_b = _operand(m, i, i.operands[2], turned[1], columns, lanes)
    product = a @ b.T
    m.products.last += 1
    number = m.products.last
    thread = np.arange(_SIZE)
    row, column = thread // 32 * 16 + thread % 32 // 4, 2 * (thread % 4)
    for place, register in enumerate(elements(i.operands[0])):
        under_way = m.pending.pop(register, None)  # products into one register follow each other
        value = m.read(register, "f32", lanes)
        value = value + product[row + 8 * (place // 2 % 2), column + 8 * (place // 4) + place % 2]
        m.write(register, value.astype(np.float32), lanes)
        under_way = np.zeros(m.count, np.int64) if under_way is None else under_way
        under_way[lanes] = number
        m.pending[register] = under_way
    m.products.open.setdefault(group, []).extend([(number, cells_a), (number, cells_b)])


def _operand(
    m: Machine, i: Instruction, name: str, turned: bool, count: int, lanes: Lanes
) -> tuple[np.ndarray, np.ndarray]:
    """Return an operand as (places, depth) float32, and the cells that it lies in."""
    bits = np.unique(m.read(name, "u64", lanes))
    if len(bits) > 1:
        raise Fault("the threads of a warpgroup disagree about a descriptor")
    word = int(bits[0])
    start, leading, stride = (((word >> shift) & 0x3FFF) << 4 for shift in (0, 16, 32))
    swizzle = word >> 62
    if swizzle == 0 or word >> 46 & 0xFFFF:
        raise NotImplementedError(f"PTX descriptor {word:#x}: {i.text}")
    width = 256 >> swizzle  # bytes of a line
    depth, unpack = _KINDS[i.opcode[6:]]
    if turned:  # chunks of 8 places, for each element of the reduction
        place, k = np.meshgrid(np.arange(0, count, 8), np.arange(16), indexing="ij")
        block = width // 2
        offset = place // block * leading + k // 8 * stride + k % 8 * width + place % block * 2
    else:  # two chunks of elements of the reduction, for each place
        place, k = np.meshgrid(np.arange(count), np.arange(2), indexing="ij")
        offset = place // 8 * stride + place % 8 * width + k * 16
    address = start + offset.reshape(-1)
    address ^= (address >> 7 & (width // 16 - 1)) << 4
    at = m.shared.index(address, 16, np.full(len(address), lanes[0]))
    cells = m.shared.start(at, 16, lanes)
    values = unpack(m.shared.bytes[at[:, None] + np.arange(16)]).reshape(*place.shape, -1)
    values = values.swapaxes(1, 2) if turned else values
    return np.ascontiguousarray(values).reshape(count, depth), cells
