"""The table of what decides about kernels: numbanet.use, explain, tune and capture."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import numbanet as nnet
from numbanet import Tensor, dispatch, measured, memory, nn, ops, settings
from tests.fuzz import guards
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line


def listed(name: str, value: Any) -> Sequence[Any]:
    """Return a list or a tuple; TypeError for anything else."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list, got {value!r}")
    return value



def _use(x: Any, weight: Any, names: Any) -> Any:
    with nnet.use(*listed("names", names)):
        inside, y = dispatch.conditions()[1] == frozenset(names), ops.conv2d(x, weight)
    return [y, inside, dispatch.conditions()[1] == frozenset()]


_use.about = nnet.use  # type: ignore[attr-defined]


def _convolution(d: Draw) -> tuple[np.ndarray, np.ndarray]:
    c, k, size = d.integer(1, 9), d.integer(1, 9), d.integer(1, 3)
    return d.floats((d.integer(1, 3), c, d.integer(size, 9), d.integer(size, 9))), d.floats((k, c, size, size))


def _convolved(x: Any, weight: Any) -> np.ndarray:
    x, weight = np.asarray(x), np.asarray(weight)
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (-2, -1))
    return np.einsum("...chwrs,kcrs->...khw", windows, weight)


def _explained(operation: Any, *args: Any, **kwargs: Any) -> Any:
    text = nnet.explain(operation, *args, **kwargs)
    rows, head = text.splitlines(), f"{operation} {kwargs['which']} on cpu: "
    heads = sum(row.startswith(head) for row in rows)  # a reduction is done in steps
    chosen = sum(row.startswith("-> ") for row in rows)
    references = sum(row.startswith(("-> reference", "   reference")) for row in rows)
    others = all(row.startswith((head, "-> ", "   ")) for row in rows)
    known = operation not in ("activation", "elementwise") or hasattr(ops, args[0])
    return [heads == chosen == references, heads > 0, others, known]


_explained.about = nnet.explain  # type: ignore[attr-defined]


def _question(d: Draw) -> Call:
    n, c, k, size = d.integer(1, 4), 4 * d.integer(1, 9), 4 * d.integer(1, 9), d.integer(3, 9)
    image = d.pick(tuple, list)((n, c, size, size))
    questions: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "conv2d": ((image, (k, c, 3, 3)),
                   {"stride": d.pair(1, 2), "padding": d.pair(0, 2), "bias": d.chance(0.5)}),
        "max_pool2d": ((image, 2), {"stride": d.pick(None, 1), "padding": d.pick(0, 1)}),
        "avg_pool2d": ((image, d.pair(1, 3)), {"ceil_mode": d.chance(0.5)}),
        "adaptive_avg_pool2d": ((image, d.pair(1, 4)), {}),
        "matmul": (((n, c), (c, k)), {"bias": d.chance(0.5), "activation": d.pick(None, "relu")}),
        "batch_norm": ((image,), {"training": d.chance(0.5)}),
        "activation": ((d.pick("relu", "tanh"), image), {}),
        "softmax": ((image,), {"dim": d.dim(4), "log": d.chance(0.5)}),
        "cross_entropy": (((n, c),), {"reduction": d.pick("mean", "sum", "none")}),
        "nll_loss": (((n, c),), {"ignore_index": d.pick(-100, 0)}),
        "mse_loss": ((image,), {"reduction": d.pick("mean", "sum")}),
        "dropout": ((image,), {"p": d.pick(0.5, 0.1)}),
        "elementwise": ((d.pick("add", "mul"), image, (c, 1, 1)), {}),
        "reduce": ((image,), {"dim": d.dims(4), "mean": d.chance(0.5)}),
        "pad": ((image, (1, 2, 0, 1)), {"mode": d.pick("constant", "reflect", "replicate", "circular")}),
    }  # fmt: skip
    operation = d.pick(*questions)
    args, options = questions[operation]
    which = d.pick(*dispatch.passes(operation))
    return (operation, *args), {**options, "which": which, "dtype": d.dtype.name, "device": "cpu"}


