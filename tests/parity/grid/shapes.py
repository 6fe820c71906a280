"""Indexing, joining, splitting and reordering."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch

from numbanet import functional as F
from tests.parity.grid.arithmetic import method
from tests.parity.grid.cases import Entry
from tests.parity.grid.rules import DIM_BEYOND, apart, beyond
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

INPUTS = [
    T((3, 4, 5)), T((4, 5), "float32"), T((6,)), T(()), T((0, 3)), T((2, 3, 5, 4), "float32", "channels_last"),
    T((3, 4), "float64", "transposed"), T((3, 6), "float32", "strided"), T((3, 4), "int64"), T((3, 4), "bool"),
    T((4, 3), "float64", "expanded"),
]  # fmt: skip
SPLIT = [Bad(x) if x.shape == () else x for x in INPUTS]
STEPS = [
    0, -1, slice(1, None), slice(None, -1), slice(None, None, 2), slice(2, 1), None, ..., [0, 2], [-1, 0, 0],
    T((3,), "int64", kind="below 2"), T((2, 2), "int64", kind="below 2"), T((), "int64", kind="below 2"), True, False,
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


def unlike_mask(input: T, first: Any) -> bool:
    return isinstance(first, T) and first.dtype == "bool" and first.shape != input.shape[: len(first.shape)]


def outside(input: T, first: Any) -> bool:
    return first == [0, 2] and input.shape[0] < 3


def two_lists(first: Any, second: Any) -> bool:
    """Whether two lists of places have different lengths; that of a mask is its number of places."""
    if not isinstance(second, T):
        return False
    first = T((2,)) if first == [0, 2] else first
    return first is False or (isinstance(first, T) and (first.dtype == "bool" or apart(first, second)))


def no_chain(first: Any, second: Any, third: Any, dim: Any) -> bool:
    """Whether tensors differ in more than the dimension along which they are joined; shape (0,) does not count."""
    shapes = [part.shape for part in (first, second, third) if isinstance(part, T) and part.shape != (0,)]
    place = 0 if dim is OMIT else dim
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        return True
    if not shapes:
        return False
    if not -len(shapes[0]) <= place < len(shapes[0]):
        return True
    rests = {tuple(n for k, n in enumerate(shape) if k != place % len(shape)) for shape in shapes}
    return len(rests) > 1


def no_pile(first: Any, second: Any, third: Any) -> bool:
    return len({part.shape for part in (first, second, third) if isinstance(part, T)}) > 1


def other_sum(tensor: T, parts: Any, dim: Any) -> bool:
    """Whether the lengths of parts do not add up."""
    place = 0 if dim is OMIT else dim
    return isinstance(parts, (list, tuple)) and not beyond(tensor, place) and sum(parts) != tensor.shape[place]


def other_number(input: T, sizes: Any) -> bool:
    """Whether a shape has another number of elements."""
    there, wanted = int(np.prod(input.shape)), int(np.prod([size for size in sizes if size != -1]))
    return (there % wanted if -1 in sizes else there - wanted) != 0


def backwards(input: T, start_dim: Any, end_dim: Any) -> bool:
    start, end = (0 if start_dim is OMIT else start_dim), (-1 if end_dim is OMIT else end_dim)
    count = max(1, len(input.shape))
    return not beyond(input, (start, end)) and start % count > end % count


def not_spread(input: T, sizes: tuple) -> bool:
    """Whether a shape is not spread to these sizes."""
    extra = len(sizes) - len(input.shape)
    if extra < 0 or -1 in sizes[:extra]:
        return True
    return any(new not in (-1, old) and old != 1 for old, new in zip(input.shape, sizes[extra:]))


NONE_APART = {"no sizes": lambda sizes, apart: sizes == () and apart}
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
    (-1,), (60,), (3, 20), (4, -1), [2, 5, 6], (12,), (2, -1, 3), (1,), (), Bad((0, -1)), (7, -1), Bad((-1, -1)),
    Bad((-2,)), Bad((1.5,)),
]  # fmt: skip
ENTRIES = [
    Entry(
        "Tensor: indexing", operator.getitem, operator.getitem,
        {"input": [*INPUTS[:2], *INPUTS[5:8]], "first": STEPS, "second": SECOND, "third": THIRD},
        index, fewest=120,
        refuses={
            "a mask has the shape of what it is for": unlike_mask, "the index is too large": outside,
            "lists of different lengths": two_lists,
        },
    ),
    Entry(
        "cat", F.cat, torch.cat,
        {"first": [Bad(part) if part.shape == () else part for part in PARTS],
            "second": [OMIT, *PARTS[:9], Bad(3)], "third": [OMIT, PARTS[0]], "dim": DIM[:-1],
            "order": [list, tuple]},
        joined, fewest=120, refuses={"the tensors differ in more than one dimension": no_chain},
    ),
    Entry(
        "stack", F.stack, torch.stack,
        {"first": PARTS, "second": [OMIT, *PARTS[:6], Bad(3)], "third": [OMIT, PARTS[0]], "dim": DIM[:-1],
            "order": [list, tuple]},
        joined, fewest=120,
        refuses={
            "the tensors have different shapes": no_pile,
            "there is no such dimension": lambda first, dim: dim is not OMIT and beyond(T((1, *first.shape)), dim),
        },
    ),
    Entry(
        "split", F.split, torch.split,
        {
            "tensor": SPLIT[:9],
            "split_size_or_sections": [1, 2, 3, 9, [1, 2], (2, 2), [3], [1, 2, 1], Bad(-1), Bad([1, -1]), Bad(1.5),
                Bad(None)],
            "dim": DIM,
        },
        fewest=120,
        refuses={
            "the parts do not add up":
                lambda tensor, split_size_or_sections, dim: other_sum(tensor, split_size_or_sections, dim),
            "there is no such dimension": lambda tensor, dim: beyond(tensor, dim),
        },
    ),
    Entry(
        "Tensor.split", method("split"), method("split"),
        {"input": SPLIT, "split_size": [1, 2, 9, [1, 2], [3], Bad(-1), Bad("2")], "dim": DIM}, fewest=100,
        refuses={
            "the parts do not add up": lambda input, split_size, dim: other_sum(input, split_size, dim), **DIM_BEYOND,
        },
    ),
    Entry(
        "Tensor.permute", method("permute"), method("permute"),
        {"input": INPUTS, "sizes": ORDERS, "apart": [False, True]}, spread, fewest=100,
        refuses={"a place for each dimension": lambda input, sizes: len(sizes) != len(input.shape), **NONE_APART},
    ),
    Entry(
        "Tensor.reshape", method("reshape"), method("reshape"),
        {"input": INPUTS[:9], "sizes": SIZES, "apart": [False, True]}, spread, fewest=120,
        refuses={"the number of elements is another": other_number, **NONE_APART},
    ),
    Entry(
        "reshape", F.reshape, torch.reshape, {"input": INPUTS[:8], "shape": SIZES}, fewest=120,
        refuses={"the number of elements is another": lambda input, shape: other_number(input, shape)},
    ),
    Entry(
        "Tensor.flatten", method("flatten"), method("flatten"),
        {"input": INPUTS, "start_dim": [OMIT, 0, 1, -2, Bad(7), Bad(None)], "end_dim": [OMIT, -1, 1, 0, 2, Bad(-8)]},
        refuses={
            "there is no such first dimension": lambda input, start_dim: beyond(input, start_dim),
            "there is no such last dimension": lambda input, end_dim: beyond(input, end_dim),
            "the last comes before the first": backwards,
        },
    ),
    Entry("Tensor.transpose", method("transpose"), method("transpose"),
        {"input": INPUTS, "dim0": DIM[1:], "dim1": DIM[1:]},
        refuses={
            "there is no such dimension": lambda input, dim0: beyond(input, dim0),
            "nor such another": lambda input, dim1: beyond(input, dim1),
        }),
    Entry("Tensor.squeeze", method("squeeze"), method("squeeze"), {
        "input": [*INPUTS, T((1, 3, 1)), T((1,)), T((2, 1, 4))],
        "dim": [OMIT, 0, 1, -1, (0, 2), (0, 1), Bad(5), Bad("0")]}, refuses=DIM_BEYOND),
    Entry("Tensor.unsqueeze", method("unsqueeze"), method("unsqueeze"), {"input": INPUTS, "dim": DIM[1:]},
        refuses={"there is no such dimension": lambda input, dim: beyond(T((1, *input.shape)), dim)}),
    Entry(
        "Tensor.expand", method("expand"), method("expand"),
        {
            "input": [T((3, 1)), T((1,)), T(()), T((1, 4), "float32"), T((2, 1, 3), "int64"), T((0, 1))],
            "sizes": [(3, 4), (-1, 4), (2, 3, 4), (5,), (2, -1, 3), (), (0, 4), Bad((-1, -1, -1, 2)), Bad((2.5, 3)),
                (2, 0, 3)],
            "apart": [False, True],
        },
        spread,
        refuses={"the shape is not spread to these sizes": not_spread, **NONE_APART},
    ),
]  # fmt: skip
