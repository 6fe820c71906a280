"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

LAYOUTS = ["", "transposed", "strided", "channels_last"]
DTYPES = ["float32", "float64", "int64", Bad("mixed"), Bad("no tensor")]
BIASES = ["none", "given", Bad("long"), Bad("of another rank")]


def image(kind: str, channels: int, size: tuple[int, ...], dtype: str) -> Any:
    """Return images, or one of the things that a function may get instead."""
    if dtype == "no tensor":
        return [[1.0]]
    dtype = "float32" if dtype == "mixed" else dtype
    shape = {"batch": (2, channels, *size), "unbatched": (channels, *size), "empty": (0, channels, *size)}
    shape |= {"more": (1, 2, channels, *size), "fewer": size[-2:], "no channels": (2, 0, *size)}
    view = kind if kind in LAYOUTS else ""
    return T(shape.get(kind, shape["batch"]), dtype, view)


def bias(kind: str, count: int, dtype: str) -> Any:
    dtype = "float64" if dtype in ("mixed", "no tensor") else dtype
    shapes = {"given": (count,), "long": (count + 1,), "of another rank": (count, 1)}
    return T(shapes[kind], dtype) if kind in shapes else None


def handed(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not OMIT}


def conv2d(images: str, channels: tuple, kernel: tuple, bias_: str, dtype: str, **options: Any) -> Call:
    c, k, groups = channels
    x = image(images, c, (7, 6), dtype)
    weight = T((k, c // max(groups, 1), *kernel), "float64" if dtype in ("mixed", "no tensor") else dtype)
    return Call((x, weight), {"bias": bias(bias_, k, dtype), "groups": groups, **handed(**options)})


def conv1d(images: str, channels: tuple, kernel: tuple, bias_: str, dtype: str, **options: Any) -> Call:
    c, k, groups = channels
    x = image(images, c, (9,), dtype)
    weight = T((k, c // max(groups, 1), *kernel), "float64" if dtype in ("mixed", "no tensor") else dtype)
    return Call((x, weight), {"bias": bias(bias_, k, dtype), "groups": groups, **handed(**options)})


def conv_transpose2d(images: str, channels: tuple, kernel: tuple, bias_: str, dtype: str, **options: Any) -> Call:
    c, k, groups = channels
    x = image(images, c, (4, 5), dtype)
    weight = T((c, k // max(groups, 1), *kernel), "float64" if dtype in ("mixed", "no tensor") else dtype)
    return Call((x, weight), {"bias": bias(bias_, k, dtype), "groups": groups, **handed(**options)})


def linear(images: str, sizes: tuple, bias_: str, dtype: str) -> Call:
    c, taken, k = sizes
    shapes = {"batch": (3, c), "unbatched": (c,), "empty": (0, c), "more": (2, 3, c), "even more": (2, 1, 2, c)}
    view = images if images in LAYOUTS else ""
    x: Any = T(shapes.get(images, (3, c)), "float32" if dtype == "mixed" else dtype, view)
    if dtype == "no tensor":
        x = [[1.0]]
    weight = T((k, taken), "float64" if dtype in ("mixed", "no tensor") else dtype)
    return Call((x, weight), {"bias": bias(bias_, k, dtype)})


def narrow(*size: int) -> Callable[[Any, Any, Any], bool]:
    """Return whether a dilated filter is larger than a padded image of this size."""

    def outsized(kernel: Any, padding: Any, dilation: Any) -> bool:
        pads = per_axis(0 if padding in (OMIT, "valid") else padding, len(size))
        gaps = per_axis(1 if dilation is OMIT else dilation, len(size))
        return padding != "same" and any(
            (k - 1) * gap + 1 > n + 2 * pad for k, n, pad, gap in zip(kernel, size, pads, gaps)
        )

    return outsized


def per_axis(value: Any, count: int) -> tuple:
    """Return a number for each axis."""
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value * count if len(value) == 1 else value


STRIDED_SAME = {
    "padding='same' is for stride 1": lambda stride, padding: padding == "same" and stride not in (OMIT, 1),
}
CHANNELS = [(4, 6, 1), (4, 6, 2), (4, 4, 4), (4, 8, 4), (3, 5, 1), Bad((4, 6, 3)), Bad((4, 6, 0)), Bad((4, 5, 2))]
ENTRIES = [
    Entry(
        "conv2d", F.conv2d, TF.conv2d,
        {
            "images": ["batch", "unbatched", "empty", *LAYOUTS[1:], Bad("more"), Bad("fewer"), Bad("no channels")],
            "channels": CHANNELS,
            "kernel": [(3, 3), (1, 1), (2, 3), (5, 1), Bad((0, 3)), (9, 3), Bad((3,))],
            "bias_": BIASES,
            "dtype": DTYPES,
            "stride": [OMIT, 1, 2, (2, 1), [3], Bad(0), Bad((1, 2, 3)), Bad(1.5), Bad(None)],
            "padding": [OMIT, 0, 1, (1, 2), [2], "valid", "same", Bad(-1), Bad("full"), Bad((1, 1, 1))],
            "dilation": [OMIT, 1, 2, (1, 2), Bad(0), Bad("2")],
        },
        conv2d,
        refuses={**STRIDED_SAME, "the filter is larger than the image": narrow(7, 6)},
    ),
    Entry(
        "conv1d", F.conv1d, TF.conv1d,
        {
            "images": ["batch", "unbatched", "empty", "transposed", "strided", Bad("more"), Bad("fewer")],
            "channels": CHANNELS,
            "kernel": [(3,), (1,), (4,), Bad((0,)), (12,), Bad((3, 3))],
            "bias_": BIASES,
            "dtype": DTYPES,
            "stride": [OMIT, 1, 2, (3,), [2], Bad(0), Bad((1, 2)), Bad(None)],
            "padding": [OMIT, 0, 1, (2,), "valid", "same", Bad(-1), Bad("full"), Bad((1, 1))],
            "dilation": [OMIT, 1, 2, (3,), Bad(0)],
        },
        conv1d,
        refuses={**STRIDED_SAME, "the filter is larger than the image": narrow(9)},
    ),
    Entry(
        "conv_transpose2d", F.conv_transpose2d, TF.conv_transpose2d,
        {
            "images": ["batch", "unbatched", "empty", *LAYOUTS[1:], Bad("more"), Bad("fewer")],
            "channels": [(4, 6, 1), (4, 6, 2), (4, 4, 4), (3, 5, 1), Bad((4, 6, 3)), Bad((4, 6, 0))],
            "kernel": [(3, 3), (1, 1), (2, 3), (4, 2), Bad((0, 3)), Bad((3,))],
            "bias_": BIASES,
            "dtype": DTYPES,
            "stride": [OMIT, 1, 2, (2, 3), [3], Bad(0), Bad((1, 2, 3)), Bad(None)],
            "padding": [OMIT, 0, 1, (1, 0), Bad(-1), Bad("full"), Bad((1, 1, 1))],
            "output_padding": [OMIT, 0, 1, (0, 1), Bad(5), Bad(-1)],
            "dilation": [OMIT, 1, 2, (1, 2), Bad(0)],
        },
        conv_transpose2d,
    ),
    Entry(
        "linear", F.linear, TF.linear,
        {
            "images": ["batch", "unbatched", "empty", "more", "even more", "transposed", "strided"],
            "sizes": [(5, 5, 7), (1, 1, 3), (4, 4, 1), (33, 33, 18), Bad((5, 4, 3))],
            "bias_": ["none", "given", Bad("long")],
            "dtype": DTYPES,
        },
        linear,
    ),
]  # fmt: skip
