"""What changes the size or the order of images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import per_axis
from tests.parity.grid.values import OMIT, Bad, T

PADDED = [
    T((3, 5)), T((6,), "float32"), T((2, 3, 5), "float32"), T((2, 3, 4, 5), "float64", "channels_last"),
    T((2, 2, 3, 4, 5), "float32"), T((0, 2, 4, 5)), T((2, 4, 6), "float64", "strided"),
    T((2, 3, 5, 4), "int64"),
]  # fmt: skip
WIDTHS = [
    (1, 0), [2, 1], (-1, 2), (-1, -1), (3, 3), (0, 0), (1, 2, 2, 0), (1, -1, 0, 1), (1, 0, 2, 0, 1, 1), (6, 0),
    (0, 1, 0, 0, 1, 0, 0, 2), (), Bad((1,)), Bad((-9, 0)), Bad((1.0, 2.0)),
]  # fmt: skip
SPATIAL = [PADDED[0], Bad(PADDED[1]), *PADDED[2:]]


def bad(value: Any, *refused: Any) -> Any:
    """Return a value, marked if it is one of those that are refused."""
    return Bad(value) if value in refused else value


SIZED = [
    T((2, 3, 5, 7)), T((1, 2, 4, 6), "float32", "channels_last"), T((2, 3, 6)), T((1, 2, 7), "float32", "strided"),
    T((1, 2, 3, 4, 5)), T((2, 2, 4, 3, 2), "float32"), T((0, 2, 3, 3)), T((2, 3, 9, 11), "uint8"), Bad(T((3, 4))),
    Bad(T((2, 3, 4, 5), "int64")),
]  # fmt: skip
WORDS = ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area", OMIT, Bad("cubic")]
ALIGN = [OMIT, None, False, True]
BLOCKS = [
    T((2, 12, 4, 6)), T((12, 4, 6), "float32"), T((0, 12, 4, 6)), T((2, 12, 4, 6), "float32", "channels_last"),
    T((2, 1, 12, 4, 6)), T((1, 36, 6, 6), "float64", "strided"), T((4, 18, 6, 12), "float32", "transposed"),
    T((2, 12, 4, 6), "int64"), T((2, 12, 4, 6), "bool"), Bad(T((4, 6))), Bad(None), T((2, 12, 0, 6)),
]  # fmt: skip

LINEAR = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}
"""The modes that interpolate, and the number of dimensions each is for."""


def padded(mode: str, input: T, pad: Any) -> bool:
    """Whether a mode does not pad these dimensions."""
    dims = len(input.shape)
    if mode == "constant":
        return len(pad) > 2 * dims
    if len(pad) // 2 not in (dims - 2, dims - 1):
        return True
    unbatched = len(pad) // 2 == dims - 1
    if mode == "circular":
        return any(w > n for w, n in zip(pad, [n for n in reversed(input.shape) for _ in range(2)]))
    return unbatched and input.shape[0] == 0


def resized(key: str, **more: Any) -> dict[str, Any]:
    """What `interpolate` refuses of a size or a scale."""
    of_another_length = {
        "size": lambda input, size: isinstance(size, tuple) and len(size) != len(input.shape) - 2,
        "scale_factor":
            lambda input, scale_factor: isinstance(scale_factor, tuple) and len(scale_factor) != len(input.shape) - 2,
    }[key]
    return {
        "a number for each dimension of an image": of_another_length,
        "a mode is for images of some dimension":
            lambda input, mode: mode in LINEAR and LINEAR[mode] != len(input.shape),
        "bytes have no area": lambda input, size, mode: input.dtype == "uint8" and size != 0 and mode == "area",
        "align_corners is for modes that interpolate":
            lambda mode, align_corners: mode not in LINEAR and align_corners in (False, True),
        "antialias is for two modes": lambda mode, antialias: mode not in ("bilinear", "bicubic") and antialias is True,
        **more,
    }


def other_blocks(input: T, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> bool:
    """Whether `fold` expects another number of blocks."""
    gap, pad, step = (default if o is OMIT else o for o, default in ((dilation, 1), (padding, 0), (stride, 1)))
    axes = zip(*(per_axis(option, 2) for option in (output_size, kernel_size, gap, pad, step)))
    blocks = [(n + 2 * pad - gap * (k - 1) - 1) // step + 1 for n, k, gap, pad, step in axes]
    return blocks[0] * blocks[1] != input.shape[-1] or min(blocks) < 1


ENTRIES = [
    *(
        Entry(
            f"pad, {mode}", F.pad, TF.pad,
            {"input": inputs, "pad": widths, "mode": [mode], "value": value},
            fewest=100,
            refuses={"the mode pads other dimensions": partial(padded, mode)},
        )
        for mode, inputs, widths, value in (
            ("constant", PADDED, WIDTHS, [OMIT, None, 0, 2, -1.5, float("inf"), True]),
            ("reflect", SPATIAL, [*(bad(w, (6, 0), (0, 1, 0, 0, 1, 0, 0, 2), ()) for w in WIDTHS)],
             [OMIT, None, 0, Bad(1.0)]),
            *((mode, SPATIAL, [*(bad(w, (0, 1, 0, 0, 1, 0, 0, 2), ()) for w in WIDTHS)], [OMIT, None, 0, Bad(1.0)])
                for mode in ("replicate", "circular")),
        )
    ),
    Entry(
        "pad, other modes", F.pad, TF.pad,
        {"input": PADDED[:4], "pad": [(1, 0), (0, 0)], "mode": [OMIT, Bad("symmetric"), Bad("edge"), Bad(None),
            Bad(1)]},
    ),
    Entry(
        "interpolate, size", F.interpolate, TF.interpolate,
        {
            "input": SIZED,
            "size": [1, 4, (3, 9), (5,), (2, 3, 4), 0, Bad((1, 2, 3, 4)), Bad(2.5)],
            "scale_factor": [OMIT, None, Bad(2.0)],
            "mode": WORDS,
            "align_corners": ALIGN,
            "recompute_scale_factor": [OMIT, None, False, Bad(True)],
            "antialias": [OMIT, False, True],
        },
        fewest=90,
        refuses=resized(
            "size",
            **{
                "no pixels are those of areas only": lambda size, mode: size == 0 and mode != "area",
                "no pixels have no gradient":
                    lambda input, size, gradients: input.dtype != "uint8" and size == 0 and gradients,
            },
        ),
    ),
    Entry(
        "interpolate, scale_factor", F.interpolate, TF.interpolate,
        {
            "input": SIZED,
            "size": [None],
            "scale_factor": [
                2, 0.5, 1.3, (2.7, 0.7), (1.5,), (2, 0.8, 1.2), Bad(-1.0), Bad(None),
            ],
            "mode": WORDS,
            "align_corners": ALIGN,
            "recompute_scale_factor": [OMIT, None, False, True],
            "antialias": [OMIT, False, True],
        },
        fewest=90,
        refuses=resized("scale_factor"),
    ),
    Entry(
        "pixel_shuffle", F.pixel_shuffle, TF.pixel_shuffle,
        {"input": BLOCKS, "upscale_factor": [1, 2, 3, Bad(5), Bad(0), Bad(-2), Bad(1.5), Bad(None)]}, fewest=100,
        refuses={
            "channels are a multiple of the factor's square":
                lambda input, upscale_factor: input.shape[-3] % upscale_factor**2 != 0,
        },
    ),
    Entry(
        "pixel_unshuffle", F.pixel_unshuffle, TF.pixel_unshuffle,
        {"input": BLOCKS, "downscale_factor": [1, 2, 3, Bad(5), Bad(0), Bad(-2), Bad(1.5)]}, fewest=100,
        refuses={
            "sizes are multiples of the factor":
                lambda input, downscale_factor: any(n % downscale_factor for n in input.shape[-2:]),
        },
    ),
    Entry(
        "channel_shuffle", F.channel_shuffle, torch.channel_shuffle,
        {"input": BLOCKS, "groups": [1, 2, 3, 6, 12, Bad(5), Bad(0), Bad(-1), Bad(1.5)]}, fewest=100,
        refuses={"channels are a multiple of groups": lambda input, groups: input.shape[1] % groups != 0},
    ),
    Entry(
        "unfold", F.unfold, TF.unfold,
        {
            "input": [
                T((2, 3, 6, 7)), T((3, 6, 7), "float32"), T((0, 3, 6, 7)), T((2, 4, 5, 6), "float32", "channels_last"),
                T((2, 3, 6, 6), "float64", "strided"), T((2, 3, 6, 7), "bool"), Bad(T((6, 7))), Bad(T((1, 2, 3, 6, 7))),
            ],
            "kernel_size": [1, 2, 3, (2, 3), Bad([3]), Bad(0), Bad((1, 2, 3)), Bad(9)],
            "dilation": [OMIT, 1, 2, (1, 2), Bad(0)],
            "padding": [OMIT, 0, 1, (1, 2), Bad(-1)],
            "stride": [OMIT, 1, 2, (2, 3), Bad(0)],
        },
    ),
    Entry(
        "fold", F.fold, TF.fold,
        {
            "input": [
                T((2, 12, 20)), T((12, 20), "float32"), T((0, 12, 20)), T((2, 12, 20), "float32", "transposed"),
                T((2, 12, 6)), T((12, 12)), T((2, 12, 30), "float64", "strided"), T((2, 12, 20), "bool"),
                Bad(T((2, 13, 20))), Bad(T((20,))), Bad(T((1, 2, 12, 20))),
            ],
            "output_size": [(5, 6), (4, 7), [6, 7], 5, (3, 4), Bad((0, 3)), Bad((5, 6, 7))],
            "kernel_size": [2, (2, 2), (1, 3), Bad([2]), Bad(0), Bad((2, 2, 2))],
            "dilation": [OMIT, 1, (1, 2), Bad(0)],
            "padding": [OMIT, 0, 1, (0, 1), Bad(-1)],
            "stride": [OMIT, 1, 2, (2, 1), Bad(0)],
        },
        fewest=120,
        refuses={"the number of blocks is another": other_blocks},
    ),
]  # fmt: skip


