"""One table of convolution cases for every backend: shapes that hit the remainders of every tile, and every option.

Each case is small, so that the definition in float64 is quick; a name says what the case is there for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ConvCase:
    """Arguments of one convolution; x is (n, c, h, w), the weight (k, c / groups, r, s)."""

    name: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.k, self.c // self.groups, self.r, self.s

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def __str__(self) -> str:
        return self.name


CONV_CASES = [
    ConvCase("one pixel", 4, 1, 1, 1, 1, 1, 1),
    ConvCase("pointwise", 2, 64, 6, 7, 96, 1, 1),
    ConvCase("pointwise, stride 2", 2, 24, 7, 7, 40, 1, 1, stride=2),
    ConvCase("pointwise, one out-channel", 2, 65, 7, 9, 1, 1, 1),
    ConvCase("pointwise, three out-channels", 2, 130, 17, 9, 3, 1, 1),
    ConvCase("3x3", 2, 32, 9, 8, 64, 3, 3, padding=1),
    ConvCase("3x3, many channels, one tile beyond the image", 2, 64, 13, 9, 70, 3, 3, padding=1),
    ConvCase("3x3, no padding", 1, 48, 10, 6, 64, 3, 3),
    ConvCase("3x3, padding 2 above and 1 to the left", 1, 32, 8, 8, 32, 3, 3, padding=((2, 0), (1, 3))),
    ConvCase("3x3, images of few pixels", 20, 33, 2, 2, 70, 3, 3, padding=1),
    ConvCase("5x5", 2, 33, 9, 8, 20, 5, 5, padding=2),
    ConvCase("5x5, many channels, padding on two sides", 2, 70, 13, 6, 40, 5, 5, padding=((4, 0), (1, 3))),
    ConvCase("3x3, odd channels", 2, 17, 9, 8, 33, 3, 3, padding=1),
    ConvCase("3x3, stride 2, odd size", 3, 20, 7, 7, 130, 3, 3, stride=2, padding=1),
    ConvCase("every width of a last panel: 1 vector", 1, 3, 5, 19, 79, 3, 3),
    ConvCase("every width of a last panel: 2 vectors", 1, 18, 5, 19, 95, 3, 3),
    ConvCase("every width of a last panel: 3 vectors", 1, 18, 5, 19, 111, 3, 3),
    ConvCase("long reduction in several blocks", 2, 600, 5, 5, 20, 3, 3, padding=1),
    ConvCase("reduction of more than a block a tap", 1, 1100, 3, 3, 17, 2, 2),
    ConvCase("pixels far apart, several chunks of them", 1, 35, 20, 30, 263, 1, 1),
    ConvCase("pixels far apart, stride 2, odd channels", 2, 19, 23, 9, 270, 3, 3, stride=2, padding=1),
    ConvCase("pixels far apart, grouped", 2, 514, 5, 7, 62, 3, 1, padding=(1, 0), groups=2),
    ConvCase("many pixels far apart, panels of two widths", 1, 150, 25, 23, 141, 1, 1),
    ConvCase("many pixels far apart, a few in-channels", 1, 14, 25, 23, 141, 1, 1),
    ConvCase("many pixels far apart, grouped, stride 2", 2, 134, 33, 37, 266, 3, 2, stride=2, padding=1, groups=2),
    ConvCase("few in-channels", 2, 3, 12, 11, 16, 3, 3, padding=1),
    ConvCase("first layer 7x7/2", 1, 3, 40, 41, 64, 7, 7, stride=2, padding=3),
    ConvCase("first layer 11x11/4", 1, 3, 40, 40, 10, 11, 11, stride=4, padding=2),
    ConvCase("few in-channels, dilated", 2, 2, 14, 13, 9, 3, 3, padding=2, dilation=2),
    ConvCase("few in-channels, wide image", 1, 3, 3, 700, 5, 2, 5, padding=(0, 2)),
    ConvCase("an image too wide for a band", 1, 9, 3, 1500, 5, 3, 3, padding=1),
    ConvCase("a filter of many elements", 1, 2, 40, 40, 3, 31, 31, padding=15),
    ConvCase("few out-channels", 2, 40, 8, 9, 3, 3, 3, padding=1),
    ConvCase("one out-channel", 2, 33, 8, 9, 1, 5, 5, padding=2),
    ConvCase("rectangular filter", 2, 16, 9, 8, 20, 1, 7, padding=(0, 3)),
    ConvCase("different strides, pads and dilations", 2, 5, 9, 8, 70, 3, 2, (2, 1), (1, 2), (1, 2)),
    ConvCase("asymmetric padding", 2, 8, 9, 8, 6, 2, 3, padding=((1, 2), (0, 3))),
    ConvCase("asymmetric padding with stride", 1, 20, 8, 7, 18, 3, 3, stride=2, padding=((0, 1), (2, 0))),
    ConvCase("stride above the filter", 1, 4, 8, 8, 4, 1, 1, stride=3),
    ConvCase("stride above the filter, grouped", 1, 4, 9, 10, 6, 2, 1, stride=(3, 4), groups=2),
    ConvCase("padding above the input", 1, 32, 3, 3, 48, 3, 3, padding=5),
    ConvCase("padding above the filter, few channels", 1, 2, 3, 3, 5, 2, 2, stride=3, padding=4),
    ConvCase("dilated and grouped", 1, 40, 13, 13, 24, 3, 3, padding=2, dilation=2, groups=2),
    ConvCase("filter as large as the input", 3, 19, 6, 5, 21, 6, 5),
    ConvCase("same", 1, 7, 6, 7, 5, 2, 4, padding="same"),
    ConvCase("same, dilated", 1, 7, 9, 8, 5, 4, 3, padding="same", dilation=(1, 2)),
    ConvCase("same_upper with stride", 1, 7, 9, 8, 5, 4, 3, padding="same_upper", stride=(2, 3)),
    ConvCase("valid", 1, 7, 9, 8, 5, 4, 3, padding="valid"),
    ConvCase("groups of one vector", 2, 64, 6, 5, 32, 3, 3, padding=1, groups=2),
    ConvCase("groups of odd size", 2, 21, 6, 5, 15, 3, 3, padding=1, groups=3),
    ConvCase("depthwise", 2, 20, 9, 9, 20, 3, 3, padding=1, groups=20),
    ConvCase("depthwise, stride 2", 2, 33, 9, 8, 33, 3, 2, stride=2, padding=1, groups=33),
    ConvCase("depthwise, dilated", 1, 16, 15, 16, 16, 5, 5, (2, 1), (2, 0), (1, 2), 16),
    ConvCase("depthwise, padding above the input", 2, 7, 2, 2, 7, 3, 3, stride=3, padding=4, groups=7),
    ConvCase("depthwise, stride above the filter", 2, 3, 9, 9, 3, 2, 2, stride=4, groups=3),
    ConvCase("groups of four channels", 2, 40, 9, 13, 40, 3, 3, padding=1, groups=10),
    ConvCase("groups of four channels, stride 2, 5x5", 1, 36, 11, 12, 36, 5, 5, 2, ((2, 1), (0, 3)), groups=9),
    ConvCase("groups of eight channels, wide image", 1, 32, 3, 75, 32, 3, 3, padding=1, groups=4),
    ConvCase("groups of eight channels, stride 2", 2, 24, 8, 7, 24, 3, 3, stride=2, padding=1, groups=3),
    ConvCase("groups of three and five channels", 2, 21, 7, 9, 35, 5, 5, padding=2, groups=7),
    ConvCase("groups of two channels and one", 2, 34, 7, 9, 17, 3, 3, padding=2, dilation=2, groups=17),
    ConvCase("depthwise with a multiplier, many channels", 1, 33, 6, 9, 66, 3, 3, padding=1, groups=33),
    ConvCase("depthwise with a multiplier", 1, 4, 6, 6, 8, 3, 3, padding=1, groups=4),
]


def operands(case: ConvCase, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, weight and bias in float64."""
    return rng.standard_normal(case.x_shape), rng.standard_normal(case.weight_shape), rng.standard_normal(case.k)


def forget_plans() -> None:
    """Let the kernels cut their work anew: what was cut with other threads shall not be taken again."""
    for name, module in list(sys.modules.items()):
        if name.startswith("numbanet.cpu."):
            for value in vars(module).values():
                getattr(value, "cache_clear", lambda: None)()
