"""What `numbanet.data.augment` does to batches on the GPU: pixels move, squares are blanked, channels are scaled.

The random numbers are drawn on the host, a few for each image, so that a batch comes out as it would on the CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.cuda.compile import F32, I32, U8, Int, Kernel, kernel
from numbanet.cuda.launch import constant, empty, launch, upload
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import MOST, THREADS, blocks, i32
from numbanet.device_array import DeviceArray

_BITS = {1: "U8", 2: "U16", 4: "U32", 8: "U64"}  # for who does not look at the values
_KINDS = {"uint8": "U8", "float32": "F32", "float64": "F64"}


@lru_cache(maxsize=4)
def _moving(bits: str) -> Kernel:
    """Return the kernel that cuts a window, at its own place and mirrored or not, out of each padded image."""

    def move(
        size: Int, h: Int, w: Int, c: Int, rows: Int, columns: Int, padding: Int, reflects: Int, tops: I32, lefts: I32,
        flips: I32, x: U8, y: U8,
    ):  # fmt: skip
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            pixel = i32(item // c)
            line = i32(pixel // columns)
            j = i32(pixel - line * columns)
            n = i32(line // rows)
            if flips[n] != 0:
                j = i32(columns - 1 - j)
            row, column = i32(tops[n] + (line - n * rows) - padding), i32(lefts[n] + j - padding)
            if reflects:
                row, column = i32(abs(row) % max(2 * h - 2, 1)), i32(abs(column) % max(2 * w - 2, 1))
                row, column = min(row, i32(2 * h - 2 - row)), min(column, i32(2 * w - 2 - column))
            if row >= 0 and row < h and column >= 0 and column < w:
                y[item] = x[i32(((n * h + row) * w + column) * c + (item - pixel * c))]
            else:
                y[item] = 0

    move.__annotations__.update(x=bits, y=bits)
    return kernel(threads=THREADS, config=bits)(move)


@lru_cache(maxsize=4)
def _blanking(bits: str) -> Kernel:
    """Return the kernel that writes zeros in a square of each image."""

    def blank(size: Int, h: Int, w: Int, c: Int, side: Int, tops: I32, lefts: I32, y: U8):
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            pixel = i32(item // c)
            line = i32(pixel // w)
            n = i32(line // h)
            row, column = i32(line - n * h - tops[n]), i32(pixel - line * w - lefts[n])
            if row >= 0 and row < side and column >= 0 and column < side:
                y[item] = 0

    blank.__annotations__["y"] = bits
    return kernel(threads=THREADS, config=bits)(blank)


@lru_cache(maxsize=4)
def _scaling(kind: str) -> Kernel:
    """Return the kernel y = x * factor - offset, with numbers for each channel, in float32 (of float64 in that)."""
    number = types.float64 if kind == "F64" else types.float32

    def scale(size: Int, c: Int, factor: F32, offset: F32, x: U8, y: F32):
        item = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if item < size:
            channel = i32(item % c)
            y[item] = number(x[item]) * number(factor[channel]) - number(offset[channel])

    scale.__annotations__.update(x=kind, y="F64" if kind == "F64" else "F32")
    return kernel(threads=THREADS, config=kind)(scale)


def _pixels(images: DeviceArray) -> DeviceArray:
    """Return images (N, C, H, W) as a C-contiguous array (N, H, W, C), copied only if it must be."""
    moved = images.transpose(0, 2, 3, 1)
    if moved.size > MOST:
        raise ValueError(f"images must have at most {MOST} elements, got shape {images.shape}")
    return moved if moved.flags.c_contiguous else moved.copy("C")


def _tables(*values: Any) -> list[DeviceArray]:
    """Return numbers of each image on the GPU, in one copy: Python waits for each."""
    there = upload(np.array(values, np.int32))
    return [there[row] for row in range(len(values))]


def windows(
    images: DeviceArray, size: tuple[int, int], tops: Any, lefts: Any, flips: Any, padding: int = 0, fill: str = "zero"
) -> DeviceArray:
    """Return a window of each image.

    Parameters
    ----------
    images : DeviceArray
        Shape (N, C, H, W), any dtype.
    size : (int, int)
        Height and width of the windows.
    tops, lefts, flips : array_like of int
        For each image where its window begins in the padded image, and whether it is mirrored left to right.
    padding : int
    fill : {"zero", "reflect"}

    Returns
    -------
    DeviceArray
        Shape (N, C, *size), the dtype of the images; channels-last in memory.
    """
    pixels = _pixels(images)
    n, h, w, c = pixels.shape
    out = empty((n, *size, c), images.dtype.name)
    if out.size:
        sizes = (out.size, h, w, c, *size, padding, int(fill == "reflect"))
        arrays = (*_tables(tops, lefts, flips), pixels, out)
        launch(_moving(_BITS[images.itemsize]), (blocks(out.size),), (*sizes, *arrays))
    return out.transpose(0, 3, 1, 2)


def blanked(images: DeviceArray, side: int, tops: Any, lefts: Any) -> DeviceArray:
    """Return images with a square of zeros in each, whose corner may lie outside; channels-last in memory."""
    out = images.transpose(0, 2, 3, 1).copy("C")
    n, h, w, c = out.shape
    if out.size:
        sizes = (out.size, h, w, c, side)
        launch(_blanking(_BITS[images.itemsize]), (blocks(out.size),), (*sizes, *_tables(tops, lefts), out))
    return out.transpose(0, 3, 1, 2)


def scaled(images: DeviceArray, factor: np.ndarray, offset: np.ndarray) -> DeviceArray:
    """Return ``images * factor - offset``, the numbers (float32) one for each channel; channels-last in memory.

    Raises
    ------
    TypeError
        If the images are neither uint8 nor float32 nor float64.
    """
    kind = _KINDS.get(images.dtype.name)
    if kind is None:
        raise TypeError(f"images must be uint8, float32 or float64, got {images.dtype}")
    pixels = _pixels(images)
    out = empty(pixels.shape, "float64" if kind == "F64" else "float32")
    if out.size:
        arrays = (constant(factor), constant(offset), pixels, out)
        launch(_scaling(kind), (blocks(out.size),), (out.size, pixels.shape[3], *arrays))
    return out.transpose(0, 3, 1, 2)
