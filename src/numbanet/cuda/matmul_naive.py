"""Products of matrices as they are defined, one thread an element of the result: for float64."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx
from numbanet.cuda.compile import I64, Int, Long, T, kernel
from numbanet.cuda.conv_naive import THREADS, blocks
from numbanet.cuda.launch import constant, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.matmul import MatmulProblem

i64 = types.int64


@kernel(threads=THREADS)
def matmul(
    size: Long, m: Long, n: Long, k: Long, a_row: Long, a_step: Long, b_column: Long, b_step: Long, batch: Long,
    has_bias: Int, has_residual: Int, clamps: Int, clamps_above: Int,
    a: T, b: T, index: I64, bias: T, residual: T, y: T,
):  # fmt: skip
    """One element of y (batch, m, n)."""
    at = i64(cuda.blockIdx.x) * THREADS + i64(cuda.threadIdx.x)
    if at >= size:
        return
    column, row, product = at % n, at // n % m, at // (n * m)
    left, right = row * a_row, column * b_column
    if batch > 1:
        left += index[product] * m * k
        right += index[batch + product] * k * n
    total = ptx.zero(y)
    for e in range(k):
        total += a[left + e * a_step] * b[right + e * b_step]
    if has_bias != 0:
        total += bias[column]
    if has_residual != 0:
        total += residual[at]
    if clamps != 0 and total < 0:
        total = ptx.zero(y)
    if clamps_above != 0 and total > 6:
        total = ptx.zero(y) + 6
    y[at] = total


def _run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    a, b, bias, residual = inputs[:4]
    index, y, then = constant(inputs[4]) if p.batch > 1 else None, outputs[0], p.epilogue
    strides = *((p.k, 1) if p.a_rows else (1, p.m)), *((1, p.n) if p.b_rows else (p.k, 1))
    flags = then.bias, then.residual, then.activation is not None, then.activation == "relu6"
    sizes = y.size, p.m, p.n, p.k, *strides, p.batch, *map(int, flags)
    launch(matmul, (blocks(y),), (*sizes, a, b, index, bias, residual, y), p.dtype)


def _cost(p: MatmulProblem) -> float:
    return 1e3 * p.flops + 1e9  # after everything else that takes a problem


def _tolerance(p: MatmulProblem) -> float:
    return (3e-6 if p.dtype == "float32" else 6e-15) * (p.k / 1000 + 1) ** 0.5


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("cuda.naive", _run, cost=_cost, tolerance=_tolerance)],
}
