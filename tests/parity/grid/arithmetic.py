"""Elementwise functions and operators, products, and comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T

LEFT = [
    T((3, 4)), T((), "float32"), T((4,), "float32", kind="few"), T((0, 4)), T((2, 3, 5, 4), "float32", "channels_last"),
    T((3, 4), "float64", "transposed"), T((3, 4), "float32", "strided"), T((3, 1), kind="wild"), T((3, 4), "int64"),
    T((4,), "int32"), T((3, 4), "bool"),
]  # fmt: skip
RIGHT = [
    T((3, 4)), T(()), T((4,), "float32", kind="few"), T((1, 4), "float64", kind="positive"), T((3, 4), "int64"),
    T((3, 1), "bool"), T((4,), "uint8"), Bad(T((5,))), 2, -1.5, True,
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


def both(name: str, ours: Callable, theirs: Callable, left: list, right: list, **options: Any) -> Entry:
    return Entry(name, ours, theirs, {"input": left, "other": right, **options})


def operators(name: str, right: list) -> Entry:
    """An operator of tensors, either way round."""
    function = getattr(operator, name)
    turned = lambda a, b, flip: function(b, a) if flip else function(a, b)  # noqa: E731
    return Entry(f"Tensor: {name}", turned, turned, {"a": LEFT, "b": right, "flip": [False, True]}, fewest=100)


def in_order_call(a: Any, b: Any, word: str, alpha: Any = OMIT) -> Call:
    """`alpha`, which only sums have, goes by its name."""
    return Call((a, b, word), {} if alpha is OMIT or word in ("mul", "div") else {"alpha": alpha})


def in_order(function: Callable) -> Callable:
    """Return a function whose arguments have no names, as the operators of torch."""
    return lambda input, *others, **options: function(input, *others, *options.values())


CONDITIONS = [T((3, 4), "bool"), T((4,), "bool"), T((), "bool"), T((2, 3, 1), "bool"), Bad(T((5,), "bool")),
    Bad(T((3, 4)))]
CHOSEN = [T((3, 4)), T((4,), "float32"), T((3, 1), "int64"), T((2, 1, 1), "bool"), 2, -1.5, T((), "float32"), T((0,))]
BOUNDS = [OMIT, None, -0.5, 1, T((4,), grad=True), T((3, 4), "float64", kind="few"), T((), "float32"), T((4,), "int64")]
ENTRIES = [
    *(operators(name, RIGHT) for name in ("add", "sub", "mul", "truediv", "pow")),
    Entry(
        "Tensor: comparisons", lambda a, b, word: getattr(operator, word)(a, b), lambda a, b,
        word: getattr(operator, word)(a, b),
        {"a": LEFT, "b": RIGHT, "word": ["lt", "le", "gt", "ge", "eq", "ne"]}, in_order_call, fewest=121,
    ),
    Entry(
        "Tensor.add, sub, mul, div", lambda a, b, word, **o: getattr(a, word)(b, **o), lambda a, b, word,
        **o: getattr(a, word)(b, **o),
        {"a": LEFT, "b": RIGHT[:6] + RIGHT[7:], "word": ["add", "sub", "mul", "div"], "alpha": [OMIT, 1, 2, -0.5]},
        in_order_call,
    ),
    *(both(name, getattr(F, name), getattr(torch, name), LEFT, RIGHT[:-1]) for name in ("maximum", "minimum")),
    Entry(
        "pow", in_order(F.pow), in_order(torch.pow),
        {"input": [*LEFT[:7], T((3, 4), "int64"), 2.0, 3], "exponent": [*RIGHT[:-1], 0, 0.5, 3, -1]}, fewest=120,
    ),
    *(
        Entry(f"Tensor.{name}", method(name), method(name), {"input": ONE[:-2]})
        for name in ("sqrt", "exp", "log", "abs", "neg", "relu", "sigmoid", "tanh")
    ),
    *(Entry(name, getattr(F, name), getattr(torch, name), {"input": ONE}) for name in ("sqrt", "exp", "log", "abs")),
    Entry(
        "clamp", F.clamp, torch.clamp, {"input": LEFT, "min": [*BOUNDS, float("nan")], "max": [*BOUNDS, Bad("1")]},
        fewest=110
    ),
    Entry("Tensor.clamp", method("clamp"), method("clamp"), {"input": LEFT, "min": BOUNDS, "max": BOUNDS}, fewest=100),
    Entry("where", in_order(F.where), in_order(torch.where), {"condition": CONDITIONS, "input": CHOSEN,
        "other": CHOSEN}, fewest=110),
    Entry("matmul", F.matmul, torch.matmul, {"input": MATRICES, "other": OTHERS}, fewest=120),
    Entry("Tensor: @", operator.matmul, operator.matmul, {"a": MATRICES[:6], "b": OTHERS}),
]  # fmt: skip
