"""Every kernel of the GPU's operations, in the forms that spend most registers: for the tests of machine code."""

from __future__ import annotations

from collections.abc import Iterator

from numbanet.cuda import (
    activation,
    augment,
    clip,
    copy,
    dropout,
    elementwise,
    extremum,
    flat,
    group_norm,
    index,
    indexing,
    layer_norm,
    loss,
    margin,
    moments,
    move,
    mse,
    norm,
    norm_backward,
    optim,
    pad,
    pointwise,
    pool_adaptive,
    pool_average,
    pool_max,
    pool_max_backward,
    reduce,
    resample,
    response,
    softmax,
    total,
    unfold,
    whole,
)
from numbanet.cuda.compile import Kernel
from numbanet.cuda.vector import lanes
from numbanet.problem.optim import RULES

VECTOR_LOADS = ("LDG.E.128", "LDG.E.128.CONSTANT")


def streaming(dtype: str) -> list[Kernel]:
    """Return the kernels that read and write whole tensors 16 bytes at a time."""
    n = lanes(dtype)
    huber = pointwise.losses(dtype)["huber"]
    return [
        flat.flat_kernel("relu", activation.forward_formulas(dtype)["relu"], 1, dtype, n),
        flat.flat_kernel("gelu_backward", activation.backward_formulas(dtype)["gelu"], 2, dtype, n),
        elementwise.elementwise_kernel("add", dtype, n),
        elementwise.elementwise_kernel("clamp", dtype, n),
        copy.copy_lines(dtype, n),
        dropout._forward_kernel(dtype, n, False),
        dropout._forward_kernel(dtype, n, True),
        dropout._backward_kernel(dtype, n),
        norm.affine(dtype, n, True, True),
        norm_backward.gradient_apply(dtype, n, True),
        pool_max._forward_kernel(dtype, n, "uint8"),
        pool_max_backward._kernel(dtype, n, "uint8"),
        pool_average._forward_kernel(dtype, n),
        pool_average._backward_kernel(dtype, n),
        resample._kernel(dtype, n),
        pad._forward_kernel(dtype, n),
        optim.step_kernel("sgd", dtype, (True,), ("nesterov",), n),
        optim.step_kernel("adam", dtype, (True, True, True), (), n),
        *(optim.step_kernel(rule, dtype, (True,) * len(RULES[rule]), (), n) for rule in ("rmsprop", "adadelta")),
        optim.clip_kernel("clamp", dtype, n),
        clip._scaling(dtype, n),
        *([total._sums("huber", huber, 2, dtype, n)] if dtype == "float32" else []),
    ]


def summing(dtype: str) -> list[Kernel]:
    """Return the kernels whose sums are float64, whatever they read."""
    n = lanes(dtype)
    return [
        reduce.row_sums(dtype, n), reduce.piece_sums(dtype, n), reduce.column_sums(dtype, n), reduce.merge,
        total.finish, moments.column_moments(dtype, n), norm._channel_statistics(dtype),
        norm_backward._coefficients(dtype), norm_backward.gradient_sums(dtype, n, True, True),
        group_norm._statistics(dtype), group_norm._coefficients(dtype), layer_norm._forward_kernel(dtype, 256),
        layer_norm._forward_kernel(dtype, 32), layer_norm._backward_kernel(dtype, 256),
        layer_norm._parameter_kernel(dtype), optim.norm_kernel(dtype, "squares", n),
        optim.norm_kernel(dtype, "largest", n), optim.norm_kernel(dtype, "power", 1), optim.merge_norms, clip.factor,
        loss._forward_kernel(dtype, 32, True), loss._forward_kernel(dtype, 256, False), loss._nll_kernel(dtype),
        loss._backward_kernel(dtype, 32, False), loss._backward_kernel(dtype, 256, True), loss._target_kernel(dtype),
        loss._nll_backward_kernel(dtype), mse._backward_kernel(dtype),
    ]  # fmt: skip


def others(dtype: str) -> list[Kernel]:
    """Return the rest."""
    return [
        copy.copy_transposed(dtype), copy.copy_lines(dtype, 1), elementwise.elementwise_kernel("where", dtype, 1),
        softmax._rows(dtype, 32, True, False), softmax._rows(dtype, 256, False, True),
        softmax._columns(dtype, False, False), margin._kernel(dtype, 32, True, True),
        extremum._kernel(dtype, True, True), extremum._kernel(dtype, False, False),
        pool_adaptive._forward_kernel(dtype), pool_adaptive._backward_kernel(dtype), pad._backward_kernel(dtype),
        response._forward_kernel(dtype), response._shares_kernel(dtype), response._backward_kernel(dtype),
        unfold._kernel(dtype), index._gather_kernel(dtype), pool_max.positions_kernel("uint8"),
        pool_max.positions_kernel("int32"),
        index.clear, index.count_rows, index.add_up, index.list_rows, index.put_in_order, index.merge_runs,
        indexing.locate, indexing.spread, indexing.list_true, group_norm._channel_means(dtype), copy.widen, copy.narrow,
        move.copying("F32", "F64", False), move.filling("U32"), whole._kernel("clamp", ("I64",) * 3, "I64", False),
        whole._reducing("I64", "I64", "max"), whole._indexing("U32", True), augment._moving("U8"),
        augment._blanking("U8"), augment._scaling("F32"),
    ]  # fmt: skip


def forms() -> Iterator[tuple[Kernel, str]]:
    """Yield every kernel with each dtype that makes it another: many know none."""
    seen: set[tuple[Kernel, str]] = set()
    for dtype in ("float32", "float64"):
        for kernel in (*streaming(dtype), *summing(dtype), *others(dtype)):
            form = kernel, dtype if {"T", "Number"} & {*kernel.parameters} else ""
            if form not in seen:
                seen.add(form)
                yield kernel, dtype
