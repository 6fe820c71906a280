"""Indexing, joining, splitting and reordering."""

from __future__ import annotations

import operator
from typing import Any

import torch

from numbanet import functional as F
from tests.parity.grid.arithmetic import method
from tests.parity.grid.cases import Entry
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

INPUTS = [
    T((3, 4, 5)), T((4, 5), "float32"), T((6,)), T(()), T((0, 3)), T((2, 3, 5, 4), "float32", "channels_last"),
    T((3, 4), "float64", "transposed"), T((3, 6), "float32", "strided"), T((3, 4), "int64"), T((3, 4), "bool"),
    T((4, 3), "float64", "expanded"),
]  # fmt: skip
STEPS = [
    0, -1, slice(1, None), slice(None, -1), slice(None, None, 2), slice(2, 1), None, ..., [0, 2], [-1, 0, 0],
    T((3,), "int64", kind="below 3"), T((2, 2), "int64", kind="below 3"), T((), "int64", kind="below 3"), True, False,
    Bad(9), Bad(slice(None, None, -1)), Bad(1.5), Bad([0, 9]), T((3,), "bool"), T((3, 4), "bool"),
]  # fmt: skip
SECOND = [OMIT, 0, slice(1, 3), ..., T((3,), "int64", kind="below 3")]
THIRD = [OMIT, slice(None, None, 2), -1]


def index(input: Any, first: Any, second: Any, third: Any) -> Call:
    steps = tuple(step for step in (first, second, third) if step is not OMIT)
    return Call((input, steps if len(steps) > 1 else steps[0]), {})


def joined(first: Any, second: Any, third: Any, dim: Any, order: Any) -> Call:
    return Call((order(part for part in (first, second, third) if part is not OMIT),),
        {} if dim is OMIT else {"dim": dim})


def spread(input: Any, sizes: Any, apart: bool) -> Call:
    return Call((input, *sizes) if apart and isinstance(sizes, (tuple, list)) else (input, sizes), {})


DIM = [OMIT, 0, 1, -1, -2, 2, Bad(5), Bad(-6), Bad("0")]
PARTS = [
    T((3, 4)), T((3, 4), "float32"), T((1, 4)), T((3, 2)), T((0,)), T((3, 4), "int64"),
    T((3, 4), "float64", "transposed"),
    T((2, 3, 4)), T((4,)), T(()), T((3, 4), "bool"),
]  # fmt: skip
ORDERS = [
    (0, 1, 2), (2, 0, 1), (-1, 0, 1), [1, 0, 2], (1, 0), (0,), (), (3, 1, 0, 2), Bad((0, 0, 1)), Bad((0, 1, 9)),
    Bad("012"),
    Bad(1.5),
]  # fmt: skip
SIZES = [
    (-1,), (60,), (3, 20), (4, -1), [2, 5, 6], (12,), (2, -1, 3), (1,), (), (0, -1), Bad((7, -1)), Bad((-1, -1)),
    Bad((-2,)), Bad((1.5,)),
]  # fmt: skip
ENTRIES = [
    Entry(
        "Tensor: indexing", operator.getitem, operator.getitem,
        {"input": [*INPUTS[:2], *INPUTS[5:8]], "first": STEPS, "second": SECOND, "third": THIRD},
        index, fewest=120,
    ),
    Entry(
        "cat", F.cat, torch.cat,
        {"first": PARTS, "second": [OMIT, *PARTS[:9], Bad(3)], "third": [OMIT, PARTS[0]], "dim": DIM[:-1],
            "order": [list, tuple]},
        joined, fewest=120,
    ),
    Entry(
        "stack", F.stack, torch.stack,
        {"first": PARTS, "second": [OMIT, *PARTS[:6], Bad(3)], "third": [OMIT, PARTS[0]], "dim": DIM[:-1],
            "order": [list, tuple]},
        joined, fewest=120,
    ),
    Entry(
        "split", F.split, torch.split,
        {
            "tensor": INPUTS[:9],
            "split_size_or_sections": [1, 2, 3, 9, [1, 2], (2, 2), [3], [1, 2, 1], Bad(-1), Bad([1, -1]), Bad(1.5),
                Bad(None)],
            "dim": DIM,
        },
        fewest=120,
    ),
    Entry(
        "Tensor.split", method("split"), method("split"),
        {"input": INPUTS, "split_size": [1, 2, 9, [1, 2], [3], Bad(-1), Bad("2")], "dim": DIM}, fewest=100,
    ),
    Entry(
        "Tensor.permute", method("permute"), method("permute"),
        {"input": INPUTS, "sizes": ORDERS, "apart": [False, True]}, spread, fewest=100,
    ),
    Entry(
        "Tensor.reshape", method("reshape"), method("reshape"),
        {"input": INPUTS[:9], "sizes": SIZES, "apart": [False, True]}, spread, fewest=120,
    ),
    Entry(
        "reshape", F.reshape, torch.reshape, {"input": INPUTS[:8], "shape": SIZES}, fewest=120,
    ),
    Entry(
        "Tensor.flatten", method("flatten"), method("flatten"),
        {"input": INPUTS, "start_dim": [OMIT, 0, 1, -2, Bad(7), Bad(None)], "end_dim": [OMIT, -1, 1, 0, 2, Bad(-8)]},
    ),
    Entry("Tensor.transpose", method("transpose"), method("transpose"),
        {"input": INPUTS, "dim0": DIM[1:], "dim1": DIM[1:]}),
    Entry("Tensor.squeeze", method("squeeze"), method("squeeze"), {
        "input": [*INPUTS, T((1, 3, 1)), T((1,)), T((2, 1, 4))],
        "dim": [OMIT, 0, 1, -1, (0, 2), (0, 1), Bad(5), Bad("0")]}),
    Entry("Tensor.unsqueeze", method("unsqueeze"), method("unsqueeze"), {"input": INPUTS, "dim": DIM[1:]}),
    Entry(
        "Tensor.expand", method("expand"), method("expand"),
        {
            "input": [T((3, 1)), T((1,)), T(()), T((1, 4), "float32"), T((2, 1, 3), "int64"), T((0, 1))],
            "sizes": [(3, 4), (-1, 4), (2, 3, 4), (5,), (2, -1, 3), (), (0, 4), Bad((-1, -1, -1, 2)), Bad((2.5, 3)),
                (2, 0, 3)],
            "apart": [False, True],
        },
        spread,
    ),
]  # fmt: skip
