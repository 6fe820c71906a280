"""Sums, means, variances, and extremes."""

from __future__ import annotations

from typing import Any

import torch

from numbanet import functional as F
from tests.parity.grid.arithmetic import method
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import handed
from tests.parity.grid.rules import APART, DIM_BEYOND, beyond, given, twice
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, D, T

INPUTS = [
    T((3, 4, 5)), T(()), T((6,), "float32"), T((2, 3, 5, 4), "float32", "channels_last"),
    T((3, 4), "float64", "transposed"),
    T((3, 7), "float32", "strided"), T((4, 3), "float64", "expanded"), T((3, 4), kind="few"),
    T((5, 4), "float32", kind="wild"),
    T((0, 3)), T((3, 4), "int64"), T((3, 4), "bool"),
]  # fmt: skip
DIMS = [OMIT, None, 0, -1, 1, (0, 1), [0, -1], (), Bad(9), Bad((0, -9)), Bad((0, 0)), Bad("0")]
KEEP = [OMIT, False, True]
FLOATS = [*INPUTS[:-2], Bad(INPUTS[-2]), Bad(INPUTS[-1])]
NUMBERS = [*INPUTS[:-1], Bad(INPUTS[-1])]
# PyTorch's gradient of a product divides by each number, and is NaN beside infinity.
FACTORS = [x.like(grad=x.kind != "wild") for x in INPUTS]
KEPT = {"keepdim is for some dim": lambda dim, keepdim: dim is OMIT and keepdim is not OMIT}
NOTHING = {"nothing has no extreme": lambda input, dim: over_nothing(input, dim)}


def over_nothing(input: T, dim: Any) -> bool:
    """Whether one of the dimensions that go is empty."""
    dims = range(len(input.shape)) if not given(dim) or dim == () else dim if isinstance(dim, (tuple, list)) else [dim]
    return not beyond(input, list(dims)) and any(input.shape[d] == 0 for d in dims if input.shape)


def over(
    name: str, where: Any, dims: list = DIMS, inputs: list = INPUTS, refuses: Any = None, **options: Any
) -> Entry:
    ours = method(name.removeprefix("Tensor.")) if where is None else getattr(F, name)
    theirs = ours if where is None else getattr(where, name)
    more = dict(refuses or {}) if dims is not DIMS else {"a dimension is named twice": twice, **(refuses or {})}
    choices = {"input": inputs, "dim": dims, "keepdim": KEEP, **options}
    return Entry(name, ours, theirs, choices, over_call, 3, refuses={**DIM_BEYOND, **more})


def over_call(input: Any, dim: Any, keepdim: Any, **options: Any) -> Call:
    """`keepdim` has no meaning to PyTorch without `dim` in some functions: the order of the two shows."""
    return Call((input,), handed(dim=dim, keepdim=keepdim, **options))


ANY_DIM = [OMIT, None, 0, -1, 1, -2, Bad(9), Bad(-9), Bad((0, 1)), Bad("0")]
ONE_DIM = [OMIT, Bad(None), *ANY_DIM[2:]]
ENTRIES = [
    over("sum", torch, refuses=KEPT), over("mean", torch, inputs=FLOATS, refuses=KEPT),
    over("var", torch, inputs=FLOATS, unbiased=[OMIT, True, False, Bad(None)]),
    over("std", torch, inputs=FLOATS, correction=[OMIT, None, 0, 1, 2, 0.5]),
    over("Tensor.var", None, inputs=FLOATS, correction=[OMIT, 0, 1, 2, 30]),
    over("max", torch, ONE_DIM, refuses={**KEPT, **NOTHING}), over("min", torch, ONE_DIM, refuses={**KEPT, **NOTHING}),
    over("argmax", torch, ANY_DIM, NUMBERS, NOTHING), over("argmin", torch, ANY_DIM, NUMBERS, NOTHING),
    over("prod", torch, ONE_DIM, FACTORS, refuses=KEPT, dtype=[OMIT, None, D("float64")]),
    over("any", torch), over("all", torch),
    over("amax", torch, refuses=NOTHING), over("amin", torch, refuses=NOTHING),
    *(
        Entry(
            f"Tensor.{name}, of pairs", method(name), method(name),
            {"input": INPUTS[:4], "other": [T((3, 1, 5)), T(()), T((5,), "float32"), T((4,), "int64"), T((4,))]},
            refuses=APART,
        )
        for name in ("max", "min")
    ),
]  # fmt: skip