_OPTIONS = (
    "shapes", "x_shape", "weight_shape", "a_shape", "b_shape", "others", "stride", "padding", "kernel_size", "bias",
    "pad", "output_size", "function", "mode", "reduction", "ignore_index", "p", "dim", "activation", "ceil_mode",
    "training", "log", "mean", "probabilities",
)  # fmt: skip


def _tuned(input_shape: Any, training: Any, seconds: Any) -> Any:
    """Measure a small network, in a file and a table of its own; return what must hold of it."""
    network, known = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), dict(measured.known())
    before = [p.data.copy() for p in network.parameters()]
    if isinstance(seconds, (int, float)) and 1 < seconds < np.inf:
        seconds = 1e-5  # it would be measured for so long
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mock.patch.object(measured, "path", lambda: Path(folder) / "measured.json"):
                found = Context().run(nnet.tune, network, input_shape, training=training, seconds=seconds)
            new = measured.known().keys() - known.keys()
        finally:
            measured.know(known)
            dispatch.renew()
        kept = Path(folder, "measured.json").is_file() or not settings.cache_enabled()
    same = all((p.data == old).all() and p.grad is None for p, old in zip(network.parameters(), before))
    right = all(choice.seconds[choice.kernel] == min(choice.seconds.values()) > 0 for choice in found.choices)
    return [same, right, kept, len(new) == len(found.choices), len(found.choices) == (2 if training else 1)]


_tuned.about = nnet.tune  # type: ignore[attr-defined]


def _captured(x: Any, weight: Any, given: Any) -> Any:
    """Call a captured function four times without gradients, which replays the last ones, and once with."""
    if not isinstance(x, np.ndarray) or not isinstance(weight, np.ndarray):
        raise TypeError("x and weight must be arrays")
    if x.dtype.kind != "f" or x.shape != weight.shape:
        raise ValueError("x must hold floats, and weight have its shape")
    captured = nnet.capture(_squared if given == "squared" else given)
    # Guards remember all the memory, and what remains of a call beside its result keeps it from being replayed.
    with nnet.no_grad(), mock.patch.object(memory, "empty", guards.unguarded_empty):
        plain = [captured(Tensor(x), Tensor(weight)).numpy().copy() for _ in range(4)]
    leaf = Tensor(x, requires_grad=True)
    captured(leaf, Tensor(weight)).sum().backward()
    assert leaf.grad is not None
    usual = all(a.dtype.isnative and a.dtype.itemsize >= 4 and a.flags.carray for a in (x, weight))
    replayed = captured.replays >= 2 or not usual or x.dtype != weight.dtype
    return [*plain, replayed, leaf.grad]


_captured.about = nnet.capture  # type: ignore[attr-defined]


def _squared(x: Tensor, weight: Tensor) -> Tensor:
    return (x * x) * weight


def lines() -> Iterator[Line]:
    """Yield the lines of what decides about kernels."""
    yield Line(
        "numbanet.use", _use,
        lambda d: ((*_convolution(d), d.pick([], ["reference"], ["cpu.direct", "reference"])), {}),
        lambda x, weight, names: [_convolved(x, weight), True, True],
        tolerance=6e-5, exact=False, words=("weight",),
    )  # fmt: skip
    yield Line(
        "numbanet.explain", _explained, _question, lambda *args, **kwargs: [True] * 4, words=_OPTIONS,
        also=(RuntimeError,),
    )  # fmt: skip
    yield Line(
        "numbanet.tune", _tuned, lambda d: ((d.pick((1, 2, 4, 5), [2, 4, 5]), d.chance(0.5), 1e-5), {}),
        lambda *args: [True] * 5, words=("input",),
    )  # fmt: skip
    yield Line(
        "numbanet.capture", _captured,
        lambda d: ((d.floats(shape := d.shape(1, 4)), d.floats(shape), "squared"), {}), _replayed,
        words=("other", "function"),
    )  # fmt: skip


def _replayed(x: Any, weight: Any, given: Any) -> Any:
    return [*[x * x * weight] * 4, True, 2 * x * weight]
