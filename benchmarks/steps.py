"""Cases of whole networks: a training step and an inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, nets
from benchmarks.backends import Backend
from benchmarks.cases import Call, Case
from benchmarks.engines import ENGINES, inference
from benchmarks.nets import NETS


def images(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of random images and labels for a network."""
    net, rng = NETS[name], np.random.default_rng(0)
    return rng.standard_normal((batch, *net.image), np.float32), rng.integers(net.classes, size=batch)


def training_call(name: str, batch: int, backend: str, captured: bool = False) -> Call:
    """Return the function that makes one step of SGD with momentum; it returns the loss before the step.

    Where `captured`, that of numbanet runs through `numbanet.capture`.
    """
    b, model = backends.get(backend), nets.model(name, backend)
    step = training_step(b, model)
    if captured and backend == "numbanet":
        step = _captured(step)
    return partial(step, *map(b.tensor, images(name, batch)))


def training_step(b: Backend, model: Any) -> Callable[[Any, Any], Any]:
    """Return the function that makes one step of SGD with momentum on a batch; it returns the loss before the step."""
    model.train()
    optimizer = b.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = b.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        b.synchronize()
        return loss

    return step


def _captured(function: Any) -> Any:
    from numbanet import capture

    return capture(function)


def inference_call(name: str, batch: int, backend: str) -> Call:
    """Return the function that computes the scores of a batch; `backend` may be one of `ENGINES` too.

    numbanet's network runs through `numbanet.capture`.
    """
    if backend in ENGINES:
        return inference(backend, nets.model(name, "torch").eval(), images(name, batch)[0])
    b, model = backends.get(backend), nets.model(name, backend)
    run = _captured(model.eval()) if backend == "numbanet" else model.eval()
    x = b.tensor(images(name, batch)[0])

    def infer() -> Any:
        with b.no_grad():
            scores = run(x)
        b.synchronize()
        return scores

    return infer


def training_name(name: str, batch: int, captured: bool) -> str:
    """Return the name of the case of a training step."""
    return f"{name} batch {batch}{', captured' if captured else ''}"


def inference_name(name: str, batch: int) -> str:
    """Return the name of the case of an inference."""
    return f"{name} batch {batch}"


def training_cases(names: tuple[str, ...] = tuple(NETS), batch: int | None = None) -> list[Case]:
    """Return a training step of each network; `batch` None takes the network's own batch size."""
    return [
        Case(
            "training",
            training_name(name, size, captured),
            "training",
            partial(training_call, name, size, captured=captured),
            tolerance=0.05,
        )
        for name in names
        for size in (batch or NETS[name].batch,)
        for captured in (False, True)
    ]


def inference_cases(
    names: tuple[str, ...] = tuple(NETS), batches: tuple[int, ...] = (1, 16), engines: tuple[str, ...] = ()
) -> list[Case]:
    """Return an inference of each network for each batch size; `engines` run PyTorch's network too."""
    formats = (*backends.TORCH_FORMATS, *engines)
    return [
        Case("inference", inference_name(name, size), "forward", partial(inference_call, name, size), 1e-3,
             formats=formats)
        for name in names
        for size in batches
    ]  # fmt: skip
