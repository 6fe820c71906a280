"""The table of numbanet.optim, numbanet.amp and numbanet.data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numbanet import Tensor, amp, data, nn, optim
from numbanet.optim import lr_scheduler
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line

OPTIMIZERS: dict[str, Callable[[Draw], dict[str, Any]]] = {
    "SGD": lambda d: {"lr": d.pick(0.1, 1.0, 0), "momentum": d.pick(0, 0.9), "weight_decay": d.pick(0, 0.1)},
    "Adam": lambda d: {"lr": 0.01, "betas": d.pick((0.9, 0.999), [0.5, 0.9]), "amsgrad": d.chance(0.5)},
    "AdamW": lambda d: {"lr": 0.01, "weight_decay": d.pick(0.0, 0.1), "maximize": d.chance(0.5)},
    "RMSprop": lambda d: {"lr": 0.01, "momentum": d.pick(0, 0.9), "centered": d.chance(0.5)},
    "Adagrad": lambda d: {"lr": 0.01, "lr_decay": d.pick(0, 0.1), "initial_accumulator_value": d.pick(0, 0.5)},
    "Adadelta": lambda d: {"lr": 1.0, "rho": d.pick(0.9, 0.5)},
}


def _steps(cls: Any) -> Callable[..., Any]:
    """Return a function that takes three steps from values with gradients, and returns the new values."""

    def call(arrays: Any, grads: Any, **options: Any) -> Any:
        if not (type(arrays) is type(grads) is list and all(isinstance(a, np.ndarray) for a in [*arrays, *grads])):
            raise TypeError("params and grads must be lists of arrays")
        parameters = [nn.Parameter(np.array(a)) for a in arrays]
        optimizer = cls(parameters, **options)
        for _ in range(3):
            for parameter, grad in zip(parameters, grads):
                parameter.grad = type(parameter.detach())(grad)
            optimizer.step()
        return [p.data for p in parameters]

    call.about = cls  # type: ignore[attr-defined]
    return call


def _optimizer_draw(options: Callable[[Draw], dict[str, Any]]) -> Callable[[Draw], Call]:
    def draw(d: Draw) -> Call:
        shapes = [d.shape() for _ in range(d.integer(1, 3))]
        arrays, grads = [d.floats(s, -1, 1) for s in shapes], [d.floats(s, -1, 1) for s in shapes]
        return (arrays, grads), options(d)

    return draw


def _clipped(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(grads: Any, bound: Any) -> Any:
        if type(grads) is not list or not all(isinstance(g, np.ndarray) for g in grads):
            raise TypeError("parameters must have arrays for gradients")
        parameters = [nn.Parameter(np.zeros(g.shape, g.dtype)) for g in grads]
        for parameter, grad in zip(parameters, grads):
            parameter.grad = type(parameter.detach())(np.array(grad))
        function(parameters, bound)
        return [p.grad.data for p in parameters if p.grad is not None]

    call.about = function  # type: ignore[attr-defined]
    return call


def _gradients(d: Draw) -> Call:
    return ([d.floats(d.shape(), -1, 1) for _ in range(d.integer(1, 3))], d.pick(0.5, 1.0, 3, 0.0)), {}


def clipped_norm(grads: Any, bound: Any) -> Any:
    """Scale gradients down to a norm."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
    return [g * np.minimum(1.0, bound / (norm + 1e-6)) for g in grads]  # NaN stays NaN


def clipped_value(grads: Any, bound: Any) -> Any:
    """Limit each element."""
    return [np.clip(g, -bound, bound) for g in grads]


def scaled_steps(grads: Any, scale: Any, growth: Any, backoff: Any, interval: Any) -> Any:
    """Take four steps of scaled gradients from zeros, and return the values and the scale."""
    values, clean = [np.zeros_like(g) for g in grads], 0
    for _ in range(4):
        if all(np.isfinite(g * scale).all() for g in grads):
            values, clean = [v - g for v, g in zip(values, grads)], clean + 1
            grown = scale * growth if clean == interval and np.isfinite(scale * growth) else scale
            scale, clean = grown, 0 if clean == interval else clean
        else:
            scale, clean = scale * backoff, 0
    return [*values, np.float32(scale)]


