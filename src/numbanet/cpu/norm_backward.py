"""Gradients of batch normalisation: one pass that sums, one that applies (`numbanet.cpu.norm_rows` has the cut)."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.norm_rows import chunk_rows, cut, four, four_tail, merge_span, put_four, repeat, touch
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    convert,
    fma,
    integers,
    lanes,
    load,
    load_tail,
    numpy_lanes,
    select,
    splat,
    splat_as,
    store,
    store_tail,
)
from numbanet.cpu.stream import aligned, drain, put, streams


@device
def _keep(g, y, masked, p, n):
    return g


@device
def _mask(g, y, masked, p, n):
    """Return and write the gradient of what a ReLU with the result y took."""
    zero = splat(y, 0.0)
    g = select(load(y, p) <= zero, zero, g)
    store(masked, p, g)
    return g


@device
def _mask_tail(g, y, masked, p, n):
    zero = splat(y, 0.0)
    g = select(load_tail(y, p, n) <= zero, zero, g)
    store_tail(masked, p, g, n)
    return g


@device
def _sums(mask, mask_tail, task, ints, grad, x, means, y, masked, partial):
    """partial[t] = (sum of g, sum of g * (x - mean)) of block t, for each column; g is the masked gradient."""
    elements, wide, block_rows, tile, tiles = integers(ints, 5)
    t, column = task // tiles, task % tiles * tile
    columns_end = min(wide, column + tile)
    full = elements // wide
    first, last = t * block_rows, min(full, (t + 1) * block_rows)
    rest = elements - full * wide if (t + 1) * block_rows > full else 0  # the last row may be cut short
    w = lanes(x)
    if wide > 4 * w:
        read = touch(x, first * wide + column, wide, last - first, columns_end - column)
        read = read + touch(grad, first * wide + column, wide, last - first, columns_end - column)
        store_tail(partial, t * 2 * wide + column, read, 1)  # overwritten below: it only keeps the reading alive
    while column < columns_end:
        n = min(4 * w, columns_end - column)
        p, out = first * wide + column, t * 2 * wide + column
        stop = last * wide + column
        m0, m1, m2, m3 = four_tail(means, column, n)
        s0 = splat(x, 0.0)
        s1, s2, s3 = s0, s0, s0
        q0, q1, q2, q3 = s0, s0, s0, s0
        while p <= stop:
            if p < stop:
                if n == 4 * w:
                    g0, g1, g2, g3 = four(grad, p)
                    a0, a1, a2, a3 = four(x, p)
                    g0, g1 = mask(g0, y, masked, p, w), mask(g1, y, masked, p + w, w)
                    g2, g3 = mask(g2, y, masked, p + 2 * w, w), mask(g3, y, masked, p + 3 * w, w)
                    left = 0
                else:
                    left = n
            else:
                left = min(n, rest - column)
                if left <= 0:
                    break
            if left > 0:
                g0, g1, g2, g3 = four_tail(grad, p, left)
                a0, a1, a2, a3 = four_tail(x, p, left)
                g0, g1 = mask_tail(g0, y, masked, p, left), mask_tail(g1, y, masked, p + w, left - w)
                g2 = mask_tail(g2, y, masked, p + 2 * w, left - 2 * w)
                g3 = mask_tail(g3, y, masked, p + 3 * w, left - 3 * w)
            s0, s1, s2, s3 = s0 + g0, s1 + g1, s2 + g2, s3 + g3
            q0, q1, q2, q3 = fma(g0, a0 - m0, q0), fma(g1, a1 - m1, q1), fma(g2, a2 - m2, q2), fma(g3, a3 - m3, q3)
            p += wide
        put_four(partial, out, n, s0, s1, s2, s3)
        put_four(partial, out + wide, n, q0, q1, q2, q3)
        column += 4 * w


@kernel
def gradient_sums(task: Index, ints: I64, grad: T, x: T, means: T, partial: T):
    _sums(_keep, _keep, task, ints, grad, x, means, x, x, partial)


@kernel
def masked_gradient_sums(task: Index, ints: I64, grad: T, x: T, means: T, y: T, masked: T, partial: T):
    _sums(_mask, _mask_tail, task, ints, grad, x, means, y, masked, partial)


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


@kernel
def gradient_apply(task: Index, ints: I64, grad: T, x: T, coefficients: T, dx: T):
    """dx = a * grad + b * (x - mean) + c, for a block of rows."""
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
                put(dx, p, fma(a0, g0, fma(b0, x0 - m0, c0)), past)
                put(dx, p + w, fma(a1, g1, fma(b1, x1 - m1, c1)), past)
                put(dx, p + 2 * w, fma(a2, g2, fma(b2, x2 - m2, c2)), past)
                put(dx, p + 3 * w, fma(a3, g3, fma(b3, x3 - m3, c3)), past)
            else:
                g0, g1, g2, g3 = four_tail(grad, p, n)
                x0, x1, x2, x3 = four_tail(x, p, n)
                x0, x1, x2, x3 = fma(b0, x0 - m0, c0), fma(b1, x1 - m1, c1), fma(b2, x2 - m2, c2), fma(b3, x3 - m3, c3)
                put_four(dx, p, n, fma(a0, g0, x0), fma(a1, g1, x1), fma(a2, g2, x2), fma(a3, g3, x3))
            p += wide
    while p < end:
        j = 0
        while j + w <= wide:
            v = load(x, p + j) - load(coefficients, j)
            v = fma(load(coefficients, 2 * wide + j), v, load(coefficients, 3 * wide + j))
            put(dx, p + j, fma(load(coefficients, wide + j), load(grad, p + j), v), past)
            j += w
        if j < wide:
            n = wide - j
            v = load_tail(x, p + j, n) - load_tail(coefficients, j, n)
            v = fma(load_tail(coefficients, 2 * wide + j, n), v, load_tail(coefficients, 3 * wide + j, n))
            store_tail(dx, p + j, fma(load_tail(coefficients, wide + j, n), load_tail(grad, p + j, n), v), n)
        p += wide
    if past:
        drain()


_ZERO = np.zeros(1)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse, y = inputs
    dx, dweight, dbias, dresidual = outputs
    dtype, channels = problem.dtype, problem.channels
    elements = problem.rows * channels
    wide, block_rows, tile, blocks, tiles = cut(problem.rows, channels, dtype)
    scratch = workspace.view(dtype)
    coefficients, partial = scratch[: 4 * wide], scratch[4 * wide :]
    span = merge_span(blocks * wide // channels if channels else 0, dtype)
    means = mean
    if wide != channels:
        means = coefficients[:wide]
        launch(repeat, 1, (mean, means), (channels, wide, 1), dtype)
    numbers = (elements, wide, block_rows, tile, tiles)
    if problem.activation is None:
        launch(gradient_sums, blocks * tiles, (grad, x, means, partial), numbers, dtype)
    else:
        # Without a residual, which needs it, the masked gradient lies for a while where its successor will.
        masked = dx if dresidual is None else dresidual
        launch(masked_gradient_sums, blocks * tiles, (grad, x, means, y, masked, partial), numbers, dtype)
        grad = masked
    launch(
        gradient_coefficients,
        -(-channels // span),
        (partial, mean if weight is None else weight, mean, inverse, _ZERO, dweight, dbias, coefficients),
        (problem.rows, wide, channels, blocks, weight is not None, problem.training, span),
        dtype,
    )
    rows = chunk_rows(wide, elements)
    tasks = -(-elements // (rows * wide)) if elements else 0
    large = streams(dx.nbytes) and grad is not dx and wide % numpy_lanes(dtype) == 0
    launch(gradient_apply, tasks, (grad, x, coefficients, dx), (elements, wide, rows, large), dtype)


def _backward_bytes(problem: Any) -> int:
    wide, _, _, blocks, _ = cut(problem.rows, problem.channels, problem.dtype)
    return max(1, wide * (4 + 2 * blocks)) * np.dtype(problem.dtype).itemsize


CANDIDATES: CandidateLists = {
    ("batch_norm", "backward"): [Candidate("cpu.rows", _backward, workspace_bytes=_backward_bytes)],
}
