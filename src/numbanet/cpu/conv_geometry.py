"""What kernels of convolutions read of a problem: its shapes, which the integers of a launch begin with."""

from __future__ import annotations

from typing import NamedTuple

from numbanet.problem.conv import ConvProblem


class Geometry(NamedTuple):
    """The shapes of a convolution."""

    h: int  # the image: rows,
    w: int  # columns
    c: int  # and channels,
    p: int  # and those of the result
    q: int
    k: int
    r: int  # the filter
    s: int
    stride_h: int
    stride_w: int
    top: int  # padding
    left: int
    dilation_h: int
    dilation_w: int
    span_h: int  # input rows that one output row sees,
    span_w: int  # and columns that all output columns see


CUT = len(Geometry._fields)  # where the integers that say how a problem is cut begin


def spans(p: ConvProblem) -> tuple[int, int]:
    """Return the input rows that one output row sees, and the columns that all output columns see."""
    return (p.r - 1) * p.dilation[0] + 1, (p.q - 1) * p.stride[1] + (p.s - 1) * p.dilation[1] + 1


def geometry(p: ConvProblem) -> Geometry:
    """Return the shapes of a problem."""
    shape = p.h, p.w, p.c, p.p, p.q, p.k, p.r, p.s
    return Geometry(*shape, *p.stride, p.pads[0], p.pads[2], *p.dilation, *spans(p))
