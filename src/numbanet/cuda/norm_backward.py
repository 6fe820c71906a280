"""Gradients of batch normalisation: one pass that sums, one that applies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.block import warp_sum
from numbanet.cuda.columns import THREADS, cut, fold
from numbanet.cuda.compile import F64, Int, Kernel, T, kernel
from numbanet.cuda.launch import empty, launch
from numbanet.cuda.norm import supports
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import accesses, blocks, i32, real, width

_WARPS = THREADS // 32
_ROWS_A_THREAD = 8
_FEW = 8  # rows that a thread sums in their own dtype
f64 = types.float64


@lru_cache(maxsize=32)
def gradient_sums(dtype: str, wide: int, masked: bool, keeps: bool) -> Kernel:
    """Return the kernel that sums g and g (x - mean) of each column over a block's rows, in float64.

    Parameters
    ----------
    dtype : str
    wide : int
        Columns of a thread.
    masked : bool
        g is the gradient where y is positive (or NaN), else 0.
    keeps : bool
        That g is written, too.
    """
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)
    cells = THREADS * wide
    words = ",".join([dtype, str(wide), *(["masked"] if masked else []), *(["keeps"] if keeps else [])])

    @kernel(threads=THREADS, blocks=2, config=words)
    def sums(
        rows: Int, columns: Int, across: Int, span: Int, parts: Int, grad: T, x: T, mean: T, y: T, kept: T, partial: F64
    ):
        scratch = cuda.shared.array(cells, f64)
        g, values = cuda.local.array(wide, number), cuda.local.array(wide, number)
        centre, result = cuda.local.array(wide, number), cuda.local.array(wide, number)
        few, products = cuda.local.array(wide, number), cuda.local.array(wide, number)
        total, product = cuda.local.array(wide, f64), cuda.local.array(wide, f64)
        t = i32(cuda.threadIdx.x)
        down, line = i32(THREADS // across), i32(t // across)
        part, outer = i32(cuda.blockIdx.x), i32(cuda.blockIdx.z)
        column = i32((i32(cuda.blockIdx.y) * across + (t - line * across)) * wide)
        row = i32(part * span + line)
        last = i32(min(rows, part * span + span))
        for lane in range(wide):
            total[lane], product[lane] = f64(0), f64(0)
        if column < columns:
            get(mean, i32(outer * columns + column), centre)
            while row < last:
                for lane in range(wide):
                    few[lane], products[lane] = zero, zero
                for k in range(_FEW):
                    if row + k * down < last:
                        at = i32((outer * rows + row + k * down) * columns + column)
                        get(grad, at, g)
                        get(x, at, values)
                        if masked:
                            get(y, at, result)
                            for lane in range(wide):
                                g[lane] = zero if result[lane] <= zero else g[lane]
                        if keeps:
                            put(kept, at, g)
                        for lane in range(wide):
                            few[lane] += g[lane]
                            products[lane] += g[lane] * (values[lane] - centre[lane])
                for lane in range(wide):
                    total[lane] += f64(few[lane])
                    product[lane] += f64(products[lane])
                row = i32(row + _FEW * down)
        at = i32((outer * parts + part) * 2 * columns + column)
        for lane in range(wide):
            scratch[i32(t * wide + lane)] = total[lane]
        fold(scratch, t, across, wide)
        if line == 0 and column < columns:
            for lane in range(wide):
                partial[i32(at + lane)] = scratch[i32(t * wide + lane)]
        cuda.syncthreads()
        for lane in range(wide):
            scratch[i32(t * wide + lane)] = product[lane]
        fold(scratch, t, across, wide)
        if line == 0 and column < columns:
            for lane in range(wide):
                partial[i32(at + columns + lane)] = scratch[i32(t * wide + lane)]

    return sums


@lru_cache(maxsize=4)
def _coefficients(dtype: str) -> Kernel:
    """Return the kernel of dweight, dbias, and the factors of g, x - mean and 1 in dx; a warp a channel."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def coefficients(
        channels: Int, rows: Int, parts: Int, training: Int, has_weight: Int, partial: F64, weight: T, mean: T,
        inverse: T, dweight: T, dbias: T, factors: T,
    ):  # fmt: skip
        c = i32(i32(cuda.blockIdx.x) * _WARPS + (i32(cuda.threadIdx.x) >> 5))
        lane = i32(i32(cuda.threadIdx.x) & 31)
        total, product = f64(0), f64(0)
        if c < channels:
            for part in range(lane, parts, 32):
                at = i32(part * 2 * channels + c)
                total += partial[at]
                product += partial[i32(at + channels)]
        total, product = warp_sum(total), warp_sum(product)
        if c < channels and lane == 0:
            deviation = f64(inverse[c])
            product *= deviation
            scale = deviation
            if has_weight:
                scale *= f64(weight[c])
            slope, constant = f64(0), f64(0)
            if training:
                share = scale / f64(rows)
                slope, constant = -share * deviation * product, -share * total
            dweight[c], dbias[c] = number(product), number(total)
            factors[c] = mean[c]
            factors[i32(channels + c)] = number(scale)
            factors[i32(2 * channels + c)] = number(slope)
            factors[i32(3 * channels + c)] = number(constant)

    return coefficients


