"""Elementwise functions and operators, products, and comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.rules import APART, apart, given
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

LEFT = [
    T((3, 4)), T((), "float32"), T((4,), "float32", kind="few"), T((0, 4)), T((2, 3, 5, 4), "float32", "channels_last"),
    T((3, 4), "float64", "transposed"), T((3, 4), "float32", "strided"), T((3, 1), kind="wild"), T((3, 4), "int64"),
    T((4,), "int32"), T((3, 4), "bool"),
]  # fmt: skip
RIGHT = [
    T((3, 4)), T(()), T((4,), "float32", kind="few"), T((1, 4), "float64", kind="positive"), T((3, 4), "int64"),
    T((3, 1), "bool"), T((4,), "uint8"), T((5,)), 2, -1.5, True,
]  # fmt: skip
ONE = [
    *LEFT, T((3, 4), kind="positive"), T((50,), "float32", kind="wild"), T((5, 1), "float64", "expanded"),
    T((6,), "uint8"),
    Bad(None), Bad([1.0]),
]  # fmt: skip
MATRICES = [
    T((3, 4)), T((4,)), T((2, 3, 4)), T((2, 1, 3, 4)), T((3, 4), "float64", "transposed"), T((0, 4)),
    T((2, 3, 4), "float64", "strided"), T((1, 3, 4)), T((3, 4), "float32"), T((3, 4), "int64"),
]  # fmt: skip
OTHERS = [
    T((4, 5)), T((4,)), T((2, 4, 5)), T((3, 1, 4, 2)), T((4, 5), "float64", "transposed"), T((4, 0)), T((1, 4, 1)),
    T((5, 2, 4, 3), "float64", "strided"), T((4, 5), "float32"), T((4, 5), "int64"), Bad(T((5, 4))), Bad(T(())),
]  # fmt: skip


def method(name: str) -> Callable:
    """Return the method of this name as a function."""
    return lambda x, *arguments, **options: getattr(x, name)(*arguments, **options)


def by_position(*values: Any, **named: Any) -> Call:
    """By position only: these have no names."""
    return Call((*values, *named.values()), {})


def no_booleans(values: list) -> list:
    """Return values with those marked that hold booleans."""
    return [Bad(v) if v is True or (isinstance(v, T) and v.dtype == "bool") else v for v in values]


def operators(name: str, left: list = LEFT, right: list = RIGHT, refuses: Any = None) -> Entry:
    """An operator of tensors, either way round."""
    function = getattr(operator, name)
    turned = lambda a, b, flip: function(b, a) if flip else function(a, b)  # noqa: E731
    return Entry(
        f"Tensor: {name}", turned, turned, {"a": left, "b": right, "flip": [False, True]}, by_position,
        fewest=100,
        refuses={**OPERANDS_APART, **(refuses or {})},
    )


def in_order_call(a: Any, b: Any, word: str, alpha: Any = OMIT) -> Call:
    """`alpha`, which only sums have, goes by its name."""
    return Call((a, b, word), {} if alpha is OMIT or word in ("mul", "div") else {"alpha": alpha})


def bounds_of_two_kinds(min: Any, max: Any, gradients: bool) -> bool:
    """Whether one bound is a number and the other a tensor; one of no dimensions and without a gradient is a number."""
    tensors = [bound for bound in (min, max) if isinstance(bound, T)]
    return given(min, max) and len(tensors) == 1 and (gradients or tensors[0].shape != ())


OPERANDS_APART = {"the shapes do not go together": lambda a, b: apart(a, b)}
BOUNDED = {
    "the lower bound has another shape": lambda input, min: apart(input, min),
    "the upper bound has another shape": lambda input, max: apart(input, max),
    "one bound at least": lambda min, max: not (given(min) or given(max)),
    "tensors or numbers": bounds_of_two_kinds,
}
CONDITIONS = [T((3, 4), "bool"), T((4,), "bool"), T((), "bool"), T((2, 3, 1), "bool"), T((5,), "bool"),
    Bad(T((3, 4)))]
CHOSEN = [T((3, 4)), T((4,), "float32"), T((3, 1), "int64"), T((2, 1, 1), "bool"), 2, -1.5, T((), "float32"), T((0,))]
BOUNDS = [OMIT, None, -0.5, 1, T((4,), grad=True), T((3, 4), "float64", kind="few"), T((), "float32"), T((4,), "int64")]
ENTRIES = [
    *(operators(name) for name in ("add", "mul", "truediv")),
    operators("sub", no_booleans(LEFT), no_booleans(RIGHT)),
    operators("pow", refuses={
        "no powers among booleans": lambda a, b: isinstance(b, T) and a.dtype == b.dtype == "bool",
    }),
    Entry(
        "Tensor: comparisons", lambda a, b, word: getattr(operator, word)(a, b), lambda a, b,
        word: getattr(operator, word)(a, b),
        {"a": LEFT, "b": RIGHT, "word": ["lt", "le", "gt", "ge", "eq", "ne"]}, in_order_call, fewest=121,
        refuses=OPERANDS_APART,
    ),
    Entry(
        "Tensor.add, sub, mul, div", lambda a, b, word, **o: getattr(a, word)(b, **o), lambda a, b, word,
        **o: getattr(a, word)(b, **o),
        {"a": LEFT, "b": RIGHT[:6] + RIGHT[7:], "word": ["add", "sub", "mul", "div"], "alpha": [OMIT, 1, 2, -0.5]},
        in_order_call,
        refuses={
            **OPERANDS_APART,
            "booleans have no difference":
                lambda a, b, word: word == "sub" and (b is True or "bool" in (a.dtype, getattr(b, "dtype", None))),
        },
    ),
    *(
        Entry(
            name, getattr(F, name), getattr(torch, name),
            {"input": LEFT, "other": [*(v if isinstance(v, T) else Bad(v) for v in RIGHT[:-1])]}, refuses=APART,
        )
        for name in ("maximum", "minimum")
    ),
    Entry(
        "pow", F.pow, torch.pow,
        {"input": [*LEFT[:7], T((3, 4), "int64"), 2.0, 3], "exponent": [*RIGHT[:-1], 0, 0.5, 3, -1]},
        by_position, fewest=120,
        refuses={
            "the shapes do not go together": lambda input, exponent: apart(input, exponent),
            "one is a tensor": lambda input, exponent: not isinstance(input, T) and not isinstance(exponent, T),
            "integers have no inverse":
                lambda input, exponent: isinstance(input, T) and input.dtype == "int64" and exponent == -1,
        },
    ),
    *(
        Entry(
            f"Tensor.{name}", method(name), method(name),
            {"input": no_booleans(ONE[:-2]) if name in ("abs", "neg", "relu") else ONE[:-2]},
        )
        for name in ("sqrt", "exp", "log", "abs", "neg", "relu", "sigmoid", "tanh")
    ),
    *(
        Entry(name, getattr(F, name), getattr(torch, name), {"input": no_booleans(ONE) if name == "abs" else ONE})
        for name in ("sqrt", "exp", "log", "abs")
    ),
    Entry(
        "clamp", F.clamp, torch.clamp, {"input": LEFT, "min": [*BOUNDS, float("nan")], "max": [*BOUNDS, Bad("1")]},
        fewest=110, refuses=BOUNDED,
    ),
    Entry("Tensor.clamp", method("clamp"), method("clamp"), {"input": LEFT, "min": BOUNDS, "max": BOUNDS}, fewest=100,
        refuses=BOUNDED),
    Entry(
        "where", F.where, torch.where, {"condition": CONDITIONS, "input": CHOSEN, "other": CHOSEN}, by_position,
        fewest=110,
        refuses={
            "the shapes do not go together": lambda condition, input, other: apart(condition, input, other),
        },
    ),
    Entry(
        "matmul", F.matmul, torch.matmul, {"input": MATRICES, "other": OTHERS}, fewest=120,
        refuses={
            "the two have the same dtype": lambda input, other: input.dtype != other.dtype,
            "batches do not go together": lambda input, other: apart(T(input.shape[:-2]), T(other.shape[:-2])),
        },
    ),
    Entry(
        "Tensor: @", operator.matmul, operator.matmul, {"a": MATRICES[:6], "b": OTHERS}, by_position,
        refuses={
            "the two have the same dtype": lambda a, b: a.dtype != b.dtype,
            "batches do not go together": lambda a, b: apart(T(a.shape[:-2]), T(b.shape[:-2])),
        },
    ),
]  # fmt: skip
