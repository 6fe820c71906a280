"""Convolution by warpgroups that the copy engine feeds, on GPUs of capability 9.0: forward and backward_input.

Arrays stay float32: for 16-bit products operands are packed first (`numbanet.cuda.pack`), and TF32 ones are rounded on
their way to shared memory. Backward_input takes the weight with its filters and channels exchanged, so that either
operand is contiguous along the reduction, as TF32 products need it.
"""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import conv_plan, conv_tma_plan, split, tma_tile
from numbanet.cuda.conv_mma import chosen_kind, refusal, tolerance
from numbanet.cuda.conv_plan import Form
from numbanet.cuda.conv_tma_kernels import conv_tma
from numbanet.cuda.conv_tma_plan import Operands
from numbanet.cuda.launch import aligned, empty, launch
from numbanet.cuda.mma_tile import Kind
from numbanet.cuda.pack import exchanged, filled, operand
from numbanet.cuda.tensor_map import TensorMap
from numbanet.problem.conv import ConvProblem, Epilogue

LEAST = 4  # slices of a part of the reduction
NARROW, WIDE = 16.0, 8.0  # how many times as fast as the float32 kernels operands of 16 and 32 bits are multiplied


def _run(p: ConvProblem, kind: Kind, source: Any, weight: Any, bias: Any, residual: Any, y: Any) -> None:
    columns, read = _columns(p), _operands(p, kind)
    vector = columns % 2 == 0 and aligned(bias, residual, y, size=8)
    shape = tma_tile.fitting(columns, vector)
    plans = conv_tma_plan.plans(p, read, shape)
    grids = [(-(-plan.rows // tma_tile.ROWS), -(-plan.columns // shape.columns)) for plan in plans]
    blocks = p.groups * sum(across * down for across, down in grids)
    cut = split.cut(blocks, max(plan.slices for plan in plans), y.size, shape.wanted, LEAST)
    sums = y if cut.parts == 1 else empty((cut.parts, y.size), "float32")
    kernel = conv_tma(kind.name, shape, vector, p.epilogue if cut.parts == 1 else Epilogue())
    for plan, grid in zip(plans, grids):
        numbers = plan.rows, plan.columns, plan.slices, cut.share, cut.parts, *plan.integers, y.size
        maps = TensorMap(source, plan.source), TensorMap(weight, plan.weight)
        launch(kernel, (*grid, p.groups * cut.parts), (*numbers, *maps, bias, residual, sums))
    if cut.parts > 1:
        split.finish(cut.parts, sums, p.epilogue, bias, residual, y)


def _columns(p: ConvProblem) -> int:
    return p.kg if p.which == "forward" else p.cg


def _operands(p: ConvProblem, kind: Kind) -> Operands:
    return Operands(tma_tile.element(kind), filled(p.cg if p.which == "forward" else p.kg, kind.lanes))


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, weight, bias, residual), kind = inputs, chosen_kind()
    source = operand(kind, x, 1, p.n * p.h * p.w, p.groups, p.cg)
    filters = operand(kind, weight, 1, p.k, p.r * p.s, p.cg)
    _run(p, kind, source, filters, bias, residual, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (grad, weight), kind = inputs, chosen_kind()
    source = operand(kind, grad, 1, p.n * p.p * p.q, p.groups, p.kg)
    filters = exchanged(kind, weight, p.groups, p.kg, p.r * p.s, p.cg)
    _run(p, kind, source, filters, None, None, outputs[0])


def _supports(p: ConvProblem) -> str | None:
    reason = refusal(p.dtype, warpgroups=True)
    if reason is not None:
        return reason
    kind = chosen_kind()
    read = _operands(p, kind)
    if not read.channels:
        return "nothing to multiply"
    if p.groups > 1 and read.channels % read.depth:
        return f"groups whose channels are no multiple of {read.depth}"
    form = Form(kind.lanes, read.depth, filled(p.cg, kind.lanes), filled(p.kg, kind.lanes))
    return conv_plan.too_large(p, form) or conv_tma_plan.refusal(p)


def _cost(p: ConvProblem) -> float:
    """In operations of the float32 kernels."""
    kind = chosen_kind()
    read = _operands(p, kind)
    rows, columns, depth = conv_plan.shape(p)
    depth *= read.chunks * read.depth / max(p.cg if p.which == "forward" else p.kg, 1)
    results = filled(rows, tma_tile.ROWS) * filled(columns, tma_tile.fitting(columns, columns % 2 == 0).columns)
    narrow = kind.narrow
    packing = 90.0 * (p.n * p.c * p.h * p.w + p.n * p.k * p.p * p.q) if narrow else 0.0
    return 2.0 * p.groups * results * depth / (NARROW if narrow else WIDE) + packing


def _candidate(run: Any) -> Candidate:
    return Candidate("cuda.wgmma_tma", run, _supports, _cost, tolerance=lambda p: tolerance(p.reduction))


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [_candidate(_forward)],
    ("conv2d", "backward_input"): [_candidate(_backward_input)],
}
