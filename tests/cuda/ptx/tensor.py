"""Tensor copies (TMA): boxes, and pixels as convolutions read them (PTX ISA, 5.5 tensors and 9.7.9.27)."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np

from numbanet.cuda.tensor_map import CORNERS, ELEMENTS, LINE, MOST_BOX, MOST_OFFSET, MOST_STEP, Box, Pixels
from tests.cuda.ptx.barriers import barrier_at, waiting
from tests.cuda.ptx.machine import Machine
from tests.cuda.ptx.memory import Fault
from tests.cuda.ptx.parse import Instruction, split_operands

_BOX = "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
_PIXELS = "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
_MAP = 128  # bytes of a map


def refusal(form: Box | Pixels, address: int) -> str | None:
    """Return None, or which of the driver's rules a form breaks ("CUDA Driver API", cuTensorMapEncode...)."""
    size = ELEMENTS[form.element]
    if address % 16:
        return "the tensor's address is no multiple of 16"
    if not all(1 <= n <= 1 << 32 for n in form.sizes):
        return f"sizes {form.sizes}"
    if any(stride % 16 or not 0 < stride < 1 << 40 for stride in form.strides):
        return f"strides {form.strides}"
    if isinstance(form, Box):
        fine = all(1 <= n <= MOST_BOX for n in form.box) and form.box[0] * size == LINE
        return None if fine else f"box {form.box}"
    corners = all(v in CORNERS for v in form.lower + form.upper)
    window = all(n + u > lo for n, u, lo in zip(form.sizes[1:3], form.upper, form.lower))
    steps = all(1 <= v <= MOST_STEP for v in form.step)
    return None if corners and window and steps and 1 <= form.pixels <= MOST_BOX else f"pixels of {form}"


def is_copy(i: Instruction) -> bool:
    """Return whether an instruction is a tensor copy."""
    return ".".join(i.opcode) in (_BOX, _PIXELS)


def fence_map(m: Machine, i: Instruction, lanes: np.ndarray) -> None:
    """Run ``fence.proxy.tensormap``, which lets a block see a map that the host wrote."""
    if i.operands[1] != str(_MAP):
        raise NotImplementedError(f"PTX opcode: {i.text}")
    for lane, address in zip(lanes.tolist(), m.address(i.operands[0], lanes).tolist()):
        waiting(m).maps.add((lane // m.threads, address))


def fence_barriers(m: Machine, lanes: np.ndarray) -> None:
    """Run ``fence.mbarrier_init``, which lets the copy engine see barriers."""
    for place, barrier in waiting(m).barriers.items():
        barrier.visible |= place // m.shared.stride in lanes // m.threads


def start(m: Machine, i: Instruction, lanes: np.ndarray) -> None:
    """Start the copies of some lanes."""
    source = re.fullmatch(r"\[([^,]+),\s*(\{.*\})\]", i.operands[1])
    assert source is not None
    names = split_operands(source[2][1:-1])
    corner = np.stack([m.read(name, "s32", lanes) for name in names], 1).astype(np.int64)
    offset = np.zeros((len(lanes), 0), np.int64)
    if len(names) == 4:
        shifts = split_operands(i.operands[3][1:-1])
        offset = np.stack([m.read(name, "b16", lanes) for name in shifts], 1).astype(np.int64)
    targets = m.address(i.operands[0], lanes)
    maps = m.address(f"[{source[1]}]", lanes)
    barriers = m.shared.index(m.address(i.operands[2], lanes), 8, lanes)
    for n, lane in enumerate(lanes.tolist()):
        known = m.memory.maps.get(int(maps[n]))
        if known is None or isinstance(known[0], Box) == bool(offset.size):
            raise Fault("a tensor copy without a map of its kind")
        if (lane // m.threads, int(maps[n])) not in waiting(m).maps:
            raise Fault("a tensor copy by a map that the host wrote, without a fence")
        form, base = known
        content = _pixels(m, form, base, corner[n], offset[n]) if offset.size else _box(m, form, base, corner[n])
        _send(m, lane, int(targets[n]), int(barriers[n]), content)


def _send(m: Machine, lane: int, target: int, place: int, content: np.ndarray) -> None:
    if target % (8 * LINE):
        raise Fault(f"a tensor copy to {target}, where the swizzle does not begin")
    barrier = barrier_at(m, place)
    if not barrier.visible:
        raise Fault("a tensor copy counts for a barrier that was initialised without a fence")
    chunks = content.reshape(-1, 16)
    address = target + 16 * np.arange(len(chunks))
    address ^= (address >> 7 & 7) << 4
    at = m.shared.index(address, 16, np.full(len(chunks), lane))
    m.shared.send(at, 16, lane)
    barrier.copies.append(partial(_land, m, at, chunks))


def _land(m: Machine, at: np.ndarray, chunks: np.ndarray, number: int) -> int:
    m.shared.land(at, 16, chunks, number)
    return chunks.size


def _box(m: Machine, form: Box, base: int, corner: np.ndarray) -> np.ndarray:
    z, y, x = np.meshgrid(*[corner[axis] + np.arange(form.box[axis]) for axis in (2, 1, 0)], indexing="ij")
    return _read(m, form, base, (x, y, z))


def _pixels(m: Machine, form: Pixels, base: int, corner: np.ndarray, offset: np.ndarray) -> np.ndarray:
    channel, w, h, n = corner.tolist()
    first, step = form.lower, form.step
    last = [form.sizes[1 + axis] - 1 + form.upper[axis] for axis in (0, 1)]
    for value, axis in ((w, 0), (h, 1)):
        if not first[axis] <= value <= last[axis] or (value - first[axis]) % step[axis]:
            raise Fault(f"a tensor copy of pixels that begins at {value}, none of the window")
    if (offset > MOST_OFFSET).any():
        raise Fault(f"a tensor copy of pixels with an offset of {offset}")
    places = []
    for _ in range(form.pixels):
        places.append((w, h, n))
        w += step[0]
        if w > last[0]:
            w, h = first[0], h + step[1]
        if h > last[1]:
            h, n = first[1], n + 1
    walked = np.array(places)[:, None]
    c = channel + np.arange(LINE // ELEMENTS[form.element])[None]
    ws, hs, ns = (walked[..., 0] + offset[0], walked[..., 1] + offset[1], walked[..., 2])
    return _read(m, form, base, np.broadcast_arrays(c, ws, hs, ns))


def _read(m: Machine, form: Box | Pixels, base: int, at: Any) -> np.ndarray:
    """Return the bytes of elements, zeros for those outside of the tensor."""
    size = ELEMENTS[form.element]
    inside = np.ones(at[0].shape, bool)
    address = np.full(at[0].shape, base)
    for place, extent, stride in zip(at, form.sizes, (size, *form.strides)):
        inside &= (place >= 0) & (place < extent)
        address = address + place * stride
    kind = np.dtype(f"u{size}")
    values = np.zeros(at[0].shape, kind)
    values[inside] = m.memory.bytes.view(kind)[m.memory.index(address[inside], size) // size]
    if form.element == "tf32":  # rounded, ties away from zero: how the copy engine rounds ties is not documented
        values = (values + kind.type(0x1000)) & kind.type(0xFFFFE000)
    return values.reshape(-1).view(np.uint8)
