"""Differentiable activation functions, as in torch.nn.functional."""

from __future__ import annotations

from numbanet import ops
from numbanet.tape import record
from numbanet.tensor import Tensor


def relu(input: Tensor) -> Tensor:
    """Return max(input, 0), element by element; NaN stays NaN."""
    y = ops.relu(input.data)
    return record(y, (input,), lambda grad: (ops.relu_backward(grad, y),))
