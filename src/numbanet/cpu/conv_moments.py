"""Batch statistics of a convolution's result, taken while it lies in the cache.

A launch that follows each task of a convolution's kernel (see `numbanet.cpu.parallel.launch`) sums up what the task has
just stored: so no kernel of a convolution has a second form, and one that tells here what its tasks store has its
statistics. `numbanet.cpu.norm` merges the sums, which are like its own: of x - s and (x - s)^2, where the shift s is
the mean of the first values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from numbanet import memory
from numbanet.candidate import Arrays
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.parallel import Then
from numbanet.cpu.partial import get, put
from numbanet.cpu.simd import fma, lanes, load, named, numpy_lanes, offset, splat
from numbanet.problem.conv import ConvProblem

_ROWS = 256  # positions of a sum at most, about: the rounding errors of longer ones would show


class Order(NamedTuple):
    """In which order the positions of a result are numbered: tiles of a line, lines of a group, and groups."""

    k: int  # channels
    rows: int  # of a group of lines: the last tiles are cut short there,
    columns: int  # and of a line
    tile_h: int
    tile_w: int
    tiles: int  # of a line
    lines: int  # of a group
    group_step: int  # positions in memory from a group to the next,
    line_step: int  # and from a line


class Share(NamedTuple):
    """Which tiles and channels a task stores: a region of the tiles, and a part of the channels.

    Region r begins with step ``r * steps // regions``, each of `step` tiles. In the integers of a launch it stands
    between the order and the first channels of the parts.
    """

    count: int  # tiles in all
    step: int
    steps: int
    regions: int
    parts: int  # of the channels
    tasks_a_region: int  # how tasks are numbered: region by region,
    tasks_a_part: int  # or part by part of the channels
    pieces: int = 1  # of a region, which have sums of their own,
    cuts: int = 1  # and so have so many parts of the rows of each tile


_SHARE = len(Order._fields)
_CHANNELS = _SHARE + len(Share._fields)


def in_tiles(p: ConvProblem, tile_h: int, tile_w: int) -> Order:
    """Return the order of tiles: image by image, row by row."""
    lines = -(-p.p // tile_h)
    return Order(p.k, p.p, p.q, tile_h, tile_w, -(-p.q // tile_w), lines, p.p * p.q, tile_h * p.q)


def in_memory(p: ConvProblem) -> Order:
    """Return the order of single positions as they lie in memory."""
    count = p.n * p.p * p.q
    return Order(p.k, 1, count, 1, 1, count, 1, 0, 0)


def across_images(p: ConvProblem) -> Order:
    """Return the order of single positions row by row across the images."""
    return Order(p.k, p.n, p.q, 1, 1, p.q, p.n, p.q, p.p * p.q)


@device
def _four(x, p, n):
    """Load the first n numbers of four vectors: whole vectors without masks."""
    w, zero = lanes(x), splat(x, 0.0)
    v1 = get(x, p + w, n - w) if n > w else zero
    v2 = get(x, p + 2 * w, n - 2 * w) if n > 2 * w else zero
    v3 = get(x, p + 3 * w, n - 3 * w) if n > 3 * w else zero
    return get(x, p, n), v1, v2, v3


@device
def _put_four(y, p, n, v0, v1, v2, v3):
    """Store them likewise: masks are slow where they store."""
    w = lanes(y)
    put(y, p, v0, n)
    if n > w:
        put(y, p + w, v1, n - w)
    if n > 2 * w:
        put(y, p + 2 * w, v2, n - 2 * w)
    if n > 3 * w:
        put(y, p + 3 * w, v3, n - 3 * w)


@device
def _strip(y, ints, first, last, cut, column, n, partial, out):
    """Sum up to four vectors of channels, `n` numbers, of a part of the rows of tiles first, ..., last - 1.

    One or two vectors fill the registers with those of the next positions.
    """
    s, w, cuts = named(ints, Order), lanes(y), named(offset(ints, _SHARE), Share).cuts
    k = s.k
    zero = splat(y, 0.0)
    m0, m1, m2, m3 = zero, zero, zero, zero  # the shift,
    h1, h2, h3 = zero, zero, zero  # and where there is but one position
    e0, e1, e2, e3 = zero, zero, zero, zero
    q0, q1, q2, q3 = zero, zero, zero, zero
    together, o1, o2, o3 = 1, w, 2 * w, 3 * w
    if n == 2 * w:
        together, o2, o3 = 2, k, k + w
    elif n == w:
        together, o1, o2, o3 = 4, k, 2 * k, 3 * k
    whole = n % w == 0 and n != 3 * w
    count, tile = 0, first
    while tile < last:
        line, j = tile // s.tiles, tile % s.tiles
        group, line = line // s.lines, line % s.lines
        across = min(s.tiles - j, last - tile)
        rows = min(s.tile_h, s.rows - line * s.tile_h)
        positions = min(s.columns, (j + across) * s.tile_w) - j * s.tile_w
        start = (group * s.group_step + line * s.line_step + j * s.tile_w) * k + column
        start += cut * rows // cuts * s.columns * k
        rows = (cut + 1) * rows // cuts - cut * rows // cuts
        tile += across
        if rows == 0:
            continue
        if across == s.tiles:  # rows of the result follow each other
            positions, rows = positions * rows, 1
        for row in range(rows):
            p = start + row * s.columns * k
            if count == 0:
                heads = min(8, positions)
                for i in range(heads):
                    a0, a1, a2, a3 = _four(y, p + i * k, n)
                    m0, m1, m2, m3 = m0 + a0, m1 + a1, m2 + a2, m3 + a3
                part = splat(y, 1.0) / splat(y, heads)
                m0, m1, m2, m3 = m0 * part, m1 * part, m2 * part, m3 * part
                h1, h2, h3 = m1, m2, m3
                if together == 2:
                    m2, m3 = m0, m1
                elif together == 4:
                    m1, m2, m3 = m0, m0, m0
            steps = positions // together if whole else 0
            for _ in range(steps):
                a0, a1, a2, a3 = load(y, p), load(y, p + o1), load(y, p + o2), load(y, p + o3)
                a0, a1, a2, a3 = a0 - m0, a1 - m1, a2 - m2, a3 - m3
                e0, e1, e2, e3 = e0 + a0, e1 + a1, e2 + a2, e3 + a3
                q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
                p += together * k
            for _ in range(steps * together, positions):
                a0, a1, a2, a3 = _four(y, p, n)
                a0, a1, a2, a3 = a0 - m0, a1 - h1, a2 - h2, a3 - h3
                e0, e1, e2, e3 = e0 + a0, e1 + a1, e2 + a2, e3 + a3
                q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
                p += k
            count += positions
    if together == 2:
        e0, e1, q0, q1 = e0 + e2, e1 + e3, q0 + q2, q1 + q3
    elif together == 4:
        e0, q0 = (e0 + e1) + (e2 + e3), (q0 + q1) + (q2 + q3)
    number = splat(y, count)
    _put_four(partial, out, n, number, number, number, number)
    _put_four(partial, out + k, n, m0, m1, m2, m3)
    _put_four(partial, out + 2 * k, n, e0, e1, e2, e3)
    _put_four(partial, out + 3 * k, n, q0, q1, q2, q3)


@kernel
def stored_moments(task: Index, ints: I64, y: T, partial: T):
    """Sum up what a task of a convolution has stored: partial[part] = (count, s, sum of x - s, sum of (x - s)^2)."""
    k, share = named(ints, Order).k, named(offset(ints, _SHARE), Share)
    region, part = task // share.tasks_a_region % share.regions, task // share.tasks_a_part % share.parts
    begin, end = ints[_CHANNELS + part], ints[_CHANNELS + part + 1]
    first = min(share.count, region * share.steps // share.regions * share.step)
    tiles = min(share.count, (region + 1) * share.steps // share.regions * share.step) - first
    four = 4 * lanes(y)
    for piece in range(share.pieces):
        low, high = first + piece * tiles // share.pieces, first + (piece + 1) * tiles // share.pieces
        for cut in range(share.cuts):
            out = ((region * share.pieces + piece) * share.cuts + cut) * 4 * k
            for column in range(begin, end, four):
                _strip(y, ints, low, high, cut, column, min(four, end - column), partial, out + column)


@lru_cache(maxsize=1024)
def _plan(order: Order, share: Share, channels: tuple[int, ...], dtype: str) -> tuple[int, tuple[int, ...]]:
    """Return the number of parts, and the integers."""
    tiles, size = -(-share.steps // share.regions) * share.step, numpy_lanes(dtype)
    sums = {size: 4, 2 * size: 2}.get(order.k, 1)  # of a channel, in the registers of a strip
    positions, most = tiles * order.tile_h * order.tile_w, sums * _ROWS
    pieces = max(1, min(tiles, -(-positions // most)))
    cuts = max(1, min(order.tile_h, positions // (pieces * most)))
    return share.regions * pieces * cuts, (*order, *share._replace(pieces=pieces, cuts=cuts), *channels)


def following(outputs: Arrays, order: Order, share: Share, channels: tuple[int, ...]) -> Then | None:
    """Return what shall follow the tasks of a convolution's kernel, if its moments are asked for.

    Parameters
    ----------
    outputs : (numpy.ndarray,) or (numpy.ndarray, Moments)
        The result, and what takes its moments.
    order : Order
    share : Share
    channels : tuple of int
        Where the parts of the channels begin, and where the last ends.
    """
    y, *asked = outputs
    if not asked or asked[0] is None or not y.size:
        return None
    count, integers_ = _plan(order, share, channels, y.dtype.name)
    asked[0].parts = partial = memory.empty((count, 4, order.k), y.dtype)
    return Then(stored_moments, (y, partial), integers_)
