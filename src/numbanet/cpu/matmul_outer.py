"""Products of small matrices, and of many at once: register tiles on the operands where they lie.

For each panel of columns of the result, a block of rows of b stays in the first- and second-level cache while the rows
of a pass by. The block is read where it lies, or copied by the task itself: a launch that packs all of b first pays
for large matrices only (`numbanet.cpu.matmul`). A task does a part of one product, or several products.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.matmul import memory_cost, tolerance
from numbanet.cpu.matmul_few import finish_row
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import lanes, load_tail, named, numpy_lanes, offset, store
from numbanet.cpu.tile import MAX_ROWS, MAX_VECTORS, address, epilogue_flags, outer_tile, stack_buffer, tile_rows
from numbanet.cpu.transpose import transpose_block
from numbanet.problem.matmul import MatmulProblem

_BLOCK = min(256, caches().second // 1024)  # rows of b of a block
_BUFFER = 16384  # numbers of a copied block: _BLOCK times the widest panel
_TASK_FLOPS = 1 << 17  # operations of a task at least
_TASKS = 16  # as many tasks at least, where the operations allow it
_COPIED_ROWS = 48  # rows of a that a copied block serves at least

DIRECT, COPIED, TURNED = 0, 1, 2  # how a block of b is read: where it lies, as a copy, as a transposed copy


@device
def _copy_block(b, at, step, terms, columns, width, block):
    """Copy `terms` rows of a panel, `width` vectors wide."""
    pitch = width * lanes(b)
    for c in range(terms):
        for j in range(0, pitch, lanes(b)):
            store(block, c * pitch + j, load_tail(b, at + c * step + j, columns - j))


@device
def _turn_block(b, at, step, terms, columns, width, block):
    """Copy a panel whose columns are rows in memory."""
    pitch = width * lanes(b)
    for j in range(0, pitch, lanes(b)):
        for c in range(0, terms, lanes(b)):
            transpose_block(b, at + j * step + c, step, columns - j, terms - c, block, c * pitch + j, pitch)


@device
def _tiles(width, last, runs, rows, row_step, term_step, b_step, table, out, out_step, accumulate):
    """Run the register tiles of one panel over some rows of a."""
    step = tile_rows(width)
    for r in range(0, rows, step):
        if r == 0 or rows - r < step:
            for i in range(step):
                table[i] = min(i, rows - r - 1) * row_step
        outer_tile(
            width, runs, 1, term_step, b_step, r * row_step, 0, table, 1 if row_step == 1 else 0,
            offset(out, r * out_step), out_step, accumulate, rows - r, last, runs, 0, 0,
        )  # fmt: skip


class Products(NamedTuple):
    """What the kernel reads of a problem and of how it is cut: the integers of a launch."""

    batch: int
    m: int
    n: int
    k: int
    row_step: int  # elements of a from a row to the next,
    term_step: int  # and from a term of the sums to the next
    reading: int  # how b is read: DIRECT, COPIED or TURNED
    several: int  # products of a task; or of one product
    rows_each: int  # so many rows
    row_blocks: int
    columns_each: int  # and columns
    column_blocks: int
    flags: int  # of what completes the result


@kernel
def products(task: Index, ints: I64, a: T, b: T, index: I64, bias: T, residual: T, out: T):
    """Compute a part of one product, or some of many."""
    s = named(ints, Products)
    m, n, k, flags = s.m, s.n, s.k, s.flags
    vector = lanes(a)
    block, runs, table = stack_buffer(a, _BUFFER), stack_buffer(ints, 4), stack_buffer(ints, MAX_ROWS)
    rest = task // s.row_blocks
    row, first = task % s.row_blocks * s.rows_each, rest % s.column_blocks * s.columns_each
    rows, end = min(s.rows_each, m - row), min(n, first + s.columns_each)
    start = rest // s.column_blocks * s.several
    for item in range(start, min(s.batch, start + s.several)):
        a_at, b_at = index[item] * m * k + row * s.row_step, index[s.batch + item] * k * n
        out_at = (item * m + row) * n
        for c in range(0, k, _BLOCK):
            terms = min(_BLOCK, k - c)
            runs[0] = address(a, a_at + c * s.term_step)
            runs[2] = terms
            for column in range(first, end, MAX_VECTORS * vector):
                width = min(MAX_VECTORS, (end - column + vector - 1) // vector)
                last = min(vector, end - column - (width - 1) * vector)
                step = width * vector
                if s.reading == TURNED:
                    _turn_block(b, b_at + column * k + c, k, terms, end - column, width, block)
                elif s.reading == COPIED:
                    _copy_block(b, b_at + c * n + column, n, terms, end - column, width, block)
                else:
                    step = n
                runs[1] = address(b, b_at + c * n + column) if s.reading == DIRECT else address(block, 0)
                _tiles(
                    width, last, runs, rows, s.row_step, s.term_step, step, table, offset(out, out_at + column), n, c
                )  # fmt: skip
        if flags:
            for i in range(rows):
                finish_row(out, out_at + i * n + first, end - first, first, flags, bias, 1, residual)


def _reading(p: MatmulProblem) -> int:
    if not p.b_rows:
        return TURNED
    # A copy pays where many rows see it, and where the lines of a panel fall into few sets of the cache.
    return COPIED if p.m >= _COPIED_ROWS and p.n > 4 * MAX_VECTORS * numpy_lanes(p.dtype) else DIRECT


def _rounded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


@lru_cache(maxsize=1024)
def _plan(p: MatmulProblem) -> tuple[int, tuple[int, ...]]:
    """Return the number of tasks and the integers of the launch."""
    reading = _reading(p)
    flops = max(1, p.flops // p.batch)
    pieces = max(1, min(_TASKS // p.batch, flops // _TASK_FLOPS))  # of one product
    several = max(1, min(p.batch // _TASKS, _TASK_FLOPS // flops))
    panel = MAX_VECTORS * numpy_lanes(p.dtype)
    column_blocks = min(pieces, -(-p.n // panel))
    columns_each = _rounded(-(-p.n // column_blocks), panel)
    rows_each = -(-p.m // max(1, pieces // column_blocks))
    rows_each = _rounded(max(rows_each, 1 if reading == DIRECT else _COPIED_ROWS), 6)
    row_step, term_step = (p.k, 1) if p.a_rows else (1, p.m)
    row_blocks, column_blocks = -(-p.m // rows_each), -(-p.n // columns_each)
    integers_ = Products(
        p.batch, p.m, p.n, p.k, row_step, term_step, reading, several, rows_each, row_blocks, columns_each,
        column_blocks, epilogue_flags(p.epilogue),
    )  # fmt: skip
    return -(-p.batch // several) * row_blocks * column_blocks, integers_


_SINGLE = np.zeros(2, np.int64)


def _run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    a, b, bias, residual = inputs[:4]
    index = inputs[4] if p.batch > 1 else _SINGLE
    tasks, integers_ = _plan(p)
    extra = a if bias is None else bias, a if residual is None else residual
    launch(products, tasks, (a, b, index, *extra, *outputs), integers_, p.dtype)


def _supports(p: MatmulProblem) -> str | None:
    return "a sum of nothing" if p.k == 0 else None


def _cost(p: MatmulProblem) -> float:
    size = numpy_lanes(p.dtype)
    tasks, integers_ = _plan(p)
    row_blocks = integers_[9]
    # The reduction is not shared out: a long one of a few large panels keeps few threads busy.
    idle = 2.0 if tasks < _TASKS // 2 and p.flops > 32 * _TASK_FLOPS else 1.0
    copies = {DIRECT: 0.0, COPIED: 8.0, TURNED: 16.0}[integers_[6]] * p.batch * p.n * p.k * row_blocks
    return idle * max(1.05 * p.flops * _rounded(p.n, size) / p.n, memory_cost(p)) + copies


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("cpu.outer", _run, _supports, _cost, tolerance=tolerance)],
}
