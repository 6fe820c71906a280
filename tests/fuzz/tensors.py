"""The table of numbanet.functional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numbanet import functional as F
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Drawing, Line
from tests.fuzz.draws import elements, losses, norms, shapes, windows


def _two_arrays(d: Draw) -> Call:
    """Two arrays that broadcast, and no numbers."""
    shape = d.shape()
    return (d.floats(shape), d.floats(elements.broadcast(d, shape))), {}


def _pair_loss(d: Draw) -> Call:
    """input, target and a reduction."""
    shape = d.shape()
    return (d.floats(shape), d.floats(shape)), {"reduction": d.pick("mean", "sum", "none")}


def _probabilities(d: Draw) -> Call:
    """Probabilities, targets in [0, 1], weights."""
    shape = d.shape()
    weight = d.optional(lambda: d.floats(shape, 0.5, 2))
    return (d.floats(shape, 0.01, 0.99), d.floats(shape, 0, 1)), {
        "weight": weight, "reduction": d.pick("mean", "sum", "none"),
    }  # fmt: skip


def _logits(d: Draw) -> Call:
    """Scores and targets in [0, 1]."""
    shape = d.shape()
    pos_weight = d.optional(lambda: d.floats(shape[-1:], 0.5, 2))
    return (d.floats(shape), d.floats(shape, 0, 1)), {
        "reduction": d.pick("mean", "sum", "none"), "pos_weight": pos_weight,
    }  # fmt: skip


def _kl(d: Draw) -> Call:
    """Logarithms of probabilities, and probabilities."""
    shape, log_target = d.shape(1), d.chance(0.5)
    target = d.floats(shape, -3, 0) if log_target else d.floats(shape, 0, 1)
    return (d.floats(shape, -4, 0), target), {
        "reduction": d.pick("mean", "sum", "none", "batchmean"), "log_target": log_target,
    }  # fmt: skip


def _margin(d: Draw) -> Call:
    """Scores and classes."""
    n, c = d.integer(0, 6), d.size()
    weight = d.optional(lambda: d.floats((c,), 0.5, 2))
    return (d.floats((n, c)), d.integers((n,), 0, c - 1)), {
        "p": d.pick(1, 2), "margin": d.pick(1.0, 0.3), "weight": weight, "reduction": d.pick("mean", "sum", "none"),
    }  # fmt: skip


def _named(draw: Drawing, *names: str) -> Drawing:
    """Return a draw that hands the last arguments by name."""

    def drawn(d: Draw) -> Call:
        args, kwargs = draw(d)
        return args[: -len(names)], {**dict(zip(names, args[-len(names) :])), **kwargs}

    return drawn


def _alpha(draw: Drawing) -> Drawing:
    def drawn(d: Draw) -> Call:
        args, kwargs = draw(d)
        return args, ({**kwargs, "alpha": d.pick(1, 2, -0.5)} if d.chance(0.3) else kwargs)

    return drawn


def _statistic(d: Draw) -> Call:
    """An array, dimensions, unbiased or not, kept or not."""
    x = d.floats(d.shape(0, 4, empty=0))
    return (x, d.dims(x.ndim), d.chance(0.5), d.chance(0.5)), {}


def _deviating(d: Draw) -> Call:
    """The same; squares of tiny numbers are zero in float32."""
    if d.kind in ("tiny", "denormal"):
        d.kind = "normal"
    return _statistic(d)


def _variance(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return np.var(x, elements.axes(x, dim), ddof=int(unbiased), keepdims=bool(keepdim))


def _deviation(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    return np.sqrt(_variance(x, dim, unbiased, keepdim))


def _arg(d: Draw) -> Call:
    """An array with elements, a dimension or None, kept or not."""
    x = elements.some(d, d.shape(0, 4, empty=0))
    x = x.astype("uint8") if x.dtype == bool else x  # as in PyTorch, booleans have no largest
    dim = None if d.chance(0.3) else d.dim(x.ndim)
    return (x, dim, dim is not None and d.chance(0.5)), {}


def _extreme(d: Draw) -> Call:
    """An array with elements, and a dimension and whether it is kept, or nothing."""
    x = d.floats(d.shape(0, 4, empty=0))
    return ((x,) if d.chance(0.3) else (x, d.dim(x.ndim), d.chance(0.5))), {}


def _extremes(d: Draw) -> Call:
    """An array with elements, dimensions, kept or not."""
    x = d.floats(d.shape(0, 4, empty=0))
    dims = d.dims(x.ndim)
    return (x, () if dims is None else dims, d.chance(0.5)), {}


def bits(d: Draw) -> Call:
    """Two arrays of integers or booleans."""
    shape, dtype = d.shape(), d.pick("bool", "uint8", "int32", "int64")
    top = 1 if dtype == "bool" else 100
    return (d.integers(shape, 0, top, dtype), d.integers(elements.broadcast(d, shape), 0, top, dtype)), {}


def _with_signs(function: Any) -> Any:
    """The function of integers of which NumPy finds no common type: uint64 beside signed ones."""

    def answer(*operands: Any) -> Any:
        mixed = {np.asarray(x).dtype.kind for x in operands} == {"i", "u"}
        return function(*(np.asarray(x).astype(np.int64) if mixed else x for x in operands))

    return answer


def _bits_of_one(d: Draw) -> Call:
    (x, _), _ = bits(d)
    return (x,), {}


def _softmax(d: Draw) -> Call:
    (x, dim), _ = elements.along(d)
    return (x,), {"dim": dim}


def _expand(d: Draw) -> Call:
    shape = d.shape()
    x = d.floats(elements.broadcast(d, shape))
    return (x, shape), {}


def expanded(x: Any, *sizes: Any) -> Any:
    """Broadcast; -1 keeps a size."""
    shape = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    old = (1,) * (len(shape) - np.ndim(x)) + np.shape(x)
    return np.broadcast_to(x, [n if size == -1 else size for size, n in zip(shape, old)])


def _flatten(d: Draw) -> Call:
    x = elements.some(d, d.shape(0, 4))
    first, last = sorted((d.integer(0, max(x.ndim - 1, 0)), d.integer(0, max(x.ndim - 1, 0))))
    return (x, first - d.pick(0, max(x.ndim, 1)), last - d.pick(0, max(x.ndim, 1))), {}


def flattened(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Make a run of dimensions one."""
    n = max(np.ndim(x), 1)
    shape = np.shape(x) or (1,)
    a, b = start_dim % n, end_dim % n
    return np.reshape(x, (*shape[:a], int(np.prod(shape[a : b + 1])), *shape[b + 1 :]))


