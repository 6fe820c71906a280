"""Windows of images as columns of a matrix: sizes and argument checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from numbanet.problem.base import Problem, pair, plain, sizes


@dataclass(frozen=True)
class FoldProblem(Problem):
    """y = 0, then ``y[a, p*stride_h + r*dilation_h, q*stride_w + s*dilation_w] += x[a, r, s, p, q]`` in that order.

    Attributes
    ----------
    planes : int
        Images times channels.
    h, w : int
        Size of a padded plane.
    r, s, p, q : int
        Size of a window, and number of windows down and across.
    stride, dilation : (int, int)
    """

    operation: ClassVar[str] = "fold"
    planes: int
    h: int
    w: int
    r: int
    s: int
    p: int
    q: int
    stride: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Windows of R x S pixels that slide over an image of H x W in P x Q positions."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    stride: tuple[int, int]
    count: tuple[int, int]


def windows(
    size: Sequence[int], kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Windows:
    """Check the arguments of `unfold` and `fold` for images of a height and width.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _windows(
        sizes("size", size), plain("kernel_size", kernel_size), plain("dilation", dilation), plain("padding", padding),
        plain("stride", stride),
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _windows(size: tuple[int, ...], kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Windows:
    given = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    for name, value in given.items():
        if isinstance(value, tuple) and len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair of integers, got {value!r}")
    kernel, gaps = pair("kernel_size", kernel_size, 1), pair("dilation", dilation, 1)
    pads, steps = pair("padding", padding, 0), pair("stride", stride, 1)
    h, w = size
    axes = zip(size, kernel, gaps, pads, steps)
    p, q = ((n + 2 * pad - gap * (k - 1) - 1) // step + 1 for n, k, gap, pad, step in axes)
    if min(h, w, p, q) < 1:
        raise ValueError(f"kernel_size {kernel} with dilation {gaps} does not fit in {h} x {w} with padding {pads}")
    return Windows((h, w), kernel, gaps, pads, steps, (p, q))
