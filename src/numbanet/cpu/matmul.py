"""Matrix products on the convolution's kernels: a product is a convolution with a 1 x 1 filter over one row of pixels.

=================  =================  ==========================================================
a in memory        b in memory        is the convolution's
=================  =================  ==========================================================
(m, k)             (n, k)             forward: m pixels of k channels, n filters
(m, k)             (k, n)             backward_input: m gradient pixels of k channels, k filters
(k, m)             (k, n)             backward_weight: k pixels, gradients of m channels
(k, m)             (n, k)             the first, after a is copied row by row
=================  =================  ==========================================================
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import conv_direct, conv_weight
from numbanet.cpu.copy import transposed
from numbanet.cpu.isa import host_isa
from numbanet.cpu.simd import numpy_lanes
from numbanet.cpu.tile import MAX_VECTORS
from numbanet.problem.conv import ConvProblem, Epilogue
from numbanet.problem.matmul import MatmulProblem


@lru_cache(maxsize=4096)
def _as_convolution(p: MatmulProblem) -> ConvProblem:
    which = "forward" if not p.b_rows else "backward_input" if p.a_rows else "backward_weight"
    pixels, channels, filters = {
        "forward": (p.m, p.k, p.n),
        "backward_input": (p.m, p.n, p.k),
        "backward_weight": (p.k, p.n, p.m),
    }[which]
    return ConvProblem(
        which, p.dtype, 1, channels, 1, pixels, filters, 1, 1, (1, 1), (0, 0, 0, 0), (1, 1), 1, p.epilogue
    )


def _prepare(p: MatmulProblem, b: np.ndarray) -> Any:
    """Return b packed as a filter; as it is where it is the convolution's input."""
    problem = _as_convolution(p)
    if problem.which == "backward_weight":
        return b
    return conv_direct.prepare(problem, b.reshape(problem.k, 1, 1, problem.c))


def _run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (a, b, bias, residual), (out,) = inputs, outputs
    problem = _as_convolution(p)
    if problem.which == "forward":
        left = a if p.a_rows else transposed(a)
        conv_direct.run(problem, left.reshape(1, 1, p.m, p.k), b, bias, residual, out)
    elif problem.which == "backward_input":
        conv_direct.run(problem, a.reshape(1, 1, p.m, p.k), b, bias, residual, out)
    else:
        conv_weight.run(problem, b.reshape(1, 1, p.k, p.n), a.reshape(1, 1, p.k, p.m), out)


def _supports(p: MatmulProblem) -> str | None:
    if p.batch > 1:
        return "more than one product"
    if p.epilogue != Epilogue() and p.b_rows and not p.a_rows:
        return "an epilogue on the product of two matrices that lie along the reduction"
    return None


def tolerance(p: MatmulProblem) -> float:
    unit = 3e-6 if p.dtype == "float32" else 6e-15
    return unit * (p.k / 1000 + 1) ** 0.5


class Costs(NamedTuple):
    """What takes how long, in the operations of tiles that a core does meanwhile: with short vectors they are fewer."""

    number: float  # of an operand or the result, between memory and the core
    packing: float  # a number in a launch of its own,
    turning: float  # and where it is turned
    copying: float  # a number of b, where the tiles need it,
    copying_turned: float
    left_strips: float  # and of the first operand, in the strips that the kernel of weights' gradients copies,
    right_panels: float  # and of the second one, in its panels
    panel: float  # an operation of the convolutions' tiles,
    outer: float  # and of those of `numbanet.cpu.matmul_outer`;
    panel_waiting: float  # so many times as long in a tile of one vector, which loads a number for each:
    outer_waiting: float  # of the first kind, and of the second
    tile: float  # beginning and ending a tile,
    masked: float  # and storing a part of a vector
    dots: float  # an operation of dots, which load both numbers,
    adding: float  # and one on rows of the result, which pass by for a few terms at a time


# Measured with AVX-512 on Zen 4 and Cascade Lake. There, what begins and ends a tile is hidden by others' operations.
_OF_512_BITS = Costs(
    number=11.0, packing=20.0, turning=70.0, copying=8.0, copying_turned=16.0, left_strips=0.0, right_panels=0.0,
    panel=1.02, outer=1.05, panel_waiting=1.8, outer_waiting=1.0, tile=0.0, masked=0.0, dots=1.0, adding=1.0,
)  # fmt: skip
# Measured with AVX2 on Zen 4, on 2000 products of random shapes. Half of the registers hold half of the rows of
# dots and the like, and masks are slow.
_OF_256_BITS = Costs(
    number=6.0, packing=21.0, turning=34.0, copying=8.0, copying_turned=20.0, left_strips=18.0, right_panels=12.0,
    panel=1.05, outer=1.05, panel_waiting=1.4, outer_waiting=1.5, tile=1000.0, masked=300.0, dots=1.4, adding=2.0,
)  # fmt: skip
COSTS = _OF_512_BITS if host_isa().vector_bytes == 64 else _OF_256_BITS
LAUNCH = 6e5  # operations that pass while Python starts one more kernel


def memory_cost(p: MatmulProblem) -> float:
    """Return how many operations are done while the operands and the result pass between memory and the core."""
    return COSTS.number * p.batch * (p.m * p.k + p.k * p.n + p.m * p.n)


def tile_cost(p: MatmulProblem, waiting: float) -> float:
    """Return the operations of the register tiles, with those on rows and lanes beyond the last.

    In tiles of one vector each counts for `waiting` of them.
    """
    size = numpy_lanes(p.dtype)
    vectors = -(-p.n // size)
    panels = max(1, -(-vectors // MAX_VECTORS))
    width, wider = divmod(vectors, panels)  # panels are even: some have a vector more

    def cost(width: int) -> float:
        rows = host_isa().tile_rows[max(1, width) - 1]
        return -(-p.m // rows) * (COSTS.tile + 2.0 * p.k * rows * width * size * (waiting if width == 1 else 1.0))

    masked = COSTS.masked * p.m if p.n % size else 0.0
    return p.batch * ((panels - wider) * cost(width) + (wider * cost(width + 1) if wider else 0.0) + masked)


def _cost(p: MatmulProblem) -> float:
    if p.b_rows and not p.a_rows:
        copies = COSTS.left_strips * p.m * p.k + COSTS.right_panels * p.n * p.k + LAUNCH / 4  # Python's part of one
    else:
        copies = COSTS.packing * p.n * p.k + LAUNCH
        copies += 0.0 if p.a_rows else COSTS.turning * p.m * p.k + LAUNCH
    return max(COSTS.panel * tile_cost(p, COSTS.panel_waiting), memory_cost(p)) + copies


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [
        Candidate(
            "cpu.panel",
            _run,
            _supports,
            _cost,
            tolerance=tolerance,
            prepare=_prepare,
            form=lambda problem: (problem.a_rows, problem.b_rows),
        )  # fmt: skip
    ],
}
