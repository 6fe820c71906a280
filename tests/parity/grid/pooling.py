"""Pooling."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import per_axis
from tests.parity.grid.values import OMIT, Bad, T, plain

IMAGES = [
    T((2, 3, 7, 6)), T((3, 7, 6), "float32"), T((0, 3, 7, 6)), T((2, 5, 8, 5), "float32", "transposed"),
    T((2, 3, 7, 6), "float64", "strided"), T((2, 17, 6, 7), "float32", "channels_last"), T((2, 3, 7, 6), kind="few"),
    T((1, 2, 6, 6), kind="wild"), Bad(T((7, 6))), Bad(T((1, 2, 3, 7, 6))), Bad(T((2, 3, 0, 6))), Bad(T((2, 0, 7, 6))),
]  # fmt: skip


def in_bounds(input: Any, kernel_size: Any, padding: Any, dilation: Any, **rest: Any) -> bool:
    """PyTorch reads beyond the image where a dilated window lies in the padding altogether."""
    size = input.shape[-2:]
    pads, gaps = per_axis(0 if padding is OMIT else padding, 2), per_axis(1 if dilation is OMIT else dilation, 2)
    if len(pads) != 2 or len(gaps) != 2 or not all(isinstance(v, int) for v in (*pads, *gaps)):
        return True
    return not any(pad and gap > 1 and n < 2 * gap for n, pad, gap in zip(size, pads, gaps))


def mostly_padding(kernel_size: Any, padding: Any) -> bool:
    pads = per_axis(0 if padding is OMIT else padding, 2)
    return any(2 * pad > k for pad, k in zip(pads, per_axis(kernel_size, 2)))


PADDED = {"padding is at most half of the window": mostly_padding}
ENTRIES = [
    Entry(
        "max_pool2d", F.max_pool2d, TF.max_pool2d,
        {
            "input": [*IMAGES, T((2, 3, 7, 6), "int64")],
            "kernel_size": [2, 3, 1, (2, 3), [3], Bad(0), Bad(-1), Bad((2, 2, 2)), Bad(None)],
            "stride": [OMIT, None, 1, 2, (3, 2), [], Bad(0), Bad((1, 1, 1))],
            "padding": [OMIT, 0, 1, (1, 0), Bad(-1), Bad(4)],
            "dilation": [OMIT, 1, 2, (1, 2), Bad(0)],
            "ceil_mode": [OMIT, False, True],
            "return_indices": [OMIT, False, True],
        },
        possible=in_bounds,
        refuses=PADDED,
    ),
    Entry(
        "avg_pool2d", F.avg_pool2d, TF.avg_pool2d,
        {
            "input": [*IMAGES, T((2, 3, 7, 6), "int64")],
            "kernel_size": [2, 3, 1, (2, 3), [3], Bad(0), Bad(-1), Bad((2, 2, 2)), Bad(None)],
            "stride": [OMIT, None, 1, 2, (3, 2), [], Bad(0), Bad((1, 1, 1))],
            "padding": [OMIT, 0, 1, (1, 0), Bad(-1), Bad(4)],
            "ceil_mode": [OMIT, False, True],
            "count_include_pad": [OMIT, True, False],
            "divisor_override": [OMIT, None, 3, -2, Bad(0), Bad(1.5)],
        },
        refuses=PADDED,
    ),
    *(
        Entry(
            name, getattr(F, name), getattr(TF, name),
            {
                "input": [*IMAGES[:6], *IMAGES[7:8], *others, T((5, 1, 1), "float32")],
                "output_size": [
                    1, 2, 4, (3, 5), (None, 2), (4, None), (9, 10), [2, 3], Bad(None), 0, Bad(-1), Bad((1, 2, 3)),
                    Bad("2"),
                ],
                **more,
            },
            fewest=140,
            refuses=refuses,
        )
        for name, others, more, refuses in (
            (
                "adaptive_avg_pool2d", [plain(image) for image in IMAGES[8:11]], {},
                {
                    "a mean of other shapes": lambda input, output_size: output_size != 1
                    and (len(input.shape) not in (3, 4) or 0 in input.shape[-3:]),
                    "an image without elements has no gradient":
                        lambda output_size, gradients: output_size == 0 and gradients,
                },
            ),
            (
                "adaptive_max_pool2d", IMAGES[8:11], {"return_indices": [OMIT, False, True]},
                {
                    "an image without elements has no gradient":
                        lambda output_size, gradients: output_size == 0 and gradients,
                },
            ),
        )
    ),
]  # fmt: skip
