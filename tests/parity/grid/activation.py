"""Activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, D, T

INPUTS = [
    T((3, 4)), T((), "float32"), T((5,), "float32"), T((0, 3)), T((2, 3, 5, 4), "float32", "channels_last"),
    T((4, 6), "float64", "transposed"), T((3, 7), "float32", "strided"), T((4, 3), "float64", "expanded"),
    T((40,), "float32", kind="wild"), T((5, 17), kind="few"),
]  # fmt: skip
INTEGERS = [T((3, 4), "int64"), T((5,), "int32"), T((2, 3), "bool"), T((4,), "uint8")]
NO_TENSORS = [Bad(None), Bad(1.5), Bad([1.0, 2.0])]
INPLACE = [OMIT, False]


def by_name(input: Any, **options: Any) -> Call:
    """`_stacklevel` stands between `dim` and `dtype`."""
    return Call((input,), {name: value for name, value in options.items() if value is not OMIT})


def entry(name: str, ours: Any = None, theirs: Any = None, **options: Any) -> Entry:
    ours, theirs = ours or getattr(F, name), theirs or getattr(TF, name)
    return Entry(name, ours, theirs, {"input": [*INPUTS, *INTEGERS, *NO_TENSORS], **options})


ENTRIES = [
    entry("relu", inplace=INPLACE),
    entry("relu6", inplace=INPLACE),
    entry("leaky_relu", negative_slope=[OMIT, 0.01, 0.2, 0, -0.5, 1, Bad(None)], inplace=INPLACE),
    entry("elu", alpha=[OMIT, 1.0, 0.5, 2], inplace=INPLACE),
    entry("gelu", approximate=[OMIT, "none", "tanh", Bad("quick"), Bad(None)]),
    entry("silu", inplace=INPLACE),
    entry("hardswish", inplace=INPLACE),
    entry("hardsigmoid", inplace=INPLACE),
    entry("hardtanh", min_val=[OMIT, -1.0, -2, 0.5], max_val=[OMIT, 1.0, 3, 0.5, Bad(-3)], inplace=INPLACE),
    entry("softplus", beta=[OMIT, 1, 2.5, 0.5, -1], threshold=[OMIT, 20, 1, 0.5]),
    entry("mish", inplace=INPLACE),
    entry("sigmoid", F.sigmoid, torch.sigmoid),
    entry("tanh", F.tanh, torch.tanh),
    Entry(
        "prelu", F.prelu, torch.prelu,
        {
            "input": [
                *INPUTS, T((2, 4, 3)), T((4,)), T((2, 4, 1, 2), "float32"), T((3, 4), "int64"), Bad(None),
                T((2, 4, 5, 3), "float32", "strided"),
            ],
            "weight": [
                T((1,)), T((4,)), T(()), T((1,), "float32"), T((4,), "float32"), T((3,)), Bad(T((4, 1))), Bad(None),
                T((8,), "float64", "strided"),
            ],
        },
        fewest=140,
    ),
    *(
        Entry(
            name, getattr(F, name), getattr(TF, name),
            {
                "input": [*INPUTS[:9], *INTEGERS[:1], T((2, 3, 4)), T((2, 0)), T((6, 70), "float32"),
                    T((3, 1, 4), kind="wild")],
                "dim": [OMIT, None, 0, 1, -1, -2, 2, Bad(7), Bad(-8), Bad("0")],
                "dtype": [OMIT, None, D("float32"), D("float64"), Bad(D("int64"))],
            },
            by_name,
            fewest=140,
        )
        for name in ("softmax", "log_softmax")
    ),
]  # fmt: skip
