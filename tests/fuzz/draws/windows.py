"""Arguments of convolutions, products of matrices and pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import ops
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call
from tests.fuzz.draws import elements


def conv2d(d: Draw, bias: bool = True) -> tuple[np.ndarray, np.ndarray, Any, tuple[Any, ...]]:
    """Return x, weight, bias, and (stride, padding, dilation, groups)."""
    kind = d.pick("free", "free", "3x3", "pointwise", "depthwise")
    groups = d.pick(1, 1, 1, 2, 3)
    cg, kg = d.size(), d.size()
    r, s = d.integer(1, 4), d.integer(1, 4)
    stride, padding, dilation = d.pair(1, 3), d.pair(0, 3), d.pair(1, 2)
    if kind == "3x3":
        r = s = 3
        groups, stride, dilation, padding = 1, 1, 1, d.pick(0, 1, 1, 2)
    elif kind == "pointwise":
        r = s = 1
        groups, stride, padding = 1, d.pick(1, 1, 2), 0
    elif kind == "depthwise":
        groups, cg, kg = d.size(), 1, d.pick(1, 1, 2)
    if d.chance(0.1):
        padding = d.pick("valid", "same_upper", ((1, 0), (2, 1)))
    images = d.images(cg * groups, least=7)
    weight = d.floats((kg * groups, cg, r, s))
    vector = d.optional(lambda: d.floats((kg * groups,))) if bias else None
    return d.floats(images), weight, vector, (stride, padding, dilation, groups)


def conv2d_plain(d: Draw) -> Call:
    """x, weight and options."""
    x, weight, _, options = conv2d(d)
    return (x, weight, *options), {}


def conv2d_call(d: Draw) -> Call:
    """x, weight, bias and options."""
    x, weight, bias, options = conv2d(d)
    return (x, weight, bias, *options), {}


def conv2d_shape(x: Any, weight: Any, *options: Any) -> tuple[int, ...]:
    """The shape by the reference's result."""
    return ops.conv2d(x, weight, None, *options).shape


def conv2d_fused(d: Draw) -> Call:
    """The same with a residual and an activation now and then."""
    x, weight, bias, options = conv2d(d)
    shape = conv2d_shape(np.zeros(x.shape), np.zeros(weight.shape), *options)
    residual = d.floats(shape) if d.chance(0.3) else None
    return (x, weight, bias, *options), {"residual": residual, "activation": d.pick(None, None, "relu", "relu6")}


def conv2d_backward_input(d: Draw) -> Call:
    """The gradient of the result, weight, shape of the input, options."""
    x, weight, _, options = conv2d(d)
    shape = conv2d_shape(np.zeros(x.shape), np.zeros(weight.shape), *options)
    return (d.floats(shape), weight, x.shape, *options), {}


def add_conv2d_backward_input(d: Draw) -> Call:
    """What is known of the input's gradient, and the same."""
    (grad, weight, shape, *options), _ = conv2d_backward_input(d)
    return (d.floats(shape), grad, weight, shape, *options), {}


def conv2d_backward_weight(d: Draw) -> Call:
    """x, the gradient of the result, shape of the weight, options."""
    x, weight, _, options = conv2d(d)
    shape = conv2d_shape(np.zeros(x.shape), np.zeros(weight.shape), *options)
    return (x, d.floats(shape), weight.shape, *options), {}


