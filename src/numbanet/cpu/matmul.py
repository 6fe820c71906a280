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
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import conv_direct, conv_weight
from numbanet.cpu.copy import transposed
from numbanet.cpu.simd import numpy_lanes
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


def memory_cost(p: MatmulProblem) -> float:
    """Return how many operations are done while the operands and the result pass between memory and the core."""
    return 11.0 * (p.m * p.k + p.k * p.n + p.m * p.n)


def _cost(p: MatmulProblem) -> float:
    # Packing a number costs about as much as twenty operations, turning it as seventy, a launch of its own 600,000.
    packing = 20.0 * p.n * p.k + 6e5 if p.a_rows or not p.b_rows else 0.0
    turning = 0.0 if p.a_rows or p.b_rows else 70.0 * p.m * p.k + 6e5
    lanes = numpy_lanes(p.dtype)
    vectors = -(-p.n // lanes)
    # A tile of one vector waits for its operands half of the time.
    products = 2.04 * p.m * p.k * vectors * lanes * (1.8 if vectors == 1 else 1.0)
    return max(products, memory_cost(p)) + packing + turning


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
