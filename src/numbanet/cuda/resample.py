"""Interpolation of channels-last images, and its gradient: each is the weighted sum that two tables give."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I32, Int, Kernel, T, kernel
from numbanet.cuda.launch import constant, launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, accesses, blocks, i32, pixel_of, real, too_large, width


@lru_cache(maxsize=8)
def _kernel(dtype: str, wide: int) -> Kernel:
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)

    @kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide}")
    def resample(
        work: Int, channels: Int, h: Int, w: Int, p: Int, q: Int, row_starts: I32, row_sources: I32, row_weights: T,
        column_starts: I32, column_sources: I32, column_weights: T, x: T, y: T,
    ):  # fmt: skip
        total, line_total = cuda.local.array(wide, number), cuda.local.array(wide, number)
        values = cuda.local.array(wide, number)
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < work:
            n, row, column, vector = pixel_of(item, i32(channels // wide), q, p)
            c = i32(vector * wide)
            for lane in range(wide):
                total[lane] = zero
            for i in range(row_starts[row], row_starts[i32(row + 1)]):
                for lane in range(wide):
                    line_total[lane] = zero
                base = i32((n * h + row_sources[i]) * w)
                for j in range(column_starts[column], column_starts[i32(column + 1)]):
                    get(x, i32((base + column_sources[j]) * channels + c), values)
                    for lane in range(wide):
                        line_total[lane] += column_weights[j] * values[lane]
                for lane in range(wide):
                    total[lane] += row_weights[i] * line_total[lane]
            put(y, i32(item * wide), total)

    return resample


@lru_cache(maxsize=256)
def _tables(problem: Any) -> tuple[np.ndarray, ...]:
    """Return starts, sources and weights of the rows and of the columns."""
    found: list[np.ndarray] = []
    for table in problem.tables:
        found += [table.starts.astype(np.int32), table.sources.astype(np.int32), table.weight.astype(problem.dtype)]
    return tuple(found)


def _run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    source, target = (problem.h, problem.w), (problem.p, problem.q)
    if problem.which != "forward":
        source, target = target, source
    wide = width(problem.dtype, problem.c, *inputs, *outputs)
    work = problem.n * target[0] * target[1] * (problem.c // wide)
    arrays = (*map(constant, _tables(problem)), *inputs, *outputs)
    launch(_kernel(problem.dtype, wide), (blocks(work),), (work, problem.c, *source, *target, *arrays), problem.dtype)


def _supports(problem: Any) -> str | None:
    each = problem.n * problem.c
    return too_large(each * problem.h * problem.w, each * problem.p * problem.q)


CANDIDATES: CandidateLists = {
    ("resample", which): [Candidate("cuda.tables", _run, _supports)] for which in ("forward", "backward_input")
}
