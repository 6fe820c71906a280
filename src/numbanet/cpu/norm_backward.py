"""Gradients of batch normalisation: one pass that sums, one that applies (`numbanet.cpu.norm_rows` has the cut)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.norm_rows import SPAN, chunk_rows, cut, four, four_tail, merge_span, put_four, repeat
from numbanet.cpu.parallel import block_of, launch
from numbanet.cpu.partial import get
from numbanet.cpu.partial import put as put_some
from numbanet.cpu.simd import (
    convert,
    fma,
    integers,
    lanes,
    load_tail,
    numpy_lanes,
    select,
    splat,
    splat_as,
    store_tail,
)
from numbanet.cpu.stream import aligned, drain, put, streams

# ---------------------------------------------------------------------------------------------------------------------
# The gradient that reaches the normalisation: that of the result, or what a ReLU with the result y took of it.


@device
def _plain(g, y, masked, p, n):
    return g


@device
def _mask(g, y, masked, p, n):
    zero = splat(y, 0.0)
    return select(get(y, p, n) <= zero, zero, g)


@device
def _mask_and_write(g, y, masked, p, n):
    """Write it as well: it is the residual's gradient."""
    g = _mask(g, y, masked, p, n)
    put_some(masked, p, g, n)
    return g


@device
def _narrow_sums(mask, grad, x, means, y, wide, first, last, rest, partial, out):
    """Sum the columns of a block that are few enough for registers; `rest` elements of a last row are cut off."""
    w = lanes(x)
    p, stop = first * wide, last * wide
    m0, m1, m2, m3 = four_tail(means, 0, wide)
    s0 = splat(x, 0.0)
    s1, s2, s3 = s0, s0, s0
    q0, q1, q2, q3 = s0, s0, s0, s0
    while p <= stop:
        n = wide if p < stop else rest
        if n == 0:
            break
        if n == 4 * w:
            g0, g1, g2, g3 = four(grad, p)
            a0, a1, a2, a3 = four(x, p)
        else:
            g0, g1, g2, g3 = four_tail(grad, p, n)
            a0, a1, a2, a3 = four_tail(x, p, n)
        g0, g1 = mask(g0, y, y, p, n), mask(g1, y, y, p + w, n - w)
        g2, g3 = mask(g2, y, y, p + 2 * w, n - 2 * w), mask(g3, y, y, p + 3 * w, n - 3 * w)
        s0, s1, s2, s3 = s0 + g0, s1 + g1, s2 + g2, s3 + g3
        q0, q1, q2, q3 = fma(g0, a0 - m0, q0), fma(g1, a1 - m1, q1), fma(g2, a2 - m2, q2), fma(g3, a3 - m3, q3)
        p += wide
    put_four(partial, out, wide, s0, s1, s2, s3)
    put_four(partial, out + wide, wide, q0, q1, q2, q3)


@device
def _add(mask, grad, x, means, y, wide, p, step, j, n, partial, out):
    """Add n elements from column j on of the row that starts at p to the sums; with a `step`, of one so far on too."""
    m, g = get(means, j, n), mask(get(grad, p + j, n), y, y, p + j, n)
    a, products = get(x, p + j, n) - m, get(partial, out + wide + j, n)
    if step:
        i = p + step + j
        second = mask(get(grad, i, n), y, y, i, n)
        products = products + fma(second, get(x, i, n) - m, g * a)
        g = g + second
    else:
        products = fma(g, a, products)
    put_some(partial, out + j, get(partial, out + j, n) + g, n)
    put_some(partial, out + wide + j, products, n)


@device
def _add_row(mask, grad, x, means, y, wide, p, step, column, end, partial, out):
    """Add columns column, ..., end - 1 of one row, or of two."""
    j = column
    while j + lanes(x) <= end:
        _add(mask, grad, x, means, y, wide, p, step, j, lanes(x), partial, out)
        j += lanes(x)
    if j < end:
        _add(mask, grad, x, means, y, wide, p, step, j, end - j, partial, out)


@device
def _wide_sums(mask, grad, x, means, y, wide, first, last, column, end, partial, out):
    """Sum columns column, ..., end - 1 of a block, in two walks through the halves of its rows (see `norm`).

    Four walks, through two or three arrays each, would be more than a processor follows.
    """
    zero, step = splat(x, 0.0), (last - first) // 2 * wide
    for j in range(column, end, lanes(x)):
        put_some(partial, out + j, zero, end - j)
        put_some(partial, out + wide + j, zero, end - j)
    for p in range(first * wide, first * wide + step, wide):
        _add_row(mask, grad, x, means, y, wide, p, step, column, end, partial, out)
    for p in range(first * wide + 2 * step, last * wide, wide):
        _add_row(mask, grad, x, means, y, wide, p, 0, column, end, partial, out)


