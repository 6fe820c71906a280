"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.rules import DIM_BEYOND
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, D, T

INPUTS = [
    T((3, 4)), T((), "float32"), T((5,), "float32"), T((0, 3)), T((2, 3, 5, 4), "float32", "channels_last"),
    T((4, 6), "float64", "transposed"), T((3, 7), "float32", "strided"), T((4, 3), "float64", "expanded"),
    T((40,), "float32", kind="wild"), T((5, 17), kind="few"),
]  # fmt: skip
INTEGERS = [T((3, 4), "int64"), T((5,), "int32"), T((4,), "uint8"), T((2, 3), "bool")]
NO_TENSORS = [Bad(None), Bad(1.5), Bad([1.0, 2.0])]
INPLACE = [OMIT, False, True]


def by_name(input: Any, **options: Any) -> Call:
    """All but the first: `approximate` has no place, and `_stacklevel` stands between `dim` and `dtype`."""
    return Call((input,), {name: value for name, value in options.items() if value is not OMIT})


def watched(function: Callable) -> Callable:
    """Return a function that hands over a copy where the tensor shall be changed, and what became of it."""

    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        if not hasattr(x, "clone") or not any(value is True for value in (*arguments, *options.values())):
            return function(x, *arguments, **options)
        x = x.clone()
        return [function(x, *arguments, **options), x * 1]

    return call


def entry(
    name: str, integers: int = 0, call: Any = None, refuses: Any = None, where: Any = TF, **options: Any
) -> Entry:
    """An activation, which takes the first few of `INTEGERS`."""
    inputs = [*INPUTS, *INTEGERS[:integers], *(Bad(integer) for integer in INTEGERS[integers:]), *NO_TENSORS]
    ours, theirs = watched(getattr(F, name)), watched(getattr(where, name))
    return Entry(name, ours, theirs, {"input": inputs, **options}, call, refuses=refuses or {})


def of_another_size(input: Any, weight: Any) -> bool:
    """Whether there is neither one weight nor one for each channel."""
    return int(np.prod(weight.shape)) not in (1, input.shape[1] if len(input.shape) > 1 else 1)


ENTRIES = [
    entry("relu", 3, inplace=INPLACE),
    entry("relu6", 3, inplace=INPLACE),
    entry(
        "leaky_relu", negative_slope=[OMIT, 0.01, 0.2, 0, -0.5, 1, Bad(None)], inplace=INPLACE,
        refuses={
            "a negative slope has no gradient from the result alone":
                lambda negative_slope, inplace, gradients: negative_slope == -0.5 and inplace is True and gradients,
        },
    ),
    entry("elu", alpha=[OMIT, 1.0, 0.5, 2], inplace=INPLACE),
    entry("gelu", 0, by_name, approximate=[OMIT, "none", "tanh", Bad("quick"), Bad(None)]),
    entry("silu", inplace=INPLACE),
    entry("hardswish", inplace=INPLACE),
    entry("hardsigmoid", inplace=INPLACE),
    entry(
        "hardtanh", 3, min_val=[OMIT, -1.0, -2, 0.5], max_val=[OMIT, 1.0, 3, 0.5, Bad(-3)], inplace=INPLACE,
        refuses={
            "bytes have no negative bounds":
                lambda input, min_val: input.dtype == "uint8" and min_val in (OMIT, -1.0, -2),
        },
    ),
    entry("softplus", beta=[OMIT, 1, 2.5, 0.5, -1], threshold=[OMIT, 20, 1, 0.5]),
    entry("mish", inplace=INPLACE),
    entry("sigmoid", 4, where=torch),
    entry("tanh", 4, where=torch),
    Entry(
        "prelu", F.prelu, torch.prelu,
        {
            "input": [
                *INPUTS, T((2, 4, 3)), T((4,)), T((2, 4, 1, 2), "float32"), Bad(T((3, 4), "int64")), Bad(None),
                T((2, 4, 5, 3), "float32", "strided"),
            ],
            "weight": [
                T((1,)), T((4,)), T(()), T((1,), "float32"), T((4,), "float32"), T((3,)), Bad(T((4, 1))), Bad(None),
                T((4,), "float64", "strided"),
            ],
        },
        fewest=140,
        refuses={
            "the two have the same dtype": lambda input, weight: input.dtype != weight.dtype,
            "a weight for all, or one for each channel": of_another_size,
        },
    ),
    *(
        Entry(
            name, getattr(F, name), getattr(TF, name),
            {
                "input": [*INPUTS[:9], *INTEGERS[:1], T((2, 3, 4)), T((6, 70), "float32"),
                    T((3, 1, 4), kind="wild")],
                "dim": [OMIT, None, 0, 1, -1, -2, 2, Bad(7), Bad(-8), Bad("0")],
                "dtype": [OMIT, None, D("float32"), D("float64"), Bad(D("int64"))],
            },
            by_name,
            fewest=120,
            refuses={
                **DIM_BEYOND,
                "integers become floating": lambda input, dtype: input.dtype == "int64" and dtype in (OMIT, None),
            },
        )
        for name in ("softmax", "log_softmax")
    ),
]  # fmt: skip
