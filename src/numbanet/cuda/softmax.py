"""Softmax and its logarithm: along memory with a warp or a block for each row, across it with a thread for each column.

The largest element is subtracted, so nothing overflows. A NaN, or infinities without a limit, make the sum NaN and with
it the whole row, as the definition says.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import Int, Kernel, T, device, kernel
from numbanet.cuda.launch import launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.team import team
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large


@lru_cache(maxsize=8)
def row_statistics(dtype: str, threads: int) -> Any:
    """Return ``f(x, start, length, scratch)``: the largest of some neighbours, and the sum of exp(x - largest).

    A team of `threads` threads takes the row; `scratch` is its shared memory.
    """
    zero = real(dtype)(0)
    low = real(dtype)(float("-inf"))
    team_sum, team_max = team(threads)

    @device
    def statistics(x, start, length, scratch):
        t = i32(i32(cuda.threadIdx.x) % threads)
        top = low
        for i in range(t, length, threads):
            v = x[i32(start + i)]
            top = v if v > top else top
        top = team_max(top, scratch)
        total = zero
        for i in range(t, length, threads):
            total += math.exp(x[i32(start + i)] - top)
        return top, team_sum(total, scratch)

    return statistics


@lru_cache(maxsize=16)
def _rows(dtype: str, threads: int, log: bool, backward: bool) -> Kernel:
    """Return the kernel of rows; a team of `threads` threads takes each."""
    number = real(dtype)
    zero = number(0)
    statistics, (team_sum, _) = row_statistics(dtype, threads), team(threads)
    cells, teams = max(1, threads // 32), THREADS // threads
    words = ",".join([dtype, str(threads), *(["log"] if log else []), *(["backward"] if backward else [])])

    @kernel(threads=THREADS, config=words)
    def softmax_rows(rows: Int, length: Int, x: T, y: T, out: T):
        scratch = cuda.shared.array(cells, number)
        t = i32(i32(cuda.threadIdx.x) % threads)
        row = i32(i32(cuda.blockIdx.x) * teams + i32(cuda.threadIdx.x) // threads)
        start = i32(row * length)
        length = length if row < rows else i32(0)
        if backward:  # x is the gradient, y the result
            total = zero
            for i in range(t, length, threads):
                g = x[i32(start + i)]
                total += g if log else g * y[i32(start + i)]
            total = team_sum(total, scratch)
            for i in range(t, length, threads):
                at = i32(start + i)
                if log:
                    out[at] = x[at] - math.exp(y[at]) * total
                else:
                    out[at] = y[at] * (x[at] - total)
        else:
            top, total = statistics(x, start, length, scratch)
            logarithm = math.log(total)
            for i in range(t, length, threads):
                at = i32(start + i)
                v = x[at] - top
                out[at] = v - logarithm if log else math.exp(v) / total

    return softmax_rows


@lru_cache(maxsize=8)
def _columns(dtype: str, log: bool, backward: bool) -> Kernel:
    """Return the kernel of columns, whose neighbours lie `inner` apart; a thread takes each."""
    number = real(dtype)
    zero, low = number(0), number(float("-inf"))
    words = ",".join([dtype, *(["log"] if log else []), *(["backward"] if backward else [])])

    @kernel(threads=THREADS, config=words)
    def softmax_columns(columns: Int, length: Int, inner: Int, x: T, y: T, out: T):
        column = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if column < columns:
            outer = i32(column // inner)
            start = i32(outer * length * inner + (column - outer * inner))
            total, top = zero, low
            if backward:
                for i in range(length):
                    at = i32(start + i * inner)
                    total += x[at] if log else x[at] * y[at]
                for i in range(length):
                    at = i32(start + i * inner)
                    if log:
                        out[at] = x[at] - math.exp(y[at]) * total
                    else:
                        out[at] = y[at] * (x[at] - total)
            else:
                for i in range(length):
                    v = x[i32(start + i * inner)]
                    top = v if v > top else top
                for i in range(length):
                    total += math.exp(x[i32(start + i * inner)] - top)
                logarithm = math.log(total)
                for i in range(length):
                    at = i32(start + i * inner)
                    v = x[at] - top
                    out[at] = v - logarithm if log else math.exp(v) / total

    return softmax_columns


def _run(problem: Any, arrays: Arrays, backward: bool) -> None:
    outer, length, inner, dtype = problem.outer, problem.length, problem.inner, problem.dtype
    if not length:
        return
    if inner == 1:
        threads = team_size(length)
        chosen = _rows(dtype, threads, problem.log, backward)
        launch(chosen, (blocks(outer, THREADS // threads),), (outer, length, *arrays), dtype)
    else:
        chosen = _columns(dtype, problem.log, backward)
        launch(chosen, (blocks(outer * inner),), (outer * inner, length, inner, *arrays), dtype)


def team_size(length: int) -> int:
    """Return how many threads take a row: a warp, or for long rows a block."""
    return 32 if length <= 2048 else THREADS


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(problem, (inputs[0], None, outputs[0]), False)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(problem, (*inputs, outputs[0]), True)


def _supports(problem: Any) -> str | None:
    return too_large(problem.outer * problem.length * problem.inner)


CANDIDATES: CandidateLists = {
    ("softmax", "forward"): [Candidate("cuda.rows", _forward, _supports)],
    ("softmax", "backward_input"): [Candidate("cuda.rows", _backward, _supports)],
}