def _permute(d: Draw) -> Call:
    x = elements.some(d, d.shape(0, 5), 0.3)
    order = d.random.sample(range(x.ndim), x.ndim)
    return (x, d.pick(tuple, list)(a if d.chance(0.6) else a - x.ndim for a in order)), {}


def _transpose(d: Draw) -> Call:
    x = elements.some(d, d.shape(1, 5), 0.3)
    return (x, d.dim(x.ndim), d.dim(x.ndim)), {}


def _squeeze(d: Draw) -> Call:
    x = elements.some(d, elements.broadcast(d, d.shape(0, 5)), 0.3)
    dims = d.dims(x.ndim)
    return ((x,) if dims is None else (x, dims)), {}


def squeezed(x: Any, dim: Any = None) -> Any:
    """Drop dimensions of size 1."""
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    if not x.ndim:
        return x
    return np.squeeze(x, tuple({a % x.ndim for a in dims if x.shape[a] == 1}))


def _unsqueeze(d: Draw) -> Call:
    x = elements.some(d, d.shape(0, 4), 0.3)
    return (x, d.integer(-x.ndim - 1, x.ndim)), {}


def _unflatten(d: Draw) -> Call:
    shape = list(d.shape(1, 3, empty=0))
    axis, parts = d.integer(0, len(shape) - 1), (d.integer(1, 3), d.integer(1, 4))
    shape[axis] = parts[0] * parts[1]
    return (d.floats(shape), axis - d.pick(0, len(shape)), d.pick(parts, (-1, parts[1]), list(parts))), {}


