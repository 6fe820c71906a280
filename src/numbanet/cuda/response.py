"""Local response normalisation across the channels of channels-last pixels, a thread an element."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import Int, Kernel, Number, T, device, kernel
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large


@lru_cache(maxsize=4)
def _spread(dtype: str) -> Any:
    """Return ``d = k + share * sum of x^2`` over a window of a row's channels."""
    zero = real(dtype)(0)

    @device
    def spread(x, start, c, channels, before, after, share, k):
        total = zero
        for j in range(max(c - before, 0), min(c + after + 1, channels)):
            v = x[i32(start + j)]
            total += v * v
        return k + share * total

    return spread


@lru_cache(maxsize=4)
def _forward_kernel(dtype: str) -> Kernel:
    spread = _spread(dtype)

    @kernel(threads=THREADS, config=dtype)
    def response(
        size: Int, channels: Int, before: Int, after: Int, share: Number, beta: Number, k: Number, x: T, y: T
    ):
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            start = i32(i // channels * channels)
            y[i] = x[i] * math.pow(spread(x, start, i32(i - start), channels, before, after, share, k), -beta)

    return response


@lru_cache(maxsize=4)
def _shares_kernel(dtype: str) -> Kernel:
    """Return the kernel of what a channel gives to the gradients around it: grad x d^(-beta-1)."""
    spread, one = _spread(dtype), real(dtype)(1)

    @kernel(threads=THREADS, config=dtype)
    def response_shares(
        size: Int, channels: Int, before: Int, after: Int, share: Number, beta: Number, k: Number, grad: T, x: T,
        shared: T,
    ):  # fmt: skip
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            start = i32(i // channels * channels)
            d = spread(x, start, i32(i - start), channels, before, after, share, k)
            shared[i] = grad[i] * x[i] * math.pow(d, -beta - one)

    return response_shares


@lru_cache(maxsize=4)
def _backward_kernel(dtype: str) -> Kernel:
    number = real(dtype)
    spread, zero, two = _spread(dtype), number(0), number(2)

    @kernel(threads=THREADS, config=dtype)
    def response_backward(
        size: Int, channels: Int, before: Int, after: Int, share: Number, beta: Number, k: Number, grad: T, x: T,
        shared: T, dx: T,
    ):  # fmt: skip
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            start = i32(i // channels * channels)
            c = i32(i - start)
            total = zero
            for j in range(max(c - after, 0), min(c + before + 1, channels)):
                total += shared[i32(start + j)]
            d = spread(x, start, c, channels, before, after, share, k)
            dx[i] = grad[i] * math.pow(d, -beta) - two * share * beta * x[i] * total

    return response_backward


def _numbers(problem: Any, numbers: Any) -> tuple[Any, ...]:
    alpha, beta, k = map(float, numbers)
    size = problem.rows * problem.channels
    return size, problem.channels, problem.before, problem.after, alpha / problem.size, beta, k


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, numbers = inputs
    sizes = _numbers(problem, numbers)
    launch(_forward_kernel(problem.dtype), (blocks(sizes[0]),), (*sizes, x, *outputs), problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, numbers = inputs
    sizes = _numbers(problem, numbers)
    shared = empty((sizes[0],), problem.dtype)
    launch(_shares_kernel(problem.dtype), (blocks(sizes[0]),), (*sizes, grad, x, shared), problem.dtype)
    launch(_backward_kernel(problem.dtype), (blocks(sizes[0]),), (*sizes, grad, x, shared, *outputs), problem.dtype)


def _supports(problem: Any) -> str | None:
    return too_large(problem.rows * problem.channels)


CANDIDATES: CandidateLists = {
    ("local_response_norm", "forward"): [Candidate("cuda.flat", _forward, _supports)],
    ("local_response_norm", "backward_input"): [Candidate("cuda.flat", _backward, _supports)],
}
