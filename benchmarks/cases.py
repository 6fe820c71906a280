"""What is timed: one case is one pass of one operation, built for any backend from the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, layers
from benchmarks.backends import TORCH_FORMATS, Backend
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


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or 1, np.float32).reshape(shape)


# ------------------------------------------------------------------------------------------------------- convolution


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
    return _random(0, *layer.x_shape), _random(1, *layer.weight_shape), _random(2, *layer.y_shape)


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
    import torch

    x, weight, grad = map(backends.get(backend).tensor, (x, weight, grad))
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


# -------------------------------------------------------------------------------------------------- other operations

# For a backend, with its other operands prepared: the function of the input.
Operation = Callable[[Backend], Callable[[Any], Any]]


def _pool(layer: layers.PoolLayer) -> Operation:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        pool = b.functional.max_pool2d if layer.kind == "max" else b.functional.avg_pool2d
        return lambda x: pool(x, layer.size, layer.stride, layer.pad)

    return prepare


def _linear(layer: layers.LinearLayer) -> Operation:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        weight = b.tensor(_random(1, layer.out_features, layer.in_features), True)
        bias = b.tensor(_random(2, layer.out_features), True)
        return lambda x: b.functional.linear(x, weight, bias)

    return prepare


def _batch_norm(channels: int, training: bool) -> Operation:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        running = b.tensor(np.zeros(channels, np.float32)), b.tensor(np.ones(channels, np.float32))
        affine = b.tensor(_random(1, channels), True), b.tensor(_random(2, channels), True)
        return lambda x: b.functional.batch_norm(x, *running, *affine, training)

    return prepare


def _cross_entropy(n: int, classes: int) -> Operation:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        target = b.tensor(np.arange(n, dtype=np.int64) * 7 % classes)
        return lambda x: b.functional.cross_entropy(x, target)

    return prepare


def _plain(name: str, *arguments: Any) -> Operation:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        function = getattr(b.functional, name)
        return lambda x: function(x, *arguments)

    return prepare


def _operations() -> Iterator[tuple[str, str, tuple[int, ...], int, Operation]]:
    """Yield section, name, shape of the input, elements of the result (0: no matter), operation."""
    maps = {name: (shape, math.prod(shape)) for name, shape in layers.ACTIVATIONS.items()}
    for pool in layers.POOLS:
        yield "pool", pool.name, pool.x_shape, math.prod(pool.y_shape), _pool(pool)
    for name, (shape, size) in maps.items():
        yield "batch_norm", name, shape, size, _batch_norm(shape[1], True)
        yield "batch_norm", f"{name} inference", shape, size, _batch_norm(shape[1], False)
    for function in ("relu", "gelu"):
        for name, (shape, size) in maps.items():
            yield function, name, shape, size, _plain(function)
    for function in ("softmax", "log_softmax"):
        for name, scores in layers.SCORES.items():
            yield function, name, scores, math.prod(scores), _plain(function, 1)
    for name, scores in layers.SCORES.items():
        yield "cross_entropy", name, scores, 0, _cross_entropy(*scores)
    for table, linears in layers.LINEARS.items():
        for linear in linears:
            yield "linear", f"{table} {linear.name}", (linear.n, linear.in_features), 0, _linear(linear)


def _forward_call(shape: tuple[int, ...], operation: Operation, backend: str) -> Call:
    b = backends.get(backend)
    x, function = b.tensor(_random(0, *shape)), operation(b)

    def run() -> Any:
        with b.no_grad():
            y = function(x)
        b.synchronize()
        return y

    return run


def _training_call(shape: tuple[int, ...], operation: Operation, backend: str) -> Call:
    b = backends.get(backend)
    x, function = b.tensor(_random(0, *shape), True), operation(b)
    grad = b.tensor(_random(3, *function(x).shape))

    def run() -> Any:
        x.grad = None
        function(x).backward(grad)
        b.synchronize()
        return x.grad

    return run


def operation_cases(sections: Sequence[str] | None = None) -> list[Case]:
    """Return the cases of pooling, batch norm, activations, softmax, losses and linear.

    The pass is ``"forward"``, or ``"training"``: forward and backward in one, as autograd runs them.
    """
    cases = []
    for section, name, shape, result_size, operation in _operations():
        if sections is not None and section not in sections:
            continue
        formats = TORCH_FORMATS if len(shape) == 4 else TORCH_FORMATS[:1]
        traffic = 4 * (math.prod(shape) + result_size) if result_size else 0
        cases.append(
            Case(section, name, "forward", partial(_forward_call, shape, operation), formats=formats, bytes=traffic)
        )
        if not name.endswith("inference"):
            cases.append(Case(section, name, "training", partial(_training_call, shape, operation), formats=formats))
    return cases
