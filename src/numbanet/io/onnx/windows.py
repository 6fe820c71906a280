"""Pooling, padding and resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet.io.onnx.graph import Graph
from numbanet.io.onnx.node import Node
from numbanet.tensor import Tensor

Pads = tuple[tuple[int, int], ...]
"""(before, after) of each axis of the images."""


def split_pads(node: Node, pads: Sequence[int], axes: int) -> Pads:
    """Return ONNX's pads (all before, then all after) by axis; they must not be negative."""
    if len(pads) != 2 * axes or min(pads) < 0:
        node.fail(f"pads={tuple(pads)!r}: expected {2 * axes} numbers from 0")
    return tuple(zip(pads[:axes], pads[axes:]))


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Add `value` around the last axes, or take away where a number is negative."""
    flat = [number for pair in reversed(pads) for number in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def _same(shape: Sequence[int], spans: Sequence[int], stride: Sequence[int], lower: bool) -> Pads:
    """Return the pads that give ceil(size / stride) windows; an odd one goes to the end, or to the beginning."""
    found = []
    for size, span, step in zip(shape, spans, stride):
        both = max((-(-size // step) - 1) * step + span - size, 0)
        few, more = both // 2, both - both // 2
        found.append((more, few) if lower else (few, more))
    return tuple(found)


def same_lower(x: Tensor, spans: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return images with the pads of auto_pad=SAME_LOWER."""
    return padded(x, _same(x.shape[2:], spans, stride, True))


def _pool(node: Node, graph: Graph) -> None:
    largest = node.kind == "MaxPool"
    kernel = node.take("kernel_shape", "ints")
    axes = len(kernel)
    if graph.rank(node, 0) != axes + 2 or axes not in (1, 2) or min(kernel) < 1:
        node.fail(f"kernel_shape={kernel!r} for {graph.rank(node, 0)} dimensions is not supported")
    stride, dilation = node.take("strides", "ints", (1,) * axes), node.take("dilations", "ints", (1,) * axes)
    for name, values in (("strides", stride), ("dilations", dilation)):
        if len(values) != axes or min(values) < 1:
            node.fail(f"{name}={values!r}: expected {axes} numbers from 1")
    pads = split_pads(node, node.take("pads", "ints", (0,) * 2 * axes), axes)
    word, ceil = node.only("auto_pad", "str", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), False
    if node.opset >= 10:
        ceil = bool(node.only("ceil_mode", "int", 0, 1))
    node.only("storage_order", "int", 0)
    counted = bool(node.only("count_include_pad", "int", 0, 1)) if not largest else False
    node.finish(1)
    if len(node.outputs) > 1:
        node.fail("the positions of the maxima as an output are not supported")
    if not largest and set(dilation) != {1}:
        node.fail(f"dilations={dilation!r} is not supported")
    if word != "NOTSET":
        pads = ((0, 0),) * axes
    words = word if word.startswith("SAME") else None
    uneven = any(a != b or 2 * a > k for (a, b), k in zip(pads, kernel))
    if ceil and (uneven or words):
        node.fail("ceil_mode with pads that differ, or are larger than half the window, is not supported")
    one = (1,) * (2 - axes)  # a sequence is an image of one row
    window = _Window((*one, *kernel), (*one, *stride), (*one, *dilation), ((0, 0),) * len(one) + pads, words, ceil)
    run = window.largest if largest else partial(window.mean, counted=counted)
    graph.add(node, partial(_as_images, run=run), graph.operand(node, 0))


def _as_images(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    return F.squeeze(run(F.unsqueeze(x, 2)), 2) if x.ndim == 3 else run(x)


class _Window:
    """Pooling windows of images."""

    def __init__(self, kernel: Any, stride: Any, dilation: Any, pads: Pads, words: str | None, ceil: bool):
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.pads, self.words, self.ceil = pads, words, ceil

    def _widths(self, x: Tensor) -> tuple[Pads, bool]:
        """Return the pads for images, and whether pooling itself can add them."""
        pads = self.pads
        if self.words is not None:
            spans = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel))
            pads = _same(x.shape[2:], spans, self.stride, self.words == "SAME_LOWER")
        return pads, all(2 * max(pair) <= k for pair, k in zip(pads, self.kernel))

    def largest(self, x: Tensor) -> Tensor:
        """Return the largest element of each window."""
        pads, narrow = self._widths(x)
        if not narrow:
            x, pads = padded(x, pads, -math.inf), ((0, 0), (0, 0))
        return F.max_pool2d(x, self.kernel, self.stride, pads, self.dilation, self.ceil)

    def mean(self, x: Tensor, counted: bool) -> Tensor:
        """Return the mean of each window, over the pads too if they are counted."""
        pads, narrow = self._widths(x)
        if narrow:
            return F.avg_pool2d(x, self.kernel, self.stride, pads, self.ceil, counted)
        y = F.avg_pool2d(padded(x, pads), self.kernel, self.stride)
        if counted:
            return y
        ones = Tensor(np.ones((1, 1, *x.shape[2:]), x.dtype))
        return F.div(y, F.avg_pool2d(padded(ones, pads), self.kernel, self.stride))


