"""What changes the size or the order of images."""

from __future__ import annotations

import torch
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
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
SIZED = [
    T((2, 3, 5, 7)), T((1, 2, 4, 6), "float32", "channels_last"), T((2, 3, 6)), T((1, 2, 7), "float32", "strided"),
    T((1, 2, 3, 4, 5)), T((2, 2, 4, 3, 2), "float32"), T((0, 2, 3, 3)), T((1, 2, 4, 5), "uint8"), Bad(T((3, 4))),
    Bad(T((2, 3, 4, 5), "int64")),
]  # fmt: skip
WORDS = ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area", OMIT, Bad("cubic")]
ALIGN = [OMIT, None, False, True]
BLOCKS = [
    T((2, 12, 4, 6)), T((12, 4, 6), "float32"), T((0, 12, 4, 6)), T((2, 12, 4, 6), "float32", "channels_last"),
    T((2, 1, 12, 4, 6)), T((1, 36, 6, 6), "float64", "strided"), T((4, 18, 6, 12), "float32", "transposed"),
    T((2, 12, 4, 6), "int64"), T((2, 12, 4, 6), "bool"), Bad(T((4, 6))), Bad(None), T((2, 12, 0, 6)),
]  # fmt: skip

ENTRIES = [
    *(
        Entry(
            f"pad, {mode}", F.pad, TF.pad,
            {"input": PADDED, "pad": WIDTHS, "mode": [mode], "value": value},
            fewest=100,
        )
        for mode, value in (
            ("constant", [OMIT, None, 0, 2, -1.5, float("inf"), True]), ("reflect", [OMIT, None, 0, Bad(1.0)]),
            ("replicate", [OMIT, None, 0, Bad(1.0)]), ("circular", [OMIT, None, 0, Bad(1.0)]),
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
            "size": [1, 4, (3, 9), (5,), (2, 3, 4), Bad(0), Bad((1, 2, 3, 4)), Bad(2.5)],
            "scale_factor": [OMIT, None, Bad(2.0)],
            "mode": WORDS,
            "align_corners": ALIGN,
            "recompute_scale_factor": [OMIT, None, False, Bad(True)],
            "antialias": [OMIT, False, True],
        },
        fewest=120,
    ),
    Entry(
        "interpolate, scale_factor", F.interpolate, TF.interpolate,
        {
            "input": SIZED,
            "size": [None],
            "scale_factor": [
                2, 0.5, 1.3, (2.7, 0.7), (1.5,), (2, 0.8, 1.2), Bad(-1.0), Bad("2"),
            ],
            "mode": WORDS,
            "align_corners": ALIGN,
            "recompute_scale_factor": [OMIT, None, False, True],
            "antialias": [OMIT, False, True],
        },
        fewest=120,
    ),
    Entry(
        "pixel_shuffle", F.pixel_shuffle, TF.pixel_shuffle,
        {"input": BLOCKS, "upscale_factor": [1, 2, 3, Bad(5), Bad(0), Bad(-2), Bad(1.5), Bad(None)]}, fewest=100,
    ),
    Entry(
        "pixel_unshuffle", F.pixel_unshuffle, TF.pixel_unshuffle,
        {"input": BLOCKS, "downscale_factor": [1, 2, 3, Bad(5), Bad(0), Bad(-2), Bad(1.5)]}, fewest=100,
    ),
    Entry(
        "channel_shuffle", F.channel_shuffle, torch.channel_shuffle,
        {"input": BLOCKS, "groups": [1, 2, 3, 6, 12, Bad(5), Bad(0), Bad(-1), Bad(1.5)]}, fewest=100,
    ),
    Entry(
        "unfold", F.unfold, TF.unfold,
        {
            "input": [
                T((2, 3, 6, 7)), T((3, 6, 7), "float32"), T((0, 3, 6, 7)), T((2, 4, 5, 6), "float32", "channels_last"),
                T((2, 3, 6, 6), "float64", "strided"), T((2, 3, 6, 7), "bool"), Bad(T((6, 7))), Bad(T((1, 2, 3, 6, 7))),
            ],
            "kernel_size": [1, 2, 3, (2, 3), [3], Bad(0), Bad((1, 2, 3)), Bad(9)],
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
            "kernel_size": [2, (2, 2), (1, 3), [2], Bad(0), Bad((2, 2, 2))],
            "dilation": [OMIT, 1, (1, 2), Bad(0)],
            "padding": [OMIT, 0, 1, (0, 1), Bad(-1)],
            "stride": [OMIT, 1, 2, (2, 1), Bad(0)],
        },
        fewest=120,
    ),
]  # fmt: skip


