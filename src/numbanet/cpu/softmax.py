"""Softmax and log_softmax: along contiguous memory (rows), or across it with one column in each lane.

Both subtract the largest element, so nothing overflows. A NaN, or infinities without a limit, make the sum NaN and with
it the whole row, as the definition says.
"""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    fma,
    integers,
    lanes,
    last_lanes,
    load,
    load_tail,
    load_tail_or,
    reduce_add,
    reduce_max,
    select,
    splat,
    store,
    store_tail,
)
from numbanet.cpu.vmath import exp_below, log

_TASK = 1 << 14  # elements a task, about
_COLUMNS = 64  # columns a task: whole vectors on every machine


# ---------------------------------------------------------------------------------------------------------------------
# Rows


@device
def row_statistics(x, start, length, kept, keep):
    """Return the largest of `length` contiguous elements and the sum of exp(x - largest), in every lane of a vector.

    With `keep`, the exponentials are written to `kept`. What is left behind whole vectors is taken with some of the
    elements before, as the vector that ends there: masked loads and stores take longer.
    """
    low, w = splat(x, float("-inf")), lanes(x)
    top = low
    i, end = start, start + length
    while i + w <= end:
        v = load(x, i)
        top = select(v > top, v, top)
        i += w
    if i < end:
        v = load(x, end - w) if length > w else load_tail_or(x, i, end - i, low)
        top = select(v > top, v, top)
    top = splat(x, reduce_max(top))
    total = splat(x, 0.0)
    i = start
    while i + w <= end:
        v = exp_below(load(x, i) - top)
        if keep:
            store(kept, i, v)
        total = total + v
        i += w
    if i < end and length > w:
        v = exp_below(load(x, end - w) - top)
        if keep:
            store(kept, end - w, v)
        total = total + last_lanes(v, end - i)
    elif i < end:
        v = exp_below(load_tail_or(x, i, end - i, low) - top)
        if keep:
            store_tail(kept, i, v, end - i)
        total = total + v
    return top, splat(x, reduce_add(total))


@device
def _finish(x, kept, top, share, logarithm, wants_log):
    """Return the result, from the element or from its exponential, a share of which is the result."""
    if wants_log:
        return (x - top) - logarithm
    return kept * share


@kernel
def rows_forward(task: Index, ints: I64, x: T, y: T):
    rows, length, block, wants_log = integers(ints, 4)
    w = lanes(x)
    for row in range(task * block, min(rows, (task + 1) * block)):
        i, end = row * length, (row + 1) * length
        top, total = row_statistics(x, i, length, y, not wants_log)
        logarithm, share, last = log(total), splat(x, 1.0) / total, top
        if length > w:  # before some of the exponentials are overwritten
            last = _finish(load(x, end - w), load(y, end - w), top, share, logarithm, wants_log)
        while i + w <= end:
            store(y, i, _finish(load(x, i), load(y, i), top, share, logarithm, wants_log))
            i += w
        if i < end and length > w:
            store(y, end - w, last)
        elif i < end:
            n = end - i
            store_tail(y, i, _finish(load_tail(x, i, n), load_tail(y, i, n), top, share, logarithm, wants_log), n)


@device
def _product(grad, y, wants_log):
    """Return what the backward passes sum along the dimension."""
    return grad if wants_log else grad * y


@device
def _slope(grad, y, total, wants_log):
    if wants_log:
        return fma(-exp_below(y), total, grad)
    return y * (grad - total)


@kernel
def rows_backward(task: Index, ints: I64, grad: T, y: T, dx: T):
    rows, length, block, wants_log = integers(ints, 4)
    w = lanes(grad)
    for row in range(task * block, min(rows, (task + 1) * block)):
        i, end = row * length, (row + 1) * length
        total = splat(grad, 0.0)
        while i + w <= end:
            total = total + _product(load(grad, i), load(y, i), wants_log)
            i += w
        if i < end and length > w:
            total = total + last_lanes(_product(load(grad, end - w), load(y, end - w), wants_log), end - i)
        elif i < end:
            total = total + _product(load_tail(grad, i, end - i), load_tail(y, i, end - i), wants_log)
        total = splat(grad, reduce_add(total))
        i = row * length
        while i + w <= end:
            store(dx, i, _slope(load(grad, i), load(y, i), total, wants_log))
            i += w
        if i < end and length > w:
            store(dx, end - w, _slope(load(grad, end - w), load(y, end - w), total, wants_log))
        elif i < end:
            n = end - i
            store_tail(dx, i, _slope(load_tail(grad, i, n), load_tail(y, i, n), total, wants_log), n)


# ---------------------------------------------------------------------------------------------------------------------
# Columns: the n <= lanes columns that start at `first` lie `inner` apart along the dimension.


@device
def _columns_forward(x, y, first, length, inner, n, wants_log):
    top = splat(x, float("-inf"))
    for c in range(length):
        v = load_tail(x, first + c * inner, n)
        top = select(v > top, v, top)
    total = splat(x, 0.0)
    for c in range(length):
        i = first + c * inner
        v = exp_below(load_tail(x, i, n) - top)
        store_tail(y, i, v, n)
        total = total + v
    logarithm, share = log(total), splat(x, 1.0) / total
    for c in range(length):
        i = first + c * inner
        store_tail(y, i, _finish(load_tail(x, i, n), load_tail(y, i, n), top, share, logarithm, wants_log), n)


@kernel
def columns_forward(task: Index, ints: I64, x: T, y: T):
    length, inner, blocks, block, wants_log = integers(ints, 5)
    outer, part = task // blocks, task % blocks
    for column in range(part * block, min(inner, (part + 1) * block), lanes(x)):
        n = min(lanes(x), inner - column)
        _columns_forward(x, y, outer * length * inner + column, length, inner, n, wants_log)


@device
def _columns_backward(grad, y, dx, first, length, inner, n, wants_log):
    total = splat(grad, 0.0)
    for c in range(length):
        i = first + c * inner
        total = total + _product(load_tail(grad, i, n), load_tail(y, i, n), wants_log)
    for c in range(length):
        i = first + c * inner
        store_tail(dx, i, _slope(load_tail(grad, i, n), load_tail(y, i, n), total, wants_log), n)


@kernel
def columns_backward(task: Index, ints: I64, grad: T, y: T, dx: T):
    length, inner, blocks, block, wants_log = integers(ints, 5)
    outer, part = task // blocks, task % blocks
    for column in range(part * block, min(inner, (part + 1) * block), lanes(grad)):
        n = min(lanes(grad), inner - column)
        _columns_backward(grad, y, dx, outer * length * inner + column, length, inner, n, wants_log)


def _run(rows: Any, columns: Any, problem: Any, arrays: Arrays) -> None:
    outer, length, inner = problem.outer, problem.length, problem.inner
    if inner == 1:
        block = max(1, _TASK // max(length, 1))
        launch(rows, -(-outer // block), arrays, (outer, length, block, problem.log), problem.dtype)
    else:
        blocks = -(-inner // _COLUMNS)
        launch(columns, outer * blocks, arrays, (length, inner, blocks, _COLUMNS, problem.log), problem.dtype)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(rows_forward, columns_forward, problem, (*inputs, *outputs))


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(rows_backward, columns_backward, problem, (*inputs, *outputs))


CANDIDATES: CandidateLists = {
    ("softmax", "forward"): [Candidate("cpu.vector", _forward)],
    ("softmax", "backward_input"): [Candidate("cpu.vector", _backward)],
}
