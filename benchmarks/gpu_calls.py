"""Calls of public functions that bring every CUDA kernel to run: small, with tails, strides, and every option.

Each draws its operands from the generator that it is given, and takes the gradients of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import numbanet as nnet
from numbanet import functional as F
from numbanet import ops, optim

if TYPE_CHECKING:
    from tests.cases import ConvCase

@dataclass(frozen=True)
class Call:
    """One call.

    Attributes
    ----------
    name : str
    run : callable
        ``run(rng, device)``.
    precisions : tuple of str
        Those under which other kernels fit.
    """

    name: str
    run: Callable[[np.random.Generator, str], Any]
    precisions: tuple[str, ...] = ("float32",)


PRODUCTS = ("float32", "tf32", "bf16", "fp16")
IMAGE, ODD = (2, 8, 7, 9), (2, 3, 7, 6)


def _tensor(array: np.ndarray, device: str) -> Any:
    if array.ndim == 4:  # images lie with channels last
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return nnet.tensor(array, device=device, requires_grad=array.dtype.kind == "f")


def _backward(results: Any, rng: np.random.Generator) -> None:
    for y in results if isinstance(results, tuple) else (results,):
        if y.requires_grad:
            grad = rng.standard_normal(y.shape).astype(y.dtype)
            y.backward(_tensor(grad, y.device).detach(), retain_graph=True)


def _differentiated(function: Callable[..., Any], shapes: tuple, dtype: str, rng: Any, device: str) -> None:
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    _backward(function(*[_tensor(array, device) for array in arrays]), rng)


def call(name: str, function: Callable[..., Any], *shapes: tuple[int, ...], dtype: str = "float32") -> Call:
    """Return the call of a function of normally distributed operands."""
    return Call(name, partial(_differentiated, function, shapes, dtype))


def _conv(case: ConvCase, dtype: str, rng: np.random.Generator, device: str) -> None:
    from tests.cases import operands  # asv reads this folder where there are no tests

    x, weight, bias = (_tensor(array.astype(dtype), device) for array in operands(case, rng))
    _backward(F.conv2d(x, weight, bias, **case.options), rng)


def _convolutions() -> Iterator[Call]:
    from tests.cases import CONV_CASES

    for case in sorted(CONV_CASES, key=_work):
        yield Call(f"conv2d: {case}", partial(_conv, case, "float32"), PRODUCTS)
    for case in sorted(CONV_CASES, key=_work)[:12]:
        yield Call(f"conv2d float64: {case}", partial(_conv, case, "float64"))


def _work(case: ConvCase) -> int:
    return case.n * case.h * case.w * case.k * case.c // case.groups * case.r * case.s


def _products() -> Iterator[Call]:
    for m, k, n in ((5, 13, 131), (130, 20, 12), (64, 264, 96), (3, 600, 7), (257, 1030, 129)):
        for turned in (False, True):
            function = partial(lambda turn, a, b: a @ (b.transpose(0, 1) if turn else b), turned)
            shapes = (m, k), (n, k) if turned else (k, n)
            both = partial(_differentiated, function, shapes, "float32")
            yield Call(f"matmul {m} x {k} x {n}{', turned' if turned else ''}", both, PRODUCTS)
    yield call("matmul float64", lambda a, b: a @ b, (5, 6), (6, 7), dtype="float64")
    stacks = partial(_differentiated, lambda a, b: a @ b, ((3, 5, 6), (6, 7)), "float32")
    yield Call("matmul of a stack", stacks, PRODUCTS)
    linear = partial(_differentiated, F.linear, ((9, 33), (12, 33), (12,)), "float32")
    yield Call("linear", linear, PRODUCTS)


def _pools() -> Iterator[Call]:
    for shape in (IMAGE, ODD):
        for window in ((2,), (3, 2, 1), ((2, 3), (3, 2), (1, 0))):
            yield call(f"max_pool2d {window} {shape}", lambda x, w=window: F.max_pool2d(x, *w), shape)
            yield call(f"avg_pool2d {window} {shape}", lambda x, w=window: F.avg_pool2d(x, *w), shape)
        yield call(f"max_pool2d indices {shape}", lambda x: F.max_pool2d(x, 2, return_indices=True)[0], shape)
        for size in (1, (3, 2), (11, 13)):
            yield call(f"adaptive_avg_pool2d {size} {shape}", lambda x, s=size: F.adaptive_avg_pool2d(x, s), shape)
            yield call(f"adaptive_max_pool2d {size} {shape}", lambda x, s=size: F.adaptive_max_pool2d(x, s), shape)
        for mode in ("nearest", "bilinear"):
            scaled = lambda x, m=mode: F.interpolate(x, (5, 13), mode=m)  # noqa: E731
            yield call(f"interpolate {mode} {shape}", scaled, shape)


def _statistics(activation: Any, rng: np.random.Generator, device: str) -> None:
    """The two halves of a batch norm, between which a captured training step puts other work."""
    x, other = (_tensor(rng.standard_normal(IMAGE).astype(np.float32), device) for _ in range(2))
    weight, bias = (_tensor(rng.standard_normal(IMAGE[1]).astype(np.float32), device) for _ in range(2))
    mean, inverse, coefficients = ops.batch_norm_statistics(x.data, None, None, weight.data, bias.data, True)
    ops.batch_norm_apply(x.data, coefficients, activation, other.data if activation else None)


def _normalisations() -> Iterator[Call]:
    for shape in (IMAGE, ODD, (5, 132, 3, 3)):
        c = shape[1]
        trained = lambda x, w, b: F.batch_norm(x, None, None, w, b, True)  # noqa: E731
        yield call(f"batch_norm {shape}", trained, shape, (c,), (c,))
        running = lambda x, w, b, m, v: F.batch_norm(x, m.detach(), v.detach() ** 2 + 0.5, w, b)  # noqa: E731
        yield call(f"batch_norm inference {shape}", running, shape, (c,), (c,), (c,), (c,))
        updated = lambda x, m, v: F.batch_norm(x, m.detach(), v.detach() ** 2, None, None, True)  # noqa: E731
        yield call(f"batch_norm running {shape}", updated, shape, (c,), (c,))
        layer = lambda x, w, b: F.layer_norm(x, (9,) if x.shape[-1] == 9 else x.shape[-1:], w, b)  # noqa: E731
        yield call(f"layer_norm {shape}", layer, shape, shape[-1:], shape[-1:])
        group = lambda x, w, b: F.group_norm(x, x.shape[1] if x.shape[1] == 3 else 4, w, b)  # noqa: E731
        yield call(f"group_norm {shape}", group, shape, (c,), (c,))
        yield call(f"local_response_norm {shape}", lambda x: F.local_response_norm(x, 3), shape)
    for activation in (None, "relu"):
        yield Call(f"batch_norm in two halves, {activation}", partial(_statistics, activation))


def _losses() -> Iterator[Call]:
    for rows, classes in ((19, 10), (5, 33), (2, 2100)):
        for reduction in ("mean", "sum", "none"):
            yield Call(f"losses of {rows} x {classes}, {reduction}", partial(_loss, rows, classes, reduction))
    yield call("mse_loss", F.mse_loss, (3, 347), (3, 347))
    yield call("mse_loss none", lambda a, b: F.mse_loss(a, b, reduction="none"), (3, 347), (3, 347))
    yield call("huber_loss", F.huber_loss, (3, 347), (3, 347))
    yield call("l1_loss sum", lambda a, b: F.l1_loss(a, b, reduction="sum"), (3, 347), (3, 347))


def _loss(rows: int, classes: int, reduction: str, rng: np.random.Generator, device: str) -> None:
    x = _tensor((3 * rng.standard_normal((rows, classes))).astype(np.float32), device)
    labels = rng.integers(0, classes, rows)
    named = _tensor(labels, device)
    labels[0] = -100  # ignored
    ignoring, shares = _tensor(labels, device), rng.dirichlet(np.ones(classes), rows).astype(np.float32)
    for smoothing in (0.0, 0.1):
        _backward(F.cross_entropy(x, ignoring, reduction=reduction, label_smoothing=smoothing), rng)
    _backward(F.cross_entropy(x, _tensor(shares, device), reduction=reduction), rng)
    _backward(F.nll_loss(F.log_softmax(x, 1), ignoring, reduction=reduction), rng)
    _backward(F.multi_margin_loss(F.softmax(x, 1), named, reduction=reduction), rng)


def _elements() -> Iterator[Call]:
    flat = "relu", "gelu", "leaky_relu", "sigmoid", "silu", "tanh", "elu", "hardswish", "mish", "softplus", "abs"
    for name in flat:
        yield call(name, getattr(F, name), IMAGE)
    yield call("relu float64", F.relu, IMAGE, dtype="float64")
    yield call("dropout", lambda x: F.dropout(x, 0.3), IMAGE)
    for name in ("add", "sub", "mul", "maximum", "minimum", "div"):
        yield call(name, getattr(F, name), IMAGE, IMAGE)
        yield call(f"{name}, one for each channel", getattr(F, name), IMAGE, (1, 8, 1, 1))
    yield call("add of turned images", lambda x, y: x + y.transpose(2, 3), IMAGE, (2, 8, 9, 7))
    yield call("clamp", lambda x: F.clamp(x, -0.5, 0.7), IMAGE)
    yield call("exp", F.exp, ODD)
    yield call("where", lambda x, y: F.where(x > y, x, y), IMAGE, (1, 8, 1, 1))
    for dims in ((1,), (2, 3), (0, 1, 2, 3)):
        yield call(f"sum {dims}", lambda x, d=dims: x.sum(d), IMAGE)
    yield call("mean of many", lambda x: x.mean(), (3, 5003))
    yield call("max", lambda x: x.max(1)[0], IMAGE)
    yield call("var", lambda x: x.var((2, 3)), ODD)


def _shapes() -> Iterator[Call]:
    yield call("reshape", lambda x: x.reshape(16, 63), IMAGE)
    yield call("transpose", lambda x: x.transpose(0, 1).contiguous(), (37, 65))
    yield call("cat", lambda x, y: F.cat((x, y), 1), IMAGE, ODD[:1] + (3, 7, 9))
    yield call("to float64", lambda x: x.to("float64"), (1, 1027))
    yield call("to float32", lambda x: x.to("float32"), (1, 1027), dtype="float64")
    for mode in ("constant", "reflect", "replicate"):
        yield call(f"pad {mode}", lambda x, m=mode: F.pad(x, (1, 2, 3, 0), mode=m), IMAGE)
    yield call("unfold and fold", lambda x: F.fold(F.unfold(x, 3, padding=1), (7, 9), 3, padding=1), IMAGE)
    yield Call("rows by their numbers", _rows)


def _rows(rng: np.random.Generator, device: str) -> None:
    x, positions = _tensor(rng.standard_normal((9, 20)).astype(np.float32), device), rng.integers(0, 9, 33)
    _backward(x[_tensor(positions, device)], rng)


def _updates() -> Iterator[Call]:
    rules: tuple[tuple[str, dict[str, Any]], ...] = (
        ("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}), ("Adam", {}),
        ("Adam", {"amsgrad": True}), ("AdamW", {}), ("RMSprop", {"centered": True, "momentum": 0.9}), ("Adagrad", {}),
        ("Adadelta", {}),
    )  # fmt: skip
    for rule, options in rules:
        yield Call(f"{rule} {options or ''}".strip(), partial(_update, rule, options))


def _update(rule: str, options: dict[str, Any], rng: np.random.Generator, device: str) -> None:
    parameters = [_tensor(rng.standard_normal(size).astype(np.float32), device) for size in (5, 4096, 1, 4500)]
    optimizer = getattr(optim, rule)(parameters, lr=0.01, **options)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = _tensor(rng.standard_normal(parameter.shape).astype(np.float32), device).detach()
        optim.clip_grad_norm_(parameters, 1.0)
        optim.clip_grad_value_(parameters, 0.01)
        optimizer.step()


def calls() -> list[Call]:
    """Return all calls: every operation's are spread over the list, so that a part of it has some of each."""
    parts = [_convolutions, _products, _pools, _normalisations, _losses, _elements, _shapes, _updates]
    lists = [list(part()) for part in parts]
    places = [((number + 0.5) / len(found), each) for found in lists for number, each in enumerate(found)]
    return [each for _, each in sorted(places, key=lambda pair: pair[0])]
