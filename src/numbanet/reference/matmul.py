"""The product of two matrices."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.problem.matmul import MatmulProblem
from numbanet.reference.conv import finished


def _run(problem: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    a, b, bias, residual = inputs[:4]
    if problem.batch > 1:
        a, b = a[inputs[4][0]], b[inputs[4][1]]
    product = (a if problem.a_rows else a.swapaxes(-1, -2)) @ (b if problem.b_rows else b.swapaxes(-1, -2))
    outputs[0][...] = finished(problem.epilogue, product, bias, residual)


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("reference", _run, cost=lambda problem: float("inf"))],
}
