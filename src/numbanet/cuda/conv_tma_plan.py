"""How a convolution becomes products that the copy engine feeds: the integers and forms of `numbanet.cuda.conv_tma`.

forward, and backward_input for each residue of a pixel modulo the stride, are one correlation: result (i, j) of an
image is the sum over taps (r, s) of the source at ``(lower + i * step + r * apart, ...)`` times a tap of the weight.
The copy engine walks over (n, i, j) by itself, as the form of the source says, and over r and s by a copy's offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from numbanet.cuda.conv_plan import residues
from numbanet.cuda.division import divisor
from numbanet.cuda.tensor_map import CORNERS, ELEMENTS, LINE, MOST_OFFSET, MOST_STEP, Box, Pixels
from numbanet.cuda.tma_tile import ROWS, Tile
from numbanet.problem.conv import ConvProblem


@dataclass(frozen=True)
class Axis:
    """A correlation along one axis.

    Attributes
    ----------
    size, results : int
        Of the source and of the result.
    lower, step : int
        Where in the source result 0 begins, and how far the next ones are.
    taps, apart : int
        How many there are, and how far in the source from one to the next.
    first_tap, next_tap : int
        The weight's first tap, and how far to the next.
    place, every : int
        Result i is pixel place + i * every of y.
    """

    size: int
    results: int
    lower: int
    step: int
    taps: int
    apart: int
    first_tap: int
    next_tap: int
    place: int = 0
    every: int = 1

    @property
    def upper(self) -> int:
        """The last result's place in the source, from the source's last."""
        return self.lower + (self.results - 1) * self.step - (self.size - 1)

    def refusal(self) -> str | None:
        """Return None, or why the copy engine can't walk so."""
        if self.step > MOST_STEP:
            return f"a stride above {MOST_STEP}"
        if (self.taps - 1) * self.apart > MOST_OFFSET:
            return f"a filter that reaches further than {MOST_OFFSET} pixels"
        if self.lower not in CORNERS or self.upper not in CORNERS:
            return f"padding or a filter beyond {CORNERS[-1]} pixels"
        return None


@dataclass(frozen=True)
class Operands:
    """The channels of the operands of one kind of element.

    Attributes
    ----------
    element : str
        Of `tensor_map.ELEMENTS`.
    channels : int
        The source's in one group, as they lie in memory.
    """

    element: str
    channels: int

    @property
    def depth(self) -> int:
        """Channels of a slice."""
        return LINE // ELEMENTS[self.element]

    @property
    def chunks(self) -> int:
        """Slices of one tap."""
        return -(-self.channels // self.depth)


@dataclass(frozen=True)
class Plan:
    """One launch: rows, columns, slices of each group's product, the kernel's integers, how operands are read."""

    rows: int
    columns: int
    slices: int
    integers: tuple[int, ...]
    source: Pixels
    weight: Box


def _forward_axis(size: int, results: int, pad: int, taps: int, stride: int, dilation: int) -> Axis:
    return Axis(size, results, -pad, stride, taps, dilation, 0, 1)


def _backward_axes(size: int, results: int, pad: int, taps: int, stride: int, dilation: int) -> Iterator[Axis]:
    """Yield the axes of backward_input: the source is the gradient, of `size`, and the result has the input's size."""
    for residue, count, met in residues(results, pad, taps, stride, dilation):
        if not met:
            yield Axis(size, count, 0, 1, 0, 0, 0, 0, residue, stride)
            continue
        (last, lower), (former, above) = met[-1], met[-2] if len(met) > 1 else met[-1]  # dy falls as taps rise
        yield Axis(size, count, lower, 1, len(met), above - lower, last, former - last, residue, stride)


def axes(p: ConvProblem) -> list[tuple[Axis, Axis]]:
    """Return the (vertical, horizontal) correlations of a pass; those of backward_weight are forward's."""
    down = p.pads[0], p.r, p.stride[0], p.dilation[0]
    across = p.pads[2], p.s, p.stride[1], p.dilation[1]
    if p.which != "backward_input":
        return [(_forward_axis(p.h, p.p, *down), _forward_axis(p.w, p.q, *across))]
    return [(v, h) for v in _backward_axes(p.p, p.h, *down) for h in _backward_axes(p.q, p.w, *across)]


@lru_cache(maxsize=1024)
def refusal(p: ConvProblem) -> str | None:
    """Return None, or why the copy engine can't bring a problem's operands."""
    for pair in axes(p):
        for axis in pair:
            if axis.taps and axis.refusal():
                return axis.refusal()
    return None


@lru_cache(maxsize=1024)
def plans(p: ConvProblem, read: Operands, tile: Tile) -> tuple[Plan, ...]:
    """Return the launches of forward or backward_input.

    The weight is (filters of all groups, taps, channels of a group), where filters and channels are those of the
    product: in backward_input, x's channels and y's.
    """
    columns = p.kg if p.which == "forward" else p.cg
    all_columns, full = (p.k, (p.p, p.q)) if p.which == "forward" else (p.c, (p.h, p.w))
    pixel = read.channels * ELEMENTS[read.element]
    weight = Box(
        read.element, (read.channels, p.r * p.s, all_columns), (pixel, p.r * p.s * pixel), (read.depth, 1, tile.columns)
    )
    found = []
    for v, h in axes(p):
        taps = v.taps * h.taps
        walked = (v, h) if taps else (Axis(v.size, v.size, 0, 1, 0, 0, 0, 0), Axis(h.size, h.size, 0, 1, 0, 0, 0, 0))
        source = Pixels(
            read.element, (p.groups * read.channels, h.size, v.size, p.n), (walked[1].lower, walked[0].lower),
            (walked[1].upper, walked[0].upper), (h.step, v.step), ROWS,
        )  # fmt: skip
        integers = (
            *divisor(max(v.results * h.results, 1)), *divisor(max(h.results, 1)), v.results, h.results, v.step, h.step,
            v.lower, h.lower, *divisor(read.chunks), read.chunks, *divisor(max(h.taps, 1)), h.taps, v.apart, h.apart,
            v.first_tap * p.s + h.first_tap, v.next_tap * p.s, h.next_tap, read.channels, *full, v.every, h.every,
            v.place, h.place, all_columns,
        )  # fmt: skip
        found.append(Plan(p.n * v.results * h.results, columns, taps * read.chunks, integers, source, weight))
    return tuple(found)
