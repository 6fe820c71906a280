"""Layers with state: results, gradients of parameters, and the state afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn as tnn

import numbanet as nnet
from numbanet import nn
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import STRIDED_SAME, handed
from tests.parity.grid.running import Call, State
from tests.parity.grid.values import OMIT, Bad, D, T


def made(lib: Any, name: str) -> Any:
    """Return a function that makes a layer, gives it a state, and calls it: in training, and then in evaluation."""

    def call(x: Any, *arguments: Any, train: bool = True, **options: Any) -> State:
        layer = with_state(lib, name, x, *arguments, **options)
        layer.train(train)
        results = [layer(x)]
        layer.eval()
        results.append(layer(x))
        return observed(layer, results)

    return call


def with_state(lib: Any, name: str, x: Any, *arguments: Any, **options: Any) -> Any:
    """Make a layer and give it a state, the same one in both libraries."""
    layer = getattr(lib, name)(*arguments, **options)
    if hasattr(layer.weight, "materialize"):
        _first_call(layer, x, lib)
    rng = np.random.default_rng(7)
    state = {}
    for key, value in layer.state_dict().items():
        drawn = rng.uniform(0.2, 1.0, tuple(value.shape)).astype(str(value.dtype).removeprefix("torch."))
        state[key] = torch.from_numpy(drawn) if lib is tnn else drawn
    layer.load_state_dict(state)
    return layer


def observed(layer: Any, results: list) -> State:
    """Return results, with the state of the layer that gave them, its description and its parameters."""
    after = layer.state_dict()
    results += [list(after), *(np.asarray(value) for value in after.values()), repr(layer)]
    return State(results, list(layer.parameters()))


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
    Bad(T((2, 4, 7, 6), "float32")),
]  # fmt: skip
ALSO_FLOAT32 = [*IMAGES[:-1], T((2, 4, 7, 6), "float32")]


def lone(input: T) -> bool:
    """Whether there is a single value a channel."""
    return input.shape[0] == 1 and all(size == 1 for size in input.shape[2:])


def without_affine(unlike: Any) -> dict[str, Any]:
    """What is refused of inputs that the parameters and statistics are not for."""
    return {
        "the parameters are not for the input": lambda input, affine: affine is not False and unlike(input),
        "the statistics are not for the input":
            lambda input, track_running_stats: track_running_stats is not False and unlike(input),
    }


BATCH = {
    "one value has no variance": lambda input, train: train and lone(input),
    "one value has no variance, whenever there are no statistics":
        lambda input, track_running_stats: track_running_stats is False and lone(input),
}
CONV = {
    "kernel_size": [3, (2, 3), 1, Bad(0), Bad((3, 3, 3)), Bad(None)],
    "stride": [OMIT, 1, 2, (1, 2), Bad(0)],
    "padding": [OMIT, 0, 1, (2, 1), "same", "valid", -1, Bad("full")],
    "dilation": [OMIT, 1, 2],
    "groups": [OMIT, 1, 2, Bad(3), Bad(0)],
    "bias": [OMIT, True, False],
    "padding_mode": [OMIT, "zeros", "reflect", "replicate", "circular", Bad("mirror")],
}
CROPPED = {
    **STRIDED_SAME,
    "zeros have no negative width": lambda padding, padding_mode: padding == -1 and padding_mode in (OMIT, "zeros"),
}
TRAIN = [True, False]
NORM = {"eps": [OMIT, 1e-5, 0.1], "momentum": [OMIT, 0.1, None, 1.0], "affine": [OMIT, True, False]}
NORM |= {"track_running_stats": [OMIT, True, False], "dtype": [D("float64")], "train": TRAIN}
INSTANCE = {
    "the parameters are for another number of channels":
        lambda first_features, affine: first_features == 3 and affine is True,
    "the statistics are for another number of channels":
        lambda input, first_features, track_running_stats:
            input.shape[0] > 0 and first_features == 3 and track_running_stats is True,
    "no images to scale": lambda input, affine: input.shape[0] == 0 and affine is True,
}
ENTRIES = [
    layer("Conv2d", {"input": IMAGES, "first_in": [4, Bad(3)], "first_out": [4, 6, Bad(0)], **CONV,
        "dtype": [D("float64")]}, refuses=CROPPED),
    layer(
        "Conv1d",
        {
            "input": [T((2, 4, 9)), T((4, 9)), T((0, 4, 9)), T((2, 4, 9), "float64", "transposed"), Bad(T((9,)))],
            "first_in": [4, Bad(3)], "first_out": [4, 6, Bad(0)],
            **CONV, "kernel_size": [3, (2,), 1, Bad(0)],
            "padding": [OMIT, 0, 1, (2,), "same", "valid", -1, Bad("full")],
            "stride": [OMIT, 1, 2, (2,), Bad(0)],
            "dtype": [D("float64")],
        },
        refuses=CROPPED,
    ),
    layer(
        "ConvTranspose2d",
        {
            "input": IMAGES, "first_in": [4, Bad(3)], "first_out": [4, 6, Bad(0)],
            "kernel_size": [3, (2, 3), 1, Bad(0)], "stride": [OMIT, 1, 2, (1, 2), Bad(0)],
            "padding": [OMIT, 0, 1, (1, 0), Bad(-1)],
            "output_padding": [OMIT, 0, 1, Bad(4)], "groups": [OMIT, 1, 2, Bad(3)], "bias": [OMIT, True, False],
            "dilation": [OMIT, 1, 2], "padding_mode": [OMIT, "zeros", Bad("reflect")], "dtype": [D("float64")],
        },
    ),
    layer("LazyConv2d", {"input": IMAGES, "first_out": [4, 6, Bad(0)], **CONV, "dtype": [D("float64")]},
        refuses=CROPPED),
    layer(
        "LazyLinear",
        {"input": [T((3, 5)), T((5,)), T((2, 3, 5)), T((0, 5)), Bad(T(()))], "first_out": [1, 7, Bad(-1)],
         "bias": [OMIT, True, False], "dtype": [D("float64")]},
    ),
    layer(
        "Linear",
        {"input": [T((3, 5)), T((5,)), T((2, 3, 5)), T((0, 5)), Bad(T((3, 4)))], "first_in": [5, Bad(-1), Bad("5")],
         "first_out": [1, 7, Bad(-1)], "bias": [OMIT, True, False], "dtype": [D("float64")]},
    ),
    layer(
        "BatchNorm2d",
        {"input": [*(Bad(x) if len(x.shape) == 3 else x for x in ALSO_FLOAT32), Bad(T((4, 6))), T((1, 4, 1, 1)),
            T((2, 3, 5, 5))],
         "first_features": [4], **NORM},
        tolerance=10,
        refuses={**BATCH, **without_affine(lambda input: input.dtype == "float32" or input.shape[1] == 3)},
    ),
    layer(
        "BatchNorm1d",
        {"input": [T((5, 4)), T((2, 4, 6)), T((0, 4)), T((1, 4)), T((3, 4), "float64", "transposed"),
            Bad(T((2, 4, 3, 3)))],
         "first_features": [4], **NORM}, tolerance=10, refuses=BATCH,
    ),
    layer(
        "InstanceNorm2d", {"input": ALSO_FLOAT32, "first_features": [4, 3], **NORM}, tolerance=10,
        refuses={
            **INSTANCE,
            "the dtypes differ": lambda input, affine: input.dtype == "float32" and affine is True,
        },
    ),
    layer(
        "InstanceNorm1d",
        {"input": [T((5, 4, 7)), T((4, 6)), T((0, 4, 3)), T((2, 4, 1))], "first_features": [4, 3], **NORM},
        tolerance=10,
        refuses={
            **INSTANCE,
            "one value has no variance": lambda input, train: train and input.shape[-1] == 1,
            "one value has no variance, whenever there are no statistics":
                lambda input, track_running_stats: track_running_stats is not True and input.shape[-1] == 1,
        },
    ),
    layer(
        "GroupNorm",
        {"input": [*ALSO_FLOAT32, T((3, 4)), T((2, 4, 5))],
         "first_groups": [1, 2, 4, Bad(3), Bad(0)], "first_channels": [4],
         "eps": [OMIT, 0.1], "affine": [OMIT, True, False], "dtype": DTYPE}, tolerance=10,
        refuses={
            "channels are a multiple of groups": lambda input, first_groups: input.shape[1] % first_groups != 0,
            "a parameter for each channel": lambda input, affine: affine is not False and input.shape[1] != 4,
        },
    ),
    layer(
        "LayerNorm",
        {"input": [T((3, 4, 5)), T((2, 2, 4, 5), "float32"), T((0, 4, 5))],
            "first_shape": [5, (4, 5), [5], Bad((3, 5)), Bad(())],
         "eps": [OMIT, 0.1], "elementwise_affine": [OMIT, True, False], "bias": [OMIT, True, False], "dtype": DTYPE},
         tolerance=10,
    ),
    layer(
        "PReLU",
        {"input": IMAGES, "num_parameters": [OMIT, 1, 4, Bad(3), Bad(-1)], "init": [OMIT, 0.25, 0],
         "dtype": [D("float64")]},
        refuses={
            "a weight for each channel": lambda input, num_parameters: num_parameters == 4 and input.shape[1] != 4,
        },
    ),
]  # fmt: skip
