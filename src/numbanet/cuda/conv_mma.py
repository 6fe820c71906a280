"""Convolution on tensor cores, where the precision allows it: arrays stay float32, operands are rounded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numbanet import settings
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda import conv_plan, split
from numbanet.cuda.conv_direct import tiles
from numbanet.cuda.conv_mma_kernels import conv_mma, conv_mma_weight
from numbanet.cuda.conv_plan import Form
from numbanet.cuda.conv_weight import integers
from numbanet.cuda.launch import aligned, capability, constant, empty, launch
from numbanet.cuda.mma_tile import KINDS, MMA, SIZE, Engine, Kind
from numbanet.cuda.pack import filled, operand
from numbanet.cuda.wgmma_tile import WGMMA
from numbanet.cuda.wgmma_turned import TURNED
from numbanet.problem.conv import ConvProblem, Epilogue

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "tf32": "float32"}  # what a kernel's T stands for
LEAST = 8  # slices of a part of the reduction


def chosen_kind() -> Kind:
    """Return what the precision lets tensor cores multiply."""
    return KINDS[settings.get_precision()]


def _form(p: ConvProblem, kind: Kind) -> Form:
    return Form(kind.lanes, kind.depth, filled(p.cg, kind.lanes), filled(p.kg, kind.lanes))


def _run(engine: Engine, p: ConvProblem, kind: Kind, x: Any, weight: Any, bias: Any, residual: Any, y: Any) -> None:
    form, turned = _form(p, kind), p.which == "backward_input"
    plans = (conv_plan.backward_plans if turned else conv_plan.forward_plans)(p, form)
    grids = [tiles(plan.rows, plan.columns) for plan in plans]
    blocks = p.groups * sum(across * down for across, down in grids)
    cut = split.cut(blocks, max(plan.slices for plan in plans), y.size, least=LEAST)
    sums = y if cut.parts == 1 else empty((cut.parts, y.size), "float32")
    vector = plans[0].columns % 2 == 0 and y.size % 2 == 0 and aligned(bias, residual, y, size=8)
    kernel = conv_mma(engine, kind.name, turned, vector, p.epilogue if cut.parts == 1 else Epilogue())
    for plan, grid in zip(plans, grids):
        numbers = plan.rows, plan.columns, plan.slices, cut.share, cut.parts, *plan.integers, y.size
        operands = x, constant(plan.table), weight, bias, residual, sums
        launch(kernel, (*grid, p.groups * cut.parts), (*numbers, *operands), DTYPES[kind.name])
    if cut.parts > 1:
        split.finish(cut.parts, sums, p.epilogue, bias, residual, y)


def _forward(engine: Engine, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, weight, bias, residual), kind = inputs, chosen_kind()
    source = operand(kind, x, 1, p.n * p.h * p.w, p.groups, p.cg)
    filters = operand(kind, weight, 1, p.k, p.r * p.s, p.cg)
    _run(engine, p, kind, source, filters, bias, residual, outputs[0])


def _backward_input(engine: Engine, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (grad, weight), kind = inputs, chosen_kind()
    source = operand(kind, grad, 1, p.n * p.p * p.q, p.groups, p.kg)
    filters = operand(kind, weight, p.groups, p.kg, p.r * p.s, p.cg, filled(p.kg, kind.lanes))
    _run(engine, p, kind, source, filters, None, None, outputs[0])


def _backward_weight(engine: Engine, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (x, grad), (dw,), kind = inputs, outputs, chosen_kind()
    form = _form(p, kind)
    source = operand(kind, x, 1, p.n * p.h * p.w, p.groups, p.cg)
    grads = operand(kind, grad, 1, p.n * p.p * p.q, p.groups, p.kg)
    table = conv_plan.column_table(p, form, SIZE)
    grid, slices = tiles(p.kg, p.r * p.s * form.cg), -(-p.n * p.p * p.q // engine.pieces(kind, True).depth)
    size = p.k * p.r * p.s * form.cg
    cut = split.cut(grid[0] * grid[1] * p.groups, slices, size, least=LEAST)
    whole = cut.parts == 1 and form.cg == p.cg and aligned(dw, size=8)
    sums = dw if whole else empty((cut.parts, size), "float32")
    numbers = integers(p, form, cut, slices, table.shape[1])
    arguments = *numbers, source, constant(table), grads, sums
    launch(conv_mma_weight(engine, kind.name), (*grid, p.groups * cut.parts), arguments, DTYPES[kind.name])
    if not whole:
        split.finish(cut.parts, sums, Epilogue(), None, None, dw, p.cg, form.cg)


def refusal(dtype: str, warpgroups: bool) -> str | None:
    """Return None, or why the precision, the dtype or the GPU excludes tensor cores, or warpgroups that multiply."""
    precision = settings.get_precision()
    if precision not in KINDS:
        return f"the precision is {precision!r}"
    if dtype != "float32":
        return f"the kernel is for float32, not {dtype}"
    if warpgroups and capability() != (9, 0, "a"):
        return "only GPUs of compute capability 9.0 have warpgroups that multiply"
    return None


def engine_refusal(engine: Engine, dtype: str, across: bool) -> str | None:
    """Return None, or why the precision, the dtype, the GPU or how operands lie (both `across`) excludes an engine."""
    reason = refusal(dtype, engine is not MMA)
    if reason is None and engine is WGMMA and not chosen_kind().narrow:
        return "the copies to shared memory don't round to TF32"
    if reason is None and engine is TURNED and (chosen_kind().narrow or not across):
        return "operands are turned where both are TF32 and lie across the reduction"
    return reason


def speed(engine: Engine) -> float:
    """Return how many times as fast as the float32 kernels an engine multiplies."""
    if engine is TURNED:
        return 6.0
    return 12.0 if engine is WGMMA else 8.0 if chosen_kind().narrow else 4.0


def _supports(engine: Engine, p: ConvProblem) -> str | None:
    reason = engine_refusal(engine, p.dtype, p.which == "backward_weight")
    return reason or conv_plan.too_large(p, _form(p, chosen_kind()))


def _cost(engine: Engine, p: ConvProblem) -> float:
    """In operations of the float32 kernels."""
    form = _form(p, chosen_kind())
    rows, columns, depth = conv_plan.shape(p)
    depth *= form.cg / max(p.cg, 1) if p.which == "forward" else 1
    across, down = tiles(rows, columns)
    products = 2.0 * p.groups * across * down * SIZE * SIZE * depth
    packing = 90.0 * (p.n * p.c * p.h * p.w + p.n * p.k * p.p * p.q) if chosen_kind().narrow else 0.0
    return products / speed(engine) + packing


def tolerance(reduction: int) -> float:
    """Return the expected relative error of sums of rounded products."""
    return (2e-2 if chosen_kind().name == "bf16" else 2e-3) + 3e-6 * (reduction / 1000 + 1) ** 0.5


def _candidates(run: Callable[..., None], *engines: Engine) -> list[Candidate]:
    return [
        Candidate(
            f"cuda.{engine.name}", partial(run, engine), partial(_supports, engine), partial(_cost, engine),
            tolerance=lambda p: tolerance(p.reduction),
        )
        for engine in engines
    ]  # fmt: skip


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidates(_forward, WGMMA, MMA),
    ("conv2d", "backward_input"): _candidates(_backward_input, WGMMA, MMA),
    ("conv2d", "backward_weight"): _candidates(_backward_weight, WGMMA, TURNED, MMA),
}
