"""How arguments are drawn that make sense, and definitions in NumPy that no reference kernel has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet import ops
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call

Drawing = Callable[[Draw], Call]

# ------------------------------------------------------------------------------------------------ element by element


def some(d: Draw, shape: tuple[int, ...], ints: float = 0.1) -> np.ndarray:
    """Return floats, or now and then integers or booleans."""
    if d.chance(ints):
        dtype = d.pick("bool", "uint8", "int8", "int32", "int64")
        return d.integers(shape, 0, 1, dtype) if dtype == "bool" else d.integers(shape, 0, 9, dtype)
    return d.floats(shape)


def one(d: Draw) -> Call:
    """An array of floats."""
    return (d.floats(d.shape()),), {}


def any_one(d: Draw) -> Call:
    """An array of floats, integers or booleans."""
    return (some(d, d.shape(0, 5), 0.3),), {}


def numbers(d: Draw) -> Call:
    """An array of floats or integers, not booleans: NumPy negates none."""
    shape = d.shape()
    return (d.integers(shape, 0, 9, d.pick("int8", "int64")) if d.chance(0.1) else d.floats(shape),), {}


def by_numpy(name: str, floating: bool) -> Callable[[Any], Any]:
    """Return a function of NumPy; `floating`: in float64 also for integers."""
    function = getattr(np, name)
    return lambda input: function(np.asarray(input, np.float64) if floating else np.asarray(input))


def broadcast(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts to another."""
    kept = tuple(1 if d.chance(0.25) else n for n in shape)
    return kept[d.integer(0, len(kept)) if d.chance(0.3) else 0 :]


def two(d: Draw) -> Call:
    """Two floats that broadcast, one of them a number now and then."""
    shape = d.shape()
    a, b = d.floats(shape), d.floats(broadcast(d, shape))
    if d.chance(0.15):
        b = d.pick(0.0, -1.5, 3.0, 2)
    return (b, a) if d.chance(0.5) else (a, b), {}


def tensor_numbers(d: Draw) -> Call:
    """An array of floats or signed integers."""
    shape = d.shape()
    return (d.integers(shape, 1, 9, d.pick("int32", "int64")) if d.chance(0.1) else d.floats(shape),), {}


def two_tensors(d: Draw) -> Call:
    """Two arrays that broadcast, the second a number now and then."""
    shape = d.shape()
    a, b = d.floats(shape), d.floats(broadcast(d, shape))
    if d.chance(0.15):
        return (a, d.pick(0.0, -1.5, 3.0, 2)), {}
    return (b, a) if d.chance(0.5) else (a, b), {}


def two_reversed(d: Draw) -> Call:
    """A number and an array."""
    return (d.pick(-1.5, 3.0, 2, 0.5), d.floats(d.shape(), 0.1, 3)), {}


def two_matrices(d: Draw) -> Call:
    """Two operands of a matrix product."""
    return matmul(d)


def powers(d: Draw) -> Call:
    """Bases and exponents."""
    shape = d.shape()
    base = d.floats(shape, 0.1, 4) if d.chance(0.7) else d.floats(shape)
    exponent = d.pick(2, 3, 0.5, -1, 0, 1) if d.chance(0.5) else d.floats(broadcast(d, shape), -3, 3)
    return (base, exponent), {}


def clamp(d: Draw) -> Call:
    """An array and bounds."""
    low, high = d.pick(None, -1.0, 0, 2.5), d.pick(0.5, 1, None, -2.0)
    return (d.floats(d.shape()), 0.0 if low is None and high is None else low, high), {}


def clamped(x: Any, low: Any = None, high: Any = None) -> Any:
    """min(max(x, low), high)."""
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def where(d: Draw) -> Call:
    """A condition and two operands."""
    shape = d.shape()
    condition = d.integers(broadcast(d, shape), 0, 1, bool)
    return (condition, d.floats(shape), d.floats(broadcast(d, shape))), {}


def slope(d: Draw) -> Call:
    """An array and a slope."""
    return (d.floats(d.shape()), d.pick(0.01, 0.0, 0.3, -0.5, 1, 2.0)), {}


def gelu(d: Draw) -> Call:
    """An array and the name of an approximation."""
    return (d.floats(d.shape()), d.pick("none", "tanh")), {}


