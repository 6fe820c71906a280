"""How far Winograd's algorithms are from the exact result, over layers and activations as they occur in networks.

::

    python -m benchmarks.winograd_error

The images are what a ReLU behind batch norm yields: half of the numbers are zero, channels differ in scale, neighbours
are alike. Weights have the deviation of He's initial values; gradients are normal, and small. The exact result is the
direct method's in float64. Errors are max|out - exact| / max|exact|; the bound is 3e-5, and the direct method's own
float32 error stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.layers import PASSES, ConvLayer, conv

BOUND = 3e-5
LAYERS = (
    conv(64, 64, 56, 3, n=2),
    conv(128, 128, 28, 3, n=2),
    conv(256, 256, 14, 3, n=4),
    conv(512, 512, 7, 3, n=8),
    conv(512, 512, 14, 3, n=2),
    conv(160, 208, 17, 3, n=4),
    conv(256, 256, 2, 3, n=32),
    conv(48, 64, 35, 5, n=4),
    conv(256, 128, 14, 5, n=2),
    conv(128, 128, 56, 3, 2, n=1),
)


def activations(layer: ConvLayer, seed: int = 0) -> np.ndarray:
    """Return images, of shape (N, C, H, W), as a ReLU behind batch norm yields them."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(layer.x_shape)
    for axis in (2, 3):  # neighbours are alike
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    scale = np.exp(rng.normal(0, 0.5, (1, layer.c, 1, 1)))
    return np.maximum(noise / noise.std() * scale + rng.normal(0, 0.3, scale.shape), 0).astype(np.float32)


def operands(layer: ConvLayer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, weight, and the gradient of the result."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, np.sqrt(2 / (layer.c * layer.r * layer.s)), layer.weight_shape).astype(np.float32)
    return activations(layer), weight, rng.normal(0, 1e-3, layer.y_shape).astype(np.float32)


def _call(layer: ConvLayer, which: str, dtype: str) -> Any:
    from numbanet import ops

    x, weight, grad = (array.astype(dtype) for array in operands(layer))
    if which == "forward":
        return partial(ops.conv2d, x, weight, None, layer.stride, layer.pad)
    if which == "backward_input":
        return partial(ops.conv2d_backward_input, grad, weight, layer.x_shape, layer.stride, layer.pad)
    return partial(ops.conv2d_backward_weight, x, grad, layer.weight_shape, layer.stride, layer.pad)


def errors(layer: ConvLayer, which: str) -> dict[str, float]:
    """Return the error of each fast kernel that takes a pass of a layer, by its name."""
    import numbanet as nnet
    from numbanet import dispatch
    from numbanet.problem.conv import conv2d_problem

    with nnet.precision("strict"):
        exact = _call(layer, which, "float64")()
    problem = conv2d_problem(which, layer.x_shape, layer.weight_shape, "float32", layer.stride, layer.pad)
    names = [c.name for c, reason in dispatch.verdicts(problem, "cpu") if reason is None and c.name != "reference"]
    call, found = _call(layer, which, "float32"), {}
    for name in names:
        with nnet.use(name):
            found[name] = float(np.abs(call() - exact).max() / np.abs(exact).max())
    return found


def is_winograd(kernel: str) -> bool:
    """Return whether a kernel's name is that of one of Winograd's algorithms."""
    return "winograd" in kernel


def lines() -> Iterator[str]:
    """Yield the table, line by line."""
    yield "| layer                | pass            | kernel               | error   |"
    yield "|----------------------|-----------------|----------------------|--------:|"
    worst = 0.0
    for layer in LAYERS:
        for which in PASSES:
            for kernel, error in errors(layer, which).items():
                worst = max(worst, error if is_winograd(kernel) else 0.0)
                yield f"| {layer.name:<20} | {which:<15} | {kernel:<20} | {error:.1e} |"
    yield f"\nWinograd's largest error: {worst:.1e} (bound: {BOUND:.0e})"


if __name__ == "__main__":
    for text in lines():
        print(text, flush=True)
