"""Depthwise convolution (one filter of one channel for each channel) in float32, all passes.

Nothing is shared between channels, so there is no product of matrices: memory bounds the speed. The lanes of a warp lie
along the channels, so that every access is one line of memory, and neighbouring pixels find their inputs in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx, split, tile
from numbanet.cuda.compile import F32, Int, Kernel, kernel
from numbanet.cuda.conv_direct import supports, tolerance
from numbanet.cuda.conv_lines import put_four, put_singles, source_line
from numbanet.cuda.division import divide, divisor
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import ConvProblem, Epilogue

_LANES, _WARPS = 32, 8
_THREADS = _LANES * _WARPS
_RUN = 4  # neighbouring results along the width, of a thread
_MOST_TAPS = 49  # a filter is kept in shared memory
_MOST_WIDTH = 7  # the gradients of a filter's line are kept in registers

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=64)
def depthwise(vector: bool, taps: int, turned: bool, epilogue: Epilogue) -> Kernel:
    """Return the kernel of forward, or (`turned`) of backward_input.

    Parameters
    ----------
    vector : bool
        A thread takes 4 channels; their number is a multiple of 4.
    taps : int
        Most elements of a filter.
    turned : bool
        The source is the gradient of y, and the result that of x.
    epilogue : Epilogue
    """
    width = 4 if vector else 1
    channels_block = _LANES * width
    shared = taps * channels_block
    threads, warps, run, lanes = _THREADS, _WARPS, _RUN, _LANES
    put = put_four(epilogue) if vector else put_singles(epilogue, 1)
    line_of = source_line(turned)

    words = [f"taps={taps}"] + [word for word, chosen in (("vector", vector), ("turned", turned)) if chosen]

    @kernel(threads=_THREADS, blocks=2, config=",".join(words + tile.words(epilogue)))
    def convolve(
        runs: Int, runs_by: Int, runs_shift: Int, lines_by: Int, lines_shift: Int, runs_line: Int, out_h: Int,
        out_w: Int, channels: Int, height: Int, width_in: Int, r: Int, s: Int, stride_h: Int, stride_w: Int, top: Int,
        left: Int, dilation_h: Int, dilation_w: Int,
        x: F32, weight: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        filters = ptx.pointer(cuda.shared.array(shared, f32, 128))
        t = i32(cuda.threadIdx.x)
        first = i32(cuda.blockIdx.y * channels_block)
        count = i32(r * s)
        for e in range(t, i32(channels_block * count), threads):
            channel = i32(e // count)
            if first + channel < channels:
                filters[i32((e - channel * count) * channels_block + channel)] = weight[i32(first * count + e)]
        cuda.syncthreads()
        lane, warp = i32(t % lanes), i32(t // lanes)
        number, c = i32(cuda.blockIdx.x * warps + warp), i32(first + lane * width)
        if number >= runs or c >= channels:
            return
        line = divide(number, (runs_by, runs_shift))
        n = divide(line, (lines_by, lines_shift))
        i, j = i32(line - n * out_h), i32((number - line * runs_line) * run)
        total, values, taken = cuda.local.array((run, width), f32), cuda.local.array(4, f32), cuda.local.array(4, f32)
        for u in range(run):
            for e in range(width):
                total[u, e] = f32(0)
        for tap_h in range(r):
            h = line_of(i, tap_h, stride_h, top, dilation_h)
            if 0 <= h and h < height:
                row = i32((n * height + h) * width_in)
                for tap_w in range(s):
                    at = i32((tap_h * s + tap_w) * channels_block + lane * width)
                    if vector:
                        taken[0], taken[1], taken[2], taken[3] = ptx.load4(filters, at)
                    else:
                        taken[0] = filters[at]
                    for u in range(run):
                        w = line_of(i32(j + u), tap_w, stride_w, left, dilation_w)
                        if 0 <= w and w < width_in:
                            place = i32((row + w) * channels + c)
                            if vector:
                                values[0], values[1], values[2], values[3] = ptx.load4(x, place)
                            else:
                                values[0] = x[place]
                            for e in range(width):
                                total[u, e] += values[e] * taken[e]
        for u in range(run):
            if j + u < out_w:
                at = i32((line * out_w + j + u) * channels + c)
                put(total, u, c, at, bias, residual, y)

    return convolve


@lru_cache(maxsize=64)
def depthwise_weight(s: int) -> Kernel:
    """Return the kernel of backward_weight for filters s wide: a thread sums a line of taps in registers."""
    lanes, warps = _LANES, _WARPS
    shared = _THREADS

    @kernel(threads=_THREADS, blocks=4, config=f"s={s}")
    def gradient(
        lines: Int, share: Int, lines_by: Int, lines_shift: Int, out_h: Int, out_w: Int, channels: Int, height: Int,
        width: Int, r: Int, stride_h: Int, stride_w: Int, top: Int, left: Int, dilation_h: Int, dilation_w: Int,
        x: F32, grad: F32, y: F32,
    ):  # fmt: skip
        exchange = ptx.pointer(cuda.shared.array(shared, f32, 128))
        t = i32(cuda.threadIdx.x)
        lane, warp = i32(t % lanes), i32(t // lanes)
        c, part, tap_h = i32(cuda.blockIdx.x * lanes + lane), i32(cuda.blockIdx.y), i32(cuda.blockIdx.z)
        total = cuda.local.array(s, f32)
        for tap_w in range(s):
            total[tap_w] = f32(0)
        if c < channels:
            for line in range(i32(part * share + warp), i32(min(lines, (part + 1) * share)), warps):
                n = divide(i32(line), (lines_by, lines_shift))
                h = i32((line - n * out_h) * stride_h - top + tap_h * dilation_h)
                if 0 <= h and h < height:
                    for j in range(out_w):
                        g = grad[i32((line * out_w + j) * channels + c)]
                        for tap_w in range(s):
                            w = i32(j * stride_w - left + tap_w * dilation_w)
                            if 0 <= w and w < width:
                                total[tap_w] += g * x[i32(((n * height + h) * width + w) * channels + c)]
        start = i32(((part * channels + c) * r + tap_h) * s)
        for tap_w in range(s):
            exchange[t] = total[tap_w]
            cuda.syncthreads()
            if warp == 0 and c < channels:
                value = exchange[lane]
                for other in range(1, warps):
                    value += exchange[i32(other * lanes + lane)]
                y[i32(start + tap_w)] = value
            cuda.syncthreads()

    return gradient


def _convolve(p: ConvProblem, inputs: Arrays, y: Any) -> None:
    x, weight, bias, residual = inputs
    turned = p.which == "backward_input"
    (height, width), (out_h, out_w) = ((p.p, p.q), (p.h, p.w)) if turned else ((p.h, p.w), (p.p, p.q))
    vector = p.c % 4 == 0 and aligned(x, bias, residual, y)
    taps = 9 if p.r * p.s <= 9 else 25 if p.r * p.s <= 25 else _MOST_TAPS
    runs_line = -(-out_w // _RUN)
    runs = p.n * out_h * runs_line
    grid = -(-runs // _WARPS), -(-p.c // (_LANES * (4 if vector else 1)))
    integers = (
        runs, *divisor(runs_line), *divisor(out_h), runs_line, out_h, out_w, p.c, height, width, p.r, p.s, *p.stride,
        p.pads[0], p.pads[2], *p.dilation,
    )  # fmt: skip
    launch(depthwise(vector, taps, turned, p.epilogue), grid, (*integers, x, weight, bias, residual, y))


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, (*inputs, None, None), outputs[0])


def _backward_weight(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (dw,) = inputs, outputs
    blocks, lines = -(-p.c // _LANES), p.n * p.p
    cut = split.cut(blocks * p.r, lines, dw.size, 528, _WARPS)
    sums = dw if cut.parts == 1 else empty((cut.parts, dw.size), "float32")
    integers = (
        lines, cut.share, *divisor(p.p), p.p, p.q, p.c, p.h, p.w, p.r, *p.stride, p.pads[0], p.pads[2], *p.dilation,
    )  # fmt: skip
    launch(depthwise_weight(p.s), (blocks, cut.parts, p.r), (*integers, x, grad, sums))
    if cut.parts > 1:
        split.finish(cut.parts, sums, Epilogue(), None, None, dw)


def _supports(p: ConvProblem) -> str | None:
    if p.cg != 1 or p.kg != 1:
        return "not one filter of one channel for each channel"
    if p.r * p.s > _MOST_TAPS:
        return f"a filter of more than {_MOST_TAPS} elements"
    if p.which == "backward_weight" and p.s > _MOST_WIDTH:
        return f"filters wider than {_MOST_WIDTH}"
    return supports(p)


def _cost(p: ConvProblem) -> float:
    return 30.0 * p.flops  # bound by the cache, not by arithmetic


CANDIDATES: CandidateLists = {
    ("conv2d", which): [Candidate("cuda.depthwise", run, _supports, _cost, tolerance=tolerance)]
    for which, run in (
        ("forward", _forward), ("backward_input", _backward_input), ("backward_weight", _backward_weight),
    )
}  # fmt: skip