def unflattened(x: Any, dim: int, sizes: Any) -> Any:
    """Split a dimension."""
    axis = dim % x.ndim
    known = int(np.prod([n for n in sizes if n != -1]))
    sizes = [x.shape[axis] // known if n == -1 else n for n in sizes]
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def indices(d: Draw) -> Call:
    x = elements.some(d, d.shape(1, 4, empty=0))
    index: list[Any] = []
    for n in x.shape[: d.integer(1, x.ndim)]:
        index.append(d.pick(d.integer(-n, n - 1), slice(None), slice(d.integer(0, n), None, d.integer(1, 3))))
        if d.chance(0.2):
            index.append(None)
    if d.chance(0.2):
        index.append(Ellipsis)
    return (x, index[0] if len(index) == 1 and d.chance(0.5) else tuple(index)), {}


def selected(x: Any, index: Any) -> Any:
    """A view of x of which numbers have selected, and what is left of the index: as PyTorch, before arrays do."""
    entries = index if isinstance(index, tuple) else (index,)
    if not any(isinstance(entry, (tuple, list)) for entry in entries):
        return x, index
    if sum(e is Ellipsis for e in entries) == 1:
        at = next(i for i, e in enumerate(entries) if e is Ellipsis)
        left = np.ndim(x) - sum(e is not None and e is not Ellipsis for e in entries)
        entries = (*entries[:at], *(slice(None),) * left, *entries[at + 1 :])
    picks = tuple(e if type(e) is int else slice(None) for e in entries if e is not None)
    return x[picks], tuple(e for e in entries if type(e) is not int)


def indexed(x: Any, index: Any) -> Any:
    """x[index]"""
    view, rest = selected(x, index)
    return np.array(view[rest])


def _stack(d: Draw) -> Call:
    shape = d.shape()
    parts = [d.floats(shape) for _ in range(d.integer(1, 4))]
    return (d.pick(tuple, list)(parts), d.integer(-len(shape) - 1, len(shape))), {}


def _split(d: Draw) -> Call:
    x = d.floats(d.shape(1, 4))
    axis = d.dim(x.ndim)
    n = x.shape[axis]
    if d.chance(0.4) and n:
        first = d.integer(0, n)
        return (x, [first, n - first], axis), {}
    return (x, d.integer(1, max(n, 1) + 1), axis), {}


def split_parts(x: Any, size: Any, dim: int = 0) -> Any:
    """Consecutive parts."""
    n = x.shape[dim]
    sizes = [min(size, n - i) for i in range(0, n, size)] or [0] if isinstance(size, int) else size
    ends = np.cumsum([0, *sizes])
    return [x.take(range(a, b), dim) for a, b in zip(ends, ends[1:])]


def _chunk(d: Draw) -> Call:
    x = d.floats(d.shape(1, 4))
    return (x, d.integer(1, 5), d.dim(x.ndim)), {}


def chunks(x: Any, count: int, dim: int = 0) -> Any:
    """At most so many parts of equal size."""
    n = x.shape[dim]
    if not n:
        return [x] * count
    return split_parts(x, -(-n // count), dim)


def _prelu(d: Draw) -> Call:
    shape = d.pick(d.shape(2, 4), d.shape(1, 1))
    weight = d.floats((shape[1] if len(shape) > 1 and d.chance(0.5) and shape[1] else 1,), 0, 1)
    return (d.floats(shape), weight), {}


def _layer_norm(d: Draw) -> Call:
    (x, over, *rest), kwargs = norms.layer_norm(d)
    return (x, (over,) if isinstance(over, int) else over, *rest), kwargs


def _instance_norm(d: Draw) -> Call:
    n, c = d.integer(1, 3), d.size()
    weight, bias = d.optional(lambda: d.floats((c,), 0.5, 2)), d.optional(lambda: d.floats((c,), -1, 1))
    return (d.floats(d.pick((n, c, 3, 4), (n, c, 5))), None, None, weight, bias), {}


def _conv1d(d: Draw) -> Call:
    groups, cg, kg, r = d.pick(1, 1, 2), d.size(), d.size(), d.integer(1, 4)
    shape = (d.integer(0, 2), groups * cg, d.integer(7, 20))
    bias = d.optional(lambda: d.floats((kg * groups,)))
    return (
        d.floats(shape[1:] if d.chance(0.1) else shape), d.floats((kg * groups, cg, r)), bias,
        d.pick(1, 2, (3,)), d.pick(0, 1, (2,), "valid"), d.pick(1, 2), groups,
    ), {}  # fmt: skip


def _dropout(d: Draw) -> Call:
    """Nothing is dropped, or everything: what is dropped between depends on the order in memory."""
    return (d.floats(d.shape()), d.pick(0.0, 1.0), d.chance(0.7)), {}


def _dropout2d(d: Draw) -> Call:
    return (d.floats(d.pick((2, 3, 4, 4), (3, 4, 5))), d.pick(0.0, 1.0), d.chance(0.7)), {}


def _max_pool(d: Draw) -> Call:
    (x, kernel, stride, padding, dilation, ceil_mode), _ = windows.max_pool(d)
    return (x, kernel, stride, padding, dilation, ceil_mode), {"return_indices": d.chance(0.3)}


def _elementwise() -> Iterator[Line]:
    for name in ("neg", "abs", "exp", "log", "sqrt"):
        answer = elements.by_numpy({"neg": "negative"}.get(name, name), floating=name in ("exp", "log", "sqrt"))
        yield _line(name, elements.tensor_numbers, answer, each=True)
    binary = {
        "mul": np.multiply, "div": np.divide, "eq": np.equal,
        "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    }  # fmt: skip
    for name, function in binary.items():
        yield _line(name, elements.two_tensors, function, tolerance=1e-4)
    yield _line("add", _alpha(elements.two_tensors), lambda a, b, alpha=1: a + alpha * np.asarray(b), tolerance=1e-4)
    yield _line("sub", _alpha(elements.two_tensors), lambda a, b, alpha=1: a - alpha * np.asarray(b), tolerance=1e-4)
    for name in ("maximum", "minimum"):
        yield _line(name, _two_arrays, getattr(np, name), tolerance=1e-4)
    yield _line("pow", elements.powers, np.power, tolerance=5e-4)
    yield _line("clamp", elements.clamp, elements.clamped, each=True)
    yield _line("where", elements.where, np.where, tolerance=1e-4)
    for name in ("relu", "sigmoid", "tanh", "silu", "hardsigmoid", "hardswish", "mish", "relu6"):
        yield _line(name, elements.one, tolerance=1e-4, absolute=1e-6)  # a gradient such as 1 - y^2 cancels
    yield _line("gelu", _named(elements.gelu, "approximate"), tolerance=1e-4)
    yield _line("leaky_relu", elements.slope, each=True)
    yield _line("elu", elements.slope, tolerance=1e-4)
    yield _line("hardtanh", lambda d: ((*elements.one(d)[0], -1.5, d.pick(0.5, 2)), {}), each=True)
    yield _line("softplus", lambda d: ((*elements.one(d)[0], d.pick(1.0, 2), 20.0), {}), tolerance=1e-4)
    yield _line("prelu", _prelu, tolerance=1e-4)
    yield _line("dropout", _dropout, loose=True)
    yield _line("dropout2d", _dropout2d)
    yield _line("bitwise_not", _bits_of_one, np.invert)
    for name in ("and", "or", "xor"):
        yield _line(f"bitwise_{name}", bits, _with_signs(getattr(np, f"bitwise_{name}")))


def _reductions() -> Iterator[Line]:
    yield _line("sum", elements.reduction, elements.summed)
    yield _line("mean", elements.float_reduction, elements.averaged)
    yield _line("prod", elements.factors, elements.product, tolerance=1e-4)
    for name in ("any", "all"):
        yield _line(name, elements.reduction, elements.truth(getattr(np, name)))
    yield _line("var", _statistic, _variance, tolerance=1e-4, exact=False, absolute=1e-6)
    yield _line("std", _deviating, _deviation, tolerance=5e-4, exact=False, absolute=1e-6)
    for name in ("argmax", "argmin"):
        yield _line(name, _arg)
    for name in ("max", "min"):
        yield _line(name, _extreme)
    for name in ("amax", "amin"):
        yield _line(name, _extremes)
    for name in ("softmax", "log_softmax"):
        yield _line(name, _softmax, tolerance=1e-4)


def _shapes() -> Iterator[Line]:
    yield _line("clone", elements.any_one, np.array)
    yield _line("contiguous", elements.any_one, np.array)
    yield _line("reshape", shapes.reshape, np.reshape)
    yield _line("to_dtype", shapes.to_dtype, shapes.converted)
    yield _line("cat", shapes.cat, shapes.joined)
    yield _line("stack", _stack, lambda tensors, dim=0: np.stack(tensors, dim))
    yield _line("pad", shapes.pad, shapes.padded)
    yield _line("expand", _expand, expanded, words=("sizes",))
    yield _line("flatten", _flatten, flattened)
    yield _line("permute", _permute, np.transpose)
    yield _line("transpose", _transpose, np.swapaxes)
    yield _line("squeeze", _squeeze, squeezed)
    yield _line("unsqueeze", _unsqueeze, np.expand_dims)
    yield _line("unflatten", _unflatten, unflattened)
    yield _line("getitem", indices, indexed, also=(IndexError,), words=("indices", "indexed"))
    yield _line("split", _split, split_parts)
    yield _line("chunk", _chunk, chunks)
    yield _line("channel_shuffle", shapes.channel_shuffle, shapes.shuffled)
    yield _line("pixel_shuffle", shapes.pixel_shuffle, shapes.pixels_shuffled)
    yield _line("pixel_unshuffle", shapes.pixel_unshuffle, shapes.pixels_unshuffled)
    yield _line("unfold", shapes.unfold)
    yield _line("fold", shapes.fold)
    yield _line("interpolate", shapes.interpolate, exact=False)


def _layers() -> Iterator[Line]:
    products: dict[str, Any] = {"tolerance": 1e-4, "exact": False}
    yield _line("conv2d", windows.conv2d_call, **products)
    yield _line("conv1d", _conv1d, **products)
    yield _line("conv_transpose2d", windows.conv_transpose2d, **products)
    yield _line("linear", windows.linear, **products)
    yield _line("matmul", windows.matmul, np.matmul, **products)
    yield _line("max_pool2d", _max_pool)
    yield _line("avg_pool2d", windows.avg_pool)
    yield _line("adaptive_avg_pool2d", windows.adaptive)
    yield _line("adaptive_max_pool2d", windows.adaptive)
    options: dict[str, Any] = {"tolerance": 5e-3, "exact": False, "absolute": 1e-5}
    yield _line("batch_norm", norms.batch_norm_tensors, constants=(1, 2), **options)
    yield _line("group_norm", norms.group_norm, **options)
    yield _line("layer_norm", _layer_norm, **options)
    yield _line("instance_norm", _instance_norm, **options)
    yield _line("local_response_norm", norms.response, tolerance=1e-3, exact=False, absolute=1e-4)


def _losses() -> Iterator[Line]:
    index: dict[str, Any] = {"also": (IndexError,), "tolerance": 1e-4, "absolute": 1e-6}
    names = ("weight", "ignore_index", "reduction", "label_smoothing")
    yield _line("cross_entropy", _named(losses.cross_entropy, *names), **index)
    yield _line("nll_loss", _named(losses.nll_loss, *names[:3]), **index)
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        yield _line(name, _pair_loss, tolerance=1e-4)
    yield _line("binary_cross_entropy", _probabilities, tolerance=2e-4)
    yield _line("binary_cross_entropy_with_logits", _logits, tolerance=2e-4)
    yield _line("kl_div", _kl, tolerance=1e-4)
    yield _line("multi_margin_loss", _margin, **index)


def _line(name: str, draw: Drawing, answer: Any = None, **options: Any) -> Line:
    return Line(f"functional.{name}", getattr(F, name), draw, answer, tensors=True, **options)


def lines() -> list[Line]:
    """Return the lines of numbanet.functional."""
    groups = (_elementwise, _reductions, _shapes, _layers, _losses)
    return [line for group in groups for line in group()]
