"""What the instructions of PTX do that reach memory, and those that wait for other threads (PTX ISA 9.0, 9.7)."""

from __future__ import annotations

import numpy as np

from tests.cuda.ptx import tensor
from tests.cuda.ptx.instructions import elements, kind_of, modifiers, operation
from tests.cuda.ptx.machine import DTYPES, Lanes, Machine
from tests.cuda.ptx.memory import Fault
from tests.cuda.ptx.parse import Instruction

# Memory ---------------------------------------------------------------------------------------------------------------


@operation("ld", "ldu")
def _load(m: Machine, i: Instruction, lanes: Lanes) -> None:
    space, vector, kind = _access(i)
    if space == "param":
        value = m.parameters[i.operands[1].strip("[]")]
        m.write(i.operands[0], np.full(len(lanes), value).astype(_widest(m, i, kind)), lanes)
        return
    dtype = DTYPES[kind]
    size = dtype.itemsize * vector
    at, content = _place(m, space, i.operands[1], size, lanes)
    if space == "shared":
        m.shared.read(at, size, lanes)
    values = content.view(dtype)[(at // dtype.itemsize)[:, None] + np.arange(vector)]
    for number, target in enumerate(elements(i.operands[0])):
        column = np.ascontiguousarray(values[:, number])
        register = m.program.registers[target]
        if register.itemsize > dtype.itemsize:  # a small integer is extended to the register's width
            column = column.astype(f"{dtype.kind}{register.itemsize}")
        m.write(target, column, lanes)


def _widest(m: Machine, i: Instruction, kind: str) -> np.dtype:
    register = m.program.registers[i.operands[0]]
    dtype = DTYPES[kind]
    if register.itemsize > dtype.itemsize:
        return np.dtype(f"{dtype.kind}{register.itemsize}")
    return dtype


@operation("st")
def _store(m: Machine, i: Instruction, lanes: Lanes) -> None:
    space, vector, kind = _access(i)
    dtype = DTYPES[kind]
    size = dtype.itemsize * vector
    at, content = _place(m, space, i.operands[0], size, lanes)
    sources = elements(i.operands[1])
    if space == "shared":
        m.shared.write(at, size, lanes)
    else:
        m.memory.mark(at, size)
    wide = kind if dtype.itemsize > 1 else f"{kind[0]}16"
    values = np.stack([m.read(source, wide, lanes).astype(dtype) for source in sources], 1)
    content.view(dtype)[(at // dtype.itemsize)[:, None] + np.arange(vector)] = values


def _access(i: Instruction) -> tuple[str, int, str]:
    """Return the state space, the length of the vector, and the type of a load or store."""
    space, vector = "", 1
    for part in i.opcode[1:-1]:
        if part in ("global", "shared", "param"):
            space = part
        elif part in ("v2", "v4"):
            vector = int(part[1])
        elif part not in ("nc", "relaxed", "volatile", "weak", "gpu", "L1::no_allocate"):
            raise NotImplementedError(f"PTX modifier {part}: {i.text}")
    if not space:
        raise NotImplementedError(f"PTX generic access: {i.text}")
    return space, vector, kind_of(i)


def _place(m: Machine, space: str, operand: str, size: int, lanes: Lanes) -> tuple[np.ndarray, np.ndarray]:
    addresses = m.address(operand, lanes)
    if space == "global":
        return m.memory.index(addresses, size), m.memory.bytes
    return m.shared.index(addresses, size, lanes), m.shared.bytes


@operation("atom", "red")
def _atomic(m: Machine, i: Instruction, lanes: Lanes) -> None:
    how = modifiers(i, "global", "add", "relaxed", "gpu", "min", "max", "inc", "exch", "noftz")
    if "global" not in how or not how & {"add", "max", "min"}:
        raise NotImplementedError(f"PTX opcode: {i.text}")
    kind = kind_of(i)
    dtype = DTYPES[kind]
    target, source = i.operands[-2], i.operands[-1]
    at, content = _place(m, "global", target, dtype.itemsize, lanes)
    m.memory.mark(at, dtype.itemsize)
    values, cells, view = m.read(source, kind, lanes), at // dtype.itemsize, content.view(dtype)
    combine = np.add if "add" in how else np.maximum if "max" in how else np.minimum
    former = np.empty(len(lanes), dtype)
    for number, (cell, value) in enumerate(zip(cells, values)):
        former[number] = view[cell]
        view[cell] = combine(view[cell], value)
    if i.opcode[0] == "atom":
        m.write(i.operands[0], former, lanes)


@operation("membar", "fence")
def _fence(m: Machine, i: Instruction, lanes: Lanes) -> None:
    """One step runs a whole instruction: memory is in order, but for the asynchronous proxy. A fence is no barrier."""
    if i.opcode == ("fence", "proxy", "async", "shared::cta"):
        m.shared.fence(lanes)
    elif i.opcode == ("fence", "mbarrier_init", "release", "cluster"):
        tensor.fence_barriers(m, lanes)
    elif i.opcode == ("fence", "proxy", "tensormap::generic", "acquire", "sys"):
        tensor.fence_map(m, i, lanes)
    elif "proxy" in i.opcode or "mbarrier_init" in i.opcode:
        raise NotImplementedError(f"PTX opcode: {i.text}")


@operation("trap")
def _trap(m: Machine, i: Instruction, lanes: Lanes) -> None:
    raise Fault("the program trapped")


# Barriers -------------------------------------------------------------------------------------------------------------


@operation("bar", "barrier")
def _barrier(m: Machine, i: Instruction, lanes: Lanes) -> None:
    if i.opcode[1:] in (("sync",), ("sync", "aligned")) and i.operands == ("0",):
        m.barrier(lanes)
    elif i.opcode[1:] == ("warp", "sync"):
        m.warp_barrier(lanes)
    else:
        raise NotImplementedError(f"PTX opcode: {i.text}")