def with_shape_of(draw: Drawing) -> Drawing:
    """Return a draw of a gradient of the first array's shape, and what the other one draws."""

    def drawn(d: Draw) -> Call:
        (x, *rest), kwargs = draw(d)
        return (d.floats(x.shape), x, *rest), kwargs

    return drawn


# Names of functions, with the number of their operands and of their parameters.
POINTWISE = {
    "hardtanh": (1, (-1.0, 1.0)), "elu": (1, (1.0,)), "hardsigmoid": (1, ()), "hardswish": (1, ()),
    "softplus": (1, (1.0, 20.0)), "mish": (1, ()), "hardtanh_backward": (2, (-1.0, 1.0)), "elu_backward": (2, (0.5,)),
    "hardswish_backward": (2, ()), "softplus_backward": (2, (2.0, 20.0)), "mish_backward": (2, ()),
}  # fmt: skip


def pointwise(d: Draw) -> Call:
    """A function's name, its operands and its parameters."""
    name = d.pick(*POINTWISE)
    count, parameters = POINTWISE[name]
    shape = d.shape()
    return (name, tuple(d.floats(shape) for _ in range(count)), *parameters), {}


def pointwise_sum(d: Draw) -> Call:
    """The same for a sum; functions of one operand."""
    name = d.pick("hardtanh", "elu", "hardsigmoid", "softplus", "mish")
    return (name, (d.floats(d.shape()),), *POINTWISE[name][1]), {"mean": d.chance(0.5)}


def dropout(d: Draw) -> Call:
    """An array, a probability, and a draw; the order is given, or it would be that of the memory."""
    shape = d.shape()
    x, order = d.floats(shape), tuple(d.random.sample(range(len(shape)), len(shape)))
    return (x, d.pick(0.0, 0.3, 0.5, 1.0), (d.integer(0, 9), d.integer(0, 9)), order), {}


# ------------------------------------------------------------------------------------------------ reductions


def reduction(d: Draw) -> Call:
    """An array, dimensions, and whether they are kept."""
    x = some(d, d.shape(0, 5))
    return (x, d.dims(x.ndim), d.chance(0.5)), {}


def float_reduction(d: Draw) -> Call:
    """The same for floats."""
    x = d.floats(d.shape(0, 5))
    return (x, d.dims(x.ndim), d.chance(0.5)), {}


def axes(x: Any, dim: Any) -> Any:
    """Return what NumPy takes for a dimension of ours."""
    if dim is None or np.ndim(x) == 0:
        return None
    if isinstance(dim, (tuple, list)):
        return tuple(dim) or None
    return dim


