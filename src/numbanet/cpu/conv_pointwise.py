"""1x1 convolution as a product of matrices: to one out-channel, and gradients of the input of few pixels.

Direct convolution packs the weight in a launch of its own first. Few pixels do not pay for that; the gradient's product
copies the rows of the weight where it needs them (`numbanet.cpu.matmul_outer`), or reads them where they lie.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import conv_direct, matmul_few, matmul_outer
from numbanet.cpu.matmul import COSTS
from numbanet.problem.conv import ConvProblem
from numbanet.problem.matmul import MatmulProblem

_FEW, _OUTER = (file.CANDIDATES["matmul", "forward"][0] for file in (matmul_few, matmul_outer))
_SLOWER = 1.06  # products beside those of direct convolution, which has packed


@lru_cache(maxsize=1024)
def _product(p: ConvProblem) -> MatmulProblem:
    """Return the product: of pixels (N * H * W, C) and weight (1, C), or of gradients (N * H * W, K) and weight."""
    forward = p.which == "forward"
    n, k = (p.k, p.c) if forward else (p.c, p.k)
    return MatmulProblem(
        which="forward", dtype=p.dtype, m=p.n * p.h * p.w, n=n, k=k, a_rows=True, b_rows=not forward,
        epilogue=p.epilogue,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _gradient(p: ConvProblem) -> Candidate:
    """Return the cheaper of the kernels that multiply gradients and weight."""
    product = _product(p)
    fitting = [kernel for kernel in (_FEW, _OUTER) if kernel.supports(product) is None]
    return min(fitting, key=lambda kernel: kernel.cost(product))


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[3])


def _multiply(kernel: Candidate, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (source, weight, bias, residual), out = inputs, outputs[0]
    residual = conv_direct.apart(residual, out)
    operands = _rows(source), weight.reshape(p.k, p.c), bias, None if residual is None else _rows(residual)
    kernel.run(_product(p), operands, (_rows(out),), workspace)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _multiply(_FEW, p, inputs, outputs, workspace)


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _multiply(_gradient(p), p, conv_direct.of_gradient(inputs), outputs, workspace)


def _refusal(p: ConvProblem) -> str | None:
    if p.r * p.s > 1 or p.stride != (1, 1) or any(p.pads) or p.groups > 1:
        return "not a product of pixels and weight: a larger filter, stride, padding or groups"
    if p.n == 0 or p.c == 0:
        return "an empty input"
    return None


def _forward_refusal(p: ConvProblem) -> str | None:
    if reason := _refusal(p):
        return reason
    if p.k > 1:
        return "more than one out-channel"
    return _FEW.supports(_product(p))


def _forward_cost(p: ConvProblem) -> float:
    return _FEW.cost(_product(p))


def _backward_refusal(p: ConvProblem) -> str | None:
    return _refusal(p) or _OUTER.supports(_product(p))


def _backward_cost(p: ConvProblem) -> float:
    """Return the cost of direct convolution, which counts no packing, by the time of both with what they copy."""
    products = 2.0 * p.n * p.h * p.w  # of each number of the weight
    return conv_direct.cost(p) * _SLOWER * (products + COSTS.copying) / (products + COSTS.packing)


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [
        Candidate("cpu.pointwise", _forward, _forward_refusal, _forward_cost, tolerance=conv_direct.tolerance)
    ],
    ("conv2d", "backward_input"): [
        Candidate("cpu.pointwise", _backward_input, _backward_refusal, _backward_cost, tolerance=conv_direct.tolerance)
    ],
}
