"""Convolution on the GPU in float32: forward and backward_input, by the kernel of `numbanet.cuda.conv_gemm`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.conv_gemm import COLUMNS, DEPTH, NOWHERE, ROWS, conv_gemm
from numbanet.cuda.launch import constant, launch
from numbanet.problem.conv import ConvProblem, Epilogue

_MOST = 2**31 - 1  # offsets are 32 bits wide
Tap = tuple[int, int, int]  # dy, dx, offset in the weight


@dataclass(frozen=True, eq=False)
class _Plan:
    """One launch: its grid, the integers of the kernel, and the table of the reduction."""

    grid: tuple[int, int, int]
    integers: tuple[int, ...]
    table: np.ndarray


def _vector(p: ConvProblem) -> bool:
    return p.cg % 4 == 0 and p.kg % 4 == 0


def _table(taps: list[Tap], width: int, channels: int, group: int, step: int, vector: bool) -> np.ndarray:
    """Return the entries (dy, dx, offset in the source, offset in the weight) of every element of the reduction.

    Parameters
    ----------
    taps : list
    width, channels : int
        Of the source.
    group : int
        Channels of the source in one group.
    step : int
        Distance of two channels in the weight.
    vector : bool
        An entry stands for 4 channels.
    """
    channel = np.arange(0, group, 4 if vector else 1)
    rows = [
        np.stack([
            np.full(len(channel), dy), np.full(len(channel), dx),
            (dy * width + dx) * channels + channel, offset + channel * step,
        ], 1)
        for dy, dx, offset in taps
    ]  # fmt: skip
    entries = np.concatenate(rows) if rows else np.zeros((0, 4), np.int64)
    slice_ = DEPTH // 4 if vector else DEPTH
    padded = max(-(-len(entries) // slice_), 1) * slice_
    table = np.full((padded, 4), (NOWHERE, 0, 0, 0), np.int32)
    table[: len(entries)] = entries
    return table


def _grid(rows: int, columns: int, groups: int) -> tuple[int, int, int]:
    return -(-rows // ROWS), -(-columns // COLUMNS), groups


@lru_cache(maxsize=1024)
def _forward_plan(p: ConvProblem) -> _Plan:
    taps = [(r * p.dilation[0], s * p.dilation[1], (r * p.s + s) * p.cg) for r in range(p.r) for s in range(p.s)]
    vector = _vector(p)
    table = _table(taps, p.w, p.c, p.cg, 1, vector)
    rows, depth = p.n * p.p * p.q, p.r * p.s * p.cg
    slices = -(-depth // DEPTH)
    return _Plan(_grid(rows, p.kg, p.groups), (
        rows, p.kg, slices, p.p, p.q, *p.stride, p.pads[0], p.pads[2], p.h, p.w, p.c, p.cg, p.kg * depth, depth,
        p.p, p.q, 1, 1, 0, 0, p.k,
    ), table)  # fmt: skip


def _residues(
    size: int, pad: int, taps: int, stride: int, dilation: int
) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield, for each residue of an input position modulo the stride, (residue, positions, [(tap, dy)]).

    Input position i * stride + residue receives, through a tap, from output position i + dy; the other taps miss it.
    """
    for residue in range(min(stride, size)):
        met = [(tap, (residue + pad - tap * dilation) // stride) for tap in range(taps)
               if (residue + pad - tap * dilation) % stride == 0]  # fmt: skip
        yield residue, -(-(size - residue) // stride), met


@lru_cache(maxsize=1024)
def _backward_plans(p: ConvProblem) -> tuple[_Plan, ...]:
    vector, depth = _vector(p), p.r * p.s * p.cg
    plans = []
    for first_h, count_h, rows_met in _residues(p.h, p.pads[0], p.r, p.stride[0], p.dilation[0]):
        for first_w, count_w, columns_met in _residues(p.w, p.pads[2], p.s, p.stride[1], p.dilation[1]):
            taps = [(dy, dx, (r * p.s + s) * p.cg) for r, dy in rows_met for s, dx in columns_met]
            table = _table(taps, p.q, p.k, p.kg, depth, vector)
            rows, slices = p.n * count_h * count_w, -(-len(taps) * p.kg // DEPTH)
            plans.append(_Plan(_grid(rows, p.cg, p.groups), (
                rows, p.cg, slices, count_h, count_w, 1, 1, 0, 0, p.p, p.q, p.k, p.kg, p.kg * depth, depth,
                p.h, p.w, *p.stride, first_h, first_w, p.c,
            ), table))  # fmt: skip
    return tuple(plans)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, residual = inputs
    plan = _forward_plan(p)
    kernel = conv_gemm(_vector(p), False, p.epilogue)
    launch(kernel, plan.grid, (*plan.integers, x, constant(plan.table), weight, bias, residual, outputs[0]))


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, weight = inputs
    kernel = conv_gemm(_vector(p), True, Epilogue())
    for plan in _backward_plans(p):
        launch(kernel, plan.grid, (*plan.integers, grad, constant(plan.table), weight, None, None, outputs[0]))


def _supports(p: ConvProblem) -> str | None:
    if p.dtype != "float32":
        return f"the kernel is for float32, not {p.dtype}"
    if max(p.n * p.c * p.h * p.w, p.n * p.k * p.p * p.q, p.k * p.r * p.s * p.cg) > _MOST:
        return "an operand has more than 2**31 - 1 elements"
    return None


def _cost(p: ConvProblem) -> float:
    return float(p.flops)


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [Candidate("cuda.gemm", _forward, _supports, _cost)],
    ("conv2d", "backward_input"): [Candidate("cuda.gemm", _backward_input, _supports, _cost)],
}
