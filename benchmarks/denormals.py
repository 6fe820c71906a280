"""How much longer layers take on denormals (1e-39) than on ordinary numbers.

::

    python -m benchmarks.denormals

Quotients of times, in one process and in turn. Ours should be 1: kernels read denormals as zeros. PyTorch does so only
after `torch.set_flush_denormal(True)`, which is off unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import backends, timing
from benchmarks.backends import Backend
from benchmarks.cases import random

TINY = 1e-39
_SHAPE = (4, 64, 28, 28)


Prepare = Callable[[Backend], Callable[[Any], Any]]


def _conv(k: int, c: int, size: int, **options: int) -> Prepare:
    def prepare(b: Backend) -> Callable[[Any], Any]:
        weight = b.tensor(random(1, k, c, size, size))
        return lambda x: b.functional.conv2d(x, weight, **options)

    return prepare


def _linear(b: Backend) -> Callable[[Any], Any]:
    weight = b.tensor(random(1, 256, 512))
    return lambda x: b.functional.linear(x, weight)


def _batch_norm(b: Backend) -> Callable[[Any], Any]:
    zeros, ones = b.tensor(np.zeros(64, np.float32)), b.tensor(np.ones(64, np.float32))
    return lambda x: b.functional.batch_norm(x, zeros, ones, ones, zeros, True)


# What makes the function of each layer, and the shape of its input.
LAYERS: dict[str, tuple[Prepare, tuple[int, ...]]] = {
    "conv 3x3": (_conv(64, 64, 3, padding=1), _SHAPE),
    "conv 3x3, stride 2": (_conv(64, 64, 3, padding=1, stride=2), _SHAPE),
    "conv 1x1": (_conv(64, 64, 1), _SHAPE),
    "depthwise 3x3": (_conv(64, 1, 3, padding=1, groups=64), _SHAPE),
    "linear": (_linear, (128, 512)),
    "batch norm": (_batch_norm, _SHAPE),
    "max pool": (lambda b: lambda x: b.functional.max_pool2d(x, 2), _SHAPE),
    "avg pool": (lambda b: lambda x: b.functional.avg_pool2d(x, 2), _SHAPE),
    "relu": (lambda b: b.functional.relu, _SHAPE),
}


def slowdown(layer: str, backend: str, seconds: float = 0.2) -> float:
    """Return the time of a layer on denormals over that on normally distributed numbers."""
    b = backends.get(backend)
    prepare, shape = LAYERS[layer]
    function = prepare(b)
    numbers = random(0, *shape)
    inputs = {"ordinary": b.tensor(numbers), "denormal": b.tensor(np.copysign(np.float32(TINY), numbers))}

    def call(x: Any) -> Callable[[], Any]:
        def run() -> Any:
            with b.no_grad():
                return function(x)

        run()
        return run

    samples = timing.interleave({name: call(x) for name, x in inputs.items()}, seconds)
    return min(samples["denormal"]) / min(samples["ordinary"])


def lines() -> Iterator[str]:
    """Yield the table, line by line."""
    names = [name for name in ("numbanet", "torch:channels_last") if backends.available(name)]
    yield "| layer              | " + " | ".join(f"{name:>19}" for name in names) + " |"
    yield "|--------------------|" + "|".join("-" * 20 + ":" for _ in names) + "|"
    for layer in LAYERS:
        yield f"| {layer:<18} | " + " | ".join(f"{slowdown(layer, name):19.2f}" for name in names) + " |"


if __name__ == "__main__":
    for text in lines():
        print(text, flush=True)
