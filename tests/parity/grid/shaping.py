"""Layers without parameters that have arguments of their own: padding, resizing in one way, flattening, dropout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn as tnn

from numbanet import nn
from tests.parity.grid.activation import by_name
from tests.parity.grid.cases import Entry
from tests.parity.grid.images import padded
from tests.parity.grid.normalisation import OUR_SEED, PROBABILITIES, THEIR_SEED, dropout
from tests.parity.grid.rules import beyond
from tests.parity.grid.stateless import layer
from tests.parity.grid.values import OMIT, Bad, T

SEQUENCES = [
    T((2, 3, 5)), T((3, 6), "float32"), T((0, 2, 5)), T((2, 3, 6), "float64", "strided"), T((2, 4, 5), "int64"),
]  # fmt: skip
IMAGES = [
    T((2, 3, 4, 5)), T((3, 4, 6), "float32"), T((0, 2, 4, 5)), T((2, 3, 4, 5), "float32", "channels_last"),
    T((2, 3, 5, 4), "int64"),
]  # fmt: skip
ENDS = [1, 0, -1, (1, 2), [2, 0], (-1, 2), Bad((1,)), Bad((1, 2, 3)), Bad(1.5), Bad((1.0, 2)), Bad(None), Bad("1")]
SIDES = [1, 0, -1, (1, 2, 0, 3), [2, 0, 1, 1], (-1, 1, 2, -1), (1, 2), *ENDS[6:]]
CONSTANTS = [0.0, 2, -1.5, True, float("inf"), None, Bad("1")]


def unpadded(mode: str, input: T, padding: Any) -> bool:
    """Whether a mode does not pad these dimensions of images."""
    return padded(mode, input, (padding,) * 4 if isinstance(padding, int) else padding)


def unfilled(input: T, padding: Any, value: Any) -> bool:
    """Whether integers should become infinite."""
    widths = (padding,) if isinstance(padding, int) else padding
    return input.dtype == "int64" and value == float("inf") and max(widths) > 0


def pad(name: str, mode: str) -> Entry:
    """Return the entry of a layer that pads."""
    one = name.endswith("1d")
    options = {"input": SEQUENCES if one else IMAGES, "padding": ENDS if one else SIDES}
    if name.startswith("Constant"):
        options["value"] = CONSTANTS
    refuses: dict[str, Callable[..., bool]] = {}
    if name.startswith("Constant"):
        refuses["integers hold no infinity, where there is something to fill"] = unfilled
    elif mode != "constant" and not one:
        refuses["the mode pads other dimensions"] = partial(unpadded, mode)
    return Entry(f"nn.{name}", layer(nn, name, 1), layer(tnn, name, 1), options, fewest=40, refuses=refuses)


def split(input: T, dim: int, unflattened_size: Any) -> bool:
    """Whether a dimension has not this many elements."""
    count = input.shape[dim]
    known = 1
    for size in unflattened_size:
        known *= 1 if size == -1 else size
    return count % known != 0 if -1 in unflattened_size else count != known


def dropping(lib: Any, name: str, seed: Callable) -> Callable:
    """Return a function of a layer's input and options; in training or not."""

    def call(x: Any, *, p: float = 0.5, training: bool = True, **options: Any) -> Any:
        return getattr(lib, name)(p, **options).train(training)(x)

    return dropout(call, seed, name == "Dropout2d")


ENTRIES = [
    *(
        pad(f"{kind}Pad{dims}d", mode)
        for kind, mode in (
            ("Zero", "constant"), ("Constant", "constant"), ("Reflection", "reflect"), ("Replication", "replicate"),
            ("Circular", "circular"),
        )
        for dims in (1, 2)
    ),
    *(
        Entry(
            f"nn.{name}", layer(nn, name, 1), layer(tnn, name, 1),
            {
                "input": [T((2, 3, 5, 7)), T((1, 2, 4, 6), "float32", "channels_last"), T((0, 2, 3, 3)),
                    Bad(T((3, 4)))],
                "size": [None, OMIT, 4, (3, 9), [2, 3], Bad((1, 2, 3)), Bad(0)],
                "scale_factor": [OMIT, None, 2, 0.5, (2, 0.7), Bad((1, 2, 3)), Bad(-1.0)],
            },
            refuses={
                "one of size and scale_factor":
                    lambda size, scale_factor: (size in (None, OMIT)) == (scale_factor in (None, OMIT)),
            },
        )
        for name in ("UpsamplingNearest2d", "UpsamplingBilinear2d")
    ),
    Entry(
        "nn.Flatten", layer(nn, "Flatten", 1), layer(tnn, "Flatten", 1),
        {
            "input": [T((2, 3, 4)), T((2, 3, 4, 5), "float32", "channels_last"), T((3, 4), "int64"), T((0, 3, 2)),
                T((4,)), T((2, 4, 6), "float64", "transposed")],
            "start_dim": [OMIT, 1, 0, -2, 2, Bad(7), Bad(None), Bad(1.0)],
            "end_dim": [OMIT, -1, 1, 2, Bad(-8), Bad("1")],
        },
        refuses={
            "there is no such first dimension":
                lambda input, start_dim: beyond(input, 1 if start_dim is OMIT else start_dim),
            "there is no such last dimension": lambda input, end_dim: beyond(input, end_dim),
            "the last comes before the first": lambda input, start_dim, end_dim:
                (1 if start_dim is OMIT else start_dim) % len(input.shape)
                > (-1 if end_dim is OMIT else end_dim) % len(input.shape),
        },
    ),
    Entry(
        "nn.Unflatten", layer(nn, "Unflatten", 1), layer(tnn, "Unflatten", 1),
        {
            "input": [T((2, 12, 4)), T((12, 12), "float32"), T((0, 12)), T((12, 3), "int64"),
                T((2, 12, 3, 4), "float64", "channels_last")],
            "dim": [1, 0, -1, 2, Bad(7), Bad(None), Bad(1.0)],
            "unflattened_size": [(3, 4), [2, 6], (12,), (-1, 3), (2, 2), (2, -1, 2), Bad((5, 5)), Bad(()),
                Bad((-1, -1)), Bad(12), Bad((3.0, 4)), Bad(None)],
        },
        refuses={
            "there is no such dimension": lambda input, dim: beyond(input, dim),
            "the number of elements is another": lambda input, dim, unflattened_size:
                not beyond(input, dim) and split(input, dim, unflattened_size),
        },
    ),
    *(
        Entry(
            f"nn.{name}", dropping(nn, name, OUR_SEED), dropping(tnn, name, THEIR_SEED),
            {"input": inputs, "p": PROBABILITIES, "training": [OMIT, True, False], "inplace": [OMIT, False, True]},
            by_name, fewest=40,
        )
        for name, inputs in (
            ("Dropout", [T((60, 50)), T((), "float32"), T((0, 3)), T((40, 30), "float32", "transposed")]),
            ("Dropout2d", [T((50, 60, 2, 2)), T((0, 3, 2, 2)), T((40, 30, 1, 1), "float32", "channels_last")]),
        )
    ),
]  # fmt: skip
