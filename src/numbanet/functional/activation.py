"""Differentiable activation functions, as in torch.nn.functional.

Each takes a tensor of any shape, float32 or float64 (TypeError otherwise), and works element by element. NaN stays NaN.
Integers have a relu, in their own dtype, and a sigmoid and a tanh, in float32. With ``inplace=True`` the tensor takes
over the result.
"""

from __future__ import annotations

import numpy as np

from numbanet import ops
from numbanet.deferred import activated
from numbanet.functional.inplace import invertible, replace
from numbanet.functional.shape import to_dtype
from numbanet.problem.pointwise import number
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def _floating(input: Tensor) -> Tensor:
    """Return integers and booleans as float32."""
    return to_dtype(input, np.float32) if values("input", input).dtype.kind in "biu" else input


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return max(input, 0)."""
    later = activated(input, "relu", inplace)
    if later is not None:
        return later
    if inplace:
        return replace(input, relu)
    x = values("input", input)
    if x.dtype.kind in "iu":
        return Tensor(ops.maximum(x, 0))
    y = ops.relu(x)
    return record(y, (input,), lambda grad: (ops.relu_backward(grad, y),))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Return input where it is positive, else ``negative_slope * input``; in place a negative slope has no gradient."""
    negative_slope = number("negative_slope", negative_slope)
    if inplace:
        return replace(input, lambda t: invertible(leaky_relu(t, negative_slope), "negative_slope", negative_slope))
    y = ops.leaky_relu(values("input", input), negative_slope)
    # The result, which the next layer keeps anyway, has the signs of the input unless the slope turns them round.
    saved = y if negative_slope >= 0 else input.data
    return record(y, (input,), lambda grad: (ops.leaky_relu_backward(grad, saved, negative_slope),))


def sigmoid(input: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-input))."""
    input = _floating(input)
    y = ops.sigmoid(input.data)
    return record(y, (input,), lambda grad: (ops.sigmoid_backward(grad, y),))


def tanh(input: Tensor) -> Tensor:
    """Return the hyperbolic tangent of input."""
    input = _floating(input)
    y = ops.tanh(input.data)
    return record(y, (input,), lambda grad: (ops.tanh_backward(grad, y),))


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """Return input times the standard normal distribution function at input.

    Parameters
    ----------
    input : Tensor
    approximate : {"none", "tanh"}
        ``"tanh"``: input (1 + tanh(sqrt(2 / pi) (input + 0.044715 input^3))) / 2 instead (Hendrycks and Gimpel,
        arXiv:1606.08415).

    Raises
    ------
    ValueError
        If `approximate` is neither.
    """
    x = values("input", input)
    return record(ops.gelu(x, approximate), (input,), lambda grad: (ops.gelu_backward(grad, x, approximate),))


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return ``input * sigmoid(input)``."""
    if inplace:
        return replace(input, silu)
    x = values("input", input)
    return record(ops.silu(x), (input,), lambda grad: (ops.silu_backward(grad, x),))
