"""The largest and smallest elements along a dimension: a warp a row of memory, or a thread a column."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx
from numbanet.cuda.compile import I64, Int, Kernel, T, device, kernel
from numbanet.cuda.launch import launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large

_WARPS = THREADS // 32
_STEPS = (16, 8, 4, 2, 1)


@lru_cache(maxsize=8)
def _kernel(dtype: str, largest: bool, rows: bool) -> Kernel:
    """Return the kernel for rows, or for columns."""
    number = real(dtype)
    start = number(float("-inf" if largest else "inf"))
    last = i32(2**31 - 1)

    @device
    def beats(a, i, b, j):
        """Say whether b, at position j, comes before a: NaN beats numbers, and of equals the first counts."""
        if a != a or b != b:
            return b != b and (a == a or j < i)
        if a == b:
            return j < i
        return b > a if largest else b < a

    @kernel(threads=THREADS, config=f"{dtype},{'largest' if largest else 'smallest'},{'rows' if rows else 'columns'}")
    def extremum(results: Int, reduced: Int, inner: Int, x: T, values: T, positions: I64):
        t = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        result = i32(t >> 5) if rows else t
        best, at = start, last
        outer = i32(result // inner)
        base = i32(outer * reduced * inner + (result - outer * inner))
        if result < results:
            for i in range(i32(t & 31) if rows else i32(0), reduced, 32 if rows else 1):
                v = x[i32(base + i * inner)]
                if beats(best, at, v, i32(i)):
                    best, at = v, i32(i)
        if rows:
            for step in _STEPS:
                other, place = ptx.shuffle_bfly(best, i32(step)), ptx.shuffle_bfly(at, i32(step))
                if beats(best, at, other, place):
                    best, at = other, place
        if result < results and (not rows or t & 31 == 0):
            values[result], positions[result] = best, at

    return extremum


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    rows, results = problem.inner == 1, problem.outer * problem.inner
    chosen = _kernel(problem.dtype, problem.largest, rows)
    sizes = (results, problem.reduced, problem.inner)
    launch(chosen, (blocks(results, _WARPS if rows else THREADS),), (*sizes, *inputs, *outputs), problem.dtype)


def _supports(problem: Any) -> str | None:
    # A thread's number is that of its result, times 32 for rows.
    return too_large(problem.outer * problem.reduced * problem.inner, 32 * problem.outer * problem.inner + THREADS)


CANDIDATES: CandidateLists = {("extremum", "forward"): [Candidate("cuda.first", _forward, _supports)]}
