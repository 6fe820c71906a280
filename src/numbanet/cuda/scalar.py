"""Functions of single numbers that several kernels need, for one dtype."""

from __future__ import annotations

import math
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from numbanet.cuda.compile import device
from numbanet.cuda.vector import real


@lru_cache(maxsize=4)
def scalars(dtype: str) -> Any:
    """Return the functions as attributes: maximum, minimum, sign, sigmoid, softplus (see the definitions below)."""
    number = real(dtype)
    zero, one = number(0), number(1)

    @device
    def maximum(a, b):
        """The larger number; NaN where either is."""
        return a if a > b or a != a else b

    @device
    def minimum(a, b):
        """The smaller number; NaN where either is."""
        return a if a < b or a != a else b

    @device
    def sign(x):
        """1, -1, or x itself where it is zero or NaN."""
        return one if x > zero else (-one if x < zero else x)

    @device
    def sigmoid(x):
        """1 / (1 + exp(-x)); nothing overflows."""
        small = math.exp(-abs(x))
        return (one if x >= zero else small) / (one + small)

    @device
    def softplus(x):
        """log(1 + exp(x)), accurate at both ends."""
        return (zero if x < zero else x) + math.log1p(math.exp(-abs(x)))

    return SimpleNamespace(
        number=number, zero=zero, one=one, maximum=maximum, minimum=minimum, sign=sign, sigmoid=sigmoid,
        softplus=softplus,
    )  # fmt: skip
