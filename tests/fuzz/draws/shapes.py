"""Arguments of functions that move elements, and their definitions in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call
from tests.fuzz.draws import elements


def reshape(d: Draw) -> Call:
    """An array and a shape of as many elements."""
    x = elements.some(d, d.shape(0, 5), 0.3)
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


def converted(x: Any, *given: Any, dtype: Any = None) -> Any:
    """astype; what was float32 has been made float64 here, and of a float dtype is only the kind compared."""
    dtype = given[0] if given and dtype is None else dtype
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
