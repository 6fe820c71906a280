"""Call a function in one library."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import numbanet as nnet
from tests.parity.grid.values import materialised


@dataclass(frozen=True)
class Call:
    """What is handed to a function: specifications, see `values`."""

    arguments: tuple
    options: dict[str, Any]


@dataclass
class Outcome:
    """What a library did: an error, or results, the gradients of the operands, and whether each result has one."""

    error: Exception | None = None
    results: list[np.ndarray] = field(default_factory=list)
    gradients: list[np.ndarray | None] = field(default_factory=list)
    recorded: list[bool] = field(default_factory=list)
    dtypes: set[str] = field(default_factory=set)
    """Of operands and results."""


@dataclass
class State:
    """What a layer returns: its results, and the parameters whose gradients are compared too."""

    results: Any
    parameters: list[Any]


def _dtype(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def _flat(results: Any) -> list[Any]:
    if isinstance(results, (tuple, list)):
        return [part for result in results for part in _flat(result)]
    return [results]


def run(lib: Any, function: Callable, call: Call, grad: bool) -> Outcome:
    """Return what a library does with a call; tensors get the same values in both."""
    leaves: list[Any] = []
    arguments = materialised(call.arguments, lib, grad, leaves)
    options = {name: materialised(value, lib, grad, leaves) for name, value in call.options.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = function(*arguments, **options)
            if isinstance(found, State):
                leaves += found.parameters
                found = found.results
            results = _flat(found)
            if grad:
                _backward(results, lib)
    except Exception as error:  # of whatever kind: `compare` judges it
        return Outcome(error)
    tensors = [r if hasattr(r, "detach") else np.asarray(r) for r in results]
    return Outcome(
        None,
        [r.detach().numpy() if hasattr(r, "detach") else r for r in tensors],
        [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves],
        [getattr(r, "requires_grad", False) for r in tensors],
        {_dtype(t) for t in (*leaves, *tensors)},
    )


def _backward(results: list[Any], lib: Any) -> None:
    recorded = [r for r in results if getattr(r, "requires_grad", False)]
    for number, result in enumerate(recorded, 1):
        grad = np.random.default_rng(number).standard_normal(tuple(result.shape)).astype(_dtype(result))
        result.backward(
            nnet.tensor(grad) if lib is nnet else torch.tensor(grad), retain_graph=number < len(recorded)
        )