def prepared_conv2d(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    """conv2d with a prepared weight."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be an array, got {x!r}")
    prepared = ops.prepare_conv2d(weight, x.shape, stride, padding, dilation, groups)
    return ops.conv2d(x, prepared, bias, stride, padding, dilation, groups)


def conv_transpose2d(d: Draw, bias: bool = True) -> Call:
    """x, weight, bias and options."""
    groups, cg, kg = d.pick(1, 1, 2, 3), d.size(), d.pick(1, 2, 3, 5, 9)
    stride = d.integer(1, 3)
    r, s, padding, output_padding = d.integer(1, 4), d.integer(1, 4), d.pair(0, 1), d.integer(0, stride - 1)
    x = d.floats(d.images(cg * groups, least=3))
    vector = d.optional(lambda: d.floats((kg * groups,))) if bias else None
    return (x, d.floats((cg * groups, kg, r, s)), vector, stride, padding, output_padding, groups, 1), {}


def conv_transpose2d_backward(d: Draw) -> Call:
    """The gradient of the result, x, weight and options."""
    (x, weight, _, *options), _ = conv_transpose2d(d, False)
    shape = ops.conv_transpose2d(np.zeros(x.shape), np.zeros(weight.shape), None, *options).shape
    return (d.floats(shape), x, weight, *options), {}


def matmul(d: Draw) -> Call:
    """Two operands that fit."""
    m, k, n = d.size(), d.size(), d.size()
    if d.chance(0.05):
        m, k, n = d.pick((0, k, n), (m, 0, n), (m, k, 0))
    lead = tuple(d.integer(1, 3) for _ in range(d.integer(0, 2)))
    a = (k,) if d.chance(0.15) else (*elements.broadcast(d, lead), m, k)
    b = (k,) if d.chance(0.15) else (*elements.broadcast(d, lead), k, n)
    return (d.floats(a), d.floats(b)), {}


def add_matmul(d: Draw) -> Call:
    """What is known of a product, and two matrices that fit."""
    m, k, n = d.size(), d.size(), d.size()
    return (d.floats((m, n)), d.floats((m, k)), d.floats((k, n))), {}


def added(known: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return known + a @ b."""
    return known + a @ b


def linear(d: Draw) -> Call:
    """x, weight, bias."""
    k, n = d.size(), d.size()
    lead = d.shape(0, 3)
    return (d.floats((*lead, k)), d.floats((n, k)), d.optional(lambda: d.floats((n,)))), {}


def linear_fused(d: Draw) -> Call:
    """The same with a residual and an activation now and then."""
    (x, weight, bias), _ = linear(d)
    residual = d.floats((*x.shape[:-1], len(weight))) if d.chance(0.3) else None
    return (x, weight, bias), {"residual": residual, "activation": d.pick(None, None, "relu", "relu6")}


def prepared_linear(x: Any, weight: Any, bias: Any, rows: int) -> Any:
    """Linear with a prepared weight."""
    return ops.linear(x, ops.prepare_linear(weight, rows), bias)


def linear_prepared(d: Draw) -> Call:
    """x, weight, bias and a number of rows."""
    (x, weight, bias), _ = linear(d)
    return (x, weight, bias, d.integer(1, 9)), {}


def max_pool(d: Draw) -> Call:
    """Images and windows."""
    kernel = d.integer(1, 4)
    x = d.floats(d.images(least=7))
    return (x, kernel, d.optional(lambda: d.pair(1, 3)), d.integer(0, kernel // 2), d.pair(1, 2), d.chance(0.3)), {}


def max_pool_gradient(d: Draw) -> Call:
    """A gradient of the result, offsets, shape of the input, options."""
    (x, *options), _ = max_pool(d)
    y, offsets = ops.pool.max_pool2d_offsets(np.nan_to_num(x), *options)
    return (d.floats(y.shape), offsets, x.shape, *options), {}


def avg_pool(d: Draw) -> Call:
    """Images and windows."""
    kernel = d.integer(1, 4)
    more = {"ceil_mode": d.chance(0.3), "count_include_pad": d.chance(0.5), "divisor_override": d.pick(None, None, 3)}
    return (d.floats(d.images(least=5)), kernel, d.optional(lambda: d.pair(1, 3)), d.integer(0, kernel // 2)), more


def adaptive(d: Draw) -> Call:
    """Images and a size."""
    return (d.floats(d.images()), d.pick(1, 2, 3, (2, 3), (None, 2), [1, None], 7)), {}


def adaptive_backward(d: Draw) -> Call:
    """A gradient and the shape of the input."""
    shape = d.images()
    return (d.floats((*shape[:-2], d.integer(1, 4), d.integer(1, 4))), shape), {}


def adaptive_max_backward(d: Draw) -> Call:
    """A gradient, positions and the shape of the input."""
    (x, size), _ = adaptive(d)
    y, positions = ops.adaptive_max_pool2d(np.nan_to_num(x), size)
    return (d.floats(y.shape), positions, x.shape), {}
