"""Operators with parameters, as the layers of `numbanet.nn`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import nn
from numbanet.io.onnx.graph import Graph
from numbanet.io.onnx.node import Node
from numbanet.io.onnx.windows import padded, same_lower, split_pads
from numbanet.tensor import Tensor


def _weight(node: Node, graph: Graph) -> np.ndarray:
    weight = graph.constant(node, 1, "f")
    if weight.ndim not in (3, 4) or 0 in weight.shape:
        node.fail(f"its weight has shape {weight.shape}: only one- and two-dimensional convolutions are supported")
    return weight


def _bias(node: Node, graph: Graph, position: int, size: int, dtype: np.dtype) -> None:
    if node.has(position):
        _fit(node, position, graph.constant(node, position, "f"), (size,), dtype)


def _fit(node: Node, position: int, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if array.shape != shape or array.dtype != dtype:
        name, got = node.inputs[position], f"{array.dtype} of shape {array.shape}"
        node.fail(f"its input {name!r} must be {dtype} of shape {shape}, got {got}")


def _tensors(node: Node, *attributes: str) -> dict[str, str]:
    """Return the names of inputs 1, 2, ... by the attributes of the layer that they become."""
    return {name: node.inputs[i] for i, name in enumerate(attributes, 1) if node.has(i)}


def _numbers(node: Node, name: str, count: int, default: int, low: int) -> tuple[int, ...]:
    values = node.take(name, "ints", (default,) * count)
    if len(values) != count or min(values) < low:
        node.fail(f"{name}={values!r}: expected {count} numbers from {low}")
    return values


def _conv(node: Node, graph: Graph) -> None:
    weight = _weight(node, graph)
    axes, (out, per_group) = weight.ndim - 2, weight.shape[:2]
    kernel = node.take("kernel_shape", "ints", weight.shape[2:])
    stride, dilation = _numbers(node, "strides", axes, 1, 1), _numbers(node, "dilations", axes, 1, 1)
    groups, word = node.take("group", "int", 1), node.take("auto_pad", "str", "NOTSET")
    pads = split_pads(node, node.take("pads", "ints", (0,) * 2 * axes), axes)
    node.finish(2, 3)
    if kernel != weight.shape[2:]:
        node.fail(f"kernel_shape={kernel!r} does not fit a weight of shape {weight.shape}")
    if groups < 1 or out % groups:
        node.fail(f"group={groups} does not divide the {out} filters")
    _bias(node, graph, 2, out, weight.dtype)
    before: Any = None
    padding: Any = pads if axes == 2 else (pads[0][0],)
    if word == "SAME_UPPER":
        padding = "same_upper"
    elif word == "SAME_LOWER":
        spans = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel))
        padding, before = 0, partial(same_lower, spans=spans, stride=stride)
    elif word == "VALID":
        padding = 0
    elif word != "NOTSET":
        node.fail(f"auto_pad={word!r} is not supported")
    elif axes == 1 and pads[0][0] != pads[0][1]:
        padding, before = 0, partial(padded, pads=pads)
    kind = nn.Conv2d if axes == 2 else nn.Conv1d
    layer = kind(groups, groups, kernel if axes == 2 else kernel[0], stride, padding, dilation, groups, node.has(2))
    layer.in_channels, layer.out_channels = per_group * groups, out
    operand = graph.operand(node, 0)
    if before is not None:
        operand = graph.between(node, before, operand)
    graph.add(node, graph.layer(node, layer, _tensors(node, "weight", "bias")), operand, rank=weight.ndim)


def _conv_transpose(node: Node, graph: Graph) -> None:
    weight = _weight(node, graph)
    if weight.ndim != 4:
        node.fail("only two-dimensional transposed convolutions are supported")
    channels, per_group = weight.shape[:2]
    kernel = node.take("kernel_shape", "ints", weight.shape[2:])
    stride, dilation = _numbers(node, "strides", 2, 1, 1), _numbers(node, "dilations", 2, 1, 1)
    groups, more = node.take("group", "int", 1), _numbers(node, "output_padding", 2, 0, 0)
    node.only("auto_pad", "str", "NOTSET", "VALID")
    (top, bottom), (left, right) = split_pads(node, node.take("pads", "ints", (0,) * 4), 2)
    node.finish(2, 3)
    if kernel != weight.shape[2:]:
        node.fail(f"kernel_shape={kernel!r} does not fit a weight of shape {weight.shape}")
    if groups < 1 or channels % groups:
        node.fail(f"group={groups} does not divide the {channels} channels")
    _bias(node, graph, 2, per_group * groups, weight.dtype)
    even = (top, left) == (bottom, right)
    padding = (top, left) if even else (0, 0)
    layer = nn.ConvTranspose2d(groups, groups, kernel, stride, padding, more, groups, node.has(2), dilation)
    layer.in_channels, layer.out_channels = channels, per_group * groups
    route, operand = graph.layer(node, layer, _tensors(node, "weight", "bias")), graph.operand(node, 0)
    if even:
        graph.add(node, route, operand, rank=4)
    else:
        whole = graph.between(node, route, operand)
        graph.add(node, partial(padded, pads=((-top, -bottom), (-left, -right))), whole, rank=4)


def _batch_norm(node: Node, graph: Graph) -> None:
    eps, momentum = node.take("epsilon", "float", 1e-5), node.take("momentum", "float", 0.9)
    node.only("training_mode", "int", 0)
    node.only("spatial", "int", 1)
    node.finish(5)
    if len(node.outputs) > 1:
        node.fail("the statistics of a batch as outputs are not supported")
    scale = graph.constant(node, 1, "f")
    for position in range(1, 5):
        _fit(node, position, graph.constant(node, position, "f"), (scale.size,), scale.dtype)
    rank = graph.rank(node, 0)
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d if rank in (2, 3) else None
    if kind is None:
        node.fail(f"its input has {rank} dimensions, expected 2, 3 or 4")
    layer = kind(scale.size, eps, 1 - momentum)
    tensors = _tensors(node, "weight", "bias", "running_mean", "running_var")
    graph.add(node, graph.layer(node, layer, tensors), graph.operand(node, 0))


def _instance_norm(node: Node, graph: Graph) -> None:
    eps = node.take("epsilon", "float", 1e-5)
    node.finish(3)
    scale = graph.constant(node, 1, "f")
    for position in (1, 2):
        _fit(node, position, graph.constant(node, position, "f"), (scale.size,), scale.dtype)
    rank = graph.rank(node, 0)
    kind = nn.InstanceNorm2d if rank == 4 else nn.InstanceNorm1d if rank == 3 else None
    if kind is None:
        node.fail(f"its input has {rank} dimensions, expected 3 or 4")
    layer = kind(scale.size, eps, affine=True)
    graph.add(node, graph.layer(node, layer, _tensors(node, "weight", "bias")), graph.operand(node, 0))


def _gemm(node: Node, graph: Graph) -> None:
    alpha, beta = node.take("alpha", "float", 1.0), node.take("beta", "float", 1.0)
    turn_a, turn_b = node.only("transA", "int", 0, 1), node.only("transB", "int", 0, 1)
    node.finish(2, 3)
    if graph.rank(node, 0) != 2 or graph.rank(node, 1) != 2:
        node.fail("its operands must be matrices")
    if (alpha, beta, turn_a, turn_b) == (1, 1, 0, 1) and graph.is_constant(node, 1) and _is_bias(node, graph):
        weight = graph.constant(node, 1, "f")
        layer = nn.Linear(1, 1, node.has(2))
        layer.out_features, layer.in_features = weight.shape
        graph.add(node, graph.layer(node, layer, _tensors(node, "weight", "bias")), graph.operand(node, 0))
        return
    operands = [graph.operand(node, i) for i in range(len(node.inputs))]
    graph.add(node, partial(_product, alpha=alpha, beta=beta, turn_a=turn_a, turn_b=turn_b), *operands)


def _is_bias(node: Node, graph: Graph) -> bool:
    if not node.has(2):
        return True
    weight = graph.constant(node, 1, "f")
    if not graph.is_constant(node, 2):
        return False
    bias = graph.constant(node, 2, "f")
    return bias.shape == weight.shape[:1] and bias.dtype == weight.dtype


def _product(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float, beta: float, turn_a: int, turn_b: int
) -> Tensor:
    y = F.matmul(F.transpose(a, 0, 1) if turn_a else a, F.transpose(b, 0, 1) if turn_b else b)
    y = y if alpha == 1 else F.mul(y, alpha)
    return y if c is None else F.add(y, c if beta == 1 else F.mul(c, beta))


def _dropout(node: Node, graph: Graph) -> None:
    ratio = node.take("ratio", "float", 0.5) if node.opset < 12 else 0.5
    node.take("seed", "int", 0)
    node.finish(1, 3)
    if node.has(1):
        ratio = graph.number(node, 1)
    if node.has(2) and bool(graph.constant(node, 2, "b").any()):
        node.fail("training_mode is set: the model must be exported for inference")
    if len([name for name in node.outputs if name]) > 1:
        node.fail("its mask as an output is not supported")
    if not 0 <= ratio < 1:
        node.fail(f"ratio={ratio}: expected a number from 0 to 1")
    graph.add(node, graph.layer(node, nn.Dropout(ratio), {}), graph.operand(node, 0))


OPERATORS = {
    "BatchNormalization": _batch_norm, "Conv": _conv, "ConvTranspose": _conv_transpose, "Dropout": _dropout,
    "Gemm": _gemm, "InstanceNormalization": _instance_norm,
}  # fmt: skip
