"""Normalisation, and dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import handed
from tests.parity.grid.rules import MIXED
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

SHAPES = [(2, 6, 4, 5), (3, 6), (2, 6, 7), (2, 6, 2, 3, 2), (0, 6, 3, 3), (1, 6, 1, 1), (1, 6)]
VIEWS = ["", "transposed", "strided", "channels_last"]
STATE = ["none", "given", "float32", Bad("long")]
EPS = [OMIT, 1e-5, 0.1, 1, 0]


def vector(kind: str, count: Any, dtype: str, values: str = "normal") -> Any:
    if kind == "none" or count == ():
        return None
    shape = count if isinstance(count, tuple) else (count,)
    dtype = "float32" if kind == "float32" else "float64" if dtype == "int64" else dtype
    return T((*shape[:-1], shape[-1] + (kind == "long")), dtype, kind=values)


def images(shape: Any, dtype: str, view: str) -> T:
    view = "" if len(shape) < {"channels_last": 4, "transposed": 2}.get(view, 1) else view
    return T(shape, dtype, view)


def lone(shape: tuple) -> bool:
    """Whether there is a single value a channel."""
    return shape[0] == 1 and all(size == 1 for size in shape[2:])


def batch_norm(shape: Any, dtype: str, view: str, statistics: str, weight: str, bias: str, **options: Any) -> Call:
    x = images(shape, dtype, view)
    count = shape[1] if len(shape) > 1 else 1
    mean, var = vector(statistics, count, dtype), vector(statistics, count, dtype, "positive")
    mean, var = (None if t is None else t.like(grad=False) for t in (mean, var))
    if options.get("training") == "mean only":
        options["training"], var = True, None
    scales = {"weight": vector(weight, count, dtype), "bias": vector(bias, count, dtype)}
    return Call((x, mean, var), {**scales, **handed(**options)})


def instance_norm(shape: Any, dtype: str, view: str, statistics: str, weight: str, bias: str, **options: Any) -> Call:
    call = batch_norm(shape, dtype, view, statistics, weight, bias, **options)
    mean, var = call.arguments[1:]
    return Call(call.arguments[:1], {"running_mean": mean, "running_var": var, **call.options})


def watched(function: Any) -> Any:
    """Return a function that hands over its running statistics too."""

    def call(x: Any, *statistics: Any, **options: Any) -> Any:
        found = function(x, *statistics, **options)
        kept = [*statistics, options.get("running_mean"), options.get("running_var")]
        return [found, *(t.clone() for t in kept if t is not None)]

    return call


def group_norm(shape: Any, dtype: str, view: str, num_groups: Any, weight: str, bias: str, **options: Any) -> Call:
    count = shape[1] if len(shape) > 1 else 1
    scales = {"weight": vector(weight, count, dtype), "bias": vector(bias, count, dtype)}
    return Call((images(shape, dtype, view), num_groups), {**scales, **handed(**options)})


def layer_norm(shape: Any, dtype: str, view: str, last: Any, weight: str, bias: str, **options: Any) -> Call:
    size = shape[-last:] if isinstance(last, int) else last
    scales = {"weight": vector(weight, tuple(size), dtype), "bias": vector(bias, tuple(size), dtype)}
    return Call((images(shape, dtype, view), list(size) if last == 1 else size), {**scales, **handed(**options)})


def dropout(function: Any, seed: Any, channels: bool = False) -> Any:
    """Return what a random function promises: its zeros, its scale, and that the gradient has both; not its draws."""

    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        seed(0)
        given = x.detach().clone().numpy()
        x = x.clone()
        y = function(x, *arguments, **options)
        data, changed = (t.detach().numpy() for t in (y, x))
        p = arguments[0] if arguments else options.get("p", 0.5)
        training = options.get("training", arguments[1] if len(arguments) > 1 else True)
        if not training or p in (0, 1):
            return [y, x]
        kept = data != 0
        planes = kept.reshape(*kept.shape[:2], -1) if channels and kept.ndim == 4 else kept[..., None]
        together = bool((planes.all(-1) | ~planes.any(-1)).all())
        share = abs(kept.mean() - (1 - p)) < 0.12 if kept.size > 1000 else True
        same_scale = bool((abs(data[kept] - given[kept] / (1 - p)) < 1e-5 * (1 + abs(given[kept]))).all())
        return [str(data.dtype), list(data.shape), bool(share), together, same_scale, bool((changed == data).all())]

    return call


def _seeds() -> tuple[Any, Any]:
    import numbanet as nnet

    return nnet.manual_seed, torch.manual_seed


OUR_SEED, THEIR_SEED = _seeds()
PROBABILITIES = [OMIT, 0.5, 0.0, 1.0, 0, 1, 0.25, Bad(-0.1), Bad(1.5)]
ENTRIES = [
    Entry(
        "batch_norm", watched(F.batch_norm), watched(TF.batch_norm),
        {
            "shape": [*SHAPES, Bad((6,)), Bad(())],
            "dtype": ["float64", "float32", Bad("int64")],
            "view": VIEWS,
            "statistics": STATE,
            "weight": STATE,
            "bias": STATE,
            "training": [OMIT, False, True, "mean only"],
            "momentum": [OMIT, 0.1, 0.0, 1.0, 0.7],
            "eps": EPS,
        },
        batch_norm, tolerance=10,
        refuses={
            "one value has no variance": lambda shape, training: training in (True, "mean only") and lone(shape),
            "no statistics to use": lambda shape, statistics, training:
                shape[0] > 0 and statistics == "none" and training in (OMIT, False),
            "in training eps is positive": lambda training, eps: training in (True, "mean only") and eps == 0,
        },
    ),
    Entry(
        "instance_norm", watched(F.instance_norm), watched(TF.instance_norm),
        {
            "shape": [*SHAPES[:1], *SHAPES[2:6], Bad((6,))],
            "dtype": ["float64", "float32", Bad("int64")],
            "view": VIEWS,
            "statistics": STATE,
            "weight": STATE,
            "bias": STATE,
            "use_input_stats": [OMIT, False, True],
            "momentum": [OMIT, 0.1, 1.0],
            "eps": EPS,
        },
        instance_norm, tolerance=10,
        refuses={
            "one value has no variance": lambda shape, use_input_stats: use_input_stats is not False and lone(shape),
            "no statistics to use":
                lambda statistics, use_input_stats: statistics == "none" and use_input_stats is False,
            "no images to scale": lambda shape, weight: shape[0] == 0 and weight != "none",
            "no images to shift": lambda shape, bias: shape[0] == 0 and bias != "none",
            **MIXED,
        },
    ),
    Entry(
        "group_norm", F.group_norm, TF.group_norm,
        {
            "shape": [*SHAPES, Bad((6,))],
            "dtype": ["float64", "float32", Bad("int64")],
            "view": VIEWS,
            "num_groups": [1, 2, 3, 6, Bad(4), Bad(0), Bad(-1), Bad(1.5)],
            "weight": STATE,
            "bias": STATE,
            "eps": EPS,
        },
        group_norm, tolerance=10,
        refuses={"one value has no variance": lambda shape, num_groups: lone(shape) and num_groups == 6, **MIXED},
    ),
    Entry(
        "layer_norm", F.layer_norm, TF.layer_norm,
        {
            "shape": [*SHAPES[:4], (0, 6, 3, 3), (6,)],
            "dtype": ["float64", "float32", Bad("int64")],
            "view": VIEWS,
            "last": [1, 2, 3, (7,), Bad(())],
            "weight": STATE,
            "bias": STATE,
            "eps": EPS,
        },
        layer_norm, tolerance=10,
        refuses={"the shape is the last one": lambda shape, last: last == (7,) and shape[-1] != 7, **MIXED},
    ),
    Entry(
        "local_response_norm", F.local_response_norm, TF.local_response_norm,
        {
            "input": [
                T((2, 7, 4, 5)), T((2, 7, 4, 5), "float32", "channels_last"), T((2, 5, 6)), T((2, 5, 2, 3, 4)),
                T((0, 5, 3, 3)), T((3, 5, 4), "float64", "strided"), Bad(T((3, 4))),
            ],
            "size": [1, 2, 3, 5, 9, Bad(0), Bad(-1)],
            "alpha": [OMIT, 1e-4, 0.5, 1],
            "beta": [OMIT, 0.75, 0.5, 2],
            "k": [OMIT, 1.0, 2],
        },
        tolerance=3,
    ),
    Entry(
        "dropout", dropout(F.dropout, OUR_SEED), dropout(TF.dropout, THEIR_SEED),
        {
            "input": [T((60, 50)), T((), "float32"), T((0, 3)), T((40, 30), "float32", "transposed"),
                T((8, 2, 16, 16))],
            "p": PROBABILITIES,
            "training": [OMIT, True, False],
            "inplace": [OMIT, False, True],
        },
    ),
    Entry(
        "dropout2d", dropout(F.dropout2d, OUR_SEED, True), dropout(TF.dropout2d, THEIR_SEED, True),
        {
            "input": [T((50, 60, 2, 2)), T((4, 3, 2), "float32"), T((0, 3, 2, 2)), T((40, 30, 1, 1), "float32"),
                T((3, 4))],
            "p": PROBABILITIES,
            "training": [OMIT, True, False],
            "inplace": [OMIT, False, True],
        },
    ),
]  # fmt: skip