@lru_cache(maxsize=16)
def gradient_apply(dtype: str, wide: int, masked: bool) -> Kernel:
    """Return the kernel dx = a g + b (x - mean) + c; the numbers (mean, a, b, c) of the columns follow each other."""
    number = real(dtype)
    zero = number(0)
    get, put = accesses(wide)

    @kernel(threads=THREADS, blocks=3, config=f"{dtype},{wide}{',masked' if masked else ''}")
    def apply(rows: Int, columns: Int, across: Int, span: Int, grad: T, x: T, y: T, factors: T, dx: T):
        g, values = cuda.local.array(wide, number), cuda.local.array(wide, number)
        mean, result = cuda.local.array(wide, number), cuda.local.array(wide, number)
        a, b, c = cuda.local.array(wide, number), cuda.local.array(wide, number), cuda.local.array(wide, number)
        t = i32(cuda.threadIdx.x)
        line, outer = i32(t // across), i32(cuda.blockIdx.z)
        column = i32((i32(cuda.blockIdx.y) * across + (t - line * across)) * wide)
        first = i32(i32(cuda.blockIdx.x) * span)
        last = i32(min(rows, first + span))
        if column < columns:
            base = i32(outer * 4 * columns + column)
            get(factors, base, mean)
            get(factors, i32(base + columns), a)
            get(factors, i32(base + 2 * columns), b)
            get(factors, i32(base + 3 * columns), c)
            for row in range(i32(first + line), last, i32(THREADS // across)):
                at = i32((outer * rows + row) * columns + column)
                get(grad, at, g)
                get(x, at, values)
                if masked:
                    get(y, at, result)
                for lane in range(wide):
                    v = g[lane]
                    if masked:
                        v = zero if result[lane] <= zero else v
                    values[lane] = a[lane] * v + (b[lane] * (values[lane] - mean[lane]) + c[lane])
                put(dx, at, values)

    return apply


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, x, weight, mean, inverse, y = inputs
    dx, dweight, dbias, dresidual = outputs
    dtype, channels, rows = problem.dtype, problem.channels, problem.rows
    masked, keeps = problem.activation is not None, dresidual is not None
    wide = width(dtype, channels, grad, x, mean, y, dx, dresidual)
    layout = cut(rows, channels, wide)
    partial = empty((layout.parts * 2 * channels,), "float64")
    numbers = (rows, channels, layout.across, layout.span, layout.parts)
    arrays = (grad, x, mean, y, dresidual, partial)
    launch(gradient_sums(dtype, wide, masked, keeps), (layout.parts, layout.strips), (*numbers, *arrays), dtype)
    factors = empty((4 * channels,), dtype)
    sizes = (channels, rows, layout.parts, int(problem.training), int(weight is not None))
    arrays = (partial, weight, mean, inverse, dweight, dbias, factors)
    launch(_coefficients(dtype), (blocks(channels, _WARPS),), (*sizes, *arrays), dtype)
    if keeps:  # the masked gradient is in memory already
        grad, masked = dresidual, False
    layout = cut(rows, channels, wide, _ROWS_A_THREAD)
    arrays = (grad, x, y, factors, dx)
    numbers = (rows, channels, layout.across, layout.span)
    launch(gradient_apply(dtype, wide, masked), (layout.parts, layout.strips), (*numbers, *arrays), dtype)


CANDIDATES: CandidateLists = {("batch_norm", "backward"): [Candidate("cuda.columns", _backward, supports)]}
