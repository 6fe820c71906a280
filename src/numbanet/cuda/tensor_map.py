"""What the copy engine (TMA) is told of a tensor: a *form*, which the GPU's executor encodes into a map of 128 bytes.

A kernel's parameter takes a `TensorMap`, an array with the form in which it is read. The innermost dimension comes
first in every tuple. All copies have lines of 128 bytes in shared memory, whose chunks of 16 bytes are permuted (the
swizzle of 128 bytes): that is the order in which products of warpgroups read them without meeting in a bank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numbanet.problem import Problem

LINE = 128  # bytes of a line of a box
MOST_BOX = 256  # elements of a box along one dimension
MOST_STEP = 8  # from one pixel to the next
MOST_OFFSET = 255  # that is added to a pixel's place
CORNERS = range(-128, 128)
ELEMENTS = {"uint16": 2, "tf32": 4}
"""Bytes of each kind of element; "tf32" is float32 in memory, which the copy rounds to TF32."""


@dataclass(frozen=True)
class Box:
    """A box of a tensor of three dimensions.

    Attributes
    ----------
    element : {"uint16", "tf32"}
    sizes : tuple of int
        Of the tensor.
    strides : tuple of int
        Bytes from one element to the next along the second and the third dimension: multiples of 16.
    box : tuple of int
        Its size: LINE bytes along the first dimension, at most MOST_BOX elements along the others.
    """

    element: str
    sizes: tuple[int, int, int]
    strides: tuple[int, int]
    box: tuple[int, int, int]

    __hash__ = Problem.remembered_hash


@dataclass(frozen=True)
class Pixels:
    """A line of some channels for each of many pixels of images (N, H, W, C).

    The pixels of one image are those of a window, which begins at `lower` and ends with the image's last pixel plus
    `upper`, in steps; after the last one of an image comes the first of the next.

    Attributes
    ----------
    element : {"uint16", "tf32"}
    sizes : tuple of int
        (C, W, H, N).
    lower, upper : tuple of int
        (w, h), each from `CORNERS`.
    step : tuple of int
        (w, h), from 1 to MOST_STEP.
    pixels : int
        Of one copy, at most MOST_BOX.
    """

    element: str
    sizes: tuple[int, int, int, int]
    lower: tuple[int, int]
    upper: tuple[int, int]
    step: tuple[int, int]
    pixels: int

    __hash__ = Problem.remembered_hash

    @property
    def strides(self) -> tuple[int, int, int]:
        """Bytes from one element to the next along w, h and n."""
        channels, width, height, _ = self.sizes
        pixel = channels * ELEMENTS[self.element]
        return pixel, pixel * width, pixel * width * height


@dataclass(frozen=True)
class TensorMap:
    """An argument of a kernel: an array, and the form in which the copy engine reads it.

    Attributes
    ----------
    array : device array
        It begins at a multiple of 16 bytes.
    form : Box or Pixels
    """

    array: Any
    form: Box | Pixels


def encode(driver: Any, address: int, form: Box | Pixels) -> tuple[Any, ...]:
    """Return what the driver (cuda.bindings.driver) makes of a form: its status and the map."""
    word, half = driver.cuuint64_t, driver.cuuint32_t
    kinds, data = driver.CUtensorMapDataType, {"uint16": "UINT16", "tf32": "TFLOAT32"}[form.element]
    kind = getattr(kinds, f"CU_TENSOR_MAP_DATA_TYPE_{data}")
    layout = (
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,  # zeros
    )
    sizes, strides = [word(size) for size in form.sizes], [word(stride) for stride in form.strides]
    if isinstance(form, Box):
        box, steps = [half(size) for size in form.box], [half(1)] * 3
        return driver.cuTensorMapEncodeTiled(kind, 3, address, sizes, strides, box, steps, *layout)
    # The corners are in the order (w, h): that of the dimensions.
    steps, channels = [half(step) for step in (1, *form.step, 1)], LINE // ELEMENTS[form.element]
    window = list(form.lower), list(form.upper), channels, form.pixels
    return driver.cuTensorMapEncodeIm2col(kind, 4, address, sizes, strides, *window, steps, *layout)
