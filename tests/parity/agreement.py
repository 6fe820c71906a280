"""Compare a function with its counterpart in torch: values, gradients, dtypes and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import numbanet as nnet

REFUSALS = (RuntimeError, ValueError, IndexError, NotImplementedError, TypeError, AssertionError, ZeroDivisionError)


def _run(lib: Any, function: Callable, arrays: Any, arguments: tuple, options: dict) -> Any:
    make = nnet.tensor if lib is nnet else lambda a, requires_grad: torch.tensor(a, requires_grad=requires_grad)
    tensors = [None if a is None else make(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    try:
        results = function(*tensors, *arguments, **options)
        results = results if isinstance(results, (tuple, list)) else (results,)
        for position, result in enumerate(results):
            if result.requires_grad:
                grad = np.asarray(np.random.default_rng(position).standard_normal(tuple(result.shape)))
                grad = grad.astype(str(result.dtype).removeprefix("torch."))
                more = any(r.requires_grad for r in results[position + 1 :])
                result.backward(grad if lib is nnet else torch.tensor(grad), retain_graph=more)
    except REFUSALS as error:
        return error, None, None
    values = [r.detach().numpy() for r in results]
    grads = [None if t is None or t.grad is None else t.grad.numpy() for t in tensors]
    return None, values, grads


def agree(
    ours: Callable, theirs: Callable, arrays: Any, *arguments: Any, tolerance: float = 1e-10, **options: Any
) -> bool:
    """Assert that both give the same results and gradients, or both refuse; return whether there were results."""
    what = f"{arguments} {options} on {[None if a is None else (a.shape, a.dtype.name) for a in arrays]}"
    error, mine, my_grads = _run(nnet, ours, arrays, arguments, options)
    refusal, other, other_grads = _run(torch, theirs, arrays, arguments, options)
    assert (error is None) == (refusal is None), f"{what}: only one refuses: ours {error!r}, torch {refusal!r}"
    if error is not None:
        return False
    for name, a, b in [("result", *pair) for pair in zip(mine, other, strict=True)] + [
        ("gradient", *pair) for pair in zip(my_grads, other_grads, strict=True)
    ]:
        assert (a is None) == (b is None), f"{what}: {name}s differ: {a}, {b}"
        if a is not None:
            assert a.shape == b.shape and a.dtype == b.dtype, f"{what}: {name} {a.shape} {a.dtype}, {b.shape} {b.dtype}"
            limit = tolerance * max(1.0, np.abs(np.nan_to_num(b, posinf=0, neginf=0)).max(initial=0))
            np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=f"{what}: {name}")
    return True
