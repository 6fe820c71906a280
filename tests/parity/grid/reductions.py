"""Sums, means, variances, and extremes."""

from __future__ import annotations

from typing import Any

import torch

from numbanet import functional as F
from tests.parity.grid.arithmetic import method
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import handed
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

INPUTS = [
    T((3, 4, 5)), T(()), T((6,), "float32"), T((2, 3, 5, 4), "float32", "channels_last"),
    T((3, 4), "float64", "transposed"),
    T((3, 7), "float32", "strided"), T((4, 3), "float64", "expanded"), T((3, 4), kind="few"),
    T((5, 4), "float32", kind="wild"),
    T((0, 3)), T((3, 4), "int64"), T((3, 4), "bool"),
]  # fmt: skip
DIMS = [OMIT, None, 0, -1, 1, (0, 1), [0, -1], (), Bad(9), Bad((0, -9)), Bad((0, 0)), Bad("0")]
KEEP = [OMIT, False, True]


def over(name: str, where: Any, dims: list = DIMS, **options: Any) -> Entry:
    ours = method(name.removeprefix("Tensor.")) if where is None else getattr(F, name)
    theirs = ours if where is None else getattr(where, name)
    return Entry(name, ours, theirs, {"input": INPUTS, "dim": dims, "keepdim": KEEP, **options}, over_call, 3)


def over_call(input: Any, dim: Any, keepdim: Any, **options: Any) -> Call:
    """`keepdim` has no meaning to PyTorch without `dim` in some functions: the order of the two shows."""
    return Call((input,), handed(dim=dim, keepdim=keepdim, **options))


ONE_DIM = [OMIT, None, 0, -1, 1, -2, Bad(9), Bad(-9), Bad((0, 1)), Bad("0")]
ENTRIES = [
    over("sum", torch), over("mean", torch),
    over("var", torch, unbiased=[OMIT, True, False]), over("std", torch, correction=[OMIT, None, 0, 1, 2, 0.5]),
    over("Tensor.var", None, correction=[OMIT, 0, 1, 2, 30]),
    over("max", torch, ONE_DIM), over("min", torch, ONE_DIM), over("argmax", torch, ONE_DIM),
    over("argmin", torch, ONE_DIM),
    over("amax", torch), over("amin", torch),
    *(
        Entry(
            f"Tensor.{name}, of pairs", method(name), method(name),
            {"input": INPUTS[:4], "other": [T((3, 1, 5)), T(()), T((5,), "float32"), T((4,), "int64"), T((4,))]},
        )
        for name in ("max", "min")
    ),
]  # fmt: skip