@device
def _sums(mask, task, ints, grad, x, means, y, partial):
    """partial[t] = (sum of g, sum of g * (x - mean)) of block t, for each column; g is the masked gradient."""
    elements, wide, block_rows, tile, tiles = integers(ints, 5)
    t, column = task // tiles, task % tiles * tile
    full = elements // wide
    first, last, out = t * block_rows, min(full, (t + 1) * block_rows), t * 2 * wide
    if wide > 4 * lanes(x):
        end = min(wide, column + tile)
        _wide_sums(mask, grad, x, means, y, wide, first, last, column, end, partial, out)
    else:
        rest = elements - full * wide if (t + 1) * block_rows > full else 0  # the last row may be cut short
        _narrow_sums(mask, grad, x, means, y, wide, first, last, rest, partial, out)


@kernel
def gradient_sums(task: Index, ints: I64, grad: T, x: T, means: T, partial: T):
    _sums(_plain, task, ints, grad, x, means, x, partial)


@kernel
def masked_gradient_sums(task: Index, ints: I64, grad: T, x: T, means: T, y: T, partial: T):
    _sums(_mask, task, ints, grad, x, means, y, partial)


@kernel
def gradient_coefficients(
    task: Index, ints: I64, partial: T, weight: T, mean: T, inverse: T, zero: F64, dweight: T, dbias: T,
    coefficients: T,
):  # fmt: skip
    """Add the blocks for a span of channels; prepare `gradient_apply`: dx = a * grad + b * (x - mean) + c."""
    samples, wide, channels, blocks, has_weight, training, span = integers(ints, 7)
    copies = wide // channels
    for i in range(task * span, min(channels, (task + 1) * span), lanes(partial)):
        n = channels - i
        total = convert(splat(partial, 0.0), zero)
        product = total
        for t in range(blocks):
            for copy in range(copies):
                p = t * 2 * wide + copy * channels + i
                total = total + convert(load_tail(partial, p, n), zero)
                product = product + convert(load_tail(partial, p + wide, n), zero)
        centre, deviation = load_tail(mean, i, n), convert(load_tail(inverse, i, n), zero)
        store_tail(dbias, i, convert(total, dbias), n)
        store_tail(dweight, i, convert(product * deviation, dweight), n)
        a = deviation
        if has_weight != 0:
            a = a * convert(load_tail(weight, i, n), zero)
        b = splat_as(total, 0.0)
        c = b
        if training != 0:
            share = splat_as(total, 1.0 / samples)
            b = -a * deviation * deviation * product * share
            c = -a * total * share
        for copy in range(copies):
            p = copy * channels + i
            store_tail(coefficients, p, centre, n)
            store_tail(coefficients, p + wide, convert(a, mean), n)
            store_tail(coefficients, p + 2 * wide, convert(b, mean), n)
            store_tail(coefficients, p + 3 * wide, convert(c, mean), n)


@device
def _slope(mask, grad, x, coefficients, y, masked, wide, p, j, n):
    """Return n elements of dx from column j on of the row that starts at p."""
    v = get(x, p + j, n) - get(coefficients, j, n)
    v = fma(get(coefficients, 2 * wide + j, n), v, get(coefficients, 3 * wide + j, n))
    return fma(get(coefficients, wide + j, n), mask(get(grad, p + j, n), y, masked, p + j, n), v)


@device
def _apply(mask, task, ints, grad, x, coefficients, y, dx, masked):
    """dx = a * g + b * (x - mean) + c, for a block of rows; g is the masked gradient."""
    elements, wide, block_rows, large = integers(ints, 4)
    p = task * block_rows * wide
    end = min(elements, p + block_rows * wide)
    w = lanes(x)
    past = large != 0 and aligned(dx)
    if wide <= 4 * w:
        m0, m1, m2, m3 = four_tail(coefficients, 0, wide)
        a0, a1, a2, a3 = four_tail(coefficients, wide, wide)
        b0, b1, b2, b3 = four_tail(coefficients, 2 * wide, wide)
        c0, c1, c2, c3 = four_tail(coefficients, 3 * wide, wide)
        while p < end:
            n = min(wide, end - p)
            if n == 4 * w:
                g0, g1, g2, g3 = four(grad, p)
                x0, x1, x2, x3 = four(x, p)
            else:
                g0, g1, g2, g3 = four_tail(grad, p, n)
                x0, x1, x2, x3 = four_tail(x, p, n)
            g0, g1 = mask(g0, y, masked, p, n), mask(g1, y, masked, p + w, n - w)
            g2, g3 = mask(g2, y, masked, p + 2 * w, n - 2 * w), mask(g3, y, masked, p + 3 * w, n - 3 * w)
            x0, x1, x2, x3 = fma(b0, x0 - m0, c0), fma(b1, x1 - m1, c1), fma(b2, x2 - m2, c2), fma(b3, x3 - m3, c3)
            if n == 4 * w:
                put(dx, p, fma(a0, g0, x0), past)
                put(dx, p + w, fma(a1, g1, x1), past)
                put(dx, p + 2 * w, fma(a2, g2, x2), past)
                put(dx, p + 3 * w, fma(a3, g3, x3), past)
            else:
                put_four(dx, p, n, fma(a0, g0, x0), fma(a1, g1, x1), fma(a2, g2, x2), fma(a3, g3, x3))
            p += wide
        p = end
    first = p
    for column in range(0, wide, SPAN):
        stop = min(wide, column + SPAN)
        for p in range(first, end, wide):
            j = column
            while j + w <= stop:
                put(dx, p + j, _slope(mask, grad, x, coefficients, y, masked, wide, p, j, w), past)
                j += w
            if j < stop:
                n = stop - j
                store_tail(dx, p + j, _slope(mask, grad, x, coefficients, y, masked, wide, p, j, n), n)
    if past:
        drain()