def _scaling(grads: Any, init_scale: Any, growth_factor: Any, backoff_factor: Any, growth_interval: Any) -> Any:
    if type(grads) is not list or not all(isinstance(g, np.ndarray) for g in grads):
        raise TypeError("grads must be arrays")
    scaler = amp.GradScaler("cpu", init_scale, growth_factor, backoff_factor, growth_interval)
    parameters = [nn.Parameter(np.zeros(g.shape, g.dtype)) for g in grads]
    optimizer = optim.SGD(parameters, lr=1.0)
    for _ in range(4):
        optimizer.zero_grad()
        for parameter, grad in zip(parameters, grads):
            scaler.scale((parameter * Tensor(np.array(grad))).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    return [*(p.data for p in parameters), np.float32(scaler.get_scale())]


_scaling.about = amp.GradScaler  # type: ignore[attr-defined]


def _scaling_draw(d: Draw) -> Call:  # powers of 2: a scale and its inverse are of float32, as in PyTorch
    grads = [d.floats(d.shape(1, 3), -1, 1) for _ in range(d.integer(1, 3))]
    return (grads, d.pick(1.0, 2.0**10), d.pick(2.0, 4.0), d.pick(0.5, 0.25), d.integer(1, 3)), {}


def _rates(make: Callable[..., Any]) -> Callable[..., list[float]]:
    """Return a function that makes a schedule, and returns the rates of six steps."""

    def call(lr: Any, *args: Any, **kwargs: Any) -> list[float]:
        optimizer = optim.SGD([nn.Parameter(np.zeros(1, np.float32))], lr=lr, momentum=0.9)
        schedule, found = make(optimizer, *args, **kwargs), []
        for _ in range(6):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            schedule.step()
        return found

    call.about = make  # type: ignore[attr-defined]
    return call


def _one_cycle(lr: float, peak: float, steps: int) -> list[float]:
    first, rise, last = peak / 25, 0.3 * steps - 1, peak / 25 / 1e4

    def between(a: float, b: float, done: float) -> float:
        return b + (a - b) / 2 * (math.cos(math.pi * done) + 1)

    return [
        between(first, peak, t / rise) if t <= rise else between(peak, last, (t - rise) / (steps - 1 - rise))
        for t in range(6)
    ]


def _sequential(optimizer: Any, milestones: Any) -> Any:
    parts = [lr_scheduler.StepLR(optimizer, 100), lr_scheduler.StepLR(optimizer, 1, 0.5)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones)


def _schedules() -> Iterator[Line]:
    def line(name: str, draw: Callable[[Draw], Call], answer: Callable[..., Any], make: Any = None) -> Line:
        return Line(
            f"optim.lr_scheduler.{name}", _rates(make or getattr(lr_scheduler, name)), draw, answer, tolerance=1e-3,
            loose=True,
            words=("lr", "optimizer", "total_steps", "epochs", "step_size", "max_lr", "schedulers", "T_max", "step"),
        )  # fmt: skip

    yield line("StepLR", lambda d: ((0.1, d.integer(1, 3), d.pick(0.1, 0.5)), {}),
               lambda lr, size, gamma: [lr * gamma ** (t // size) for t in range(6)])  # fmt: skip
    yield line("MultiStepLR", lambda d: ((0.1, [1, d.integer(2, 5)], d.pick(0.1, 0.5)), {}),
               lambda lr, at, gamma: [lr * gamma ** sum(t >= m for m in at) for t in range(6)])  # fmt: skip
    yield line("CosineAnnealingLR", lambda d: ((0.1, d.integer(6, 9), d.pick(0.0, 0.01)), {}),
               lambda lr, n, low: [low + (lr - low) * (1 + math.cos(math.pi * t / n)) / 2 for t in range(6)],
               )  # fmt: skip
    yield line("LinearLR", lambda d: ((0.1, 0.5, 1.0, d.integer(1, 9)), {}),
               lambda lr, a, b, n: [lr * (a + (b - a) * min(t, n) / n) for t in range(6)])  # fmt: skip
    yield line("LambdaLR", lambda d: ((0.1, _half), {}), lambda lr, rule: [lr * rule(t) for t in range(6)])
    yield line("OneCycleLR", lambda d: ((0.1, 1.0, d.integer(10, 20)), {}), _one_cycle)
    yield line("SequentialLR", lambda d: ((0.1, [d.integer(1, 4)]), {}),
               lambda lr, at: [lr * 0.5 ** max(0, t - at[0]) for t in range(6)], _sequential)  # fmt: skip


def _half(t: int) -> float:
    return 1 / (1 + t)


# ------------------------------------------------------------------------------------------------ data


def _pictures(d: Draw) -> np.ndarray:
    shape = (d.integer(0, 5), d.integer(1, 3), d.integer(2, 9), d.integer(2, 9))
    return d.integers(shape, 0, 255, "uint8") if d.chance(0.5) else d.numbers.random(shape).astype(np.float32)


def _dataset_draw(d: Draw) -> Call:
    images = _pictures(d)
    return (images, d.integers((len(images),), 0, 2, d.pick("int64", "uint8")), ("a", "b", "c")), {}


def _dataset(images: Any, labels: Any, classes: Any) -> Any:
    made = data.Dataset(images, labels, classes)
    return [len(made), np.array(made.images), np.array(made.labels), made.subset(slice(0, 1)).labels.shape]


_dataset.about = data.Dataset  # type: ignore[attr-defined]


def _loader_draw(d: Draw) -> Call:
    (images, labels, classes), _ = _dataset_draw(d)
    return (images, labels, classes), {
        "batch_size": d.integer(1, 4), "shuffle": d.chance(0.5), "drop_last": d.chance(0.3), "workers": d.pick(0, 1),
    }  # fmt: skip


def _loader(images: Any, labels: Any, classes: Any, **options: Any) -> Any:
    if not isinstance(images, np.ndarray):
        raise TypeError("dataset must have images")
    workers = options.get("workers", 1)
    if isinstance(workers, int) and workers > 64:
        options["workers"] = 64  # a thread for each would be made
    loader = data.DataLoader(data.Dataset(images, labels, classes), generator=np.random.default_rng(0), **options)
    batches = list(loader)
    seen = sorted(float(x.astype(np.float64).sum()) for batch, _ in batches for x in batch)
    return [len(batches), len(loader), sum(len(x) for x, _ in batches), np.array(seen if not loader.drop_last else 0.0)]


_loader.about = data.DataLoader  # type: ignore[attr-defined]


def loaded(images: Any, labels: Any, classes: Any, **o: Any) -> Any:
    """What the batches of an epoch add up to."""
    n, size, drop = len(images), o["batch_size"], bool(o["drop_last"])
    count = n // size if drop else -(-n // size)
    images = images.astype(np.float32) / (1 if images.dtype.kind == "f" else np.float32(255))
    sums = sorted(float(x.astype(np.float64).sum()) for x in images)
    return [count, count, count * size if drop else n, np.array(sums if not drop else 0.0)]


def _transform(cls: Any) -> Callable[..., Any]:
    def call(images: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
            raise TypeError("images must be uint8 or float32 of shape (N, C, H, W)")
        return np.asarray(cls(*args, **kwargs)(images, np.random.default_rng(0)), np.float64)

    call.about = cls  # type: ignore[attr-defined]
    return call


def _normalized(images: Any, mean: Any, std: Any) -> Any:
    scale = 255 if images.dtype == np.uint8 else 1
    shape = (1, -1, 1, 1)
    return (images / scale - np.reshape(np.array(mean, float), shape)) / np.reshape(np.array(std, float), shape)


def _statistics(images: Any) -> Any:
    pixels = images / (255 if images.dtype == np.uint8 else 1)
    return [*pixels.mean((0, 2, 3)).tolist(), *pixels.std((0, 2, 3)).tolist()]


def _normalize_draw(d: Draw) -> Call:
    images = _pictures(d)
    c = images.shape[1]
    return (images, [0.5] * c, [d.pick(0.25, 2.0)] * c), {}


def _reader(name: str) -> Callable[..., Any]:
    function = getattr(data, name)

    def call(path: Any) -> Any:
        if isinstance(path, int):
            raise TypeError("path must be no number: it would be that of an open file")
        return function(path)

    call.about = function  # type: ignore[attr-defined]
    return call


def _digits(train: Any) -> Any:
    found = data.load_digits(train)
    return [found.images.shape, found.labels.shape]


_digits.about = data.load_digits  # type: ignore[attr-defined]


def _data() -> Iterator[Line]:
    words = ("images", "labels", "classes", "dataset", "path", "directory")
    yield Line("data.Dataset", _dataset, _dataset_draw,
               lambda x, y, c: [len(x), x, np.asarray(y, np.int64), (min(len(x), 1),)], words=words)  # fmt: skip
    yield Line(
        "data.DataLoader", _loader, _loader_draw, loaded, words=(*words, "batch_size"), tolerance=1e-3, loose=True
    )
    plain: dict[str, Any] = {"words": words, "loose": True}
    yield Line(
        "data.RandomHorizontalFlip",
        _transform(data.RandomHorizontalFlip),
        lambda d: ((_pictures(d), d.pick(0, 1)), {}),
        lambda x, p: (x[..., ::-1] if p else x) * 1.0,
        **plain,
    )
    yield Line("data.RandomShift", _transform(data.RandomShift), lambda d: ((_pictures(d), 0, "zero"), {}),
               lambda x, pixels, fill: x * 1.0, **plain)  # fmt: skip
    yield Line("data.RandomCrop", _transform(data.RandomCrop), _crop_draw, lambda x, size, *a: x * 1.0, **plain)
    yield Line("data.Normalize", _transform(data.Normalize), _normalize_draw, _normalized, **plain, tolerance=1)
    yield Line(
        "data.Cutout", _transform(data.Cutout), lambda d: ((_pictures(d), 100), {}), lambda x, size: x * 0.0, **plain
    )
    yield Line("data.channel_statistics", lambda images: [*sum(data.channel_statistics(images), ())],
               lambda d: ((np.concatenate([x := _pictures(d), np.ones_like(x[:1], shape=(1, *x.shape[1:]))]),), {}),
               _statistics, **plain, tolerance=1, absolute=1e-7)  # fmt: skip
    yield Line(
        "data.load_digits",
        _digits,
        lambda d: ((d.chance(0.5),), {}),
        lambda train: [(1442, 1, 8, 8), (1442,)] if train else [(355, 1, 8, 8), (355,)],
        words=("train",),
    )


def _crop_draw(d: Draw) -> Call:
    images = _pictures(d)
    return (images, images.shape[2:], 0), {}


def lines() -> list[Line]:
    """Return the lines of numbanet.optim, numbanet.amp and numbanet.data."""
    words = ("params", "grads", "grad", "parameters", "parameter", "beta", "lr", "eps", "array")
    optimizers = [
        Line(
            f"optim.{name}",
            _steps(getattr(optim, name)),
            _optimizer_draw(options),
            tolerance=1e-3,
            exact=False,  # a decay of 1e30 overflows on the way
            words=words,
            also=(RuntimeError,),
        )
        for name, options in OPTIMIZERS.items()
    ]
    options: dict[str, Any] = {"words": words, "also": (RuntimeError,)}
    clips = [
        Line(f"{home}.{name}", _clipped(getattr(module, name)), _gradients, answer, **options)
        for home, module in (("optim", optim), ("nn.utils", nn.utils))
        for name, answer in (("clip_grad_norm_", clipped_norm), ("clip_grad_value_", clipped_value))
    ]
    scaler = Line("amp.GradScaler", _scaling, _scaling_draw, scaled_steps, exact=False, **options)
    return [*optimizers, *clips, scaler, *_schedules(), *_data()]