def summed(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The sum; of integers and booleans an int64."""
    x = np.asarray(x)
    return np.sum(x, axes(x, dim), keepdims=bool(keepdim), dtype=None if x.dtype.kind == "f" else np.int64)


def averaged(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The mean."""
    return np.mean(np.asarray(x), axes(x, dim), keepdims=bool(keepdim))


def extremum(d: Draw) -> Call:
    """An array and a dimension of at least one element."""
    x = d.floats(d.shape(1, 4, empty=0))
    return (x, d.dim(x.ndim), d.chance(0.5), d.chance(0.5)), {}


def along(d: Draw) -> Call:
    """An array and a dimension."""
    x = d.floats(d.shape(1, 4))
    return (x, d.dim(x.ndim)), {}


def vector_norm(d: Draw) -> Call:
    """An array and an order."""
    return (d.floats(d.shape()), d.pick(2, 1, 3, 0, math.inf, -math.inf, 2.5)), {}


def norm(x: Any, ord: Any = 2) -> float:
    """The norm of all elements."""
    x = np.abs(np.asarray(x, np.float64)).ravel()
    if ord == 0:
        return float((x != 0).sum())
    if math.isinf(ord):
        return float(x.max(initial=0) if ord > 0 else x.min(initial=math.inf))
    return float((x**ord).sum() ** (1 / ord)) if x.size else (0.0 if ord > 0 else math.inf)


def vector_norms(d: Draw) -> Call:
    """Several arrays and an order."""
    return ([d.floats(d.shape(empty=0)) for _ in range(d.integer(1, 3))], d.pick(2, 1, 3, 0, math.inf)), {}


def norms(arrays: Any, ord: Any = 2) -> np.ndarray:
    """The norms of several arrays."""
    return np.array([norm(x, ord) for x in arrays])


# ------------------------------------------------------------------------------------------------ shapes


def reshape(d: Draw) -> Call:
    """An array and a shape of as many elements."""
    x = some(d, d.shape(0, 5), 0.3)
    sizes, left = [], x.size
    while left > 1:
        part = d.pick(*[n for n in range(1, left + 1) if left % n == 0][:6], left)
        sizes.append(part)
        left //= part
    if not x.size:
        return (x, (0, d.integer(0, 3))), {}
    if sizes and d.chance(0.4):
        sizes[d.integer(0, len(sizes) - 1)] = -1
    return (x, d.pick(tuple, list)(sizes)), {}


def to_dtype(d: Draw) -> Call:
    """Small numbers and a dtype that holds them."""
    x = d.floats(d.shape(), 0, 100) if d.chance(0.7) else d.integers(d.shape(), 0, 100, d.pick("uint8", "int64"))
    return (x, d.pick("float32", "float64", "int64", "int32", "uint8", np.float32, np.dtype("float64"))), {}


def converted(x: Any, dtype: Any = None) -> Any:
    """astype; what was float32 has been made float64 here, and of a float dtype is only the kind compared."""
    return np.asarray(x).astype(np.asarray(x).dtype if dtype is None else dtype)


def cat(d: Draw) -> Call:
    """Arrays that fit, and a dimension."""
    shape = list(d.shape(1, 4))
    axis = d.integer(0, len(shape) - 1)
    parts = []
    for _ in range(d.integer(1, 4)):
        shape[axis] = d.size(0)
        parts.append(d.floats(shape))
    return (d.pick(tuple, list)(parts), axis - d.pick(0, len(shape))), {}


def joined(arrays: Any, dim: int = 0) -> Any:
    """concatenate; arrays of shape (0,) do not count."""
    kept = [a for a in arrays if np.shape(a) != (0,)] or [arrays[0]]
    return np.concatenate(kept, dim)


def pad(d: Draw) -> Call:
    """An array, widths, a mode and a value."""
    if d.chance(0.5):
        x = d.floats(d.shape(1, 4))
        widths = [d.integer(-min(x.shape[-1 - i // 2] // 2, 2), 3) for i in range(2 * d.integer(0, x.ndim))]
        return (x, d.pick(tuple, list)(widths), "constant", d.pick(None, 0.0, 1.5, -2)), {}
    ndim = d.integer(2, 4)
    shape = (*(d.integer(1, 3) for _ in range(ndim - 2)), *(d.integer(4, 9) for _ in range(2)))
    count = {2: 1, 3: d.pick(1, 2), 4: 2}[ndim]
    widths = [d.integer(0, 3) for _ in range(2 * count)]
    return (d.floats(shape), tuple(widths), d.pick("reflect", "replicate", "circular")), {}


def padded(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """numpy.pad, and slices for what is taken away."""
    x, pairs = np.asarray(x), [(0, 0)] * np.ndim(x)
    for i in range(len(pad) // 2):
        pairs[-1 - i] = pad[2 * i], pad[2 * i + 1]
    x = x[tuple(slice(-min(a, 0), n + min(b, 0)) for n, (a, b) in zip(x.shape, pairs))]
    name = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    more = {"constant_values": value or 0} if mode == "constant" else {}
    return x if not pairs else np.pad(x, [(max(a, 0), max(b, 0)) for a, b in pairs], name, **more)


def pad_backward(d: Draw) -> Call:
    """The same without a value."""
    (x, *rest), kwargs = pad(d)
    return (x, *rest[:2]), kwargs


def channel_shuffle(d: Draw) -> Call:
    """Images whose channels a number of groups divides."""
    groups = d.integer(1, 4)
    n, c, h, w = d.integer(0, 2), groups * d.integer(1, 5), d.integer(1, 5), d.integer(1, 5)
    return (d.floats((n, c, h, w)), groups), {}


def shuffled(x: Any, groups: int) -> Any:
    """Channel j of group i becomes channel i of group j."""
    n, c, *rest = x.shape
    return x.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)


def by_array(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of an array, or of what NumPy makes an array of."""
    return lambda x, *rest: function(np.asarray(x), *rest)


def pixel_shuffle(d: Draw) -> Call:
    """Images and a factor."""
    r = d.integer(1, 3)
    lead = tuple(d.integer(1, 2) for _ in range(d.integer(0, 2)))
    return (d.floats((*lead, r * r * d.integer(1, 3), d.integer(1, 5), d.integer(1, 5))), r), {}


def pixels_shuffled(x: Any, r: int) -> Any:
    """Depth to space."""
    *lead, c, h, w = x.shape
    y = x.reshape(*lead, c // r**2, r, r, h, w)
    k = len(lead)
    return y.transpose(*range(k), k, k + 3, k + 1, k + 4, k + 2).reshape(*lead, c // r**2, h * r, w * r)


def pixel_unshuffle(d: Draw) -> Call:
    """Images and a factor."""
    r = d.integer(1, 3)
    lead = tuple(d.integer(1, 2) for _ in range(d.integer(0, 2)))
    return (d.floats((*lead, d.integer(1, 3), r * d.integer(1, 4), r * d.integer(1, 4))), r), {}


def pixels_unshuffled(x: Any, r: int) -> Any:
    """Space to depth."""
    *lead, c, h, w = x.shape
    y = x.reshape(*lead, c, h // r, r, w // r, r)
    k = len(lead)
    return y.transpose(*range(k), k, k + 2, k + 4, k + 1, k + 3).reshape(*lead, c * r**2, h // r, w // r)


def unfold(d: Draw) -> Call:
    """Images and windows."""
    return (d.floats(d.images(d.integer(1, 4), least=5)), d.pair(1, 3), d.pair(1, 2), d.pair(0, 1), d.pair(1, 3)), {}


def fold(d: Draw) -> Call:
    """Columns and the windows that they come from."""
    size, kernel, dilation, padding, stride = d.integer(5, 8), d.integer(1, 3), 1, d.integer(0, 1), d.integer(1, 2)
    places = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    x = d.floats((d.integer(1, 2), d.integer(1, 3) * kernel**2, places**2))
    return (x, size, kernel, dilation, padding, stride), {}


def interpolate(d: Draw) -> Call:
    """Images, a size or a factor, and a mode."""
    size = {"size": d.pair(1, 9)} if d.chance(0.5) else {"scale_factor": d.pick(2, 0.5, 1.7, (2.0, 3.0), 1)}
    mode = d.pick("nearest", "nearest-exact", "bilinear")
    more = {"align_corners": d.pick(True, False, None), "antialias": d.pick(True, False)} if mode == "bilinear" else {}
    n, c, h, w = d.integer(1, 2), d.size(), d.integer(2, 8), d.integer(2, 8)
    return (d.floats((n, c, h, w)),), {**size, "mode": mode, **more}


# ------------------------------------------------------------------------------------------------ convolutions


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
    a = (k,) if d.chance(0.15) else (*broadcast(d, lead), m, k)
    b = (k,) if d.chance(0.15) else (*broadcast(d, lead), k, n)
    return (d.floats(a), d.floats(b)), {}


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


# ------------------------------------------------------------------------------------------------ pools


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


# ------------------------------------------------------------------------------------------------ normalisations


def batch(d: Draw, least: int = 2) -> tuple[int, ...]:
    """Return a shape (N, C, ...) with at least so many values a channel."""
    c = d.size()
    return d.pick((d.integer(least, 5), c), (2, c, d.size()), (d.integer(1, 3), c, 4, 5), (2, c, 2, 2, 3))


def batch_norm(d: Draw) -> Call:
    """Everything that batch norm takes."""
    shape = batch(d)
    c, training = shape[1], d.chance(0.6)
    running = not training or d.chance(0.5)
    mean, var = (d.floats((c,), -1, 1), d.floats((c,), 0.5, 2)) if running else (None, None)
    weight, bias = d.optional(lambda: d.floats((c,), 0.5, 2)), d.optional(lambda: d.floats((c,), -1, 1))
    return (d.floats(shape), mean, var, weight, bias, training, d.pick(0.1, 0.0, 1.0), d.pick(1e-5, 1e-3)), {}


def batch_norm_tensors(d: Draw) -> Call:
    """Everything that batch norm takes, but what it changes."""
    (x, mean, var, weight, bias, training, momentum, eps), _ = batch_norm(d)
    return (x, *((None, None) if training else (mean, var)), weight, bias, training, momentum, eps), {}


def batch_norm_apply(d: Draw) -> Call:
    """x, coefficients, activation, residual."""
    shape = batch(d)
    residual = d.floats(shape) if d.chance(0.4) else None
    return (d.floats(shape), d.floats((3, shape[1])), d.pick(None, "relu"), residual), {}


def batch_norm_backward(d: Draw) -> Call:
    """grad, x, weight, mean, inverse, training."""
    shape = batch(d)
    c = (shape[1],)
    weight = d.optional(lambda: d.floats(c, 0.5, 2))
    return (
        d.floats(shape), d.floats(shape), weight, d.floats(c, -1, 1), d.floats(c, 0.5, 2), d.chance(0.5)
    ), {}  # fmt: skip


def group_norm(d: Draw) -> Call:
    """x, number of groups, weight, bias."""
    groups = d.integer(1, 4)
    c = groups * d.pick(1, 2, 3, 8, 11)
    shape = d.pick((2, c, 3), (d.integer(0, 3), c, 3, 4), (3, c, 2, 2, 2), (1, c, 17))
    weight, bias = d.optional(lambda: d.floats((c,), 0.5, 2)), d.optional(lambda: d.floats((c,), -1, 1))
    return (d.floats(shape), groups, weight, bias, d.pick(1e-5, 1e-3)), {}


def group_norm_backward(d: Draw) -> Call:
    """grad, x, number of groups, weight, mean, inverse."""
    (x, groups, weight, *_), _ = group_norm(d)
    statistics = (len(x), groups)
    return (
        d.floats(x.shape), x, groups, weight, d.floats(statistics, -1, 1), d.floats(statistics, 0.5, 2)
    ), {}  # fmt: skip


def layer_norm(d: Draw) -> Call:
    """x, the shape that is normalised, weight, bias."""
    shape = d.shape(1, 4)
    over = shape[d.integer(0, len(shape) - 1) :]
    weight, bias = d.optional(lambda: d.floats(over, 0.5, 2)), d.optional(lambda: d.floats(over, -1, 1))
    wanted = over[0] if len(over) == 1 and d.chance(0.5) else d.pick(tuple, list)(over)
    return (d.floats(shape), wanted, weight, bias, d.pick(1e-5, 1e-3)), {}


def layer_norm_backward(d: Draw) -> Call:
    """grad, x, the shape that is normalised, weight, mean, inverse."""
    (x, over, weight, *_), _ = layer_norm(d)
    rows = math.prod(x.shape[: x.ndim - (1 if isinstance(over, int) else len(over))])
    return (
        d.floats(x.shape), x, over, weight, d.floats((rows, 1), -1, 1), d.floats((rows, 1), 0.5, 2)
    ), {}  # fmt: skip


def response(d: Draw) -> Call:
    """x, size, alpha, beta, k."""
    shape = d.pick((d.integer(0, 2), d.size(), 4), d.images())
    return (d.floats(shape), d.integer(1, 7), d.pick(1e-4, 0.5), d.pick(0.75, 0.5), d.pick(1.0, 2.0)), {}


# ------------------------------------------------------------------------------------------------ losses


def _scores(d: Draw) -> tuple[int, ...]:
    c = d.size()
    return d.pick((d.integer(0, 9), c), (c,), (2, c, 3), (2, c, 2, 3))


def _labels(d: Draw, shape: tuple[int, ...], ignore: int) -> np.ndarray:
    rest = () if len(shape) == 1 else (shape[0], *shape[2:])
    labels = d.integers(rest, 0, (shape[0] if len(shape) == 1 else shape[1]) - 1)
    return np.where(d.numbers.random(rest) < 0.1, ignore, labels)


def cross_entropy(d: Draw) -> Call:
    """Scores, labels, weight of classes, the label that is ignored, reduction, smoothing."""
    shape, ignore = _scores(d), d.pick(-100, 0, -1)
    classes = shape[0] if len(shape) == 1 else shape[1]
    weight = d.optional(lambda: d.floats((classes,), 0.5, 2))
    return (
        d.floats(shape), _labels(d, shape, ignore), weight, ignore, d.pick("mean", "sum", "none"), d.pick(0.0, 0.1)
    ), {}  # fmt: skip


def cross_entropy_probabilities(d: Draw) -> Call:
    """Scores and probabilities."""
    shape = _scores(d)
    return (d.floats(shape), d.floats(shape, 0, 1), None, -100, d.pick("mean", "sum", "none"), d.pick(0.0, 0.1)), {}


def nll_loss(d: Draw) -> Call:
    """The same without smoothing."""
    args, _ = cross_entropy(d)
    return args[:5], {}


def mse_loss(d: Draw) -> Call:
    """Two arrays of a shape and a reduction."""
    shape = d.shape()
    return (d.floats(shape), d.floats(shape), d.pick("mean", "sum", "none")), {}


def first_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that gives its first result only."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)[0]

    run.about = function  # type: ignore[attr-defined]
    return run


# ------------------------------------------------------------------------------------------------ updates


def _sgd(d: Draw) -> dict[str, Any]:
    return {
        "lr": d.pick(0.1, 0.0, 1.0), "momentum": d.pick(0.9, 0.0), "weight_decay": d.pick(0.0, 0.1),
        "nesterov": d.chance(0.3), "maximize": d.chance(0.3), "first": d.chance(0.3), "dampening": d.pick(0.0, 0.5),
    }  # fmt: skip


def _adam(d: Draw) -> dict[str, Any]:
    return {
        "step": d.integer(1, 100), "lr": 0.01, "betas": d.pick((0.9, 0.999), (0.5, 0.5)),
        "weight_decay": d.pick(0.0, 0.1), "decoupled_weight_decay": d.chance(0.5), "maximize": d.chance(0.3),
    }  # fmt: skip


def _rmsprop(d: Draw) -> dict[str, Any]:
    return {"lr": 0.01, "alpha": 0.9, "weight_decay": d.pick(0.0, 0.1), "momentum": d.pick(0.9, 0.0)}


def _adagrad(d: Draw) -> dict[str, Any]:
    return {"lr": 0.01, "weight_decay": d.pick(0.0, 0.1), "maximize": d.chance(0.3)}


def _adadelta(d: Draw) -> dict[str, Any]:
    return {"lr": 0.5, "rho": 0.9, "weight_decay": d.pick(0.0, 0.1)}


STEPS: dict[str, tuple[int, Callable[[Draw], dict[str, Any]]]] = {
    "sgd_step": (1, _sgd), "adam_step": (3, _adam), "rmsprop_step": (3, _rmsprop), "adagrad_step": (1, _adagrad),
    "adadelta_step": (2, _adadelta),
}  # fmt: skip


def step(states: int, options: Callable[[Draw], dict[str, Any]]) -> Drawing:
    """Return a draw of a parameter, its gradient, and state; lists of them now and then."""

    def arrays(d: Draw) -> list[np.ndarray]:
        shape = d.shape()
        first, *others = (d.floats(shape, 0, 0.3) for _ in range(states))  # a mean square, and means below its root
        return [d.floats(shape, -1, 1), d.floats(shape), np.asarray(first + d.dtype.type(0.2)), *others]

    def drawn(d: Draw) -> Call:
        columns: Any = arrays(d)
        if d.chance(0.3):
            columns = list(map(list, zip(*(arrays(d) for _ in range(d.integer(1, 3))))))
        return tuple(columns), options(d)

    return drawn


def scaled(d: Draw) -> Call:
    """An array, or several, and a number."""
    x: Any = d.floats(d.shape(), -1, 1)
    return ([x, d.floats((3,), -1, 1)] if d.chance(0.3) else x, d.pick(0.5, 2.0, 0, -1.0)), {}


def clamped_in_place(d: Draw) -> Call:
    """An array and two bounds."""
    return (d.floats(d.shape(), -1, 1), d.pick(-0.5, 0), d.pick(0.5, 0.1)), {}
