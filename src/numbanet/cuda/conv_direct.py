"""Convolution on the GPU in float32, forward and backward_input, by the kernel of `numbanet.cuda.conv_gemm`."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import conv_plan, split
from numbanet.cuda.conv_gemm import conv_gemm
from numbanet.cuda.conv_plan import Form
from numbanet.cuda.launch import aligned, constant, empty, launch
from numbanet.cuda.tile import DEPTH, SIZE
from numbanet.problem.conv import ConvProblem, Epilogue


def form(p: ConvProblem, *arrays: Any) -> Form:
    """Return how these operands are read: 4 channels at once where their number and the addresses allow it."""
    vector = p.cg % 4 == 0 and p.kg % 4 == 0 and aligned(*arrays)
    return Form(4 if vector else 1, DEPTH, p.cg, p.kg)


def tiles(rows: int, columns: int) -> tuple[int, int]:
    """Return the blocks of a product along rows and columns."""
    return -(-rows // SIZE), -(-columns // SIZE)


def _run(p: ConvProblem, inputs: Arrays, y: Any) -> None:
    x, weight, bias, residual = inputs
    turned, read = p.which == "backward_input", form(p, *inputs, y)
    plans = (conv_plan.backward_plans if turned else conv_plan.forward_plans)(p, read)
    grids = [tiles(plan.rows, plan.columns) for plan in plans]
    blocks = p.groups * sum(across * down for across, down in grids)
    cut = split.cut(blocks, max(plan.slices for plan in plans), y.size)
    sums = y if cut.parts == 1 else empty((cut.parts, y.size), "float32")
    kernel = conv_gemm(read.lanes == 4, turned, p.epilogue if cut.parts == 1 else Epilogue())
    for plan, grid in zip(plans, grids):
        integers = plan.rows, plan.columns, plan.slices, cut.share, cut.parts, *plan.integers, y.size
        operands = x, constant(plan.table), weight, bias, residual, sums
        launch(kernel, (*grid, p.groups * cut.parts), (*integers, *operands))
    if cut.parts > 1:
        split.finish(cut.parts, sums, p.epilogue, bias, residual, y)


def _forward(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(p, inputs, outputs[0])


def _backward_input(p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(p, (*inputs, None, None), outputs[0])


def supports(p: ConvProblem) -> str | None:
    """Return None, or why the float32 kernels can't compute a problem."""
    if p.dtype != "float32":
        return f"the kernel is for float32, not {p.dtype}"
    return conv_plan.too_large(p, Form(1, DEPTH, p.cg, p.kg))


def cost(p: ConvProblem) -> float:
    """Return the operations of all tiles, whole or not."""
    rows, columns, depth = conv_plan.shape(p)
    across, down = tiles(rows, columns)
    return 2.0 * p.groups * across * down * SIZE * SIZE * depth


def tolerance(p: ConvProblem) -> float:
    """Return the expected relative error of a sum in float32."""
    return 3e-6 * (p.reduction / 1000 + 1) ** 0.5


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): [Candidate("cuda.gemm", _forward, supports, cost, tolerance=tolerance)],
    ("conv2d", "backward_input"): [Candidate("cuda.gemm", _backward_input, supports, cost, tolerance=tolerance)],
}
