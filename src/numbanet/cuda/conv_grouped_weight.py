"""Backward_weight of convolutions in groups of few channels in float32: see `numbanet.cuda.conv_grouped`.

A thread sums the gradients of 4 filters and 4 channels, for a line of taps, in registers; the warps of a block share
the lines of y, and blocks share them once more where there are few filters.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import ptx, split
from numbanet.cuda.compile import F32, Int, Kernel, kernel
from numbanet.cuda.conv_direct import tolerance
from numbanet.cuda.conv_grouped import cost, fetcher, unsupported
from numbanet.cuda.division import divide, divisor
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import ConvProblem, Epilogue

_LANES, _WARPS = 32, 8
_THREADS = _LANES * _WARPS
_MOST_WIDTH = 3  # the gradients of a filter's line are kept in registers
_BLOCKS = 528  # that a GPU shall get

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=8)
def grouped_weight(s: int, vector: bool) -> Kernel:
    """Return the kernel for filters s wide; `vector`: x and the gradient begin at multiples of 16 bytes."""
    lanes, warps, shared = _LANES, _WARPS, 4 * _THREADS
    fetch = fetcher(vector)

    @kernel(threads=_THREADS, blocks=2, config=f"s={s}" + (",vector" if vector else ""))
    def group_gradient(
        pairs: Int, chunks: Int, chunks_by: Int, chunks_shift: Int, group_by: Int, group_shift: Int, lines: Int,
        share: Int, part_size: Int, lines_by: Int, lines_shift: Int, out_h: Int, out_w: Int, filters: Int,
        channels: Int, height: Int, width: Int, r: Int, stride_h: Int, stride_w: Int, top: Int, left: Int,
        dilation_h: Int, dilation_w: Int,
        x: F32, grad: F32, y: F32,
    ):  # fmt: skip
        exchange = ptx.pointer(cuda.shared.array(shared, f32, 128))
        t = i32(cuda.threadIdx.x)
        lane, warp = i32(t % lanes), i32(t // lanes)
        pair, part, tap_h = i32(cuda.blockIdx.x * lanes + lane), i32(cuda.blockIdx.y), i32(cuda.blockIdx.z)
        quad = divide(pair, (chunks_by, chunks_shift))
        chunk = i32(pair - quad * chunks)
        start = i32(4 * (divide(quad, (group_by, group_shift)) * chunks + chunk))
        total, g, v = cuda.local.array((s, 4, 4), f32), cuda.local.array(4, f32), cuda.local.array(4, f32)
        for tap_w in range(s):
            for e in range(4):
                for f in range(4):
                    total[tap_w, e, f] = f32(0)
        if pair < pairs:
            for line in range(i32(part * share + warp), i32(min(lines, (part + 1) * share)), warps):
                n = divide(i32(line), (lines_by, lines_shift))
                h = i32((line - n * out_h) * stride_h - top + tap_h * dilation_h)
                if 0 <= h and h < height:
                    for j in range(out_w):
                        g[0], g[1], g[2], g[3] = fetch(grad, i32((line * out_w + j) * filters + 4 * quad))
                        for tap_w in range(s):
                            w = i32(j * stride_w - left + tap_w * dilation_w)
                            if 0 <= w and w < width:
                                v[0], v[1], v[2], v[3] = fetch(
                                    x, i32(((n * height + h) * width + w) * channels + start)
                                )
                                for e in range(4):
                                    for f in range(4):
                                        total[tap_w, e, f] += g[e] * v[f]
        for tap_w in range(s):
            for e in range(4):
                ptx.store4(exchange, i32(4 * t), (
                    total[tap_w, e, 0], total[tap_w, e, 1], total[tap_w, e, 2], total[tap_w, e, 3],
                ))  # fmt: skip
                cuda.syncthreads()
                if warp == 0 and pair < pairs:
                    v[0], v[1], v[2], v[3] = ptx.load4(exchange, i32(4 * lane))
                    for other in range(1, warps):
                        g[0], g[1], g[2], g[3] = ptx.load4(exchange, i32(4 * (other * lanes + lane)))
                        for f in range(4):
                            v[f] += g[f]
                    tap = i32(((4 * quad + e) * r + tap_h) * s + tap_w)
                    at = i32(part * part_size + 4 * (tap * chunks + chunk))
                    for f in range(4):
                        y[i32(at + f)] = v[f]
                cuda.syncthreads()

    return group_gradient


def _run(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (dw,) = inputs, outputs
    chunks, lines = p.cg // 4, p.n * p.p
    pairs = p.k // 4 * chunks
    blocks = -(-pairs // _LANES)
    cut = split.cut(blocks * p.r, lines, dw.size, _BLOCKS, _WARPS)
    sums = dw if cut.parts == 1 else empty((cut.parts, dw.size), "float32")
    integers = (
        pairs, chunks, *divisor(chunks), *divisor(p.kg // 4), lines, cut.share, dw.size, *divisor(p.p), p.p, p.q, p.k,
        p.c, p.h, p.w, p.r, *p.stride, p.pads[0], p.pads[2], *p.dilation,
    )  # fmt: skip
    launch(grouped_weight(p.s, aligned(x, grad)), (blocks, cut.parts, p.r), (*integers, x, grad, sums))
    if cut.parts > 1:
        split.finish(cut.parts, sums, Epilogue(), None, None, dw)


def _supports(p: ConvProblem) -> str | None:
    return unsupported(p) or (f"filters wider than {_MOST_WIDTH}" if p.s > _MOST_WIDTH else None)


CANDIDATES: CandidateLists = {
    ("conv2d", "backward_weight"): [Candidate("cuda.grouped", _run, _supports, cost, tolerance=tolerance)],
}
