"""Rows added to rows that positions name, in the order of the positions: dx = 0, then dx[positions[k]] += grad[k].

Each row of dx gathers its summands, so that nothing depends on the order of threads: the positions are counted, the
counts added up, and the numbers k of each row listed and put in order. A position of no row (which an index that is out
of bounds gives) is left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx
from numbanet.cuda.compile import I32, I64, Int, Kernel, T, kernel
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large

_SHARED = THREADS
RUN = 64  # numbers that are put in order by counting


@kernel(threads=THREADS)
def clear(size: Int, counts: I32):
    """Set all counts to 0."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        counts[i] = i32(0)


@kernel(threads=THREADS)
def count_rows(size: Int, rows: Int, positions: I64, counts: I32):
    """Count the positions of each row."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        row = positions[i]
        if row >= 0 and row < rows:
            ptx.add_at(counts, i32(row), i32(1))


@kernel(threads=THREADS)
def add_up(rows: Int, counts: I32, starts: I32):
    """starts[r] = sum of the counts before row r, for r up to `rows`; counts become 0. A single block does it."""
    shared = cuda.shared.array(_SHARED, i32)
    t = i32(cuda.threadIdx.x)
    carry = i32(0)
    for first in range(0, rows, THREADS):
        i = i32(first + t)
        mine = counts[i] if i < rows else i32(0)
        shared[t] = mine
        cuda.syncthreads()
        step = i32(1)
        while step < THREADS:
            other = shared[i32(t - step)] if t >= step else i32(0)
            cuda.syncthreads()
            shared[t] = i32(shared[t] + other)
            cuda.syncthreads()
            step = i32(step * 2)
        if i < rows:
            starts[i] = i32(carry + shared[t] - mine)
            counts[i] = i32(0)
        carry = i32(carry + shared[i32(THREADS - 1)])
        cuda.syncthreads()
    if t == 0:
        starts[rows] = carry


@kernel(threads=THREADS)
def list_rows(size: Int, rows: Int, positions: I64, starts: I32, counts: I32, listed: I32):
    """List the numbers of each row's positions, in any order."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < size:
        position = positions[i]
        if position >= 0 and position < rows:
            row = i32(position)
            listed[i32(starts[row] + ptx.add_at(counts, row, i32(1)))] = i


@kernel(threads=THREADS)
def put_in_order(rows: Int, positions: I64, starts: I32, listed: I32, ordered: I32):
    """Move each number that is listed to its rank in its run: of at most RUN numbers of one row."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < starts[rows]:
        mine = listed[i]
        row = i32(positions[mine])
        first = starts[row]
        first = i32(first + (i - first) // RUN * RUN)
        rank = i32(0)
        for other in range(first, min(i32(first + RUN), starts[i32(row + 1)])):
            rank = i32(rank + (i32(1) if listed[other] < mine else i32(0)))
        ordered[i32(first + rank)] = mine


@kernel(threads=THREADS)
def merge_runs(rows: Int, run: Int, positions: I64, starts: I32, runs: I32, merged: I32):
    """Merge each run of a row, of `run` numbers in order, with the one beside it: each number finds its place there."""
    i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
    if i < starts[rows]:
        mine = runs[i]
        row = i32(positions[mine])
        start, end = starts[row], starts[i32(row + 1)]
        number = i32((i - start) // run)
        own = i32(start + number * run)
        other = i32(own + run) if number % 2 == 0 else i32(own - run)
        low, high = min(other, end), min(i32(other + run), end)
        beside = low
        while low < high:
            middle = i32((low + high) // 2)
            if runs[middle] < mine:
                low = i32(middle + 1)
            else:
                high = middle
        merged[i32(min(own, other) + (i - own) + (low - beside))] = mine


@lru_cache(maxsize=4)
def _gather_kernel(dtype: str) -> Kernel:
    zero = real(dtype)(0)

    @kernel(threads=THREADS, config=dtype)
    def gather_rows(size: Int, inner: Int, starts: I32, ordered: I32, grad: T, dx: T):
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            row = i32(i // inner)
            column = i32(i - row * inner)
            total = zero
            for k in range(starts[row], starts[i32(row + 1)]):
                total += grad[i32(ordered[k] * inner + column)]
            dx[i] = total

    return gather_rows


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (grad, positions), (dx,) = inputs, outputs
    rows, count, inner = problem.rows, problem.count, problem.inner
    counts, starts = empty((rows,), "int32"), empty((rows + 1,), "int32")
    listed, ordered = empty((max(count, 1),), "int32"), empty((max(count, 1),), "int32")
    launch(clear, (blocks(rows),), (rows, counts))
    launch(count_rows, (blocks(count),), (count, rows, positions, counts))
    launch(add_up, (1,), (rows, counts, starts))
    launch(list_rows, (blocks(count),), (count, rows, positions, starts, counts, listed))
    launch(put_in_order, (blocks(count),), (rows, positions, starts, listed, ordered))
    run = RUN
    while run < count:  # a row may have all
        listed, ordered = ordered, listed
        launch(merge_runs, (blocks(count),), (rows, run, positions, starts, listed, ordered))
        run *= 2
    size = rows * inner
    launch(_gather_kernel(problem.dtype), (blocks(size),), (size, inner, starts, ordered, grad, dx), problem.dtype)


def _supports(problem: Any) -> str | None:
    return too_large((problem.rows + 1) * problem.inner, problem.count * problem.inner, 2 * problem.count)


CANDIDATES: CandidateLists = {("index_add", "forward"): [Candidate("cuda.lists", _forward, _supports)]}
