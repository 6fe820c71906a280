"""Convolution in groups of few channels in float32, forward and backward_input, without a product of matrices.

A tile of a product has 128 columns; a group of 4 to 32 filters would leave most of it empty. Here a thread has 4
neighbouring channels of the result, all of one group, and a run of neighbouring pixels: of each 4 channels of the
source it reads 16 weights, which serve the whole run, and 4 numbers for each pixel. The lanes of a warp lie along the
channels. The weight is brought to the order (tap, channel of the source, channel of the result), in which lanes read
neighbours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx, tile
from numbanet.cuda.compile import F32, Int, Kernel, device, kernel
from numbanet.cuda.conv_direct import supports, tolerance
from numbanet.cuda.conv_lines import put_four, put_singles, source_line
from numbanet.cuda.division import divide, divisor
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import ConvProblem, Epilogue

_THREADS = 256
_RUN = 8  # neighbouring results along the width, of a thread

i32, f32 = types.int32, types.float32


def fetcher(vector: bool) -> Any:
    """Make ``fetch(x, at)``, which returns 4 neighbouring numbers; with `vector` by one access."""

    @device
    def four(x, at):
        return ptx.load4(x, at)

    @device
    def singles(x, at):
        return x[at], x[i32(at + 1)], x[i32(at + 2)], x[i32(at + 3)]

    return four if vector else singles


@lru_cache(maxsize=2)
def arrange(turned: bool) -> Kernel:
    """Return the kernel that brings a weight (groups, rows, taps, columns) to (taps, inputs, results).

    Forward's results are the rows of all groups, and its inputs the columns; `turned` (backward_input) changes them.
    """
    threads = _THREADS

    @kernel(threads=_THREADS, config="turned" if turned else "")
    def arranged(
        size: Int, results: Int, results_by: Int, results_shift: Int, inputs: Int, inputs_by: Int, inputs_shift: Int,
        group: Int, group_by: Int, group_shift: Int, rows: Int, taps: Int, columns: Int, weight: F32, y: F32,
    ):  # fmt: skip
        at = i32(cuda.blockIdx.x * threads + cuda.threadIdx.x)
        if at >= size:
            return
        line = divide(at, (results_by, results_shift))
        result = i32(at - line * results)
        tap = divide(line, (inputs_by, inputs_shift))
        given = i32(line - tap * inputs)
        g = divide(result, (group_by, group_shift))
        within = i32(result - g * group)
        row, column = (given, within) if turned else (within, given)
        y[at] = weight[i32(((g * rows + row) * taps + tap) * columns + column)]

    return arranged


@lru_cache(maxsize=64)
def grouped(vector: bool, turned: bool, epilogue: Epilogue) -> Kernel:
    """Return the kernel of forward, or (`turned`) of backward_input.

    Parameters
    ----------
    vector : bool
        The arrays begin at multiples of 16 bytes.
    turned : bool
        The source is the gradient of y, and the result that of x.
    epilogue : Epilogue
    """
    threads, run = _THREADS, _RUN
    fetch = fetcher(vector)
    put = put_four(epilogue) if vector else put_singles(epilogue, 4)
    line_of = source_line(turned)

    words = [word for word, chosen in (("vector", vector), ("turned", turned)) if chosen]

    @kernel(threads=_THREADS, blocks=2, config=",".join(words + tile.words(epilogue)))
    def convolve_groups(
        size: Int, quads: Int, quads_by: Int, quads_shift: Int, runs_line: Int, runs_by: Int, runs_shift: Int,
        lines_by: Int, lines_shift: Int, out_h: Int, out_w: Int, channels: Int, group_by: Int, group_shift: Int,
        inputs: Int, source_channels: Int, height: Int, width_in: Int, r: Int, s: Int, stride_h: Int, stride_w: Int,
        top: Int, left: Int, dilation_h: Int, dilation_w: Int,
        x: F32, weight: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        at = i32(cuda.blockIdx.x * threads + cuda.threadIdx.x)
        if at >= size:
            return
        number = divide(at, (quads_by, quads_shift))
        quad = i32(at - number * quads)
        line = divide(number, (runs_by, runs_shift))
        n = divide(line, (lines_by, lines_shift))
        i, j = i32(line - n * out_h), i32((number - line * runs_line) * run)
        start = i32(divide(quad, (group_by, group_shift)) * inputs)
        total, places = cuda.local.array((run, 4), f32), cuda.local.array(run, i32)
        taken, values = cuda.local.array((4, 4), f32), cuda.local.array(4, f32)
        for u in range(run):
            for e in range(4):
                total[u, e] = f32(0)
        for tap_h in range(r):
            h = line_of(i, tap_h, stride_h, top, dilation_h)
            if 0 <= h and h < height:
                row = i32((n * height + h) * width_in)
                for tap_w in range(s):
                    for u in range(run):
                        w = line_of(i32(j + u), tap_w, stride_w, left, dilation_w)
                        inside = 0 <= w and w < width_in and j + u < out_w
                        places[u] = i32((row + w) * source_channels + start) if inside else i32(-1)
                    first = i32((tap_h * s + tap_w) * inputs)
                    for c in range(0, inputs, 4):
                        for e in range(4):
                            taken[e, 0], taken[e, 1], taken[e, 2], taken[e, 3] = fetch(
                                weight, i32((first + c + e) * channels + 4 * quad)
                            )
                        for u in range(run):
                            inside = places[u] >= 0
                            values[0], values[1], values[2], values[3] = fetch(
                                x, i32(places[u] + c) if inside else i32(0)
                            )
                            for e in range(4):
                                value = values[e] if inside else f32(0)
                                for f in range(4):
                                    total[u, f] += value * taken[e, f]
        for u in range(run):
            if j + u < out_w:
                put(total, u, i32(4 * quad), i32((line * out_w + j + u) * channels + 4 * quad), bias, residual, y)

    return convolve_groups


def _convolve(p: ConvProblem, inputs: Arrays, y: Any) -> None:
    x, weight, bias, residual = inputs
    turned = p.which == "backward_input"
    (height, width), (out_h, out_w) = ((p.p, p.q), (p.h, p.w)) if turned else ((p.h, p.w), (p.p, p.q))
    (given, group), channels = ((p.kg, p.cg), p.c) if turned else ((p.cg, p.kg), p.k)
    arranged = empty((p.r * p.s, given, channels), "float32")
    sizes = arranged.size, channels, *divisor(channels), given, *divisor(given), group, *divisor(group)
    numbers = *sizes, p.kg, p.r * p.s, p.cg
    launch(arrange(turned), (-(-arranged.size // _THREADS),), (*numbers, weight, arranged))
    quads, runs_line = channels // 4, -(-out_w // _RUN)
    size = p.n * out_h * runs_line * quads
    integers = (
        size, quads, *divisor(quads), runs_line, *divisor(max(runs_line, 1)), *divisor(max(out_h, 1)), out_h, out_w,
        channels, *divisor(group // 4), given, p.groups * given, height, width, p.r, p.s, *p.stride, p.pads[0],
        p.pads[2], *p.dilation,
    )  # fmt: skip
    chosen = grouped(aligned(x, bias, residual, y), turned, p.epilogue)
    launch(chosen, (-(-size // _THREADS),), (*integers, x, arranged, bias, residual, y))


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _convolve(p, (*inputs, None, None), outputs[0])


def unsupported(p: ConvProblem) -> str | None:
    """Return None, or why the kernels for groups can't compute a problem."""
    if p.groups == 1:
        return "one group"
    if p.cg % 4 or p.kg % 4 or not p.cg * p.kg:
        return "groups of channels or filters that are no multiple of 4"
    return supports(p)


def cost(p: ConvProblem) -> float:
    """In operations of the tile of products: as many loads as multiplications of four numbers."""
    return 3.0 * p.flops


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [Candidate("cuda.grouped", _forward, unsupported, cost, tolerance=tolerance)],
    ("conv2d", "backward_input"): [Candidate("cuda.grouped", _backward_input, unsupported, cost, tolerance=tolerance)],
}
