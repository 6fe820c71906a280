"""What cases are made of: specifications of tensors and dtypes, which become those of either library."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

import numbanet as nnet


class _Omitted:
    def __repr__(self) -> str:
        return "omitted"


OMIT = _Omitted()
"""The argument is not handed over: its default counts."""


@dataclass(frozen=True)
class Bad:
    """A value that PyTorch refuses, whatever the other arguments are; unless there is nothing to compute."""

    value: Any

    def __repr__(self) -> str:
        return f"{self.value!r}!"


def plain(value: Any) -> Any:
    """Return a value without the mark of bad ones."""
    return value.value if isinstance(value, Bad) else value


@dataclass(frozen=True)
class D:
    """A dtype."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class T:
    """A tensor.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
    view : {"", "transposed", "strided", "expanded", "channels_last"}
        How it lies in memory: in order, or as a view of another tensor, to which the gradient flows.
    kind : str
        What the values are: "normal"; "few", so that there are equals; "unit", within (0, 1); "positive"; "wild", NaN
        and infinities among them; "logs", the logarithms of "unit"; or "below N": integers.
    grad : bool
        Whether a gradient is asked for, where the dtype has one.
    """

    shape: tuple[int, ...]
    dtype: str = "float64"
    view: str = ""
    kind: str = "normal"
    grad: bool = True

    def __repr__(self) -> str:
        extra = "".join(f", {word}" for word in (self.view, self.kind.replace("normal", "")) if word)
        return f"{self.dtype}{list(self.shape)}{extra}{'' if self.grad else ', no gradient'}"

    def like(self, **changes: Any) -> T:
        """Return another one that differs as said."""
        return replace(self, **changes)


@lru_cache(maxsize=4096)
def array(spec: T, shape: tuple[int, ...], seed: Any) -> np.ndarray:
    """Return values of a shape, the same ones for the same seed."""
    rng = np.random.default_rng(zlib.crc32(repr((seed, spec)).encode()))
    dtype = np.dtype(spec.dtype)
    if spec.kind.startswith("below"):
        return rng.integers(0, int(spec.kind.split()[1]), shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "u":
        return rng.integers(0, 256, shape).astype(dtype)
    if dtype.kind == "i" or spec.kind == "few":
        return rng.integers(-3, 4, shape).astype(dtype)
    x = rng.standard_normal(shape)
    if spec.kind == "wild":
        x = np.where(rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf, 0.0], shape), x)
    elif spec.kind in ("unit", "logs"):
        x = rng.uniform(0.05, 0.95, shape)
        x = np.log(x) if spec.kind == "logs" else x
    elif spec.kind == "positive":
        x = np.abs(x) + 0.1
    return np.asarray(x, dtype)


def made(spec: T, lib: Any, seed: Any, grad: bool) -> tuple[Any, Any]:
    """Return the leaf and the tensor that views it."""
    shape = spec.shape
    if spec.view == "transposed":
        shape = (*shape[:-2], shape[-1], shape[-2])
    elif spec.view == "strided":
        shape = (*shape[:-1], 2 * shape[-1])
    elif spec.view == "expanded":
        shape = (1, *shape[1:])
    elif spec.view == "channels_last":
        shape = (*shape[:-3], *shape[-2:], shape[-3])
    values = array(spec, shape, seed)
    grad = grad and spec.grad and values.dtype.kind == "f"
    make = nnet.tensor if lib is nnet else torch.tensor
    leaf = x = make(values, requires_grad=grad)
    if spec.view == "transposed":
        x = leaf.transpose(-1, -2)
    elif spec.view == "strided":
        x = leaf[..., ::2]
    elif spec.view == "expanded":
        x = leaf.expand(*spec.shape)
    elif spec.view == "channels_last":
        last = len(shape)
        x = leaf.permute(*range(last - 3), last - 1, last - 3, last - 2)
    return leaf, x


def materialised(value: Any, lib: Any, grad: bool, leaves: list) -> Any:
    """Return an argument with its specifications replaced; what they are tensors of is added to `leaves`."""
    if isinstance(value, Bad):
        return materialised(value.value, lib, grad, leaves)
    if isinstance(value, T):
        leaf, x = made(value, lib, len(leaves), grad)
        leaves.append(leaf)
        return x
    if isinstance(value, D):
        return np.dtype(value.name) if lib is nnet else getattr(torch, value.name)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(materialised(part, lib, grad, leaves) for part in value)
    return value
