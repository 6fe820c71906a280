"""Layers with state: results, gradients of parameters, and the state afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn as tnn

import numbanet as nnet
from numbanet import nn
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import handed
from tests.parity.grid.running import Call, State
from tests.parity.grid.values import OMIT, Bad, D, T


def made(lib: Any, name: str) -> Any:
    """Return a function that makes a layer, gives it a state, and calls it: in training, and then in evaluation."""

    def call(x: Any, *arguments: Any, train: bool = True, **options: Any) -> State:
        layer = getattr(lib, name)(*arguments, **options)
        if hasattr(layer.weight, "materialize"):
            _first_call(layer, x, lib)
        rng = np.random.default_rng(7)
        state = {}
        for key, value in layer.state_dict().items():
            drawn = rng.uniform(0.2, 1.0, tuple(value.shape)).astype(str(value.dtype).removeprefix("torch."))
            state[key] = torch.from_numpy(drawn) if lib is tnn else drawn
        layer.load_state_dict(state)
        layer.train(train)
        results = [layer(x)]
        layer.eval()
        results.append(layer(x))
        after = layer.state_dict()
        results += [list(after), *(np.asarray(value) for value in after.values()), repr(layer)]
        return State(results, list(layer.parameters()))

    return call


def _first_call(layer: Any, x: Any, lib: Any) -> None:
    with (torch.no_grad if lib is tnn else nnet.no_grad)():
        layer(x)


def layer(name: str, options: dict[str, list], call: Any = None, **more: Any) -> Entry:
    return Entry(f"nn.{name}", made(nn, name), made(tnn, name), options, call or by_name, **more)


def by_name(input: Any, **options: Any) -> Call:
    first = [options.pop(name) for name in list(options) if name.startswith("first")]
    return Call((input, *first), handed(**options))


DTYPE = [D("float64"), OMIT]
IMAGES = [
    T((2, 4, 7, 6)), T((4, 7, 6)), T((0, 4, 7, 6)), T((2, 4, 7, 6), "float64", "channels_last"),
    T((2, 4, 7, 6), "float32"),
]  # fmt: skip
CONV = {
    "kernel_size": [3, (2, 3), 1, Bad(0), Bad((3, 3, 3)), Bad(None)],
    "stride": [OMIT, 1, 2, (1, 2), Bad(0)],
    "padding": [OMIT, 0, 1, (2, 1), "same", "valid", Bad(-1), Bad("full")],
    "dilation": [OMIT, 1, 2],
    "groups": [OMIT, 1, 2, Bad(3), Bad(0)],
    "bias": [OMIT, True, False],
    "padding_mode": [OMIT, "zeros", "reflect", "replicate", "circular", Bad("mirror")],
}
TRAIN = [True, False]
NORM = {"eps": [OMIT, 1e-5, 0.1], "momentum": [OMIT, 0.1, None, 1.0], "affine": [OMIT, True, False]}
NORM |= {"track_running_stats": [OMIT, True, False], "dtype": [D("float64")], "train": TRAIN}
ENTRIES = [
    layer("Conv2d", {"input": IMAGES, "first in": [4, Bad(3)], "first out": [4, 6, Bad(0)], **CONV,
        "dtype": [D("float64")]}),
    layer(
        "Conv1d",
        {
            "input": [T((2, 4, 9)), T((4, 9)), T((0, 4, 9)), T((2, 4, 9), "float64", "transposed"), Bad(T((9,)))],
            "first in": [4, Bad(3)], "first out": [4, 6, Bad(0)],
            **CONV, "kernel_size": [3, (2,), 1, Bad(0)], "padding": [OMIT, 0, 1, (2,), "same", "valid", Bad(-1),
                Bad("full")],
               "stride": [OMIT, 1, 2, (2,), Bad(0)],
            "dtype": [D("float64")],
        },
    ),
    layer(
        "ConvTranspose2d",
        {
            "input": IMAGES, "first in": [4, Bad(3)], "first out": [4, 6, Bad(0)],
            "kernel_size": [3, (2, 3), 1, Bad(0)], "stride": [OMIT, 1, 2, (1, 2), Bad(0)],
            "padding": [OMIT, 0, 1, (1, 0), Bad(-1)],
            "output_padding": [OMIT, 0, 1, Bad(4)], "groups": [OMIT, 1, 2, Bad(3)], "bias": [OMIT, True, False],
            "dilation": [OMIT, 1, 2], "padding_mode": [OMIT, "zeros", Bad("reflect")], "dtype": [D("float64")],
        },
    ),
    layer("LazyConv2d", {"input": IMAGES, "first out": [4, 6, Bad(0)], **CONV, "dtype": [D("float64")]}),
    layer(
        "LazyLinear",
        {"input": [T((3, 5)), T((5,)), T((2, 3, 5)), T((0, 5)), Bad(T(()))], "first out": [1, 7, Bad(-1)],
         "bias": [OMIT, True, False], "dtype": [D("float64")]},
    ),
    layer(
        "Linear",
        {"input": [T((3, 5)), T((5,)), T((2, 3, 5)), T((0, 5)), Bad(T((3, 4)))], "first in": [5, Bad(-1), Bad("5")],
         "first out": [1, 7, Bad(-1)], "bias": [OMIT, True, False], "dtype": [D("float64")]},
    ),
    layer(
        "BatchNorm2d",
        {"input": [*IMAGES, Bad(T((4, 6))), T((1, 4, 1, 1)), Bad(T((2, 3, 5, 5)))], "first features": [4], **NORM},
        tolerance=10,
    ),
    layer(
        "BatchNorm1d",
        {"input": [T((5, 4)), T((2, 4, 6)), T((0, 4)), T((1, 4)), T((3, 4), "float64", "transposed"),
            Bad(T((2, 4, 3, 3)))],
         "first features": [4], **NORM}, tolerance=10,
    ),
    layer("InstanceNorm2d", {"input": IMAGES, "first features": [4, Bad(3)], **NORM}, tolerance=10),
    layer(
        "InstanceNorm1d",
        {"input": [T((5, 4, 7)), T((4, 6)), T((0, 4, 3)), T((2, 4, 1))], "first features": [4, 3], **NORM},
        tolerance=10,
    ),
    layer(
        "GroupNorm",
        {"input": [*IMAGES, T((3, 4)), T((2, 4, 5))], "first groups": [1, 2, 4, Bad(3), Bad(0)], "first channels": [4],
         "eps": [OMIT, 0.1], "affine": [OMIT, True, False], "dtype": DTYPE}, tolerance=10,
    ),
    layer(
        "LayerNorm",
        {"input": [T((3, 4, 5)), T((2, 2, 4, 5), "float32"), T((0, 4, 5))],
            "first shape": [5, (4, 5), [5], Bad((3, 5)), Bad(())],
         "eps": [OMIT, 0.1], "elementwise_affine": [OMIT, True, False], "bias": [OMIT, True, False], "dtype": DTYPE},
         tolerance=10,
    ),
    layer(
        "PReLU",
        {"input": IMAGES, "num_parameters": [OMIT, 1, 4, 3, Bad(-1)], "init": [OMIT, 0.25, 0], "dtype": [D("float64")]},
    ),
]  # fmt: skip
