"""1x1 convolution to one out-channel: the product of a matrix, the pixels, and a vector."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import matmul_few
from numbanet.cpu.conv_direct import tolerance
from numbanet.problem.conv import ConvProblem
from numbanet.problem.matmul import MatmulProblem

_FEW = matmul_few.CANDIDATES["matmul", "forward"][0]


@lru_cache(maxsize=1024)
def _product(p: ConvProblem) -> MatmulProblem:
    """Return the product of pixels (N * H * W, C) and weight (1, C)."""
    return MatmulProblem(
        which="forward", dtype=p.dtype, m=p.n * p.h * p.w, n=p.k, k=p.c, a_rows=True, b_rows=False, epilogue=p.epilogue
    )


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, weight, bias, residual = inputs

    def rows(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, array.shape[3])

    operands = rows(x), weight.reshape(p.k, p.c), bias, None if residual is None else rows(residual)
    _FEW.run(_product(p), operands, (rows(outputs[0]),), workspace)


def _supports(p: ConvProblem) -> str | None:
    if p.r * p.s > 1 or p.stride != (1, 1) or any(p.pads) or p.groups > 1:
        return "not a product of pixels and weight: a larger filter, stride, padding or groups"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    if p.k > 1:
        return "more than one out-channel"
    return _FEW.supports(_product(p))


def _cost(p: ConvProblem) -> float:
    return _FEW.cost(_product(p))


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [Candidate("cpu.pointwise", _run, _supports, _cost, tolerance=tolerance)],
}
