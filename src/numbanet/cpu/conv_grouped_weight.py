"""Gradient of the weight of a grouped convolution with few channels a group: vectors run over the channels of groups.

For each tap and in-channel of a group, the products of the gradient with the (permuted) source are summed over all
pixels. A task owns a share of the output rows and some blocks of channels, and adds the sums of a few rows at a time to
partial results of its own, which are added in a fixed order at last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I32, I64, Index, T, device, kernel
from numbanet.cpu.conv_direct import tolerance, zeros
from numbanet.cpu.conv_geometry import CUT, Geometry, geometry
from numbanet.cpu.conv_grouped import SPANS, Blocks, blocks, permutations, refusal
from numbanet.cpu.conv_weight import reduce_partials
from numbanet.cpu.copy import arrange
from numbanet.cpu.group_tile import add_outer, add_to_memory, repeat, tail_mask
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import lanes, named, numpy_lanes, offset, splat, store
from numbanet.problem.conv import ConvProblem

_COLUMNS = 4  # columns of the gradient that share their loads
_PIXELS = 128  # pixels of a chunk of rows, about: their vectors of a block stay in the first-level cache
_TASKS = 16
_SHARE = 512  # pixels of a share at least
_SMALL_WEIGHT = 8 << 20  # bytes of partial results


class Cut(NamedTuple):
    """What the kernels read of how a problem is cut; it follows the geometry."""

    in_lanes: int  # channels of a block in the image
    out_lanes: int  # and in the gradient
    reduction: int  # in-channels of a group
    blocks: int
    parts: int  # tasks take one of so many parts of the blocks,
    shares: int  # and of the rows
    rows: int  # of the gradient, of all images
    chunk: int  # rows whose sums go to memory at once
    kind: int  # which of `SPANS`,
    span: int  # and its taps


def _tile(span: int, stride: int, channels: int, permuted: int) -> Any:
    """Make the tile that sums over the pixels of a few rows for `span` taps and `channels` in-channels."""
    count = span * channels * max(1, min(_COLUMNS, 8 // (span * channels)))

    @device
    def tile(
        x, g, n, first, rows, top, column, h, w, c, p, q, k, stride_h, jump, source, channel, mask, g_mask, zeros,
        index, index_at, out, at, pitch,
    ):  # fmt: skip
        sums = repeat(splat(x, 0.0), count)
        for i in range(first, first + rows):
            row = i * stride_h + top
            if 0 <= row < h:
                here, there = ((n * h + row) * w + column) * c + source, (n * p + i) * q * k + channel
                j = 0
                while j + _COLUMNS <= q:
                    sums = add_outer(
                        sums, _COLUMNS, span, stride, channels, permuted, x, here + j * jump * c, c,
                        column + j * jump, w, jump, zeros, g, there + j * k, k, mask, g_mask, index, index_at,
                    )  # fmt: skip
                    j += _COLUMNS
                while j < q:
                    sums = add_outer(
                        sums, 1, span, stride, channels, permuted, x, here + j * jump * c, c,
                        column + j * jump, w, jump, zeros, g, there + j * k, k, mask, g_mask, index, index_at,
                    )  # fmt: skip
                    j += 1
        add_to_memory(sums, span, channels, out, at, pitch)

    return tile


def _share(channels: int, permuted: int) -> Any:
    """Make the function that computes a task; it takes `channels` in-channels of a group at a time."""
    one, three, three_by_two, five, five_by_two = (_tile(span, stride, channels, permuted) for span, stride in SPANS)

    @device
    def share(task, ints, x, g, index, zeros, partials):
        s, cut = named(ints, Geometry), named(offset(ints, CUT), Cut)
        h, w, c, p, q, k, stride_h, kind = s.h, s.w, s.c, s.p, s.q, s.k, s.stride_h, cut.kind
        number, part, vector, taps = task // cut.parts, task % cut.parts, lanes(x), s.r * s.s
        pitch = cut.reduction * vector
        size = taps * pitch
        first, last = part * cut.blocks // cut.parts, (part + 1) * cut.blocks // cut.parts
        start = (number * cut.blocks + first) * size
        for i in range(0, (last - first) * size, vector):
            store(partials, start + i, splat(x, 0.0))
        row, end = number * cut.rows // cut.shares, (number + 1) * cut.rows // cut.shares
        while row < end:
            n, i = row // p, row % p
            rows = min(min(cut.chunk, end - row), p - i)
            row += rows
            for block in range(first, last):
                channel, source = block * cut.out_lanes, block * cut.in_lanes
                mask = tail_mask(x, min(cut.in_lanes, c - source))
                g_mask = tail_mask(x, min(cut.out_lanes, k - channel))
                for tap in range(0, taps, cut.span):
                    down, across = tap // s.s * s.dilation_h - s.top, tap % s.s * s.dilation_w - s.left
                    for j in range(0, cut.reduction, channels):
                        order = j * lanes(index)
                        at = (number * cut.blocks + block) * size + tap * pitch + j * vector
                        if kind == 0:
                            one(
                                x, g, n, i, rows, down, across, h, w, c, p, q, k, stride_h, s.stride_w, source, channel,
                                mask, g_mask, zeros, index, order, partials, at, pitch,
                            )  # fmt: skip
                        elif kind == 1:
                            three(
                                x, g, n, i, rows, down, across, h, w, c, p, q, k, stride_h, 1, source, channel,
                                mask, g_mask, zeros, index, order, partials, at, pitch,
                            )  # fmt: skip
                        elif kind == 2:
                            three_by_two(
                                x, g, n, i, rows, down, across, h, w, c, p, q, k, stride_h, 2, source, channel,
                                mask, g_mask, zeros, index, order, partials, at, pitch,
                            )  # fmt: skip
                        elif kind == 3:
                            five(
                                x, g, n, i, rows, down, across, h, w, c, p, q, k, stride_h, 1, source, channel,
                                mask, g_mask, zeros, index, order, partials, at, pitch,
                            )  # fmt: skip
                        else:
                            five_by_two(
                                x, g, n, i, rows, down, across, h, w, c, p, q, k, stride_h, 2, source, channel,
                                mask, g_mask, zeros, index, order, partials, at, pitch,
                            )  # fmt: skip

    return share


_share_of_depthwise, _share_of_one, _share_of_four = _share(1, 0), _share(1, 1), _share(4, 1)


@kernel
def depthwise_weight(task: Index, ints: I64, x: T, g: T, index: I32, zeros: T, partials: T):
    """Sum over a share of the rows, where each channel is a group."""
    _share_of_depthwise(task, ints, x, g, index, zeros, partials)


@kernel
def grouped_weight(task: Index, ints: I64, x: T, g: T, index: I32, zeros: T, partials: T):
    """Sum over a share of the rows, one in-channel of each group at a time."""
    _share_of_one(task, ints, x, g, index, zeros, partials)


@kernel
def grouped_weight_by_four(task: Index, ints: I64, x: T, g: T, index: I32, zeros: T, partials: T):
    """Sum over a share of the rows, four in-channels of each group at a time."""
    _share_of_four(task, ints, x, g, index, zeros, partials)


@lru_cache(maxsize=1024)
def _plan(p: ConvProblem) -> tuple[int, int, tuple[int, ...]]:
    """Return the number of shares, the number of tasks and the integers of the launch."""
    b = blocks(p)
    size = b.count * p.r * p.s * b.reduction * numpy_lanes(p.dtype) * np.dtype(p.dtype).itemsize
    rows = p.n * p.p
    shares = max(1, min(_TASKS, rows, rows * p.q // _SHARE, _SMALL_WEIGHT // size))
    parts = min(b.count, -(-_TASKS // shares))
    kind = SPANS.index((p.s, p.stride[1])) if (p.s, p.stride[1]) in SPANS and p.dilation[1] == 1 else 0
    cut = Cut(
        in_lanes=b.groups * b.reduction, out_lanes=b.groups * b.columns, reduction=b.reduction, blocks=b.count,
        parts=parts, shares=shares, rows=rows, chunk=max(1, _PIXELS // p.q), kind=kind, span=SPANS[kind][0],
    )  # fmt: skip
    return shares, shares * parts, (*geometry(p), *cut)


def _kernel(b: Blocks) -> Any:
    if b.reduction == b.columns == 1:
        return depthwise_weight
    return grouped_weight if b.reduction % 4 else grouped_weight_by_four


def _unpack(total: np.ndarray, p: ConvProblem, out: np.ndarray) -> None:
    """Write the sums (blocks, taps, in-channels of a group, lanes) as the weight (K, R, S, C/groups)."""
    b = blocks(p)
    lanes_ = b.groups * b.columns
    weight, whole = out.reshape(p.k, p.r * p.s, p.cg), p.k // lanes_
    taps, lanes = total.shape[1], total.shape[3]
    steps = (1, p.cg * lanes, lanes), (taps * p.cg, p.cg, 1)
    block = taps * p.cg * lanes, lanes_ * taps * p.cg
    arrange(total, out, (whole, lanes_, taps, p.cg), (block[0], *steps[0]), (block[1], *steps[1]))
    if whole < b.count:
        arrange(total[whole], weight[whole * lanes_ :], (p.k - whole * lanes_, taps, p.cg), *steps)


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (out,) = inputs, outputs
    b = blocks(p)
    shares, tasks, integers_ = _plan(p)
    total = memory.empty((b.count, p.r * p.s, b.reduction, numpy_lanes(p.dtype)), p.dtype)
    partials = total if shares == 1 else memory.empty((shares * total.size,), p.dtype)
    index = permutations(b.reduction, b.columns, p.dtype)
    launch(_kernel(b), tasks, (x, grad, index, zeros(numpy_lanes(p.dtype), p.dtype), partials), integers_, p.dtype)
    if shares > 1:
        reduce_partials(partials, total, shares, p.dtype)
    _unpack(total, p, out)


def _cost(p: ConvProblem) -> float:
    """Return the operations on whole vectors, and what permutations and short rows cost beside them."""
    b = blocks(p)
    spread = 1.0 if b.reduction == b.columns == 1 else 1.5
    return 2.0 * p.n * p.p * p.q * p.r * p.s * b.reduction * b.count * numpy_lanes(p.dtype) * spread


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cpu.grouped", _run, refusal, _cost, tolerance=tolerance)],
}
