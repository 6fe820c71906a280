"""Operators without parameters, and constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet.io.onnx.graph import Graph
from numbanet.io.onnx.node import Node
from numbanet.tensor import Tensor

_LARGEST = float(np.finfo(np.float32).max)


def _axis(node: Node, axis: int, rank: int, most: int | None = None) -> int:
    """Return an axis counted from the beginning; `most` is the largest one that is allowed."""
    found = axis + rank if axis < 0 else axis
    if not 0 <= found <= (rank - 1 if most is None else most):
        node.fail(f"axis {axis} for {rank} dimensions")
    return found


# ---------------------------------------------------------------------------------------------------- elementwise


def _unary(function: Callable[..., Tensor]) -> Callable[[Node, Graph], None]:
    def build(node: Node, graph: Graph) -> None:
        node.finish(1)
        graph.add(node, function, graph.operand(node, 0))

    return build


def _binary(function: Callable[..., Tensor]) -> Callable[[Node, Graph], None]:
    def build(node: Node, graph: Graph) -> None:
        node.finish(2)
        rank = max(graph.rank(node, 0), graph.rank(node, 1))
        graph.add(node, function, graph.operand(node, 0), graph.operand(node, 1), rank=rank)

    return build


def _leaky_relu(node: Node, graph: Graph) -> None:
    slope = node.take("alpha", "float", 0.01)
    node.finish(1)
    graph.add(node, partial(F.leaky_relu, negative_slope=slope), graph.operand(node, 0))


def _elu(node: Node, graph: Graph) -> None:
    alpha = node.take("alpha", "float", 1.0)
    node.finish(1)
    graph.add(node, partial(F.elu, alpha=alpha), graph.operand(node, 0))


def _prelu(node: Node, graph: Graph) -> None:
    node.finish(2)
    slope = graph.constant(node, 1, "f")
    if slope.size != 1 and (slope.ndim != graph.rank(node, 0) - 1 or slope.size != slope.shape[0]):
        node.fail(f"slopes of shape {slope.shape} are not supported, only one or one for each channel")
    graph.add(node, _prelu_of, graph.operand(node, 0), graph.operand(node, 1))


def _prelu_of(x: Tensor, slope: Tensor) -> Tensor:
    return F.prelu(x, F.reshape(slope, (-1,)))


def _hard_sigmoid(node: Node, graph: Graph) -> None:
    alpha, beta = node.take("alpha", "float", 0.2), node.take("beta", "float", 0.5)
    node.finish(1)
    usual = math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5
    run = F.hardsigmoid if usual else partial(_ramp, alpha=alpha, beta=beta)
    graph.add(node, run, graph.operand(node, 0))


def _ramp(x: Tensor, alpha: float, beta: float) -> Tensor:
    return F.clamp(F.add(F.mul(x, alpha), beta), 0.0, 1.0)


def _gelu(node: Node, graph: Graph) -> None:
    approximate = node.only("approximate", "str", "none", "tanh")
    node.finish(1)
    graph.add(node, partial(F.gelu, approximate=approximate), graph.operand(node, 0))


def _clip(node: Node, graph: Graph) -> None:
    low: float | None
    high: float | None
    if node.opset < 11:
        low, high = node.take("min", "float", -_LARGEST), node.take("max", "float", _LARGEST)
        node.finish(1)
        low, high = (None if low == -_LARGEST else low), (None if high == _LARGEST else high)
    else:
        node.finish(1, 3)
        low, high = (graph.number(node, i) if node.has(i) else None for i in (1, 2))
    run: Callable[..., Tensor] = partial(F.clamp, min=low, max=high)
    if (low, high) == (0, 6):
        run = F.relu6
    elif (low, high) == (None, None):
        run = _same
    graph.add(node, run, graph.operand(node, 0))


def _same(x: Tensor) -> Tensor:
    return x


def _softmax(node: Node, graph: Graph) -> None:
    rank = graph.rank(node, 0)
    axis = _axis(node, node.take("axis", "int", -1 if node.opset >= 13 else 1), rank)
    node.finish(1)
    function = F.softmax if node.kind == "Softmax" else F.log_softmax
    run: Callable[..., Tensor] = partial(function, dim=axis)
    if node.opset < 13 and axis < rank - 1:  # over all axes from this one on
        run = partial(_softmax_from, function=function, axis=axis)
    graph.add(node, run, graph.operand(node, 0))


def _softmax_from(x: Tensor, function: Callable[..., Tensor], axis: int) -> Tensor:
    return F.reshape(function(F.flatten(x, axis), axis), x.shape)


def _lrn(node: Node, graph: Graph) -> None:
    size, alpha = node.take("size", "int"), node.take("alpha", "float", 1e-4)
    beta, bias = node.take("beta", "float", 0.75), node.take("bias", "float", 1.0)
    node.finish(1)
    if size < 1 or size % 2 == 0:
        node.fail(f"size={size} is not supported, only odd numbers")
    graph.add(node, partial(F.local_response_norm, size=size, alpha=alpha, beta=beta, k=bias), graph.operand(node, 0))


def _cast(node: Node, graph: Graph) -> None:
    wanted = node.take("to", "int")
    node.only("saturate", "int", 1)
    node.take("round_mode", "str", "up")  # of types that are refused
    node.finish(1)
    if wanted not in (1, 11):
        node.fail(f"to={wanted} is not supported, only float and double")
    graph.add(node, partial(F.to_dtype, dtype=np.float32 if wanted == 1 else np.float64), graph.operand(node, 0))


# ---------------------------------------------------------------------------------------------------- shape


def _axes_of(node: Node, graph: Graph, since: int, default: Any) -> Any:
    """Return the integers of the attribute axes, which is an input from one version on."""
    if node.opset < since:
        axes = node.take("axes", "ints", default)
        node.finish(1)
        return axes
    node.finish(1, 2)
    return graph.integers(node, 1) if node.has(1) else default


def _squeeze(node: Node, graph: Graph) -> None:
    rank, axes = graph.rank(node, 0), _axes_of(node, graph, 13, None)
    if axes is None:
        node.fail("without axes is not supported")
    found = tuple(sorted(_axis(node, axis, rank) for axis in axes))
    graph.add(node, partial(_squeezed, axes=found), graph.operand(node, 0), rank=rank - len(set(found)))


def _squeezed(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"the axes {axes} of shape {x.shape} can't be removed: their sizes must be 1")
    return F.squeeze(x, axes)


def _unsqueeze(node: Node, graph: Graph) -> None:
    axes = _axes_of(node, graph, 13, None)
    if axes is None:
        node.fail("without axes is not supported")
    rank = graph.rank(node, 0) + len(axes)
    found = tuple(sorted(_axis(node, axis, rank) for axis in axes))
    if len(set(found)) < len(found) or rank > 32:
        node.fail(f"axes={tuple(axes)!r} for {rank} dimensions")
    graph.add(node, partial(_unsqueezed, axes=found), graph.operand(node, 0), rank=rank)


def _unsqueezed(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = F.unsqueeze(x, axis)
    return x


def _reduce_mean(node: Node, graph: Graph) -> None:
    keep = bool(node.only("keepdims", "int", 1, 0))
    nothing = bool(node.only("noop_with_empty_axes", "int", 0, 1))
    rank, axes = graph.rank(node, 0), _axes_of(node, graph, 18, ())
    found = tuple(_axis(node, axis, rank) for axis in axes)
    if len(set(found)) < len(found):
        node.fail(f"axes={tuple(axes)!r} name an axis twice")
    run: Callable[..., Tensor] = partial(F.mean, dim=found or tuple(range(rank)), keepdim=keep)
    if not found and nothing:
        run = _same
    gone = 0 if keep or run is _same else len(found) or rank
    graph.add(node, run, graph.operand(node, 0), rank=rank - gone)


def _flatten(node: Node, graph: Graph) -> None:
    rank = graph.rank(node, 0)
    axis = _axis(node, node.take("axis", "int", 1), rank, rank)
    node.finish(1)
    graph.add(node, partial(_flattened, axis=axis), graph.operand(node, 0), rank=2)


def _flattened(x: Tensor, axis: int) -> Tensor:
    return F.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _reshape(node: Node, graph: Graph) -> None:
    as_is = bool(node.only("allowzero", "int", 0, 1))
    node.finish(2)
    shape = graph.integers(node, 1)
    if len(shape) > 32 or any(size < -1 for size in shape) or shape.count(-1) > 1:
        node.fail(f"shape {shape} makes no sense")
    graph.add(node, partial(_reshaped, shape=shape, as_is=as_is), graph.operand(node, 0), rank=len(shape))


def _reshaped(x: Tensor, shape: tuple[int, ...], as_is: bool) -> Tensor:
    if not as_is:
        if any(size == 0 for size in shape[x.ndim :]):
            raise ValueError(f"shape {shape} copies sizes that input of shape {x.shape} lacks")
        shape = tuple(x.shape[i] if size == 0 else size for i, size in enumerate(shape))
    return F.reshape(x, shape)


def _transpose(node: Node, graph: Graph) -> None:
    rank = graph.rank(node, 0)
    order = node.take("perm", "ints", tuple(reversed(range(rank))))
    node.finish(1)
    if sorted(order) != list(range(rank)):
        node.fail(f"perm={order!r} for {rank} dimensions")
    graph.add(node, partial(F.permute, dims=order), graph.operand(node, 0))


def _concat(node: Node, graph: Graph) -> None:
    axis = _axis(node, node.take("axis", "int"), graph.rank(node, 0))
    node.finish(1, 1 << 20)
    graph.add(node, partial(_joined, axis=axis), *(graph.operand(node, i) for i in range(len(node.inputs))))


def _joined(*parts: Tensor, axis: int) -> Tensor:
    return F.cat(parts, axis)


def _slice(node: Node, graph: Graph) -> None:
    rank = graph.rank(node, 0)
    if node.opset < 10:
        starts, ends = node.take("starts", "ints"), node.take("ends", "ints")
        axes, steps = node.take("axes", "ints", tuple(range(len(starts)))), (1,) * len(starts)
        node.finish(1)
    else:
        node.finish(3, 5)
        starts, ends = graph.integers(node, 1), graph.integers(node, 2)
        axes = graph.integers(node, 3) if node.has(3) else tuple(range(len(starts)))
        steps = graph.integers(node, 4) if node.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        node.fail("starts, ends, axes and steps are not as many")
    index = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps):
        if step < 1:
            node.fail(f"a step of {step} is not supported, only positive ones")
        index[_axis(node, axis, rank)] = slice(start, end, step)
    graph.add(node, partial(F.getitem, index=tuple(index)), graph.operand(node, 0))


def _split(node: Node, graph: Graph) -> None:
    axis, parts = _axis(node, node.take("axis", "int", 0), graph.rank(node, 0)), len(node.outputs)
    sizes: Sequence[int] | None
    if node.opset < 13:
        sizes = node.take("split", "ints", None)
        node.finish(1)
    else:
        if node.take("num_outputs", "int", parts) != parts:
            node.fail(f"num_outputs and the {parts} outputs differ")
        node.finish(1, 2)
        sizes = graph.integers(node, 1) if node.has(1) else None
    if sizes is not None and (len(sizes) != parts or min(sizes) < 0):
        node.fail(f"sizes {tuple(sizes)} for {parts} outputs")
    graph.add(node, partial(_parts, sizes=sizes, count=parts, axis=axis), graph.operand(node, 0))


def _parts(x: Tensor, sizes: Sequence[int] | None, count: int, axis: int) -> Any:
    if sizes is None:  # the last one may be smaller
        each = -(-x.shape[axis] // count)
        sizes = [max(0, min(each, x.shape[axis] - i * each)) for i in range(count)]
    parts = F.split(x, list(sizes), axis)
    return parts[0] if count == 1 else parts


# ---------------------------------------------------------------------------------------------------- constants


def _identity(node: Node, graph: Graph) -> None:
    node.finish(1)
    if graph.is_constant(node, 0):
        _name(node, graph)
        graph.alias(node.outputs[0], node.inputs[0])
    else:
        graph.add(node, _same, graph.operand(node, 0))


def _constant(node: Node, graph: Graph) -> None:
    kinds = {
        "value_float": ("float", np.float32), "value_floats": ("floats", np.float32),
        "value_int": ("int", np.int64), "value_ints": ("ints", np.int64),
    }  # fmt: skip
    tensor = node.take("value", "tensor", None)
    found = [] if tensor is None else [graph.tensors.array(tensor, node.label)]
    for name, (kind, dtype) in kinds.items():
        value = node.take(name, kind, None)
        found += [] if value is None else [np.array(value, dtype)]
    node.finish(0)
    if len(found) != 1:
        node.fail(f"holds {len(found)} values, expected one")
    _name(node, graph)
    graph.constants[node.outputs[0]] = found[0]


def _name(node: Node, graph: Graph) -> None:
    (name,) = node.outputs if len(node.outputs) == 1 else ("",)
    if not name or name in graph.constants or name in graph.ranks:
        node.fail(f"its outputs {node.outputs} have no name of their own")


OPERATORS: dict[str, Callable[[Node, Graph], None]] = {
    "Abs": _unary(F.abs), "Add": _binary(F.add), "Cast": _cast, "Clip": _clip, "Concat": _concat,
    "Constant": _constant, "Div": _binary(F.div), "Elu": _elu, "Exp": _unary(F.exp), "Flatten": _flatten,
    "Gelu": _gelu, "HardSigmoid": _hard_sigmoid, "HardSwish": _unary(F.hardswish), "Identity": _identity,
    "LRN": _lrn, "LeakyRelu": _leaky_relu, "Log": _unary(F.log), "LogSoftmax": _softmax,
    "MatMul": _binary(F.matmul), "Mish": _unary(F.mish), "Mul": _binary(F.mul), "Neg": _unary(F.neg),
    "PRelu": _prelu, "ReduceMean": _reduce_mean, "Relu": _unary(F.relu), "Reshape": _reshape,
    "Sigmoid": _unary(F.sigmoid), "Slice": _slice, "Softmax": _softmax, "Softplus": _unary(F.softplus),
    "Split": _split, "Sqrt": _unary(F.sqrt), "Squeeze": _squeeze, "Sub": _binary(F.sub), "Tanh": _unary(F.tanh),
    "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
