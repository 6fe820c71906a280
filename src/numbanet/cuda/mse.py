"""Mean squared error: its squares, their sum, and its gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import F64, Int, Kernel, T, device, kernel
from numbanet.cuda.flat import run_flat
from numbanet.cuda.launch import launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.total import run_total
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large

f64 = types.float64


@device
def _square(x, target, p, q):
    return (x - target) * (x - target)


@lru_cache(maxsize=4)
def _backward_kernel(dtype: str) -> Kernel:
    """Return the kernel dx = 2 (x - target) grad / divisor."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def mse_backward(size: Int, step: Int, grad: T, x: T, target: T, divisor: F64, dx: T):
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            g = number(f64(2) * f64(grad[i32(i * step)]) / divisor[0])
            dx[i] = (x[i] - target[i]) * g

    return mse_backward


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    values, total, divisor = outputs
    size, dtype = problem.size, problem.dtype
    if problem.reduction == "none":
        run_flat("square_of_difference", _square, dtype, size, inputs, values)
    fixed = float(size) if problem.reduction == "mean" else 1.0
    run_total("square_of_difference", _square, dtype, size, inputs, total, fixed, kept=divisor)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    sizes = (problem.size, int(problem.reduction == "none"))
    launch(_backward_kernel(problem.dtype), (blocks(problem.size),), (*sizes, *inputs, *outputs), problem.dtype)


def _supports(problem: Any) -> str | None:
    return too_large(problem.size)


CANDIDATES: CandidateLists = {
    ("mse_loss", "forward"): [Candidate("cuda.flat", _forward, _supports)],
    ("mse_loss", "backward_input"): [Candidate("cuda.flat", _backward, _supports)],
}
