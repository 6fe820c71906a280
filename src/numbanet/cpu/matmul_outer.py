"""Products of small matrices, and of many at once: register tiles on the operands where they lie.

For each panel of columns of the result, a block of rows of b stays in the first- and second-level cache while the rows
of a pass by. The block is read where it lies, or copied by the task itself: a launch that packs all of b first pays
for large matrices only (`numbanet.cpu.matmul`). A task does a part of one product, or several products.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.cache_sizes import caches
from numbanet.cpu.compile import I64, Index, T, device, tile_kernel
from numbanet.cpu.isa import fetches_ahead
from numbanet.cpu.matmul import COSTS, LAUNCH, memory_cost, tile_cost, tolerance
from numbanet.cpu.matmul_few import add_shares, finish_row, share_integers
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import lanes, load_tail, named, numpy_lanes, offset, store
from numbanet.cpu.tile import (
    MAX_ROWS,
    MAX_VECTORS,
    address,
    epilogue_flags,
    outer_tile,
    stack_buffer,
    tile_rows,
    whole_tiles,
)
from numbanet.cpu.transpose import transpose_block
from numbanet.problem.matmul import MatmulProblem

_BLOCK = min(256, caches().second // 1024)  # rows of b of a block
_BUFFER = 16384  # numbers of a copied block: _BLOCK times the widest panel
_TASK_FLOPS = 1 << 17  # operations of a task at least
_TASKS = 16  # as many tasks at least, where the operations allow it
_COPIED_ROWS = 48  # rows of a that a copied block serves at least,
_MANY_ROWS = 96  # where others could, too,
_SHARED_ROWS = 48  # or that of the only panel,
_READ_ROWS = 24  # and one that is read where it lies
_SHARE = _BLOCK  # terms of a share of the sums at least: beside them a partial result costs little
_PAGE, _PLACES = 4096, 16  # bytes, and as many lines a cache keeps of those that lie pages apart
_ROWS = 512  # rows of a that stay in the second-level cache, for a block of terms, while panels pass by
_NEAR = 1 << 18  # bytes of b that need no fetching: they stay in the second-level cache
_LINE = 16  # rows of a cache line of a, where it lies column by column

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
def _tiles(width, last, runs, rows, row_step, term_step, b_step, table, out, out_step, accumulate, ahead, ahead_step):
    """Run the register tiles of one panel over some rows of a.

    `ahead` is the address of another panel, its width in elements, and how many of them a tile fetches of each row.
    """
    step = tile_rows(width)
    for r in range(0, rows, step):
        if r == 0 or rows - r < step:
            for i in range(step):
                table[i] = min(i, rows - r - 1) * row_step
        far = r // step * ahead[2]
        if far >= ahead[1]:  # nothing more: one element again and again
            far = ahead_step = 0
        outer_tile(
            width, runs, 1, term_step, b_step, r * row_step, 0, table, 1 if row_step == 1 else 0,
            offset(out, r * out_step), out_step, accumulate, rows - r, last, ahead, far, ahead_step,
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
    columns_each: int  # and columns,
    column_blocks: int
    terms_each: int  # and terms of the sums: the shares of the sums are results of their own,
    splits: int  # so many
    fetched: int  # elements of a cache line if what is read of b next is fetched meanwhile, else 0
    flags: int  # of what completes the result


@tile_kernel
def products(task: Index, ints: I64, a: T, b: T, index: I64, bias: T, residual: T, out: T):
    """Compute a part of one product, or some of many."""
    s = named(ints, Products)
    m, n, k, flags = s.m, s.n, s.k, s.flags
    vector = lanes(a)
    block, runs, table = stack_buffer(a, _BUFFER), stack_buffer(ints, 4), stack_buffer(ints, MAX_ROWS)
    ahead = stack_buffer(ints, 4)
    row, rest = task % s.row_blocks * s.rows_each, task // s.row_blocks
    first, rest = rest % s.column_blocks * s.columns_each, rest // s.column_blocks
    split, start = rest % s.splits, rest // s.splits * s.several
    rows, end = min(s.rows_each, m - row), min(n, first + s.columns_each)
    first_term, past = split * s.terms_each, min(k, (split + 1) * s.terms_each)
    vectors = (end - first + vector - 1) // vector
    panels = (vectors + MAX_VECTORS - 1) // MAX_VECTORS
    for item in range(start, min(s.batch, start + s.several)):
        a_at, b_at = index[item] * m * k + row * s.row_step, index[s.batch + item] * k * n
        out_at = ((split * s.batch + item) * m + row) * n
        for c in range(first_term, past, _BLOCK):
            terms = min(_BLOCK, past - c)
            runs[0] = address(a, a_at + c * s.term_step)
            runs[2] = terms
            for panel in range(panels):
                width = (panel + 1) * vectors // panels - panel * vectors // panels
                column = first + panel * vectors // panels * vector
                last = min(vector, end - column - (width - 1) * vector)
                step = width * vector
                if s.reading == TURNED:
                    _turn_block(b, b_at + column * k + c, k, terms, end - column, width, block)
                elif s.reading == COPIED:
                    _copy_block(b, b_at + c * n + column, n, terms, end - column, width, block)
                else:
                    step = n
                runs[1] = address(b, b_at + c * n + column) if s.reading == DIRECT else address(block, 0)
                ahead[0], ahead[1], ahead[2] = runs[1], 0, s.fetched
                if s.fetched and (panel + 1 < panels or c + terms < past):
                    after = c * n + column + width * vector if panel + 1 < panels else (c + terms) * n + first
                    ahead[0], ahead[1] = address(b, b_at + after), width * vector + s.fetched
                _tiles(
                    width, last, runs, rows, s.row_step, s.term_step, step, table, offset(out, out_at + column), n,
                    c - first_term, ahead, n,
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


class _Plan(NamedTuple):
    """How a problem is launched."""

    tasks: int
    integers: Products
    shares: tuple[int, ...]  # the integers of the launch that adds up the shares of the sums, if there are several


@lru_cache(maxsize=1024)
def _plan(p: MatmulProblem) -> _Plan:
    reading = _reading(p)
    flops = max(1, p.flops // p.batch)
    pieces = max(1, min(_TASKS // p.batch, flops // _TASK_FLOPS))  # of one product
    several = max(1, min(p.batch // _TASKS, _TASK_FLOPS // flops))
    size, itemsize = numpy_lanes(p.dtype), np.dtype(p.dtype).itemsize
    vectors = -(-p.n // size)
    # Panels of columns share nothing but a. Blocks of rows read b anew, and shares of the sums are written and added.
    panels = -(-vectors // MAX_VECTORS)
    panels_each = -(-panels // min(pieces, panels))
    column_blocks = -(-panels // panels_each)
    rest = pieces // column_blocks
    row_blocks = max(1, min(rest, p.m // _MANY_ROWS))
    splits = max(1, min(rest // row_blocks, p.k // _SHARE)) if flops > 32 * _TASK_FLOPS else 1
    least = _READ_ROWS if reading == DIRECT else _SHARED_ROWS if column_blocks == 1 else _MANY_ROWS
    row_blocks = max(1, min(rest // splits, p.m // least), -(-p.m // _ROWS))
    unit = math.lcm(whole_tiles(vectors), 1 if p.a_rows else _LINE)
    rows_each = _rounded(-(-p.m // row_blocks), unit)
    terms_each = _rounded(-(-p.k // splits), _BLOCK) if splits > 1 else p.k
    row_blocks, splits = -(-p.m // rows_each), -(-p.k // terms_each)
    row_step, term_step = (p.k, 1) if p.a_rows else (1, p.m)
    flags = epilogue_flags(p.epilogue)
    integers_ = Products(
        batch=p.batch, m=p.m, n=p.n, k=p.k, row_step=row_step, term_step=term_step, reading=reading, several=several,
        rows_each=rows_each, row_blocks=row_blocks, columns_each=panels_each * MAX_VECTORS * size,
        column_blocks=column_blocks, terms_each=terms_each, splits=splits,
        fetched=64 // itemsize if reading != TURNED and p.k * p.n * itemsize > _NEAR and fetches_ahead() else 0,
        flags=flags if splits == 1 else 0,
    )  # fmt: skip
    tasks = -(-p.batch // several) * row_blocks * column_blocks * splits
    return _Plan(tasks, integers_, share_integers(p.batch * p.m, p.n, splits, flags) if splits > 1 else ())


_SINGLE = np.zeros(2, np.int64)


def _run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    a, b, bias, residual = inputs[:4]
    index = inputs[4] if p.batch > 1 else _SINGLE
    tasks, integers_, shares = _plan(p)
    extra = a if bias is None else bias, a if residual is None else residual
    (out,) = outputs
    sums = memory.empty((integers_.splits * out.size,), p.dtype) if shares else out
    launch(products, tasks, (a, b, index, *extra, sums), integers_, p.dtype)
    if shares:
        launch(add_shares, p.batch * p.m, (sums, *extra, out), shares, p.dtype)


def _supports(p: MatmulProblem) -> str | None:
    return "a sum of nothing" if p.k == 0 else None


def _cost(p: MatmulProblem) -> float:
    _, cut, shares = _plan(p)
    a_copy = {DIRECT: 0.0, COPIED: COSTS.copying, TURNED: COSTS.copying_turned}[cut.reading]
    copies = a_copy * p.batch * p.n * p.k * cut.row_blocks
    if cut.reading == DIRECT and p.k * p.n * np.dtype(p.dtype).itemsize > _NEAR:
        copies += COSTS.copying * p.batch * p.n * p.k  # it comes from afar, in short pieces
    if shares:
        copies += LAUNCH + 2 * COSTS.number * p.batch * p.m * p.n * cut.splits
    # Lines that lie pages apart fall into the same few places of a cache, and go before the next tile needs them. So do
    # the blocks of many rows of a, before the next panel.
    itemsize = np.dtype(p.dtype).itemsize
    steps = cut.term_step, p.n if cut.reading == DIRECT else 1
    apart = p.k > _PLACES and any(step * itemsize % _PAGE == 0 for step in steps)
    apart |= p.a_rows and p.k > _BLOCK and p.m > _BLOCK and p.k * itemsize % (_PAGE // 2) == 0
    products = COSTS.outer * (1.25 if apart else 1.0) * tile_cost(p, COSTS.outer_waiting)
    return max(products, memory_cost(p)) + copies


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("cpu.outer", _run, _supports, _cost, tolerance=tolerance)],
}
