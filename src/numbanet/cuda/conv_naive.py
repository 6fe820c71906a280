"""Convolution as it is defined, one thread an element of the result: for float64, and operands of 2**31 elements.

It stands last in every list: gradient checks need it, no float32 network does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx
from numbanet.cuda.compile import I32, Int, Kernel, Long, T, device, kernel
from numbanet.cuda.launch import constant, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import ConvProblem

THREADS = 256

i64 = types.int64


@device
def _element():
    return i64(cuda.blockIdx.x) * THREADS + i64(cuda.threadIdx.x)


@kernel(threads=THREADS)
def forward(
    size: Long, has_bias: Int, has_residual: Int, clamps: Int, clamps_above: Int,
    shape: I32, x: T, weight: T, bias: T, residual: T, y: T,
):  # fmt: skip
    """One element of y (N, P, Q, K)."""
    at = _element()
    if at >= size:
        return
    h, w, c, k, r, s = i64(shape[1]), i64(shape[2]), i64(shape[3]), i64(shape[4]), shape[5], shape[6]
    p, q, cg, kg = i64(shape[7]), i64(shape[8]), i64(shape[9]), i64(shape[10])
    filter_, pixel = at % k, at // k
    i, j = pixel // q % p * shape[11] - shape[13], pixel % q * shape[12] - shape[14]
    n = pixel // (p * q)
    total = ptx.zero(y)
    for dy in range(r):
        for dx in range(s):
            top, left = i + dy * shape[15], j + dx * shape[16]
            if 0 <= top and top < h and 0 <= left and left < w:
                source = ((n * h + top) * w + left) * c + filter_ // kg * cg
                tap = ((filter_ * r + dy) * s + dx) * cg
                for e in range(cg):
                    total += x[source + e] * weight[tap + e]
    if has_bias != 0:
        total += bias[filter_]
    if has_residual != 0:
        total += residual[at]
    if clamps != 0 and total < 0:
        total = ptx.zero(y)
    if clamps_above != 0 and total > 6:
        total = ptx.zero(y) + 6
    y[at] = total


@kernel(threads=THREADS)
def backward_input(size: Long, shape: I32, grad: T, weight: T, dx: T):
    """One element of the gradient (N, H, W, C)."""
    at = _element()
    if at >= size:
        return
    h, w, c, k, r, s = i64(shape[1]), i64(shape[2]), i64(shape[3]), i64(shape[4]), shape[5], shape[6]
    p, q, cg, kg = i64(shape[7]), i64(shape[8]), i64(shape[9]), i64(shape[10])
    channel, pixel = at % c, at // c
    top, left, n = pixel // w % h + shape[13], pixel % w + shape[14], pixel // (h * w)
    first = channel // cg * kg
    total = ptx.zero(dx)
    for tap_h in range(r):
        for tap_w in range(s):
            i, j = top - tap_h * shape[15], left - tap_w * shape[16]
            if i >= 0 and j >= 0 and i % shape[11] == 0 and j % shape[12] == 0:
                i, j = i // shape[11], j // shape[12]
                if i < p and j < q:
                    source = ((n * p + i) * q + j) * k + first
                    for e in range(kg):
                        element = (((first + e) * r + tap_h) * s + tap_w) * cg + channel % cg
                        total += grad[source + e] * weight[element]
    dx[at] = total


@kernel(threads=THREADS)
def backward_weight(size: Long, shape: I32, x: T, grad: T, dw: T):
    """One element of the gradient (K, R, S, C / groups)."""
    at = _element()
    if at >= size:
        return
    batch, h, w, c, k, r, s = shape[0], i64(shape[1]), i64(shape[2]), i64(shape[3]), i64(shape[4]), shape[5], shape[6]
    p, q, cg, kg = i64(shape[7]), i64(shape[8]), i64(shape[9]), i64(shape[10])
    filter_ = at // (cg * r * s)
    dy, dx = at // (cg * s) % r * shape[15] - shape[13], at // cg % s * shape[16] - shape[14]
    channel = filter_ // kg * cg + at % cg
    total = ptx.zero(dw)
    for n in range(batch):
        for i in range(p):
            top = i * shape[11] + dy
            if 0 <= top and top < h:
                for j in range(q):
                    left = j * shape[12] + dx
                    if 0 <= left and left < w:
                        total += x[((n * h + top) * w + left) * c + channel] * grad[((n * p + i) * q + j) * k + filter_]
    dw[at] = total


@lru_cache(maxsize=1024)
def _shape(p: ConvProblem) -> np.ndarray:
    sizes = p.n, p.h, p.w, p.c, p.k, p.r, p.s, p.p, p.q, p.cg, p.kg
    return np.array([*sizes, *p.stride, p.pads[0], p.pads[2], *p.dilation], np.int32)


def blocks(y: Any) -> int:
    """Return the blocks that give each element of an array a thread."""
    return -(-y.size // THREADS)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    then, y = p.epilogue, outputs[0]
    flags = then.bias, then.residual, then.activation is not None, then.activation == "relu6"
    arguments = y.size, *map(int, flags), constant(_shape(p)), *inputs, y
    launch(forward, (blocks(y),), arguments, p.dtype)


def _backward(chosen: Kernel) -> Any:
    def run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        launch(chosen, (blocks(outputs[0]),), (outputs[0].size, constant(_shape(p)), *inputs, outputs[0]), p.dtype)

    return run


def _cost(p: ConvProblem) -> float:
    return 1e3 * p.flops + 1e9  # after everything else that takes a problem


def _tolerance(p: ConvProblem) -> float:
    return (3e-6 if p.dtype == "float32" else 6e-15) * (p.reduction / 1000 + 1) ** 0.5


CANDIDATES: CandidateLists = {
    ("conv2d", which): [Candidate("cuda.naive", run, cost=_cost, tolerance=_tolerance)]
    for which, run in (
        ("forward", _forward),
        ("backward_input", _backward(backward_input)),
        ("backward_weight", _backward(backward_weight)),
    )
}
