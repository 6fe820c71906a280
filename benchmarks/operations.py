"""Cases of every operation but convolution; each is written once and runs in both libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, layers, nets
from benchmarks.augmentations import augmentation_cases
from benchmarks.backends import TORCH_FORMATS, Backend
from benchmarks.cases import Call, Case, random

_FLOAT = 4  # bytes
# Their backward is timed without the forward, too.
_BACKWARD_ALONE = ("activation", "batch_norm", "linear", "pool", "softmax")
# Networks whose parameters are updated, and how many these are: a cache holds those of the first.
_PARAMETERS = {"resnet20": 269_722, "resnet50": 25_557_032}


@dataclass(frozen=True)
class Operation:
    """An operation on one input.

    Attributes
    ----------
    section, name : str
    shape : tuple of int
        Of the input.
    prepare : callable
        ``prepare(backend)`` returns the function of the input, its other operands ready.
    traffic, returned : int
        Numbers that the forward and the backward pass read and write at least: each array once, or as often as what it
        is needed for has to wait for all of it. 0 where that is not what limits them. What accumulates in the gradient
        of a second operand counts; what a forward pass keeps in single bytes does not.
    flops : int
        Of the forward pass, likewise; the backward pass takes twice as many.
    trained : bool
        Whether the backward pass is timed too.
    tolerance : float
        See `Case`.
    formats : tuple of str
        The PyTorch backends that it is compared with; empty: all that differ for an input of its shape.
    """

    section: str
    name: str
    shape: tuple[int, ...]
    prepare: Callable[[Backend], Callable[[Any], Any]]
    traffic: int = 0
    returned: int = 0
    flops: int = 0
    trained: bool = True
    tolerance: float = 1e-4
    formats: tuple[str, ...] = ()


def _call(name: str, *arguments: Any) -> Callable[[Backend], Callable[[Any], Any]]:
    """Return the function of that name in `functional`, called with further arguments."""

    def prepare(b: Backend) -> Callable[[Any], Any]:
        function = getattr(b.functional, name)
        return lambda x: function(x, *arguments)

    return prepare


def _with(function: Callable[[Backend, Any, Any], Any], *shape: int) -> Callable[[Backend], Callable[[Any], Any]]:
    """Return ``function(backend, x, other)``, whose other operand has a shape and needs a gradient as well."""

    def prepare(b: Backend) -> Callable[[Any], Any]:
        other = b.tensor(random(1, *shape), True)
        return lambda x: function(b, x, other)

    return prepare


def _linear(layer: layers.LinearLayer) -> Callable[[Backend], Callable[[Any], Any]]:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        weight = b.tensor(random(1, layer.out_features, layer.in_features), True)
        bias = b.tensor(random(2, layer.out_features), True)
        return lambda x: b.functional.linear(x, weight, bias)

    return prepare


def _batch_norm(channels: int, training: bool) -> Callable[[Backend], Callable[[Any], Any]]:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        running = b.tensor(np.zeros(channels, np.float32)), b.tensor(np.ones(channels, np.float32))
        affine = b.tensor(random(1, channels), True), b.tensor(random(2, channels), True)
        return lambda x: b.functional.batch_norm(x, *running, *affine, training)

    return prepare


def _classification(loss: str, n: int, classes: int) -> Callable[[Backend], Callable[[Any], Any]]:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        target = b.tensor(np.arange(n, dtype=np.int64) * 7 % classes)
        return lambda x: getattr(b.functional, loss)(x, target)

    return prepare


def _max_pool_with_indices(pool: layers.PoolLayer) -> Callable[[Backend], Callable[[Any], Any]]:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        function = partial(b.functional.max_pool2d, return_indices=True)
        return lambda x: function(x, pool.size, pool.stride, pool.pad)[0]

    return prepare


def _on_images() -> Iterator[Operation]:
    for pool in layers.POOLS:
        both = math.prod(pool.x_shape) + math.prod(pool.y_shape)
        prepare = _call(f"{pool.kind}_pool2d", pool.size, pool.stride, pool.pad)
        yield Operation("pool", pool.name, pool.x_shape, prepare, both, both)
        if pool.kind == "max":
            prepare = _max_pool_with_indices(pool)
            traffic = both + 2 * math.prod(pool.y_shape)  # indices have 64 bits
            yield Operation("pool", f"{pool.name} indices", pool.x_shape, prepare, traffic, both)
    for name, shape in layers.ACTIVATIONS.items():
        size = math.prod(shape)
        # The input is read for its statistics first, and likewise the gradient with it.
        yield Operation("batch_norm", name, shape, _batch_norm(shape[1], True), 3 * size, 5 * size)
        yield Operation("batch_norm", f"{name} inference", shape, _batch_norm(shape[1], False), 2 * size, trained=False)
        yield Operation("activation", f"relu {name}", shape, _call("relu"), 2 * size, 3 * size)
        yield Operation("activation", f"gelu {name}", shape, _call("gelu"), 2 * size, 3 * size)
        # The gradient of one operand may be that of the result itself.
        yield Operation("arithmetic", f"add {name}", shape, _with(lambda b, x, y: x + y, *shape), 3 * size, 3 * size)


def _on_one_map() -> Iterator[Operation]:
    """Yield what one shape is enough for."""
    name, shape = next((name, shape) for name, shape in layers.ACTIVATIONS.items() if name == "256 @56")
    n, c, h, w = shape
    size = math.prod(shape)
    yield Operation("pool", f"adaptive avg {name}", shape, _call("adaptive_avg_pool2d", 1), size, size)
    for function in ("leaky_relu", "sigmoid", "tanh"):
        yield Operation("activation", f"{function} {name}", shape, _call(function), 2 * size, 3 * size)
    # The two libraries draw different numbers.
    dropped = partial(Operation, "activation", f"dropout {name}", shape, tolerance=math.inf)
    yield dropped(_call("dropout", 0.5), 2 * size, 2 * size)
    yield Operation("arithmetic", f"mul {name}", shape, _with(lambda b, x, y: x * y, *shape), 3 * size, 6 * size)
    channel = _with(lambda b, x, y: x + y, 1, c, 1, 1)
    yield Operation("arithmetic", f"add channel {name}", shape, channel, 2 * size, size)
    yield Operation("arithmetic", f"mean {name}", shape, lambda b: lambda x: x.mean(), size, size)
    yield Operation("arithmetic", f"sum H W {name}", shape, lambda b: lambda x: x.sum((2, 3)), size, size)
    padded = n * c * (h + 2) * (w + 2)
    yield Operation("shape", f"pad 1 {name}", shape, _call("pad", (1, 1, 1, 1)), size + padded, padded + size)
    joined = _with(lambda b, x, y: b.cat((x, y), 1), *shape)
    yield Operation("shape", f"cat C {name}", shape, joined, 4 * size, 5 * size)
    # Where channels lie side by side, one dimension of them all takes a copy: PyTorch's other format would give a view.
    flat = partial(Operation, shape=shape, traffic=2 * size, returned=2 * size, formats=TORCH_FORMATS[1:])
    yield flat("shape", f"flatten {name}", prepare=lambda b: lambda x: x.flatten(1))
    yield flat("shape", f"reshape {name}", prepare=lambda b: lambda x: x.reshape(n * c, h * w))
    mse = _with(lambda b, x, y: b.functional.mse_loss(x, y), *shape)
    yield Operation("loss", f"mse {name}", shape, mse, 2 * size, 5 * size)


def _on_rows() -> Iterator[Operation]:
    for name, shape in layers.SCORES.items():
        size = math.prod(shape)
        for function in ("softmax", "log_softmax"):
            yield Operation("softmax", f"{function} {name}", shape, _call(function, 1), 2 * size, 3 * size)
        for function, returned in (("cross_entropy", 2 * size), ("nll_loss", size)):
            yield Operation("loss", f"{function} {name}", shape, _classification(function, *shape), size, returned)
        # Of a view nothing would be timed: the elements are put in the new order.
        turned = partial(Operation, "shape", f"transpose {name}", shape)
        yield turned(lambda b: lambda x: x.transpose(0, 1).reshape(-1), 2 * size, 2 * size)
    for table, linears in layers.LINEARS.items():
        for layer in linears:
            shape = (layer.n, layer.in_features)
            yield Operation("linear", f"{table} {layer.name}", shape, _linear(layer), flops=2 * layer.macs)
    for m, k, n in layers.MATMULS:
        product = _with(lambda b, x, y: x @ y, k, n)
        yield Operation("matmul", f"{m}x{k} by {k}x{n}", (m, k), product, flops=2 * m * k * n)


def _forward(operation: Operation, backend: str) -> Call:
    b = backends.get(backend)
    x, function = b.tensor(random(0, *operation.shape)), operation.prepare(b)

    def run() -> Any:
        with b.no_grad():
            y = function(x)
        b.synchronize()
        return y

    return run


def _training(operation: Operation, backend: str) -> Call:
    b = backends.get(backend)
    x, function = b.tensor(random(0, *operation.shape), True), operation.prepare(b)
    grad = b.tensor(random(3, *function(x).shape))

    def run() -> Any:
        x.grad = None
        function(x).backward(grad)
        b.synchronize()
        return x.grad

    return run


def _backward(operation: Operation, backend: str) -> Call:
    b = backends.get(backend)
    x, function = b.tensor(random(0, *operation.shape), True), operation.prepare(b)
    y = function(x)
    grad = b.tensor(random(3, *y.shape))

    def run() -> Any:
        x.grad = None
        y.backward(grad, retain_graph=True)
        b.synchronize()
        return x.grad

    return run


def _parameters(net: str, b: Backend) -> list[Any]:
    """Return the parameters of a network, with gradients."""
    parameters = list(nets.model(net, b.name).parameters())
    for j, parameter in enumerate(parameters):
        parameter.grad = b.tensor(random(j, *parameter.shape))
    return parameters


def _step(net: str, optimizer: str, options: dict[str, Any], backend: str) -> Call:
    b = backends.get(backend)
    parameters = _parameters(net, b)
    step = getattr(b.optim, optimizer)(parameters, lr=1e-3, **options).step

    def run() -> Any:
        step()
        b.synchronize()
        return parameters[0]

    return run


def _clip(net: str, backend: str) -> Call:
    b = backends.get(backend)
    parameters, bound = _parameters(net, b), 500.0

    def run() -> Any:
        nonlocal bound
        bound *= 0.9999  # a little less each time, or there would be nothing left to scale
        norm = b.nn.utils.clip_grad_norm_(parameters, bound)
        b.synchronize()
        return norm

    return run


def _updates() -> Iterator[Case]:
    """Yield what works on all the parameters of a network."""
    # With each, how many numbers of a parameter's are read and written: itself, its gradient, the optimizer's state.
    rules: dict[str, tuple[str, dict[str, Any], int]] = {
        "SGD": ("SGD", {"momentum": 0.9}, 5),
        "SGD plain": ("SGD", {}, 3),
        "SGD nesterov": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}, 5),
        "Adam": ("Adam", {}, 7),
        "AdamW": ("AdamW", {}, 7),
        "RMSprop": ("RMSprop", {}, 5),
    }
    for net, count in _PARAMETERS.items():
        for name, (optimizer, options, numbers) in rules.items():
            build = partial(_step, net, optimizer, options)
            traffic = _FLOAT * numbers * count
            yield Case("optimizer", f"{name} {net}", "step", build, tolerance=1e-5, bytes=traffic)
        clip = partial(_clip, net)  # the norm of all gradients, then each of them times a number
        # PyTorch's norm of millions of numbers is off by 3e-5, ours by 5e-8.
        yield Case("optimizer", f"clip_grad_norm_ {net}", "step", clip, tolerance=1e-4, bytes=_FLOAT * 3 * count)


def operation_cases(sections: Sequence[str] | None = None) -> list[Case]:
    """Return the cases of some sections (None: all) in the order of the sections.

    The pass is ``"forward"``, ``"training"`` (forward and backward in one, as autograd runs them), ``"backward"`` (that
    half alone, of a result computed before), or ``"step"`` for what changes parameters.
    """
    cases = []
    for operation in sorted((*_on_images(), *_on_one_map(), *_on_rows()), key=lambda o: o.section):
        if sections is not None and operation.section not in sections:
            continue
        make = partial(
            Case, operation.section, operation.name, tolerance=operation.tolerance,
            formats=operation.formats or (TORCH_FORMATS if len(operation.shape) == 4 else TORCH_FORMATS[:1]),
        )  # fmt: skip
        flops, there, back = operation.flops, _FLOAT * operation.traffic, _FLOAT * operation.returned
        cases.append(make("forward", partial(_forward, operation), flops=flops, bytes=there))
        if operation.trained:
            cases.append(make("training", partial(_training, operation), flops=3 * flops, bytes=there + back))
        if operation.trained and operation.section in _BACKWARD_ALONE:
            cases.append(make("backward", partial(_backward, operation), flops=2 * flops, bytes=back))
    others = *augmentation_cases(), *_updates()
    return [*cases, *(case for case in others if sections is None or case.section in sections)]
