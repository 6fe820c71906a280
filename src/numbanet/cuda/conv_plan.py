"""How a convolution becomes products of matrices: the integers and tables that its kernels take.

Whatever a kernel multiplies with, it reads its operands in accesses of some neighbouring channels (its lanes) and takes
the reduction in slices; and where the lanes do not divide the channels of a group, the operands may have been filled up
with zero channels. `Form` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from numbanet.cuda.division import divisor
from numbanet.cuda.launch import MOST_YZ
from numbanet.problem.conv import ConvProblem

NOWHERE = -(1 << 30)  # a dy that no source has: the entry of elements beyond the end of the reduction
MOST = 2**31 - 1  # offsets are 32 bits wide
MOST_GROUPS = MOST_YZ  # blocks along z
MOST_COLUMNS = 32 * MOST_YZ  # blocks along y, of the tile with fewest columns
Tap = tuple[int, int, int]  # dy, dx, offset in the weight


@dataclass(frozen=True)
class Form:
    """How a kernel reads operands.

    Attributes
    ----------
    lanes : int
        Neighbouring channels, or elements of the reduction, that one entry of a table stands for.
    depth : int
        Elements of a slice of the reduction.
    cg, kg : int
        Channels of a group in memory: those of the problem, or filled up to whole lanes.
    """

    lanes: int
    depth: int
    cg: int
    kg: int


@dataclass(frozen=True, eq=False)
class Plan:
    """One launch of a kernel of forward or backward_input.

    Attributes
    ----------
    rows, columns, slices : int
        Of the product of one group.
    integers : tuple of int
        The kernel's, after those of the cut.
    table : numpy.ndarray
        Of the reduction: (dy, dx, offset in the source, offset in the weight) for each entry.
    """

    rows: int
    columns: int
    slices: int
    integers: tuple[int, ...]
    table: np.ndarray


def _table(taps: list[Tap], width: int, channels: int, group: int, step: int, form: Form) -> np.ndarray:
    """Return the entries of every element of the reduction.

    Parameters
    ----------
    taps : list
    width, channels : int
        Of the source.
    group : int
        Channels of the source in one group.
    step : int
        Distance of two channels in the weight.
    form : Form
    """
    channel = np.arange(0, group, form.lanes)
    rows = [
        np.stack([
            np.full(len(channel), dy), np.full(len(channel), dx),
            (dy * width + dx) * channels + channel, offset + channel * step,
        ], 1)
        for dy, dx, offset in taps
    ]  # fmt: skip
    entries = np.concatenate(rows) if rows else np.zeros((0, 4), np.int64)
    slice_ = form.depth // form.lanes
    padded = max(-(-len(entries) // slice_), 1) * slice_
    table = np.full((padded, 4), (NOWHERE, 0, 0, 0), np.int32)
    table[: len(entries)] = entries
    return table


@lru_cache(maxsize=1024)
def forward_plans(p: ConvProblem, form: Form) -> tuple[Plan, ...]:
    """Return the one launch of forward: the weight is (groups, filters of a group, taps, channels of a group)."""
    taps = [(r * p.dilation[0], s * p.dilation[1], (r * p.s + s) * form.cg) for r in range(p.r) for s in range(p.s)]
    channels, depth = p.groups * form.cg, p.r * p.s * form.cg
    table = _table(taps, p.w, channels, form.cg, 1, form)
    return (Plan(p.n * p.p * p.q, p.kg, -(-depth // form.depth), (
        *divisor(p.p * p.q), *divisor(p.q), p.p, p.q, *p.stride, p.pads[0], p.pads[2], p.h, p.w, channels, form.cg,
        p.kg * depth, depth, p.p, p.q, 1, 1, 0, 0, p.k,
    ), table),)  # fmt: skip


def residues(
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
def backward_plans(p: ConvProblem, form: Form) -> tuple[Plan, ...]:
    """Return the launches of backward_input, one for each residue of a pixel modulo the stride.

    The weight is (groups, filters of a group in memory, taps, channels of a group).
    """
    channels, depth = p.groups * form.kg, p.r * p.s * form.cg
    plans = []
    for first_h, count_h, rows_met in residues(p.h, p.pads[0], p.r, p.stride[0], p.dilation[0]):
        for first_w, count_w, columns_met in residues(p.w, p.pads[2], p.s, p.stride[1], p.dilation[1]):
            taps = [(dy, dx, (r * p.s + s) * form.cg) for r, dy in rows_met for s, dx in columns_met]
            table = _table(taps, p.q, channels, form.kg, depth, form)
            rows, slices = p.n * count_h * count_w, -(-len(taps) * form.kg // form.depth)
            plans.append(Plan(rows, p.cg, slices, (
                *divisor(count_h * count_w), *divisor(count_w), count_h, count_w, 1, 1, 0, 0, p.p, p.q, channels,
                form.kg, form.kg * depth, depth, p.h, p.w, *p.stride, first_h, first_w, p.c,
            ), table))  # fmt: skip
    return tuple(plans)


@lru_cache(maxsize=1024)
def column_table(p: ConvProblem, form: Form, size: int) -> np.ndarray:
    """Return what backward_weight reads for each column, an element (r, s, c) of a filter.

    Parameters
    ----------
    p : ConvProblem
    form : Form
    size : int
        The columns of each group are filled up to whole tiles of this size.

    Returns
    -------
    numpy.ndarray
        Shape (groups, entries, 4): (dy, dx, offset in x, 0).
    """
    r, s, c = (v.reshape(-1) for v in np.mgrid[: p.r, : p.s, 0 : form.cg : form.lanes])
    dy, dx = r * p.dilation[0] - p.pads[0], s * p.dilation[1] - p.pads[2]
    padded = max(-(-p.r * p.s * form.cg // size), 1) * size // form.lanes
    table = np.full((p.groups, padded, 4), (NOWHERE, 0, 0, 0), np.int32)
    for group in range(p.groups):
        offset = (dy * p.w + dx) * p.groups * form.cg + group * form.cg + c
        table[group, : len(r)] = np.stack([dy, dx, offset, 0 * c], 1)
    return table


def too_large(p: ConvProblem, form: Form) -> str | None:
    """Return the reason to refuse a problem whose operands or grid exceed what kernels count with, or None."""
    if p.groups > MOST_GROUPS:
        return f"more than {MOST_GROUPS} groups"
    columns = {"forward": p.kg, "backward_input": p.cg, "backward_weight": p.r * p.s * form.cg}[p.which]
    if columns > MOST_COLUMNS:
        return f"a result of more than {MOST_COLUMNS} columns"
    channels, filters = p.groups * form.cg, p.groups * form.kg
    sizes = p.n * channels * p.h * p.w, p.n * filters * p.p * p.q, filters * p.r * p.s * form.cg
    return "an operand has more than 2**31 - 1 elements" if max(sizes) > MOST else None


def shape(p: ConvProblem) -> tuple[int, int, float]:
    """Return rows, columns and depth of the product of one group, of all launches together."""
    return {
        "forward": (p.n * p.p * p.q, p.kg, p.r * p.s * p.cg),
        "backward_input": (p.n * p.h * p.w, p.cg, p.r * p.s * p.kg / (p.stride[0] * p.stride[1])),
        "backward_weight": (p.kg, p.r * p.s * p.cg, p.n * p.p * p.q),
    }[p.which]