@kernel
def gradient_apply(task: Index, ints: I64, grad: T, x: T, coefficients: T, y: T, dx: T, masked: T):
    _apply(_plain, task, ints, grad, x, coefficients, y, dx, masked)


@kernel
def masked_gradient_apply(task: Index, ints: I64, grad: T, x: T, coefficients: T, y: T, dx: T, masked: T):
    _apply(_mask, task, ints, grad, x, coefficients, y, dx, masked)


@kernel
def both_gradients_apply(task: Index, ints: I64, grad: T, x: T, coefficients: T, y: T, dx: T, masked: T):
    _apply(_mask_and_write, task, ints, grad, x, coefficients, y, dx, masked)


_ZERO = np.zeros(1)
_APPLY = {
    (None, False): gradient_apply, ("relu", False): masked_gradient_apply, ("relu", True): both_gradients_apply,
}  # fmt: skip


class _Plan(NamedTuple):
    """Tasks and integers of the kernels."""

    wide: int
    widening: np.ndarray
    blocks: int
    sums: np.ndarray
    spans: int
    merge: np.ndarray
    chunks: int
    apply: np.ndarray


@lru_cache(maxsize=1024)
def _plan(problem: Any, weight: bool) -> _Plan:
    dtype, channels, elements = problem.dtype, problem.channels, problem.rows * problem.channels
    wide, block_rows, tile, blocks, tiles = cut(problem.rows, channels, dtype)
    span = merge_span(blocks * wide // channels if channels else 0, dtype)
    rows = chunk_rows(wide, elements)
    size = elements * np.dtype(dtype).itemsize
    large = streams(size, 2 * size) and wide % numpy_lanes(dtype) == 0
    return _Plan(
        wide, block_of((channels, wide, 1)),
        blocks * tiles, block_of((elements, wide, block_rows, tile, tiles)),
        -(-channels // span), block_of((problem.rows, wide, channels, blocks, weight, problem.training, span)),
        -(-elements // (rows * wide)) if elements else 0, block_of((elements, wide, rows, large)),
    )  # fmt: skip


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse, y = inputs
    dx, dweight, dbias, dresidual = outputs
    dtype, plan = problem.dtype, _plan(problem, weight is not None)
    wide, scratch = plan.wide, workspace.view(dtype)
    coefficients, partial = scratch[: 4 * wide], scratch[4 * wide :]
    means = mean
    if wide != problem.channels:
        means = coefficients[:wide]
        launch(repeat, 1, (mean, means), plan.widening, dtype)
    if problem.activation is None:
        launch(gradient_sums, plan.blocks, (grad, x, means, partial), plan.sums, dtype)
    else:
        launch(masked_gradient_sums, plan.blocks, (grad, x, means, y, partial), plan.sums, dtype)
    vectors = (mean if weight is None else weight, mean, inverse, _ZERO, dweight, dbias)
    launch(gradient_coefficients, plan.spans, (partial, *vectors, coefficients), plan.merge, dtype)
    chosen = _APPLY[problem.activation, dresidual is not None]
    arrays = (grad, x, coefficients, x if y is None else y, dx, dx if dresidual is None else dresidual)
    launch(chosen, plan.chunks, arrays, plan.apply, dtype)


def _backward_bytes(problem: Any) -> int:
    wide, _, _, blocks, _ = cut(problem.rows, problem.channels, problem.dtype)
    return max(1, wide * (4 + 2 * blocks)) * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("batch_norm", "backward"): [Candidate("cpu.rows", _backward, workspace_bytes=_backward_bytes)],
}
