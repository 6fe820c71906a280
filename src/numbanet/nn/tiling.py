"""Which pixels of an image the windows of a convolution or pooling see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numbanet.problem.base import pair


@dataclass(frozen=True)
class Axis:
    """Windows along one axis: their number, size, step, spacing of taps, and the padding around the image."""

    word: str
    size: int
    count: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def slack(self) -> int:
        """Padded pixels behind the last window; negative where it hangs over the border."""
        last = (self.count - 1) * self.stride + self.dilation * (self.kernel - 1)
        return self.size + self.before + self.after - 1 - last

    @property
    def unseen(self) -> list[int]:
        """Pixels of the image that no window sees."""
        starts = (window * self.stride - self.before for window in range(self.count))
        seen = {start + tap * self.dilation for start in starts for tap in range(self.kernel)}
        return [pixel for pixel in range(self.size) if pixel not in seen]


def axes(module: Any, size: tuple[int, ...], result: tuple[int, ...]) -> tuple[Axis, Axis]:
    """Return the windows of a layer, from its attributes, on an image of one height and width."""
    kernel = pair("kernel_size", module.kernel_size)
    stride, dilation = pair("stride", module.stride or kernel), pair("dilation", module.dilation)
    top, bottom, left, right = module.pads(size)
    rows = Axis("row", size[-2], result[-2], kernel[0], stride[0], dilation[0], top, bottom)
    columns = Axis("column", size[-1], result[-1], kernel[1], stride[1], dilation[1], left, right)
    return rows, columns


def remark(module: Any, size: tuple[int, ...], result: tuple[int, ...]) -> str:
    """Return what to know about windows that do not tile the image, or an empty string.

    Parameters
    ----------
    module : Module
        A Conv2d, MaxPool2d or AvgPool2d.
    size, result : tuple of int
        Height and width of its input and output.

    Notes
    -----
    Padding that no window sees, as with every 3x3 filter at stride 2 and padding 1 on an even size, is no fault: the
    windows see all pixels.
    """
    both = axes(module, size, result)
    facts = [*_unseen(both), *_hanging(both)]
    if not facts:
        return ""
    rows, columns = both
    windows = f"{rows.kernel}x{columns.kernel} windows at stride {rows.stride}"
    windows += f"x{columns.stride}" if columns.stride != rows.stride else ""
    return f"{windows} do not tile {rows.size}x{columns.size}: {'; '.join(facts)}"


def _unseen(both: tuple[Axis, Axis]) -> list[str]:
    """Name the pixels that are never seen: the last ones, or how many of all."""
    ends, holes = [], []
    for axis in both:
        pixels = axis.unseen
        if pixels and pixels[0] == axis.size - len(pixels):
            ends.append(axis)
        elif pixels:
            holes.append(f"{len(pixels)} of {axis.size} {axis.word}s are never seen")
    last = [axis.word if len(axis.unseen) == 1 else f"{len(axis.unseen)} {axis.word}s" for axis in ends]
    plural = len(ends) > 1 or any(len(axis.unseen) > 1 for axis in ends)
    return [*([f"the last {' and '.join(last)} {'are' if plural else 'is'} never seen"] if ends else []), *holes]


def _hanging(both: tuple[Axis, Axis]) -> list[str]:
    """Say by how much the last windows hang over the border of the padded image."""
    found = [(-axis.slack, axis.word) for axis in both if axis.slack < 0]
    words = " and ".join(f"{n} {word}{'s' if n > 1 else ''}" for n, word in found)
    return [f"the last window hangs over the border by {words}"] if found else []
