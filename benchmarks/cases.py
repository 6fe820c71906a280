"""What is timed: one case is one pass of one operation, built for any backend from the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, layers
from benchmarks.backends import TORCH_FORMATS
from benchmarks.layers import ConvLayer

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One row of the comparison.

    Attributes
    ----------
    section, name, which : str
        Table or group, layer, pass.
    build : callable
        ``build(backend)`` returns the function to time. Equal inputs for every backend; the first call of that
        function gives equal results.
    tolerance : float
        The largest relative difference between two right results.
    kernel : callable
        Returns the name of the kernel that numbanet chooses, or an empty string.
    formats : tuple of str
        The PyTorch backends that differ for this case.
    flops, bytes : int
        Work by the direct method, and least memory traffic; 0 where the number means nothing.
    wide3x3 : bool
        Whether it is a 3x3 convolution with stride 1 and at least 32 channels in and out, Winograd's home ground.
    """

    section: str
    name: str
    which: str
    build: Callable[[str], Call]
    tolerance: float = 1e-4
    kernel: Callable[[], str] = str
    formats: tuple[str, ...] = TORCH_FORMATS
    flops: int = 0
    bytes: int = 0
    wide3x3: bool = False


def random(seed: int, *shape: int) -> np.ndarray:
    """Return normal numbers: the same ones for the same seed and shape."""
    return np.random.default_rng(seed).standard_normal(shape or 1, np.float32).reshape(shape)


def is_wide3x3(layer: ConvLayer) -> bool:
    """Return whether a layer is 3x3 with stride 1, dense, and has at least 32 channels in and out."""
    plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    return plain and (layer.r, layer.s) == (3, 3) and min(layer.c, layer.k) >= 32


def conv_kernel(layer: ConvLayer, which: str) -> str:
    """Return the name of the kernel that numbanet chooses for a layer."""
    from numbanet import dispatch
    from numbanet.problem.conv import conv2d_problem

    problem = conv2d_problem(
        which, layer.x_shape, layer.weight_shape, "float32", layer.stride, layer.pad, layer.dilation, layer.groups
    )
    return dispatch.choose(problem).name


def conv_operands(layer: ConvLayer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, weight and the gradient of y, in the memory order that their shapes say."""
    return random(0, *layer.x_shape), random(1, *layer.weight_shape), random(2, *layer.y_shape)


def conv_call(layer: ConvLayer, which: str, backend: str) -> Call:
    """Return the function that runs one pass of a layer."""
    x, weight, grad = conv_operands(layer)
    geometry = (layer.stride, layer.pad, layer.dilation, layer.groups)
    if backend == "numbanet":
        from numbanet import ops

        x, weight, grad = map(backends.channels_last, (x, weight, grad))
        if which == "forward":
            return partial(ops.conv2d, x, weight, None, *geometry)
        if which == "backward_input":
            return partial(ops.conv2d_backward_input, grad, weight, layer.x_shape, *geometry)
        return partial(ops.conv2d_backward_weight, x, grad, layer.weight_shape, *geometry)
    return torch_conv_call(layer, which, *map(backends.get(backend).tensor, (x, weight, grad)))


def torch_conv_call(layer: ConvLayer, which: str, x: Any, weight: Any, grad: Any) -> Call:
    """Return the function that runs one pass of a layer on PyTorch's tensors."""
    import torch

    geometry = (layer.stride, layer.pad, layer.dilation, layer.groups)
    if which == "forward":
        return partial(torch.nn.functional.conv2d, x, weight, None, *geometry)
    mask = [which == "backward_input", which == "backward_weight", False]
    arguments = (grad, x, weight, None, *geometry[:3], False, [0, 0], layer.groups, mask)
    return lambda: torch.ops.aten.convolution_backward(*arguments)[mask.index(True)]


def conv_case(section: str, layer: ConvLayer, which: str) -> Case:
    """Return the case of one pass of a layer."""
    return Case(
        section, layer.name, which,
        build=partial(conv_call, layer, which),
        kernel=partial(conv_kernel, layer, which),
        flops=layer.flops(which), bytes=layer.bytes(which), wide3x3=is_wide3x3(layer),
    )  # fmt: skip


def conv_cases(table: str, passes: tuple[str, ...] = layers.PASSES, batch: int | None = None) -> list[Case]:
    """Return the cases of a table of `layers.TABLES`, pass by pass; `batch` None keeps the table's batch size."""
    chosen = [layer if batch is None else layer.batch(batch) for layer in layers.TABLES[table]]
    return [conv_case(table, layer, which) for which in passes for layer in chosen]
