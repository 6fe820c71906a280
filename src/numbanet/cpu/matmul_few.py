"""Products of a few rows and a matrix: the matrix is read once, from where it lies, at the speed of memory.

Which of the two operands is the one of few rows does not matter: ``out.T = b.T @ a.T``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet import memory
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.copy import transpose, transposed
from numbanet.cpu.dot import axpy_terms, axpy_tile, dot_columns, dot_tile
from numbanet.cpu.matmul import COSTS, LAUNCH, memory_cost, tolerance
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load_tail, numpy_lanes, offset, select, splat, store_tail
from numbanet.cpu.tile import BIAS, RELU, RESIDUAL, SIX, epilogue_flags
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem

_DOT_ROWS, _AXPY_ROWS = 32, 8  # rows of the small operand at most
_GROUP = 16  # rows of the matrix that all rows of the small operand see before the next ones
_SHORTEST, _STRIP = 256, 2048  # columns of a task: a run of memory, but a part of the result that stays in the cache
_TASKS = 16
_LARGE = 1 << 22  # operations of a product whose dots have shares, where there are too few columns for tasks,
_TERMS = 1024  # and so many terms at least


@device
def _tile_rows(left):
    return 4 if left >= 4 else min(left, 2)


@device
def finish_row(out, at, count, column, flags, bias, bias_step, residual):
    """Apply the flags of an epilogue to `count` numbers of a row of the result, its columns from `column` on."""
    for j in range(0, count if flags else 0, lanes(out)):
        n = count - j
        v = load_tail(out, at + j, n)
        if flags & BIAS:
            v = v + (load_tail(bias, column + j, n) if bias_step else splat(bias, bias[0]))
        if flags & RESIDUAL:
            v = v + load_tail(residual, at + j, n)
        if flags & RELU:
            v = select(v <= splat(out, 0.0), splat(out, 0.0), v)
        if flags & SIX:
            v = select(v >= splat(out, 6.0), splat(out, 6.0), v)
        store_tail(out, at + j, v, n)


@kernel
def dots(task: Index, ints: I64, a: T, b: T, bias: T, residual: T, out: T):
    """Multiply the rows of a (m, k) and some of the rows of b (n, k): one share of their terms."""
    m, n, k, _, _, columns, flags, bias_step, splits = integers(ints, 9)
    split = task % splits
    first, start = task // splits * columns, split * m * n
    end, first_term = min(n, first + columns), split * k // splits
    terms = (split + 1) * k // splits - first_term
    for group in range(first, end, _GROUP):
        group_end = min(end, group + _GROUP)
        i = 0
        while i < m:
            rows = _tile_rows(m - i)
            for j in range(group, group_end, dot_columns(out, rows)):
                dot_tile(
                    rows, offset(a, i * k + first_term), k, offset(b, j * k + first_term), k, terms,
                    offset(out, start + i * n + j), n, m - i, group_end - j,
                )  # fmt: skip
            i += rows
    for i in range(m):
        finish_row(
            out, start + i * n + first, end - first, first, flags if splits == 1 else 0, bias, bias_step, residual
        )  # fmt: skip


@kernel
def axpys(task: Index, ints: I64, a: T, b: T, bias: T, residual: T, out: T):
    """Multiply the rows of a, of any steps, and b (k, n): one share of the rows of b, and some of its columns."""
    m, n, k, row_step, term_step, columns, flags, bias_step, splits = integers(ints, 9)
    split = task % splits
    first, start = task // splits * columns, split * m * n
    width = min(columns, n - first)
    first_term, end = split * k // splits, (split + 1) * k // splits
    for group in range(first_term, end, _GROUP):
        group_end = min(end, group + _GROUP)
        i = 0
        while i < m:
            rows = _tile_rows(m - i)
            terms = axpy_terms(a, rows)
            c = group
            while c < group_end:
                single = 1 if group_end - c < terms else 0
                axpy_tile(
                    rows, single, offset(a, i * row_step + c * term_step), row_step, term_step,
                    offset(b, c * n + first), n, offset(out, start + i * n + first), n, width, c - first_term,
                )  # fmt: skip
                c += 1 if single else terms
            i += rows
    for i in range(m):
        finish_row(out, i * n + first, width, first, flags if splits == 1 else 0, bias, bias_step, residual)


@kernel
def add_shares(task: Index, ints: I64, partials: T, bias: T, residual: T, out: T):
    """Add the products of the shares, in their order, for one row of the result and some of its columns."""
    m, n, _, _, _, columns, flags, bias_step, splits = integers(ints, 9)
    row, first = task % m, task // m * columns
    at, width = row * n + first, min(columns, n - first)
    for j in range(0, width, lanes(out)):
        total = load_tail(partials, at + j, width - j)
        for split in range(1, splits):
            total = total + load_tail(partials, split * m * n + at + j, width - j)
        store_tail(out, at + j, total, width - j)
    finish_row(out, at, width, first, flags, bias, bias_step, residual)


def share_integers(m: int, n: int, splits: int, flags: int) -> tuple[int, ...]:
    """Return the integers with which `add_shares` has a task for each row, and a number of the bias for each column."""
    return m, n, 0, 0, 0, n, flags, 1, splits


@dataclass(frozen=True)
class _Plan:
    """How a problem is launched.

    Attributes
    ----------
    turned : bool
        Whether b is the operand of few rows.
    dots : bool
        Whether the rows of the matrix run along the reduction.
    left_rows : bool
        Whether the small operand lies in memory row by row.
    splits : int
        Shares of the reduction, each with a result of its own.
    tasks : int
    integers : tuple of int
    """

    turned: bool
    dots: bool
    left_rows: bool
    splits: int
    tasks: int
    integers: tuple[int, ...]


@lru_cache(maxsize=1024)
def _plan(p: MatmulProblem) -> _Plan:
    turned = p.m > p.n
    few, columns = (p.n, p.m) if turned else (p.m, p.n)
    # One row, or one column, lies in memory in both orders.
    left_rows = few == 1 or (not p.b_rows if turned else p.a_rows)
    along = p.a_rows if turned else not p.b_rows
    if along:
        strip = max(_GROUP, -(-columns // _TASKS))
        splits = max(1, min(_TASKS // -(-columns // strip), p.k // _TERMS)) if p.flops > _LARGE else 1
    else:
        splits = max(1, min(_TASKS, p.k // (_GROUP * few)))
        strip = min(_STRIP, max(_SHORTEST, -(-columns * splits // _TASKS)))
    row_step, term_step = (p.k, 1) if left_rows else (1, few)
    integers_ = few, columns, p.k, row_step, term_step, strip, epilogue_flags(p.epilogue), int(not turned), splits
    return _Plan(turned, along, left_rows, splits, splits * -(-columns // strip), integers_)


def _run(p: MatmulProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (a, b, bias, residual), (out,) = inputs, outputs
    plan = _plan(p)
    small, matrix = (b, a) if plan.turned else (a, b)
    if plan.dots and not plan.left_rows:
        small = transposed(small)
    few, columns = plan.integers[:2]
    target = memory.empty((few, columns), p.dtype) if plan.turned and few > 1 else out
    extra = small if bias is None else bias, small if residual is None else residual
    shares = memory.empty((plan.splits * few * columns,), p.dtype) if plan.splits > 1 else target
    launch(dots if plan.dots else axpys, plan.tasks, (small, matrix, *extra, shares), plan.integers, p.dtype)
    if plan.splits > 1:
        launch(add_shares, plan.tasks // plan.splits * few, (shares, *extra, target), plan.integers, p.dtype)
    if target is not out:
        transpose(target, out)


def _supports(p: MatmulProblem) -> str | None:
    few = min(p.m, p.n)
    if p.batch > 1:
        return "more than one product"
    most = _DOT_ROWS if (p.a_rows if p.m > p.n else not p.b_rows) else _AXPY_ROWS
    if few > most:
        return f"more than {most} rows, and columns"
    if p.m > p.n > 1 and p.epilogue != Epilogue():
        return "an epilogue on a few columns"
    return "a sum of nothing" if p.k == 0 else None


def _cost(p: MatmulProblem) -> float:
    plan = _plan(p)
    few, columns = plan.integers[:2]
    rows = few if few <= 2 else -(-few // 4) * 4
    # Adding up the lanes of dots costs about as much as eight vectors of products.
    reduction = COSTS.dots * (p.k + 8 * numpy_lanes(p.dtype)) if plan.dots else COSTS.adding * p.k
    turns = plan.dots and not plan.left_rows
    launches = turns + (plan.turned and few > 1) + (plan.splits > 1)
    copies = COSTS.turning * few * p.k if turns else 0.0
    return max(2.0 * rows * columns * reduction, memory_cost(p)) + copies + launches * LAUNCH


CANDIDATES: CandidateLists = {
    ("matmul", "forward"): [Candidate("cpu.few", _run, _supports, _cost, tolerance=tolerance)],
}
