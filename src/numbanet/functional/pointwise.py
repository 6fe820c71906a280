"""Differentiable activation functions with parameters or corners, as in torch.nn.functional.

Each takes a tensor of any shape, float32 or float64 (TypeError otherwise), and works element by element. NaN stays NaN.
With ``inplace=True`` the tensor takes over the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import ops
from numbanet.deferred import activated
from numbanet.functional.inplace import invertible, replace
from numbanet.ops.elementwise import elementwise_backward
from numbanet.ops.elementwise import prelu as prelu_values
from numbanet.ops.pointwise import pointwise
from numbanet.problem.base import float_array
from numbanet.problem.pointwise import number
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def _apply(function: str, input: Tensor, inplace: bool, *parameters: float) -> Tensor:
    if inplace:
        return replace(input, lambda t: _apply(function, t, False, *parameters))
    x = values("input", input)
    return record(
        pointwise(function, (x,), *parameters),
        (input,),
        lambda grad: (pointwise(f"{function}_backward", (grad, x), *parameters),),
    )


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Return input, moved to the nearest bound where it lies beyond it; there, and on it, the gradient is 0.

    Integers have it too: the bounds lose their fractions.

    Raises
    ------
    TypeError
        If a bound is not a number.
    ValueError
        If the bounds cross.
    """
    x = values("input", input)
    low, high = number("min_val", min_val), number("max_val", max_val)
    if low > high:
        raise ValueError(f"min_val must not be above max_val, got {min_val} and {max_val}")
    if x.dtype.kind in "iu":
        if x.dtype.kind == "u" and low < 0:
            raise ValueError(f"min_val must not be negative for an input of {x.dtype}, got {min_val}")
        whole = Tensor(ops.to_dtype(ops.clamp(x, int(low), int(high)), x.dtype))
        return replace(input, lambda _: whole) if inplace else whole
    return _apply("hardtanh", input, inplace, low, high)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """Return min(max(input, 0), 6)."""
    later = activated(input, "relu6", inplace)
    return later if later is not None else hardtanh(input, 0.0, 6.0, inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return input where it is positive, else alpha (e^input - 1) (Clevert et al., arXiv:1511.07289).

    In place a negative alpha has no gradient.
    """
    values("input", input)
    alpha = number("alpha", alpha)
    if inplace:
        return replace(input, lambda t: invertible(elu(t, alpha), "alpha", alpha))
    return _apply("elu", input, False, alpha)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Return ``relu6(input + 3) / 6``."""
    return _apply("hardsigmoid", input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """Return ``input * relu6(input + 3) / 6`` (Howard et al., arXiv:1905.02244)."""
    return _apply("hardswish", input, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + e^(beta input)) / beta, and input itself where beta input is above the threshold."""
    values("input", input)
    return _apply("softplus", input, False, number("beta", beta), number("threshold", threshold))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """Return input tanh(log(1 + e^input)) (Misra, arXiv:1908.08681)."""
    return _apply("mish", input, inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Return input where it is positive, else weight times input (He et al., arXiv:1502.01852).

    Parameters
    ----------
    input : Tensor
        Shape (N, C, ...), or any with one weight.
    weight : Tensor
        Shape (C,), (1,) or ().

    Raises
    ------
    TypeError, ValueError
        If the dtypes differ, or there is not one weight a channel.
    """
    x, w = float_array("input", values("input", input)), float_array("weight", values("weight", weight))
    channels = x.shape[1] if x.ndim > 1 else 1
    if w.ndim > 1 or (w.size != 1 and w.size != channels):
        raise ValueError(f"weight must have shape (1,) or ({channels},) for input of shape {x.shape}, got {w.shape}")
    if x.dtype != w.dtype:
        raise TypeError(f"input and weight must have one dtype, got {x.dtype} and {w.dtype}")
    slope: Any = w.reshape((-1,) + (1,) * (x.ndim - 2)) if x.ndim > 1 else w.reshape(())

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        dw = None
        if weight.requires_grad:
            each = elementwise_backward("prelu_backward_weight", grad, x)
            axes = tuple(axis for axis in range(x.ndim) if axis != 1 or w.size == 1)
            dw = ops.sum(each, axes).reshape(w.shape)
        return elementwise_backward("prelu_backward", grad, x, slope) if input.requires_grad else None, dw

    return record(prelu_values(x, slope), (input, weight), backward)