def _global_pool(node: Node, graph: Graph) -> None:
    node.finish(1)
    rank = graph.rank(node, 0)
    if rank < 3:
        node.fail(f"its input has {rank} dimensions, expected 3 or more")
    axes = tuple(range(2, rank))
    run: Callable[..., Tensor]
    if node.kind == "GlobalMaxPool":
        run = partial(F.adaptive_max_pool2d, output_size=1) if rank == 4 else partial(F.amax, dim=axes, keepdim=True)
    else:
        run = partial(F.adaptive_avg_pool2d, output_size=1) if rank == 4 else partial(F.mean, dim=axes, keepdim=True)
    graph.add(node, run, graph.operand(node, 0))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(node: Node, graph: Graph) -> None:
    mode = node.only("mode", "str", *_PAD_MODES)
    rank, value = graph.rank(node, 0), 0.0
    axes: tuple[int, ...] = tuple(range(rank))
    if node.opset < 11:
        pads, value = node.take("pads", "ints"), node.take("value", "float", 0.0)
        node.finish(1)
    else:
        node.finish(2, 4)
        pads = graph.integers(node, 1)
        value = graph.number(node, 2) if node.has(2) else 0.0
        axes = _axes(node, graph.integers(node, 3), rank) if node.has(3) else axes
    if len(pads) != 2 * len(axes):
        node.fail(f"pads={pads!r}: expected {2 * len(axes)} numbers")
    widths = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :])))
    first = min((axis for axis, pair in widths.items() if any(pair)), default=rank - 1)
    flat = [number for axis in reversed(range(first, rank)) for number in widths.get(axis, (0, 0))]
    graph.add(node, partial(_padded, pad=flat, mode=_PAD_MODES[mode], value=value), graph.operand(node, 0))


def _padded(x: Tensor, pad: list[int], mode: str, value: float) -> Tensor:
    return F.pad(x, pad, mode, value) if mode == "constant" else F.pad(x, pad, mode)


def _axes(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    found = tuple(axis + rank if axis < 0 else axis for axis in axes)
    if len(set(found)) < len(found) or any(not 0 <= axis < rank for axis in found):
        node.fail(f"axes={tuple(axes)!r} for {rank} dimensions")
    return found


def _resize(node: Node, graph: Graph) -> None:
    if node.opset < 11:
        node.fail("Resize is supported from opset 11 on")
    mode = node.only("mode", "str", "nearest", "linear", "cubic")
    where = node.take("coordinate_transformation_mode", "str", "half_pixel")
    rounding = node.take("nearest_mode", "str", "round_prefer_floor")
    cubic = node.take("cubic_coeff_a", "float", -0.75)
    for name in ("exclude_outside", "antialias"):
        node.only(name, "int", 0)
    node.take("extrapolation_value", "float", 0.0)  # of a mode that is refused below
    node.only("keep_aspect_ratio_policy", "str", "stretch")
    rank = graph.rank(node, 0)
    axes = _axes(node, node.take("axes", "ints", tuple(range(rank))), rank)
    node.finish(2, 4)
    options: dict[str, Any] = {}
    if node.has(3):
        sizes = dict(zip(axes, graph.integers(node, 3)))
        images = tuple(axis for axis in sorted(sizes) if axis >= 2)
        if any(axis < 2 for axis in sizes):
            node.fail("sizes must be given for the axes of the images alone (scales, or the attribute axes)")
        options["size"], upward = tuple(sizes[axis] for axis in images), False
    elif node.has(2):
        scales = dict(zip(axes, graph.constant(node, 2, "f").reshape(-1).tolist()))
        images = tuple(axis for axis in sorted(scales) if axis >= 2)
        if any(scales[axis] != 1 for axis in scales if axis < 2):
            node.fail("batch and channels can't be resized")
        options["scale_factor"] = tuple(scales[axis] for axis in images)
        upward = all(factor >= 1 and factor == int(factor) for factor in options["scale_factor"])
    else:
        node.fail("has neither scales nor sizes")
    if images != tuple(range(2, rank)) or rank not in (3, 4):
        node.fail(f"resizes the axes {images} of {rank}")
    name = f"mode={mode!r}, coordinate_transformation_mode={where!r}"
    if mode == "nearest" and (where, rounding) == ("asymmetric", "floor"):
        options["mode"] = "nearest"
    elif mode == "nearest" and where == "half_pixel" and (
        rounding == "round_prefer_ceil" or (rounding == "round_prefer_floor" and upward)
    ):  # fmt: skip
        options["mode"] = "nearest-exact"
    elif mode == "nearest":
        node.fail(f"{name}, nearest_mode={rounding!r} is not supported for this size")
    elif where in ("half_pixel", "pytorch_half_pixel", "align_corners") and (mode == "linear" or cubic == -0.75):
        options["mode"] = {"linear": "linear" if rank == 3 else "bilinear", "cubic": "bicubic"}[mode]
        options["align_corners"] = where == "align_corners"
    else:
        node.fail(f"{name}, cubic_coeff_a={cubic} is not supported")
    graph.add(node, partial(_resized, single=where != "pytorch_half_pixel", options=options), graph.operand(node, 0))


def _resized(x: Tensor, single: bool, options: dict[str, Any]) -> Tensor:
    factors = options.get("scale_factor", ())
    if options["mode"] == "nearest" and x.ndim == 4 and any(factor != int(factor) for factor in factors):
        # As a volume, where the scales always count: those of small images do not where PyTorch ignores them.
        n, c, h, w = x.shape
        y = F.interpolate(x.reshape(n, c, 1, h, w), scale_factor=(1.0, *factors), mode="nearest")
        return y.reshape(n, c, *y.shape[3:])
    y = F.interpolate(x, **options)
    if not single and any(new == 1 and old > 1 for new, old in zip(y.shape[2:], x.shape[2:])):
        raise ValueError("coordinate_transformation_mode='pytorch_half_pixel' is not supported for one pixel")
    return y


OPERATORS = {
    "AveragePool": _pool, "GlobalAveragePool": _global_pool, "GlobalMaxPool": _global_pool, "MaxPool": _pool,
    "Pad": _pad, "Resize": _resize,
}  # fmt: skip
